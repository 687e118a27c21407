"""The page, its tables and figures: complete, repeatable, honest about what is broken."""

from __future__ import annotations

import csv as stdlib_csv
import html.parser
import io
import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis import (
    cautions,
    findings,
    load,
    load_curves,
    load_routing,
    plots,
    plots_cost,
    plots_curves,
    plots_moe,
    read,
    report,
)
from analysis.axes import axis_effects
from analysis.comparison import compare
from analysis.digits import MINUS, NONE, TIMES, fixed, interval, percent, si, signed, three, tick, times
from analysis.labels import spread
from analysis.page.content import content
from analysis.spreadsheet import csv
from analysis.style import Drawing
from tests import records


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with everything in it: MoE, a diverged, a failed and an unfinished run, other data, a name that is markup."""
    odd = {"look_ahead": records.Arm(-0.3, causal=False), "a <b>bold</b> & name": records.Arm(0.02, choices={"norm": "none"})}
    folder = records.write_study(tmp_path_factory.mktemp("out"), arms=records.ARMS | odd)

    def change(run: str, file: str, **values: object) -> None:
        (path,) = folder.glob(f"{run}-*")
        records.change(path, file, **values)

    change(
        "post_norm-s0", "summary.json", status="diverged", metrics={"val_bits_per_byte": None}, error="loss is nan at step 340"
    )
    change("gqa-s2", "summary.json", status="failed", metrics={}, error="<script>alert(1)</script>")
    next(folder.glob("rmsnorm-s1-*/summary.json")).unlink()
    next(folder.glob("moe_sparse-s2-*/metrics.jsonl")).write_text("{")
    for seed in (0, 1, 2):
        change(f"swiglu-s{seed}", "env.json", data_sha256="b" * 64)
    return folder


@pytest.fixture(scope="module")
def page(study: Path) -> str:
    return report.build(study)[0].read_text()


def drawn(page: str) -> dict[str, Any]:
    """What the page's script makes its table and charts of."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)  # type: ignore[no-any-return]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts(item)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_page_names_every_arm_and_every_run(study: Path, page: str) -> None:
    found = drawn(page)
    assert {arm["name"] for arm in found["arms"]} == {*records.ARMS, "look_ahead †", "a <b>bold</b> & name"}
    assert {run["name"] for run in found["runs"]} == set(load(study)["run"])


def test_the_page_says_what_went_wrong(page: str) -> None:
    for words_in_it in (
        "1 of 3 runs diverged: the difference counts each as the worst result of the study",
        "1 of 3 runs failed",
        "1 of 3 runs unfinished",
        "refused: different data (bbbbbbbb, baseline a3f1c900)",
        "sees later tokens: not comparable as a language model",
        "n = 3 seeds: an interval, not a verdict (9 needed)",
        "loss is nan at step 340",
        "<b>Set aside:</b> 1 run whose record is damaged. No number on this page counts it.",
        "1 run set aside, since the record is damaged",
    ):
        assert words_in_it in page
    assert {arm["n"] for arm in drawn(page)["arms"]} >= {2, 3}
    assert "Not finished: " in page


class Page(html.parser.HTMLParser):
    """The elements of a page, how often each attribute occurs, and the text that a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: Counter[str] = Counter()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_whatever_a_record_says_is_text(tmp_path: Path, page: str) -> None:
    folder = records.hostile(tmp_path)
    path, study = report.build(folder)
    found, plain = Page(path.read_text()), Page(page)
    assert found.elements.keys() <= plain.elements.keys() and found.attributes.keys() <= plain.attributes.keys()
    assert found.elements["script"] == plain.elements["script"] == 2 and found.elements["title"] == 1
    shown = [found.text, *texts(drawn(path.read_text()))]
    for said in (*records.HOSTILE, *(run for run, _ in study.set_aside)):
        assert any(said in text for text in shown)
    for picture in (folder / "report" / "figures").glob("*.svg"):
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(picture.read_bytes()).iter()}
        assert tags and not tags & {"script", "img", "a", "foreignObject"}


def test_nothing_is_fetched(page: str) -> None:
    assert not re.findall(r"""(?:src|href)=["'](?!#|figures/|\w+\.(?:csv|json)["'])""", page)
    assert "http" not in page.replace('"http://www.w3.org/2000/svg"', "").replace("http-equiv", "")


FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '"=1', " '=1", '=HYPERLINK("http://x")')


def test_a_spreadsheet_finds_no_formula() -> None:
    table = pd.DataFrame({"=name": [*FORMULAS, "a\r=1", None], "n": range(-5, 6), "mixed": [-1.5, *FORMULAS, True]})
    again = pd.read_csv(io.BytesIO(csv(table)), keep_default_na=False)
    assert again.columns.tolist() == ["'=name", "n", "mixed"]
    safe = ["'" + text.replace("\r", "\n") for text in FORMULAS]
    assert again["'=name"].tolist() == [*safe, "a\n=1", ""]
    assert again["n"].tolist() == list(range(-5, 6))
    assert again["mixed"].tolist() == ["-1.5", *safe, "True"]


def test_no_cell_of_a_report_is_a_formula(tmp_path: Path) -> None:
    folder = records.hostile(tmp_path)
    report.build(folder)
    files = [*(folder / "report").rglob("*.csv")]
    assert len(files) > 4
    for file in files:
        with open(file, newline="") as lines:
            cells = [cell for row in stdlib_csv.reader(lines) for cell in row]
        risky = [cell for cell in cells if cell.lstrip(" \"'")[:1] in tuple("=+-@\t\r") and cell[0] != "'"]
        assert all(re.fullmatch(r"-\d+(\.\d+)?(e-?\d+)?", cell) for cell in risky), risky
    assert any("'=HYPERLINK" in file.read_text() for file in files)


@pytest.mark.parametrize("place", ["report", "report/figures", "report/runs.csv", "report/figures/differences.png"])
def test_a_link_in_a_study_is_not_written_through(tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    study = records.write_study(tmp_path, arms={"baseline": records.Arm(), "gqa": records.Arm(0.1)}, seeds=(0,))
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "figures").mkdir(parents=True)
    for name in ("index.html", "mine.png", "figures/mine.png"):
        (elsewhere / name).write_text("mine")
    (study / place).parent.mkdir(parents=True, exist_ok=True)
    (study / place).symlink_to(elsewhere if "." not in place else elsewhere / "mine.png")
    before = contents(elsewhere)
    assert report.main([str(study)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {study / place}: a link to {elsewhere}") and captured.err.count("\n") == 1
    assert (contents(elsewhere) == before and not (study / "report" / "index.html").is_file()) or place == "report"


def test_every_figure_is_linked_and_has_its_files(study: Path, page: str) -> None:
    names = set(re.findall(r'href="figures/(\w+)\.png"', page))
    assert names == {"differences", "curves", "gaps", "pareto", "costs", "expert_load", "load_history", "router"}
    files = {path.name for path in (study / "report" / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in names for kind in ("png", "svg", "csv")}


def test_the_same_records_give_the_same_bytes_and_nothing_else_changes(study: Path, page: str) -> None:
    before = contents(study)
    (study / "report" / "figures" / "of_yesterday.png").write_text("stale")
    report.build(study)
    assert contents(study) == before


def test_tables_beside_the_page_hold_the_same_numbers(study: Path, page: str) -> None:
    runs, curves = pd.read_csv(study / "report" / "runs.csv"), pd.read_csv(study / "report" / "curves.csv")
    np.testing.assert_allclose(runs["val_bits_per_byte"], load(study)["val_bits_per_byte"])
    assert len(curves) == len(load_curves(study)) and "folder" not in runs
    assert len(pd.read_csv(study / "report" / "routing.csv")) == len(load_routing(study))


def test_verdicts_are_null_and_nothing_is_coloured_below_the_seeds_needed(study: Path, page: str) -> None:
    found = json.loads((study / "report" / "verdicts.json").read_text())
    assert (found["study"], found["baseline"], found["metric"]) == ("demo", "baseline", "val_bits_per_byte")
    rows = {row["arm"]: row for row in found["comparisons"]}
    assert found["seeds_needed"] == 9
    assert {(row["verdict"], row["kind"]) for row in rows.values()} == {(None, "open")}
    assert {arm["kind"] for arm in drawn(page)["arms"]} == {"base", "open"}
    assert {arm["verdict"] for arm in drawn(page)["arms"]} == {"baseline", "too few seeds", "refused"}
    assert (rows["swiglu"]["reading"], rows["swiglu"]["difference"]) == ("refused", None)
    assert (rows["rotary"]["reading"], rows["rotary"]["n"]) == ("lower", 3) and rows["rotary"]["low"] < rows["rotary"][
        "high"
    ] < 0


def test_page_and_file_give_the_same_verdicts(tmp_path: Path) -> None:
    arms = {"baseline": records.Arm(), "rotary": records.Arm(-0.2), "same": records.Arm(0.0, choices={"norm": "rmsnorm"})}
    page, _ = report.build(records.write_study(tmp_path, arms=arms, seeds=tuple(range(7))))
    shown = {arm["id"]: arm for arm in drawn(page.read_text())["arms"]}
    found = {row["arm"]: row for row in json.loads(page.with_name("verdicts.json").read_text())["comparisons"]}
    assert (found["rotary"]["verdict"], found["rotary"]["p"], found["rotary"]["p_holm"]) == ("lower", 2 / 128, 4 / 128)
    assert found["same"]["verdict"] == "inconclusive"
    assert {arm: one["kind"] for arm, one in shown.items()} == {"baseline": "base", "rotary": "good", "same": "open"}
    assert {arm: one["verdict"] for arm, one in shown.items() if arm in found} == {
        a: row["verdict"] for a, row in found.items()
    }
    assert shown["rotary"]["difference"] == found["rotary"]["difference"]
    told = signed(found["rotary"]["difference"])[1:]
    assert f"Against the baseline, rotary is {told} bits per byte lower" in page.read_text()


def test_curves_of_the_page_are_the_records(study: Path, page: str) -> None:
    found, logged = drawn(page), load_curves(study)
    for curve in found["curves"][::7]:
        rows = logged[(logged["run"] == found["runs"][curve["run"]]["name"]) & (logged["split"] == curve["split"])]
        rows = rows[(rows["step"] > 0) & rows["step"].isin(found["grids"][curve["grid"]])]
        column = "bits_per_byte" if curve["split"] == "val" else "loss"
        np.testing.assert_allclose(curve["y"], rows[column], rtol=1e-4)
        np.testing.assert_allclose(np.array(found["grids"][curve["grid"]]) * curve["tokens"], rows["tokens"], rtol=1e-6)


def test_the_page_of_a_large_study_stays_small(tmp_path: Path) -> None:
    arms = {f"arm {i}": records.Arm(0.01 * i) for i in range(1, 63)}
    path, _ = report.build(records.write_study(tmp_path, arms={"baseline": records.Arm(), **arms}, seeds=tuple(range(8))))
    assert len(drawn(path.read_text())["runs"]) == 504 and path.stat().st_size < 1.5e6


def table(drawing: Drawing | None) -> pd.DataFrame:
    assert drawing is not None
    return pd.read_csv(io.BytesIO(drawing.files()[f"{drawing.name}.csv"]))


def lines(drawing: Drawing | None, panel: int = 0) -> list[np.ndarray]:
    """The points of every line drawn, with at least one finite point."""
    assert drawing is not None
    drawn = [np.column_stack(line.get_data()).astype(float) for line in drawing.figure.axes[panel].get_lines()]
    return [points for points in drawn if np.isfinite(points).all() and len(points)]


def holds(drawn: list[np.ndarray], points: pd.DataFrame) -> bool:
    wanted = points.to_numpy(float)
    return any(line.shape == wanted.shape and np.allclose(line, wanted, rtol=1e-12) for line in drawn)


def test_the_csv_of_the_differences_is_what_is_plotted(study: Path) -> None:
    drawing = plots.forest(compare(load(study)))
    rows, drawn = table(drawing), lines(drawing)
    for place, row in rows.iterrows():
        if pd.isna(row["difference"]):
            assert row["arm"] == "swiglu"
            continue
        seeds = json.loads(row["seeds"])
        assert any(np.allclose(line, [[row["difference"], place]]) for line in drawn)
        assert any(line.shape == (2, 2) and np.allclose(line, [[row["low"], place], [row["high"], place]]) for line in drawn)
        assert any(len(line) == len(seeds) and np.allclose(line[:, 0], seeds) and line[0, 1] == place + 0.27 for line in drawn)


def test_the_csv_of_the_curves_is_what_is_plotted(study: Path) -> None:
    comparison, rows = compare(load(study)), load_curves(study)
    drawing = plots_curves.curves(comparison, rows)
    data = table(drawing)
    assert set(data["status"]) == {"done", "diverged"} and set(data["arm"]) == set(comparison.arms.index)
    for panel, quantity in enumerate(plots_curves.QUANTITIES):
        drawn = lines(drawing, panel)
        for _, line in data.groupby(["arm", "status"]):
            assert holds(drawn, line[[quantity, "mean"]])
    gaps = plots_curves.gaps(comparison, rows)
    assert all(holds(lines(gaps), line[["step", "mean"]]) for _, line in table(gaps).groupby("arm"))
    final = comparison.differences.set_index("arm")["difference"]
    ends = table(gaps).groupby("arm")["mean"].last()
    assert ends["rotary"] == pytest.approx(final["rotary"]) and "swiglu" not in ends


def test_the_csvs_of_cost_are_what_is_plotted(study: Path, tmp_path: Path) -> None:
    comparison = compare(load(records.timed(Path(shutil.copytree(study, tmp_path / study.name)))))
    drawing = plots_cost.cost_bars(comparison)
    data = table(drawing)
    assert drawing is not None
    for ax, quantity in zip(drawing.figure.axes, ("tokens_per_s", "peak_memory_bytes", "total_params"), strict=True):
        widths = [bar.get_width() for bar in ax.patches]
        assert widths[: len(comparison.arms)] == pytest.approx(data.loc[data["quantity"] == quantity, "mean"].tolist())
    drawing = plots_cost.pareto(comparison)
    data = table(drawing)
    assert "look_ahead" not in set(data["arm"]) and "speed" in set(data["cost"])
    for panel, (_, part) in enumerate(data.groupby("cost", sort=False)):
        drawn = lines(drawing, panel)
        assert all(holds(drawn, part[part["arm"] == arm][["x", "mean"]]) for arm in part["arm"])


def test_a_speed_is_drawn_with_its_interval_and_only_where_it_was_timed_in_turns(study: Path, tmp_path: Path) -> None:
    apart = compare(load(study))
    assert "speed" not in set(table(plots_cost.pareto(apart))["cost"])
    bars = plots_cost.cost_bars(apart)
    assert bars is not None and bars.figure.axes[0].get_title(loc="left") == "throughput, tokens/s, not timed in turns"
    together = compare(load(records.timed(Path(shutil.copytree(study, tmp_path / study.name)))))
    rates = table(plots_cost.cost_bars(together)).query("quantity == 'tokens_per_s'").set_index("arm")
    assert (rates["low"] < rates["mean"]).sum() == (rates["mean"] < rates["high"]).sum() == len(rates) - 1
    moe = table(plots_cost.pareto(together)).query("cost == 'speed' and arm == 'moe'").iloc[0]
    assert moe["low"] < moe["x"] < moe["high"] and moe["x"] == pytest.approx(0.62, rel=0.1)
    drawn = {arm["id"]: arm for arm in content(together, read(together.runs["folder"].iloc[0]))["arms"]}
    assert drawn["moe"]["around"]["tokens_per_s"] == pytest.approx(rates.loc["moe", ["low", "high"]].tolist())
    assert drawn["moe"]["tokens_per_s"] == pytest.approx(rates.loc["moe", "mean"]) and "around" in drawn["baseline"]
    shown = report.terminal_table(together), report.terminal_table(apart)
    assert "speed [95 %]" in shown[0] and "not timed" not in shown[0]
    assert "tokens/s ‡" in shown[1] and "‡ not timed in turns, so not to be compared" in shown[1] and "0.62" not in shown[1]


def test_the_csvs_of_the_experts_are_what_is_plotted(study: Path) -> None:
    comparison, routing = compare(load(study)), load_routing(study)
    drawing = plots_moe.expert_load(comparison, routing)
    data = table(drawing)
    assert drawing is not None
    for ax in drawing.figure.axes[:3]:
        mine = data[data["arm"] == ax.get_title(loc="left")]
        np.testing.assert_allclose(ax.images[0].get_array(), mine.pivot(index="layer", columns="rank", values="mean"))
    drawing = plots_moe.load_history(comparison, routing)
    data = table(drawing)
    assert drawing is not None
    for ax in drawing.figure.axes[:3]:
        mine = data[data["arm"] == ax.get_title(loc="left").removesuffix(", seed 0")]
        wanted = mine.pivot(index=["layer", "expert"], columns="step", values="load")
        np.testing.assert_allclose(ax.collections[0].get_array(), wanted)
    drawing = plots_moe.router_health(comparison, routing)
    data = table(drawing)
    for panel, quantity in enumerate(("entropy", "busiest", "dropped")):
        parts = data[data["quantity"] == quantity].groupby("arm")
        assert all(holds(lines(drawing, panel), line[["step", "mean"]]) for _, line in parts)


GRID = {
    "ffn": {"dense": 0.0, "moe": -0.05},
    "mixer": {"mha": 0.0, "gqa": 0.01, "sparse": 0.03},
    "norm": {"layernorm": 0.0, "rmsnorm": 0.0},
    "block": {"pre_norm": 0.0, "post_norm": 0.04},
    "position": {"learned": 0.0, "rotary": -0.1},
}


def drawings(folder: Path) -> list[Drawing]:
    comparison, curves, routing = compare(load(folder)), load_curves(folder), load_routing(folder)
    sections = report._figures(comparison, axis_effects(comparison), curves, routing)
    return [drawing for drawings in sections.values() for drawing in drawings]


@pytest.mark.parametrize(
    ("arms", "seeds", "figures"),
    [
        ({"baseline": records.Arm()}, (0,), {"curves", "costs"}),
        ({"baseline": records.Arm(), "gqa": records.Arm(0.1)}, (0,), {"differences", "curves", "gaps", "pareto", "costs"}),
        (
            {"baseline": records.Arm(), "moe": records.ARMS["moe"]},
            (0, 1),
            {"differences", "expert_load", "load_history", "router"},
        ),
        (
            {"baseline": records.Arm()} | {f"arm {i}": records.Arm(0.01 * i) for i in range(11)},
            (0, 1),
            {"differences", "pareto"},
        ),
    ],
    ids=["one run", "one seed", "with experts", "twelve arms"],
)
def test_small_and_large_studies_are_drawn(
    tmp_path: Path, arms: dict[str, records.Arm], seeds: tuple[int, ...], figures: set[str]
) -> None:
    folder = records.timed(records.write_study(tmp_path, arms=arms, seeds=seeds))
    found = {drawing.name for drawing in drawings(folder)}
    assert figures <= found
    assert ("expert_load" in found) == ("moe" in arms) and ("differences" in found) == (len(arms) > 1)


def test_a_grid_of_48_arms_gets_its_axes_and_short_names(tmp_path: Path) -> None:
    folder = records.write_study(tmp_path, arms=records.factorial(GRID), seeds=(0, 1), named=False)
    found = {drawing.name: drawing for drawing in drawings(folder)}
    assert len(found["differences"].data) == 47
    effects = found["axes"].data.set_index("level")["difference"]
    for axis in GRID.values():
        for level, effect in list(axis.items())[1:]:
            assert effects[level] == pytest.approx(effect, abs=0.015)
    labels = [text.get_text() for text in found["differences"].figure.axes[0].get_yticklabels()]
    assert "moe + rotary" in labels and "sparse" in labels
    study = compare(load(folder))
    assert "Axis by axis, all else the same: moe for dense" in " ".join(findings.findings(study, axis_effects(study)))


def test_absurd_but_finite_numbers_are_drawn(tmp_path: Path) -> None:
    folder = records.write_study(tmp_path, arms={"baseline": records.Arm(), "gqa": records.Arm(0.1)}, seeds=(0, 1))
    run = next(folder.glob("gqa-s1-*"))
    summary = json.loads((run / "summary.json").read_text())
    cost = summary["cost"] | {"active_params": 1e99, "tokens_per_s": 1e-99}
    records.change(run, "summary.json", cost=cost, metrics={"val_bits_per_byte": 3.4e38})
    found = report.build(folder)[0].read_text()
    assert "+3.40e+38" not in found and "+1.70e+38" in found


def test_names_beside_the_lines_do_not_overlap(tmp_path: Path) -> None:
    arms = {"baseline": records.Arm()} | {f"nearly the same {i}": records.Arm(0.0001 * i) for i in range(14)}
    folder = records.write_study(tmp_path, arms=arms, seeds=(0,))
    drawing = plots_curves.curves(compare(load(folder)), load_curves(folder))
    assert drawing is not None
    renderer = FigureCanvasAgg(drawing.figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in drawing.figure.axes[2].texts]
    assert len(boxes) == 15
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_spread_keeps_order_gap_and_bounds() -> None:
    wanted = [0.1, 0.0, 0.11, 0.12, 5.0, -3.0]
    placed = spread(wanted, 0.1, 0.0, 1.0)
    assert np.argsort(placed, kind="stable").tolist() == np.argsort(wanted, kind="stable").tolist()
    assert np.diff(np.sort(placed)).min() >= 0.1 - 1e-12 and placed.min() >= 0.0 and placed.max() <= 1.0
    assert spread([0.2, 0.8], 0.1, 0.0, 1.0).tolist() == [0.2, 0.8]


def test_terminal_table_has_a_line_per_arm_and_tells_of_failures(study: Path) -> None:
    found = read(study)
    text = report.terminal_table(compare(found.runs, None, found.set_aside))
    row = next(line for line in text.splitlines() if line.startswith("post_norm "))
    assert row.endswith("2 done, 1 diverged") and "±" in row and "[" in row
    assert "swiglu: refused: different data" in text and "loss is nan at step 340" in text
    assert re.search(r"^set aside: moe_sparse-s2-\w+: metrics\.jsonl: damaged", text, re.MULTILINE)
    assert all(any(line.startswith(arm) for line in text.splitlines()) for arm in records.ARMS)


def test_the_reading_gives_the_numbers_of_the_tables(tmp_path: Path) -> None:
    for seed, shift in enumerate((0.0, 0.01, -0.01) * 2):
        records.run(tmp_path, "baseline", seed, 2.0)
        records.run(tmp_path, "moe", seed, 1.95 + shift, choices={"ffn": "moe"})
    runs = load(tmp_path)
    runs.loc[runs["arm"] == "moe", ["tokens_per_s", "total_params"]] = [20000.0, 2.1e6]
    text = " ".join(findings.findings(compare(runs)))
    costs = f"2.10{TIMES} the parameters and 1.00{TIMES} the active ones"
    assert f"Against the baseline, moe is 0.050 bits per byte lower [0.041, 0.059] at {costs}." in text
    assert "Not at equal parameters: moe." in cautions.cautions(compare(runs))
    timed = runs.assign(timed=[f"session {seed}" for seed in runs["seed"]])
    timed["tokens_per_s"] *= 1 + 0.2 * timed["seed"]  # a fast hour is one for both
    text = " ".join(findings.findings(compare(timed)))
    assert f"[0.041, 0.059] at 0.80{TIMES} [0.80, 0.80] the speed, {costs}." in text


def test_main_prints_the_table_and_the_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = records.run(tmp_path, "baseline", 0, 2.0).parent
    assert report.main([str(study)]) == 0
    out = capsys.readouterr().out
    assert out.endswith(f"report: {study}/report/index.html\n") and re.search(r"^baseline +2\.000", out, re.MULTILINE)


def test_bad_input_ends_in_one_line_and_exit_code_2(tmp_path: Path, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def complaint(*arguments: str | Path) -> str:
        assert report.main([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        return captured.err

    assert "no such folder" in complaint(tmp_path / "nowhere")
    assert "no run has left a record here" in complaint(tmp_path)
    assert 'no arm is called "gpa"' in complaint(study, "--baseline", "gpa")
    assert "give the folder that holds its runs" in complaint(next(study.glob("moe-s0-*")))
    folder = records.run(tmp_path, "moe", 0, None, status="diverged")
    assert "no finished run" in complaint(tmp_path / "demo")
    (folder / "config.json").write_text("{")
    assert "no whole record among 1; the first is moe" in complaint(tmp_path / "demo")
    shutil.copytree(study, tmp_path / "demo" / "other")
    assert not (tmp_path / "demo" / "report").exists()


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (25123.0, "", "25.1k"),
        (4.1e8, "B", "410 MB"),
        (1.7e9, "", "1.70B"),
        (999.9, "", "1.00k"),
        (0.0, "", "0"),
        (np.nan, "", NONE),
    ],
)
def test_large_numbers_get_a_prefix(value: float, unit: str, text: str) -> None:
    assert si(value, unit) == text


def test_numbers_read_well() -> None:
    assert (three(0.9999), three(0.01), three(123456.0)) == ("1.00", "0.0100", "123000")
    assert (signed(-0.0504), signed(0.05), signed(-0.0001), signed(np.nan)) == (f"{MINUS}0.050", "+0.050", "0.000", NONE)
    assert (percent(110.2), percent(-2.04), percent(0.01)) == ("+110 %", f"{MINUS}2.0 %", "=")
    assert (three(-3.4e38), fixed(3.4e38), times(1e99)) == ("-3.40e+38", "3.40e+38", f"1.00e+99{TIMES}")
    assert (signed(3.4e38), percent(1e99)) == ("+3.40e+38", "+1.00e+99 %")
    assert (tick(8000.0, 4000.0), tick(2e8, 1e8, "B"), tick(0.0, 1.0, "B")) == ("8k", "200 MB", "0")
    assert (tick(117_200.0, 200.0), tick(117_400.0, 200.0), tick(4500.0, 1500.0)) == ("117.2k", "117.4k", "4.5k")
    assert (three(0.00781), three(169.2), interval(-0.1, 0.2)) == ("0.00781", "169", f"[{MINUS}0.100, +0.200]")
