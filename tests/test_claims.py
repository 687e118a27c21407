"""A registered question, from the records to the words on the page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import load, load_curves, plots_curves, report
from analysis.answer import answers, asked
from analysis.axes import axis_effects
from analysis.cautions import cautions
from analysis.comparison import Comparison, compare
from analysis.digits import MINUS
from analysis.fairness import CONDITIONS
from analysis.findings import findings
from analysis.terminal import terminal_table
from tests import records

NOISE = [0.000, 0.001, -0.001, 0.002, -0.002, 0.001, 0.0, -0.001]


def question(metric: str = "val_bits_per_byte", margin: float = 0.01, **changes: Any) -> dict[str, Any]:
    """About one metric; predicted: arm -> what is expected of it."""
    asked = {"claim": "RMSNorm is as good as LayerNorm", "source": "Zhang 2019, arXiv:1910.07467", "margin": {metric: margin}}
    asked |= {"equal": ["total_params"], "against": {}}
    predicted = changes.pop("predicted", {"rmsnorm": "equivalent"})
    return asked | changes | {"predicted": {arm: {metric: side} for arm, side in predicted.items()}}


def write(out: Path, asked: dict[str, Any] | None, effects: dict[str, float], seeds: int = 8) -> Path:
    """A baseline and arms that differ from it by their effect, at every seed with a little noise."""
    for arm, effect in {"baseline": 0.0, **effects}.items():
        for seed, noise in enumerate(NOISE[:seeds]):
            value = 2.0 + 0.01 * seed + effect + (noise if arm != "baseline" else 0.0)
            records.run(out, arm, seed, value, question=asked)
    return out / "demo"


def study_of(out: Path, asked: dict[str, Any] | None, effects: dict[str, float], seeds: int = 8) -> Comparison:
    return compare(load(write(out, asked, effects, seeds)))


def claim(study: Comparison, arm: str = "rmsnorm") -> dict[str, Any]:
    return study.claims.set_index("arm").loc[arm].to_dict()


def test_a_claim_goes_from_the_record_to_the_page_the_file_and_the_terminal(tmp_path: Path) -> None:
    page, study = report.build(write(tmp_path, question(), {"rmsnorm": -0.002, "moe": -0.1}))
    (row,) = json.loads(page.with_name("verdicts.json").read_text())["claims"]
    assert (row["claim"], row["source"]) == (question()["claim"], question()["source"])
    assert (row["predicted"], row["verdict"], row["holds"], row["n"]) == ("equivalent", "equivalent", True, 8)
    assert (
        row["measured"] == pytest.approx(-0.002) and row["low"] < -0.002 < row["high"] < 0 and row["low_bca"] < row["high_bca"]
    )
    text = terminal_table(study)
    assert text.startswith(
        "asked: RMSNorm is as good as LayerNorm (Zhang 2019, arXiv:1910.07467)\nrmsnorm: predicted equivalent"
    )
    assert f"within 0.01, measured {MINUS}0.002" in text and "over 8 seeds: equivalent, as predicted" in text
    html = page.read_text()
    assert "RMSNorm is as good as LayerNorm (Zhang 2019" in html and "<b>equivalent, as predicted</b>" in html
    assert html.index("equivalent, as predicted") < html.index('id="arms"')
    assert study.differences.set_index("arm")["verdict"].to_dict() == {"moe": "lower", "rmsnorm": "equivalent"}
    assert "moe is 0.1000 bits per byte lower" in " ".join(findings(study))  # explored, in a family of its own


@pytest.mark.parametrize(
    ("predicted", "effect", "verdict", "words"),
    [
        ("lower", -0.05, "supported", "supported, as predicted (significant on the side that was predicted)"),
        ("lower", 0.05, "refuted", "refuted, against the prediction (significant on the other side)"),
        ("higher", 0.001, "equivalent", "equivalent, against the prediction (smaller than 0.01"),
        ("equivalent", 0.05, "refuted", "refuted, against the prediction (off by more than 0.01)"),
        ("equivalent", 0.0098, "inconclusive", "inconclusive (about "),
    ],
)
def test_each_verdict_in_words(tmp_path: Path, predicted: str, effect: float, verdict: str, words: str) -> None:
    study = study_of(tmp_path, question(predicted={"rmsnorm": predicted}), {"rmsnorm": effect})
    assert claim(study)["verdict"] == verdict and words in answers(study)[0]


def test_too_few_seeds_say_how_many_more_would_do(tmp_path: Path) -> None:
    study = study_of(tmp_path, question(), {"rmsnorm": 0.0}, seeds=4)
    assert claim(study)["more_seeds"] == 2 and "about 2 more seeds would do (6 in all, for 80 % power)" in answers(study)[0]
    hopeless = study_of(tmp_path / "2", question(margin=1e-6, predicted={"rmsnorm": "lower"}), {"rmsnorm": 0.00001})
    assert math.isinf(claim(hopeless)["more_seeds"]) and "more than 1,000 seeds would be needed" in answers(hopeless)[0]


def test_intervals_that_disagree_about_zero_are_told(tmp_path: Path) -> None:
    runs = load(write(tmp_path, question(predicted={"rmsnorm": "lower"}), {"rmsnorm": -0.05}))
    assert claim(compare(runs))["caution"] == ""
    skew = pd.Series([0.0, 0.001, 0.002, 0.001, 0.0, 0.002, 0.001, 0.03])  # t [-0.004, 0.013], bootstrap [0.001, 0.019]
    base = runs.loc[runs["arm"] == "baseline"].sort_values("seed")["val_bits_per_byte"].to_numpy()
    runs.loc[runs["arm"] == "rmsnorm", "val_bits_per_byte"] = base + skew.to_numpy()
    assert "do not agree about zero" in claim(compare(runs))["caution"]


def test_what_was_not_asked_has_no_claim(tmp_path: Path) -> None:
    study = study_of(tmp_path, None, {"rmsnorm": -0.05})
    assert study.claims.empty and study.question is None and asked(study) == "" and answers(study) == []
    assert study.differences["verdict"].tolist() == ["lower"]


def test_predictions_of_one_question_share_the_error(tmp_path: Path) -> None:
    both = question(predicted={"rmsnorm": "lower", "missing": "lower"})
    study = study_of(tmp_path, both, {"rmsnorm": -0.05}, seeds=6)
    assert claim(study)["verdict"] == "inconclusive" and claim(study)["more_seeds"] == 1
    assert claim(study, "missing")["why"] == "no arm called missing has run" and study.needed == 7


def test_a_computed_cost_needs_no_seeds(tmp_path: Path) -> None:
    asked = question(
        metric="state_bytes", margin=16.0, equal=[], predicted={"gqa": "lower", "sparse": "equivalent", "moe": "higher"}
    )
    folder = write(tmp_path, asked, {"gqa": 0.0, "sparse": 0.0, "moe": 0.0}, seeds=1)
    runs = load(folder)
    runs.loc[runs["arm"] == "gqa", "state_bytes"] = 2048.0
    runs.loc[runs["arm"] == "sparse", "state_bytes"] = 4097.0
    study = compare(runs)
    found = study.claims.set_index("arm")
    assert found["verdict"].to_dict() == {"gqa": "supported", "sparse": "equivalent", "moe": "equivalent"}
    assert found["holds"].to_dict() == {"gqa": True, "sparse": True, "moe": False}
    assert f"measured {MINUS}2.05k over 1 seed: supported, as predicted (computed, so exact" in answers(study)[0]
    assert len(study.explored) == 3 and study.differences["verdict"].isna().all()  # the results were not asked about


def test_an_arm_may_be_held_against_another_or_against_a_number(tmp_path: Path) -> None:
    asked = question(predicted={"gqa": "equivalent", "moe": "lower"}, against={"gqa": "moe"}, equal=[])
    asked["predicted"]["baseline"] = {"val_bits_per_byte": 2.035}
    study = study_of(tmp_path, asked, {"gqa": -0.1, "moe": -0.1})
    found = study.claims.set_index("arm")
    assert found["verdict"].to_dict() == {"gqa": "equivalent", "moe": "supported", "baseline": "inconclusive"}
    assert found.loc["gqa", "measured"] == pytest.approx(0.0, abs=1e-9) and found.loc["gqa", "against"] == "moe"
    assert found.loc["baseline", "measured"] == pytest.approx(2.035) and found.loc["baseline", "low"] == pytest.approx(
        2.0145, abs=1e-4
    )
    assert "gqa: predicted equivalent in val_bits_per_byte within 0.01, against moe, measured" in answers(study)[0]
    assert (
        "baseline: predicted val_bits_per_byte 2.035 within 0.01, measured 2.0350 [2.0145, 2.0555] over 8 seeds"
        in answers(study)[2]
    )
    assert study.differences.set_index("arm")["claimed"].to_dict() == {"moe": True, "gqa": False}
    close = study_of(tmp_path / "2", question(predicted={"moe": 1.935}, margin=0.05, equal=[]), {"moe": -0.1})
    assert claim(close, "moe")["verdict"] == "equivalent" and claim(close, "moe")["holds"]
    assert "within 0.05 of the number that was predicted" in answers(close)[0]


def test_a_run_that_diverged_counts_as_the_worst(tmp_path: Path) -> None:
    runs = load(write(tmp_path, question(predicted={"moe": "lower"}, equal=[]), {"moe": -0.1}))
    assert claim(compare(runs), "moe")["verdict"] == "supported"
    gone = (runs["arm"] == "moe") & (runs["seed"] < 3)
    lost = runs.assign(status=runs["status"].mask(gone, "diverged"), val_bits_per_byte=runs["val_bits_per_byte"].mask(gone))
    found = claim(compare(lost), "moe")
    assert found["verdict"] == "inconclusive" and found["n"] == 8 and found["measured"] > -0.1
    assert "3 of 8 runs of moe diverged, which counts as the worst result of the study" in found["caution"]
    base = (runs["arm"] == "baseline") & (runs["seed"] < 3)
    other = runs.assign(status=runs["status"].mask(base, "diverged"), val_bits_per_byte=runs["val_bits_per_byte"].mask(base))
    assert "3 of 8 runs of baseline diverged" in claim(compare(other), "moe")["caution"]


def test_a_baseline_that_has_not_run_is_replaced_by_no_other(tmp_path: Path) -> None:
    runs = load(write(tmp_path, question(predicted={"moe": "lower"}, equal=[]), {"moe": -0.1}))
    without = runs[runs["arm"] != "baseline"].assign(baseline="dense")
    assert claim(compare(without), "moe")["why"] == "no arm called dense has run"


def test_claims_about_two_metrics_are_one_family_and_costs_are_not_of_it(tmp_path: Path) -> None:
    asked = question(predicted={"gqa": "lower"}, equal=[])
    asked["predicted"]["gqa"] |= {"val_loss": "lower", "state_bytes": "lower"}
    asked["margin"] |= {"val_loss": 0.01, "state_bytes": 1.0}
    runs = load(write(tmp_path, asked, {"gqa": -0.1}, seeds=6))
    runs.loc[runs["arm"] == "gqa", "state_bytes"] = 2048.0
    study = compare(runs.assign(val_loss=runs["val_bits_per_byte"]))
    assert study.claims["verdict"].tolist() == ["inconclusive", "inconclusive", "supported"]  # six seeds decide one claim
    assert study.needed == 7 and study.claims["p"].tolist()[:2] == [0.0625, 0.0625]


def test_another_baseline_for_the_table_does_not_move_the_claims(tmp_path: Path) -> None:
    runs = load(write(tmp_path, question(), {"rmsnorm": -0.002, "moe": -0.1}))
    study = compare(runs, "moe")
    assert claim(study)["verdict"] == "equivalent" and claim(study)["measured"] == pytest.approx(-0.002)
    assert set(study.explored["arm"]) == {"baseline", "rmsnorm"} and set(study.differences["verdict"]) == {"higher"}


def test_memory_needs_one_machine(tmp_path: Path) -> None:
    asked = question(metric="peak_memory_bytes", margin=100.0, predicted={"gqa": "lower"})
    runs = load(write(tmp_path, asked, {"gqa": 0.0}, seeds=6))
    runs.loc[runs["arm"] == "gqa", "peak_memory_bytes"] = 3e8
    assert claim(compare(runs), "gqa")["verdict"] == "supported"
    runs.loc[(runs["arm"] == "gqa") & (runs["seed"] == 3), "threads"] = "1"
    found = claim(compare(runs), "gqa")
    assert (found["verdict"], found["n"]) == ("inconclusive", 0) and "numbers of threads" in found["why"]


def test_what_is_said_to_be_equal_is_held_to_one_percent(tmp_path: Path) -> None:
    runs = load(write(tmp_path, question(predicted={"rmsnorm": "lower"}), {"rmsnorm": -0.05}))
    for total, verdict in ((1_009_000.0, "supported"), (1_011_000.0, None)):
        runs.loc[runs["arm"] == "rmsnorm", "total_params"] = total
        assert claim(compare(runs))["verdict"] == verdict
    assert claim(compare(runs))["why"] == (
        "refused: total_params is said to be equal, and is 1.01M against the baseline's 1.00M (+1.1 %)"
    )
    assert "no verdict (refused: total_params" in answers(compare(runs))[0]


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.column)
def test_every_condition_refuses_or_warns(tmp_path: Path, condition: Any) -> None:
    runs = load(write(tmp_path, question(predicted={"rmsnorm": "lower"}), {"rmsnorm": -0.05}))
    runs = runs.assign(**{"eval_tokens": 4096.0, "train.precision": "fp32", "git_dirty": runs["git_dirty"].astype(object)})
    other = {"train.steps": 800, "tokens": 1, "eval_tokens": 8192.0, "threads": "4", "git_dirty": True}
    runs.loc[runs["arm"] == "rmsnorm", condition.column] = other.get(condition.column, "other")
    study = compare(runs)
    row = study.differences.iloc[0]
    reason = f"different {condition.what} ("
    if condition.refuses:
        assert row["refused"].startswith(reason) and claim(study)["verdict"] is None and row["verdict"] is None
        assert claim(study)["why"].startswith(f"refused: {reason}") and claim(study)["n"] == 0
    else:
        assert claim(study)["verdict"] == "supported" and claim(study)["caution"].startswith(reason)
        assert reason in answers(study)[0] and (condition.what in " ".join(cautions(study)))


def test_a_question_that_changed_is_told_and_the_newest_stands(tmp_path: Path) -> None:
    runs = load(write(tmp_path, question(), {"rmsnorm": 0.0}))
    before = json.dumps(json.loads(runs["question"].iloc[0]) | {"margin": {"val_bits_per_byte": 0.001}})
    early = runs["seed"] < 2
    runs.loc[early, ["question", "started"]] = [before, "2025-01-01T00:00:00"]
    runs.loc[runs["seed"] == 2, "question"] = None
    study = compare(runs)
    assert study.question is not None and study.question.margin == {"val_bits_per_byte": 0.01}
    before_margin, now = (json.dumps({"val_bits_per_byte": margin}) for margin in (0.001, 0.01))
    assert study.asked_before == [
        f"4 runs began under another question (margin {before_margin}, now {now}): the newest stands here.",
        "2 runs began without a registered question, so not all was predicted beforehand.",
    ]
    assert set(study.asked_before) <= set(cautions(study))


def test_a_damaged_question_sets_its_run_aside(tmp_path: Path) -> None:
    folder = write(tmp_path, question(), {"rmsnorm": 0.0}, seeds=2)
    run = next(folder.glob("rmsnorm-s1-*"))
    content = json.loads((run / "config.json").read_text())
    for key, value, complaint in (
        ("predicted", {"rmsnorm": {"val_loss": "better"}}, "lower, higher, equivalent"),
        ("predicted", {"rmsnorm": "lower"}, "an arm with its metrics"),
        ("margin", {}, "margin.val_bits_per_byte is missing"),
        ("margin", 0.1, "an object of numbers"),
        ("against", ["rmsnorm"], "an object of texts"),
        ("claim", 3, "text was expected"),
        ("equal", "total_params", "a list of texts"),
    ):
        records.change(run, "config.json", study=content["study"] | {"question": question() | {key: value}})
        found = compare(load(folder))
        assert len(found.runs) == 3
        assert any(complaint in reason for _, reason in report.build(folder)[1].set_aside)


def test_chance_is_shown_where_accuracy_is_the_metric(tmp_path: Path) -> None:
    for arm, value in (("baseline", 0.5), ("moe", 0.7)):
        for seed in range(2):
            summary = records.summary(val_accuracy=value + seed / 100, val_loss=1.0)
            rows = [{"step": step, "split": "val", "accuracy": value, "tokens": step} for step in (100, 200, 300)]
            folder = tmp_path / "demo" / f"{arm}{seed}"
            records.write_run(folder, records.config(arm, seed, {}), summary, rows, chance=0.125)
    page, study = report.build(tmp_path / "demo")
    assert study.chance == 0.125 and "chance 0.12" in terminal_table(study) and "Guessing reaches 0.12" in page.read_text()
    assert '"chance":0.125' in page.read_text()  # where the page's script draws it
    drawing = plots_curves.curves(study, load_curves(tmp_path / "demo"))
    assert drawing is not None and "Dotted: chance, 0.12" in drawing.caption
    losses = pd.DataFrame(study.runs).drop(columns="val_accuracy")
    assert math.isnan(compare(losses).chance) and axis_effects(study).empty
