"""python -m analysis.compare: two runs or two arms, in a few lines that agree with the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.compare import main
from analysis.digits import MINUS, TIMES
from tests import records
from tests.test_claims import question, write


def said(capsys: pytest.CaptureFixture[str], *names: str | Path) -> list[str]:
    assert main([str(name) for name in names]) == 0
    return capsys.readouterr().out.splitlines()


def test_two_runs_of_one_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = records.run(tmp_path, "baseline", 0, 2.0)
    other = records.run(tmp_path, "rmsnorm", 0, 1.9, choices={"norm": "rmsnorm"}, steps=400, warmup=10)
    assert said(capsys, one, other) == [
        "rmsnorm against baseline",
        "  norm          layernorm -> rmsnorm",
        "  train.warmup  - -> 10",
        f"validation bits per byte: 2.000 -> 1.900, {MINUS}0.100 over 1 shared seed",
        f"speed not timed in turns, memory 1.00{TIMES}, parameters =",
        "verdict: n = 1 seed: neither interval nor verdict (6 needed).",
    ]


def test_two_seeds_of_one_arm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [records.run(tmp_path, "baseline", seed, 2.0 + seed / 10) for seed in (0, 1)]
    lines = said(capsys, *folders)
    assert lines[0] == f"demo/{folders[1].name} against demo/{folders[0].name}"
    assert any("+0.100 of the means, no seed shared" in line for line in lines)


def test_two_arms_of_a_study_and_its_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explored = write(tmp_path / "1", None, {"rmsnorm": -0.05, "moe": 0.0})
    lines = said(capsys, explored, "baseline", "rmsnorm")
    assert lines[1] == "  the same config" and "over 8 shared seeds" in lines[2]
    assert lines[-1] == "verdict: lower, so better: p = 0.0156, corrected for 2 arms."
    assert said(capsys, explored, "rmsnorm", "baseline")[-1].startswith("verdict: higher, so worse: ")
    assert said(capsys, explored, "baseline", "moe")[-1] == "verdict: inconclusive: zero is not ruled out, p = 1.00."
    asked = write(tmp_path / "2", question(), {"rmsnorm": -0.002})
    assert "equivalent, as predicted" in said(capsys, asked, "baseline", "rmsnorm")[-1]


def test_what_must_not_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = records.run(tmp_path, "baseline", 0, 2.0), records.run(tmp_path, "moe", 0, 1.9, steps=800)
    lines = said(capsys, one, other)
    assert "  train.steps  400 -> 800" in lines and lines[-1] == "verdict: refused: different steps (800, baseline 400)."
    assert "no difference is taken" in lines[-3]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["demo", "demo"], "2 runs; give two runs' folders, or a study's folder and two of its arms"),
        (["demo", "baseline", "gpa"], 'no arm is called "gpa"; the arms are: baseline; moe'),
        (["demo", "moe", "moe"], '"moe" is the same arm as "moe"'),
        (["nowhere", "demo"], "no such folder"),
    ],
)
def test_bad_names_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: list[str], complaint: str
) -> None:
    for arm in ("baseline", "moe"):
        records.run(tmp_path, arm, 0, 2.0)
    names = [str(tmp_path / name) if name in ("demo", "nowhere") else name for name in names]
    assert main(names) == 2
    captured = capsys.readouterr()
    assert complaint in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_the_same_run_twice_and_too_many_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(records.run(tmp_path, "baseline", 0, 2.0))
    assert main([run, run]) == 2 and "the same run twice" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([run] * 4)
    assert "4 names" in capsys.readouterr().err
