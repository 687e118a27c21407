"""The page in a browser, as a reader uses it: sorted, filtered, unfolded, switched, in the dark, on a phone and on paper."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis import report
from tests import records

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
SEEDS = tuple(range(7))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arms = {name: records.ARMS[name] for name in ("baseline", "moe", "gqa", "sparse", "rotary", "moe_sparse")}
    far_off = {"far off": records.Arm(2.0, choices={"norm": "rmsnorm"})}
    return report.build(records.write_study(tmp_path_factory.mktemp("out"), arms=arms | far_off, seeds=SEEDS))[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        yield p.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])


@pytest.fixture
def open_page(browser: Any, file: Path) -> Iterator[Any]:
    """Opens the page; afterwards nothing may stand in the console, and nothing may have been fetched but the page."""
    said: list[str] = []
    contexts: list[Any] = []

    def opened(**settings: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1240, "height": 900}} | settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url != file.as_uri() else None)
        page.goto(file.as_uri())
        scrolled(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def scrolled(page: Any) -> None:
    """Charts are drawn when they come into view."""
    page.evaluate(
        "async () => { for (let y = 0; y < document.body.scrollHeight; y += 400) {"
        " scrollTo(0, y); await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 20))); } scrollTo(0, 0); }"
    )


def column(page: Any, name: str) -> list[str]:
    """What stands in a column of the table, a line of a cell each."""
    heads = [re.split(r"\n|↕|↑|↓", head)[0].strip() for head in page.locator("#arms-table th").all_inner_texts()]
    cells = page.locator(f"#arms-table tbody tr td:nth-child({heads.index(name) + 1})").all_inner_texts()
    return [cell.strip("▸▾ \n\t") for cell in cells]


def sort_by(page: Any, name: str) -> None:
    page.locator("#arms-table th button", has_text=re.compile(f"^{re.escape(name)}$")).click()


def test_every_column_sorts_both_ways(open_page: Any) -> None:
    page = open_page()
    sort_by(page, "parameters")
    up = column(page, "parameters")
    assert page.locator("#arms-table th[aria-sort=ascending]").count() == 1
    sort_by(page, "parameters")
    down = column(page, "parameters")
    assert page.locator("#arms-table th[aria-sort=descending]").count() == 1
    numbers = [float(re.sub(r"[^\d.].*", "", cell.split("\n")[0])) for cell in up]
    assert numbers == sorted(numbers) and len(set(numbers)) > 2 and up[0] == down[-1] and up[-1] == down[0]


def test_a_filter_takes_several_words_in_any_order(open_page: Any) -> None:
    page = open_page()
    for words, arms in (("sparse moe", ["moe_sparse"]), ("MOE", ["moe", "moe_sparse"]), ("nothing like it", [])):
        page.fill("#filter", words)
        assert sorted(column(page, "arm")) == sorted(arms)
    page.fill("#filter", "rotary")
    assert page.locator("#shown").inner_text() == f"1 of 7 arms, {len(SEEDS)} of {7 * len(SEEDS)} runs"
    assert page.locator("#forest g.row").count() == 1


def test_seeds_are_folded_into_their_arm_and_unfolded_again(open_page: Any) -> None:
    page = open_page()
    assert len(column(page, "arm")) == 7
    page.locator(".fold").nth(2).click()
    assert len(column(page, "arm")) == 7 + len(SEEDS)
    assert page.locator(".fold[aria-expanded=true]").count() == 1
    page.locator(".fold").nth(2).click()
    page.check("#unfold")
    assert len(column(page, "arm")) == 7 * (1 + len(SEEDS))
    page.select_option("#mode", "runs")
    assert len(column(page, "arm")) == 7 * len(SEEDS)
    link = page.locator("#arms-table tbody tr a").first.get_attribute("href")
    assert re.fullmatch(r"\.\./.+-s\d-[0-9a-f]+/config\.yaml", link)


def test_columns_that_are_equal_everywhere_are_left_out(open_page: Any) -> None:
    page = open_page()
    heads = page.locator("#arms-table th").count()
    page.uncheck("#hide-equal")
    assert page.locator("#arms-table th").count() > heads


def test_two_picked_arms_show_what_their_configs_do_not_share(open_page: Any) -> None:
    page = open_page()
    page.locator("#arms-table label", has_text=re.compile(r"^\s*gqa$")).click()
    assert "gqa against baseline" in page.locator("#config-difference").inner_text()
    page.locator("#arms-table label", has_text=re.compile(r"^\s*moe$")).click()
    said = page.locator("#config-difference").inner_text()
    assert "what their configs do not share" in said and "mixer" in said and "ffn" in said and "norm" not in said
    assert page.locator("#curves-chart g.line:not(.pale)").count() == 2


def test_curves_go_over_tokens_flops_or_seconds(open_page: Any) -> None:
    page = open_page()
    drawn = {}
    for over, unit in (("tokens", "training tokens"), ("flops", "training FLOPs"), ("seconds", "seconds of training")):
        page.select_option("#over", over)
        assert unit in page.locator("#curves-chart svg").text_content()
        drawn[over] = page.locator("#curves-chart g.line path.curve").first.get_attribute("d")
    page.select_option("#split", "train")
    before = page.locator("#curves-chart g.line path.curve").first.get_attribute("d")
    page.locator("#smoothing").fill("80")
    assert page.locator("#curves-chart g.line path.curve").first.get_attribute("d") != before
    page.select_option("#seeds", "lines")
    assert page.locator("#curves-chart path.curve.thin").count() == 7 * len(SEEDS)
    for box in ("#log-x", "#log-y", "#whole"):
        page.check(box)
    assert "NaN" not in page.locator("#curves-chart").inner_html()


def test_one_arm_far_off_leaves_the_others_their_room_and_is_told(open_page: Any) -> None:
    page = open_page()
    assert "Outside this view: far off" in page.locator("#curves-beside").inner_text()
    assert "Outside this view: far off" in page.locator("#costs-beside").inner_text()
    assert page.locator("#forest .arrow").count() == 1
    places = [box["y"] for box in (one.bounding_box() for one in page.locator("#costs-chart circle").all())]
    assert max(places) - min(places) > 100


def test_values_are_read_by_pointer_and_by_keys(open_page: Any) -> None:
    page = open_page()
    chart = page.locator("#curves-chart > svg")
    chart.scroll_into_view_if_needed()
    chart.hover(position={"x": 300, "y": 100})
    note = page.locator("#curves-chart .note")
    assert note.is_visible() and "baseline" in note.inner_text()
    page.locator("h1").hover()
    assert not note.is_visible()
    chart.focus()
    page.keyboard.press("ArrowLeft")
    first = note.inner_text()
    page.keyboard.press("ArrowLeft")
    assert note.is_visible() and note.inner_text() != first


def test_an_option_of_an_axis_filters_all_of_the_page(open_page: Any) -> None:
    page = open_page()
    page.locator("#parallel-chart .option", has_text=re.compile("^moe$")).click()
    assert sorted(column(page, "arm")) == ["moe", "moe_sparse"]
    page.locator("#ranges button").click()
    assert len(column(page, "arm")) == 7
    grip = page.locator("#parallel-chart .grip").last
    grip.scroll_into_view_if_needed()
    box = grip.bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + box["height"] - 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 10, box["y"] + box["height"] * 0.6)
    page.mouse.up()
    assert 0 < len(column(page, "arm")) < 7


def test_what_guessing_reaches_is_drawn_where_accuracy_is_the_metric(browser: Any, tmp_path: Path) -> None:
    for arm, value in (("baseline", 0.5), ("moe", 0.7)):
        for seed in range(2):
            rows = [{"step": s, "split": "val", "accuracy": value, "tokens": s, "seconds": s, "flops": s} for s in (100, 200)]
            summary = records.summary(val_accuracy=value + seed / 100, val_loss=1.0)
            records.write_run(tmp_path / "demo" / f"{arm}{seed}", records.config(arm, seed, {}), summary, rows, chance=0.125)
    page = browser.new_page()
    page.goto(report.build(tmp_path / "demo")[0].as_uri())
    scrolled(page)
    assert page.locator("#curves-chart .chance").count() == 1
    assert "guessing" in page.locator("#curves-chart svg").text_content()
    page.close()


def test_names_in_a_figure_do_not_lie_on_each_other(open_page: Any) -> None:
    page = open_page()
    boxes = [one.bounding_box() for one in page.locator("#costs-chart text.name").all()]
    assert len(boxes) >= 4
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            across = min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"])
            along = min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"])
            assert across < 4 or along < 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out_from_the_paper(open_page: Any, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    found = page.evaluate(
        "['body', '.soft', '.sub', 'nav a'].map((s) => getComputedStyle(document.querySelector(s)).color)"
        ".concat(getComputedStyle(document.body).backgroundColor)"
    )
    *inks, paper = ([int(n) for n in re.findall(r"\d+", colour)[:3]] for colour in found)
    assert (sum(paper) < 200) == (scheme == "dark")
    assert min(contrast(ink, paper) for ink in inks) >= 4.5


def contrast(one: list[int], other: list[int]) -> float:
    """WCAG 2.2, section 1.4.3."""

    def light(colour: list[int]) -> float:
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.04045 else math.pow((c + 0.055) / 1.055, 2.4) for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_on_a_phone_nothing_is_cut_off_and_letters_keep_their_size(open_page: Any) -> None:
    page = open_page(viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sizes = page.evaluate("[...document.querySelectorAll('svg text')].map((t) => parseFloat(getComputedStyle(t).fontSize))")
    assert min(sizes) >= 11
    for chart in ("forest", "curves-chart", "costs-chart", "parallel-chart"):
        assert page.locator(f"#{chart} > svg").bounding_box()["width"] <= 390


def test_on_paper_every_column_is_there(open_page: Any) -> None:
    page = open_page()
    heads = page.locator("#arms-table th").count()
    page.set_viewport_size({"width": 1032, "height": 728})  # what an A4 page across has between its margins
    page.emulate_media(media="print")
    assert page.locator("#arms-table th:visible").count() == heads
    assert page.evaluate("document.querySelector('#arms-table').scrollWidth") <= 1032
    assert not page.locator("#filter").is_visible()
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_it_is_used_by_keyboard_alone(open_page: Any) -> None:
    page = open_page()
    page.locator("#arms-table th button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#arms-table th[aria-sort]").count() == 1
    page.locator("#parallel-chart .option").first.focus()
    page.keyboard.press("Enter")
    assert len(column(page, "arm")) < 7
