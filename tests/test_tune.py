"""Learning rates found before arms are compared: the choice, the grid that grows, and a study that does it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from analysis import load
from analysis.fairness import same_seed_pairs
from runs.build.errors import ConfigError
from runs.job import record
from runs.job.question import Question
from runs.job.study import Study, Tuning
from runs.sweep.tune import grow, smooth_minimum, tuned
from tests.door import runs, study, summary, write_text
from tests.lab import config

GRID = [0.0005 * 2**i for i in range(6)]


def valley(rate: float, best: float = 0.0031, flat: float = 0.01) -> float:
    """Steeper on the side of large rates, as real ones are."""
    x = math.log2(rate / best)
    return 3.0 + flat * x**2 * (1.6 if x > 0 else 1.0)


def test_the_smooth_minimum_lies_between_the_points_of_the_grid() -> None:
    chosen = smooth_minimum({rate: valley(rate) for rate in GRID})
    assert 0.0025 < chosen < 0.0036
    assert valley(chosen) - 3.0 < min(valley(rate) for rate in GRID) - 3.0


def test_one_lucky_point_decides_nothing() -> None:
    """Regret over the truth, in nats, of noisy tables: less than that of the best point, and small."""
    draw, smooth, pointwise = np.random.default_rng(0), [], []
    for _ in range(400):
        best = 0.0005 * 2 ** draw.uniform(1, 4)
        losses = {rate: valley(rate, best) + draw.normal(0, 0.004) for rate in GRID}
        smooth.append(valley(smooth_minimum(losses), best) - 3.0)
        pointwise.append(valley(min(losses, key=lambda rate: losses[rate]), best) - 3.0)
    assert np.median(smooth) < 0.002
    assert np.mean(smooth) < np.mean(pointwise)


SHIFTS, COSTS = [-3, -2, -1, 0, 1, 2, 3], [0.04, 0.021, 0.007, 0.0, 0.018, 0.073, 0.165]  # nats of a rate 2^shift from the best


def test_on_curves_as_steep_as_real_ones_the_pick_is_near_the_best() -> None:
    """So are they in 1,911 public runs (arXiv:2503.04715): a rate too large costs over twice what one too small does."""
    curve, draw, smooth, pointwise = PchipInterpolator(SHIFTS, COSTS), np.random.default_rng(0), [], []
    for _ in range(400):
        shifts = dict(zip(GRID, np.arange(len(GRID)) - draw.uniform(1.5, 3), strict=True))
        losses = {rate: 3.0 + curve(shift) + draw.normal(0, 0.004) for rate, shift in shifts.items()}
        best = min(losses, key=lambda rate: losses[rate])
        smooth.append(curve(shifts[best] + math.log2(smooth_minimum(losses) / best)))
        pointwise.append(curve(shifts[best]))
    assert np.median(smooth) <= 0.002
    assert np.median(smooth) < 0.7 * np.median(pointwise) and np.mean(smooth) < 0.7 * np.mean(pointwise)


def test_a_grid_grows_where_the_best_lies_at_its_end() -> None:
    falling, rising = {rate: -rate for rate in GRID}, {rate: rate for rate in GRID}
    assert grow(falling) == GRID[-1] * 2 and grow(rising) == GRID[0] / 2
    assert grow({rate: valley(rate) for rate in GRID}) is None
    assert grow(dict.fromkeys(GRID, math.inf)) == GRID[0] / 2  # all diverge: smaller ones may not
    assert grow({**{rate: valley(rate) for rate in GRID[:3]}, GRID[3]: math.inf}) is None
    assert smooth_minimum({0.001: 3.0, 0.002: math.inf, 0.004: math.inf}) == 0.001


def test_a_trial_that_has_not_ended_decides_nothing_and_other_studies_stay(tmp_path: Path) -> None:
    plain = config(f"out={tmp_path}")
    asked = replace(plain, study=Study(name="asked", tuning=Tuning(rates=[0.001, 0.002, 0.004], seeds=[9])))
    refused: list[ConfigError] = []
    assert tuned([asked, plain], lambda trials: None, refused.append) == [plain]
    (said,) = map(str, refused)
    assert "3 trials of its learning rate have not ended, the first" in said


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"tuning": {"rates": [0.001, 0.002], "seeds": [9]}}, "at least 3 rates and 1 seed"),
        ({"tuning": {"rates": [0.001, 0.002, 0.003], "seeds": [9]}}, "each twice the one before"),
        ({"tuning": {"rates": [0, 0, 0], "seeds": [9]}}, "numbers above 0"),
        ({"tuning": {"rates": [0.001, 0.002, 0.004]}}, "seeds is missing"),
        ({"tuning": 3}, "study.tuning=3"),
        ({"question": {"claim": "x"}}, "study.question: .* is missing"),
        ({"question": {"margin": {"val_loss": 0}}}, "margin.val_loss=0: more than 0"),
        ({"question": {"margin": {}}}, "margin.val_loss is missing"),
        ({"question": {"margin": {"val_loss": 0.1, "step_ms": 1}}}, "margin.step_ms: nothing is predicted of it"),
        ({"question": {"predicted": {}}}, "at least one arm"),
        ({"question": {"predicted": {"a": "lower"}}}, "predicted.*keys with values|predicted.a='lower': a metric"),
        ({"question": {"predicted": {"a": {"val_loss": "better"}}}}, "predicted.a.val_loss='better': one of lower, higher"),
        ({"question": {"predicted": {"a": {"speed": "lower"}}}}, "predicted.a.speed: val_... or a cost is expected"),
        ({"question": {"against": {"b": "a"}}}, "against.b: nothing is predicted of it"),
        ({"question": {"predicted": {"a": {"val_loss": 2.0}}, "against": {"a": "b"}}}, "against.a: numbers are predicted"),
        ({"question": {"equal": ["money"]}}, "equal: money is none of"),
    ],
)
def test_a_plan_that_cannot_be_is_told(part: dict[str, object], message: str) -> None:
    whole = {"claim": "x", "source": "y", "predicted": {"a": {"val_loss": "lower"}}, "margin": {"val_loss": 0.01}}
    if isinstance(question := part.get("question"), dict) and question != {"claim": "x"}:
        part = {"question": {**whole, **question}}
    with pytest.raises(ConfigError, match=message):
        Study.of({"name": "s", **part})


def test_a_plan_is_recorded_as_it_was_said() -> None:
    question = Question(
        claim="x", source="y", predicted={"a": {"val_loss": "lower"}}, margin={"val_loss": 0.01}, equal=["total_params"]
    )
    study = Study(name="s", question=question, tuning=Tuning(rates=[0.001, 0.002, 0.004], seeds=[9]))
    assert Study.of(json.loads(json.dumps(study.to_json()))) == study


PLAN = """# @package _global_
study:
  name: tuned
  baseline: dense
  arms: {dense: [], gelu: [ffn=relu]}
  seeds: [0, 1]
  again: 50
  question:
    claim: ReLU is as good as GELU
    source: nobody
    predicted: {gelu: {val_bits_per_byte: equivalent}}
    margin: {val_bits_per_byte: 0.5}
    equal: [total_params]
"""
TUNING = "  tuning: {rates: [0.01, 0.02, 0.04], seeds: [100]}\n"
PLAN += TUNING


def test_a_study_tunes_its_arms_and_then_compares_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = write_text(tmp_path / "story.txt")
    assert study(PLAN, tmp_path, text) == 0
    said = capfd.readouterr().out
    assert said.count("dense: optim.lr=") == 1 and said.count("gelu: optim.lr=") == 1 and "6 of 6 runs done" in said
    configs = [json.loads((folder / "config.json").read_text()) for folder in runs(tmp_path)]
    trials = [config for config in configs if config["study"]["name"] == "tuned-tuning"]
    tests = [config for config in configs if config["study"]["name"] == "tuned"]
    assert {config["seed"] for config in trials} == {100} and len(trials) >= 6
    assert sorted((config["study"]["arm"], config["seed"]) for config in tests) == [
        *((arm, seed) for arm in ("dense",) for seed in (0, 1)),
        *(("dense again", seed) for seed in (50, 51)),
        *(("gelu", seed) for seed in (0, 1)),
    ]
    rates = {config["study"]["arm"]: config["optim"]["lr"] for config in tests}
    assert rates["dense"] == rates["dense again"]
    assert all(config["study"]["question"]["claim"] == "ReLU is as good as GELU" for config in tests)
    assert all(config["study"]["question"] is None for config in trials)
    assert all(summary(folder)["status"] == "done" for folder in runs(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    assert study(PLAN.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"), tmp_path, text) == 0
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    assert before.items() <= after.items() and len(after) == len(before) + 3
    labels = [json.loads((folder / "config.json").read_text())["label"] for folder in runs(tmp_path)]
    assert {label: labels.count(label) for label in labels if ", lr " not in label} == {"dense": 3, "dense again": 3, "gelu": 3}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{gelu: {val", "{gellu: {val", "did you mean gelu?"),
        ("{gelu: {val", "{dense: {val", "held against itself"),
        ("seeds: [100]", "seeds: [1]", "1 is a seed of the study itself"),
        ("seeds: [100]", "seeds: [51]", "51 is a seed of the study itself"),
        ("again: 50", "again: 1", "study.again=1"),
        ("again: 50", "again: x", "study.again=x"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(
    old: str, new: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert study(PLAN.replace(old, new), tmp_path, write_text(tmp_path / "story.txt")) in (1, 2)
    assert message in capfd.readouterr().err and not runs(tmp_path)


def test_arms_of_equal_seconds_make_as_many_steps_as_their_speed_allows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text, words = write_text(tmp_path / "story.txt"), ("study.seeds=[0]", "match=seconds")
    plan = PLAN.replace("gelu: [ffn=relu]", "moe: [ffn=moe]").replace("{gelu:", "{moe:").replace(TUNING, "")
    assert study(plan.replace("    equal: [total_params]\n", ""), tmp_path, text, *words) == 0
    said = capfd.readouterr().out
    speeds = {
        arm: [record.read_json(file)["step_ms"] for file in sorted(tmp_path.glob(f"tuned-pace/{arm}-*/timing.json"))]
        for arm in ("dense", "moe")
    }
    wanted = max(1, round(6 / median(moe / dense for moe, dense in zip(speeds["moe"], speeds["dense"], strict=True))))
    (moe,) = (json.loads(file.read_text()) for file in tmp_path.glob("tuned/moe-*/config.json"))
    assert len(speeds["moe"]) == 5 and moe["train"]["steps"] == wanted and f"so train.steps={wanted}" in said
    assert moe["match"]["budget"] == "seconds" and moe["match"]["solved"] == {"train.steps": wanted}
    pairs = same_seed_pairs(load(tmp_path / "tuned"), "val_bits_per_byte", "dense")
    assert pairs["refused"].tolist() == [""]
    assert study(plan.replace("    equal: [total_params]\n", ""), tmp_path, text, *words) == 0
    assert len(list(tmp_path.glob("tuned/moe-*"))) == 1
    before = [file.read_bytes() for file in sorted(tmp_path.glob("tuned-pace/moe-*/timing.json"))]
    more = plan.replace("moe: [ffn=moe]", "moe: [ffn=moe], glu: [ffn=swiglu]")
    assert study(more.replace("    equal: [total_params]\n", ""), tmp_path, text, *words) == 0
    assert capfd.readouterr().out.count("timed in turns: 2 runs beside dense") == 5  # the new one and the baseline
    assert [file.read_bytes() for file in sorted(tmp_path.glob("tuned-pace/moe-*/timing.json"))] == before
    assert {arm: len(list(tmp_path.glob(f"tuned/{arm}-*"))) for arm in ("dense", "moe", "glu")} == {
        "dense": 1,
        "moe": 1,
        "glu": 1,
    }
    longer = plan.replace("[ffn=moe]", "[ffn=moe, train.steps=9]").replace("    equal: [total_params]\n", "")
    assert study(longer, tmp_path, text, *words) == 1
    assert "moe: train.steps=9 fixes the steps that match=seconds would solve" in capfd.readouterr().err
