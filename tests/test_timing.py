"""Speeds that may be compared: arms timed in turns once their runs are done, and what is said of a speed without that."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from analysis import load
from analysis.claims import judged
from analysis.speed import comparable_speeds, paired_speeds, speed_conditions, timed_together
from runs.build.errors import ConfigError
from runs.job import record
from runs.job.question import Question
from runs.job.study import Study
from tests.door import runs, study, train, write_text

PLAN = """# @package _global_
study:
  name: timed
  baseline: dense
  arms: {dense: [], wide: [size.d_ff=480]}
  seeds: [0, 1]
  timing: 3
  question:
    claim: ten times the hidden channels cost time
    source: nobody
    predicted: {wide: {step_ms: higher, decode_ms: higher}}
    margin: {step_ms: 1, decode_ms: 1}
train:
  decode_tokens: 2
size:
  max_seq: 40
"""


def test_the_arms_of_a_study_are_timed_in_turns_and_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = write_text(tmp_path / "story.txt")
    assert study(PLAN, tmp_path, text) == 0
    assert capfd.readouterr().out.count("timed in turns: 2 runs beside dense") == 2
    found = {path.name[:-9]: record.read_json(path / record.TIMING) for path in runs(tmp_path)}
    assert found.keys() == {"dense-s0", "dense-s1", "wide-s0", "wide-s1"}
    for seed in "01":
        one, other = found[f"dense-s{seed}"], found[f"wide-s{seed}"]
        assert one["session"] == other["session"] and one["beside"] == other["beside"] and one["turns"] == 3
        for timing in (one, other):
            assert timing["tokens_per_s"] * timing["step_ms"] / 1000 == pytest.approx(2 * 32)
            assert timing["step_ms"] > 0 and timing["decode_ms"] > 0 and timing["mfu"] > 0
        assert sorted(one["beside"].values()) == sorted([one["step_ms"], other["step_ms"]])
    assert found["dense-s0"]["session"] != found["dense-s1"]["session"]

    table = load(tmp_path / "timed").set_index(["arm", "seed"])
    assert table.loc[("wide", 1), "step_ms"] == found["wide-s1"]["step_ms"]
    assert table.loc[("wide", 1), "timed"] == found["wide-s1"]["session"]

    assert study(PLAN, tmp_path, text) == 0
    assert "timed in turns" not in capfd.readouterr().out
    assert study(PLAN, tmp_path, text, "study.timing=4") == 0  # of other turns, too
    assert capfd.readouterr().out.count("timed in turns: 2 runs") == 2
    more = PLAN.replace("wide: [size", "wider: [size.d_ff=720], wide: [size")
    assert study(more, tmp_path, text) == 0  # beside another one, all are timed anew
    assert capfd.readouterr().out.count("timed in turns: 3 runs") == 2


def test_a_run_alone_is_timed_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = write_text(tmp_path / "story.txt")
    done = train(text, tmp_path, "train.steps=2", "study.timing=3")
    assert done.returncode == 0 and "timed in turns: " in done.stdout and "beside" not in done.stdout
    (folder,) = runs(tmp_path)
    assert record.read_json(folder / record.TIMING)["turns"] == 3


def test_speeds_that_are_damaged_are_taken_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = write_text(tmp_path / "story.txt")
    assert study(PLAN, tmp_path, text, "study.seeds=[0]") == 0
    path = next(path for path in runs(tmp_path) if path.name.startswith("wide"))
    (path / record.TIMING).write_text("{}")
    capfd.readouterr()
    assert study(PLAN, tmp_path, text, "study.seeds=[0]") == 0
    assert "timed in turns: 2 runs" in capfd.readouterr().out
    assert load(tmp_path / "timed")["timed"].nunique() == 1


QUESTION = Question(claim="it is slower", source="nobody", predicted={"wide": {"step_ms": "higher"}}, margin={"step_ms": 1.0})


def speeds(sessions: list[str | None]) -> pd.DataFrame:
    """Two arms of as many seeds as sessions; one is 10 ms slower, and each seed has its own pace."""
    rows = [
        {
            "arm": arm,
            "given_name": arm,
            "seed": seed,
            "status": "done",
            "device": "cpu",
            "threads": "2",
            "causal": True,
            "timed": session,
            "step_ms": 100.0 + 7 * seed + more + 0.1 * (seed % 3),
            "tokens_per_s": 1.0,
        }
        for arm, more in (("dense", 0), ("wide", 10))
        for seed, session in enumerate(sessions)
    ]
    return pd.DataFrame(rows)


def test_a_claim_about_a_speed_needs_turns() -> None:
    together = judged(speeds(list("abcdefgh")), QUESTION, "dense").iloc[0]
    assert together["verdict"] == "supported" and together["n"] == 8
    apart = judged(speeds([None] * 8), QUESTION, "dense").iloc[0]
    assert apart["verdict"] == "inconclusive" and "study.timing=20" in apart["why"]
    mixed = speeds(list("abcdefgh"))
    mixed.loc[3, "timed"] = "another"
    assert judged(mixed, QUESTION, "dense").iloc[0]["verdict"] == "inconclusive"


def test_speeds_are_comparable_in_one_session_or_on_one_machine() -> None:
    turns, apart = speed_conditions(speeds(["a", "b"])), speed_conditions(speeds([None, None]))
    assert timed_together(turns, "dense", "wide") and comparable_speeds(turns, "dense", "wide")
    assert not timed_together(apart, "dense", "wide") and comparable_speeds(apart, "dense", "wide")
    half = turns | {"wide": apart["wide"]}
    assert not timed_together(half, "dense", "wide") and not comparable_speeds(half, "dense", "wide")
    assert not timed_together({}, "dense", "wide") and not comparable_speeds({}, "dense", "wide")


def test_a_speed_is_the_mean_ratio_over_the_sessions_that_an_arm_shares_with_its_baseline() -> None:
    runs = speeds(["a", "b", "c", None])
    runs["tokens_per_s"] = [100.0, 300.0, 200.0, 50.0, 50.0, 120.0, 100.0, 999.0]
    runs.loc[(runs["arm"] == "wide") & (runs["seed"] == 2), "timed"] = "another"
    found = paired_speeds(runs, "dense").loc["wide"]
    mean, low, high = (float(value) for value in found[["speed", "speed_low", "speed_high"]])
    half = 12.7062 * math.log(0.5 / 0.4) / 2  # t of 1 degree of freedom, and the standard error of two values
    assert mean == pytest.approx(math.sqrt(0.5 * 0.4)) and found["sessions"] == 2
    assert (low, high) == pytest.approx((mean * math.exp(-half), mean * math.exp(half)), rel=1e-4)
    assert found["rate"] == pytest.approx(mean * math.sqrt(100 * 300))
    assert paired_speeds(runs, "dense").loc["dense", "speed"] == 1


def test_without_turns_no_speed_is_a_ratio() -> None:
    runs = speeds([None, None])
    found = paired_speeds(runs, "dense")
    assert found["sessions"].tolist() == [0, 0] and found.drop(columns="sessions").isna().all(axis=None)
    half = runs.assign(timed=["a", "b", None, None])
    assert math.isnan(paired_speeds(half, "dense").loc["wide", "speed"])


def test_a_question_about_a_speed_says_in_how_many_turns() -> None:
    with pytest.raises(ConfigError, match="timing=null: the question is about step_ms"):
        Study.of({"name": "s", "question": QUESTION.to_json()})
    assert Study.of({"name": "s", "question": QUESTION.to_json(), "timing": 5}).timing == 5
    with pytest.raises(ConfigError, match="timing=0: at least 1 turn"):
        Study.of({"name": "s", "timing": 0})
