"""A sweep as it goes, read off its files by another process."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from analysis import watch
from analysis.progress import QUIET, ended, standings
from runs.job import record
from tests import records

ROW = {"split": "train", "step": 100, "loss": 3.25, "tokens_per_s": 5000.0, "step_ms": 50.0, "seconds": 5.0}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A run in every state: done, failed, running, stopped long ago, not begun, and one whose record is damaged."""
    folder = tmp_path / "demo"

    def begun(name: str, arm: str, seed: int, rows: list[dict[str, object]]) -> Path:
        records.write_run(folder / name, records.config(arm, seed, {}), None, rows)
        return folder / name

    records.write_run(folder / "a0", records.config("a", 0, {}), records.summary(val_bits_per_byte=2.5), [ROW | {"step": 400}])
    failed = records.summary("failed") | {"error": "out of memory"}
    records.write_run(folder / "a1", records.config("a", 1, {}), failed, [])
    begun("b0", "b", 0, [ROW | {"step": 80, "seconds": 4.0}, ROW])
    long_ago = time.time() - 10 * QUIET
    for file in begun("b1", "b", 1, [ROW]).iterdir():
        os.utime(file, (long_ago, long_ago))
    (begun("c1", "c", 1, []) / record.CONFIG).write_text("{}")
    record.write_plan(folder, {name: {"arm": name[0], "seed": int(name[1]), "steps": 400} for name in ("a0", "a1", "b0")})
    record.write_plan(folder, {"c0": {"arm": "c", "seed": 0, "steps": 400}})
    return folder


def test_every_run_has_its_state(study: Path) -> None:
    found = {one.run: one for one in standings(study)}
    states = {"a0": "done", "a1": "failed", "b0": "running", "c0": "waiting", "b1": "stopped", "c1": "unreadable"}
    assert {run: one.state for run, one in found.items()} == states
    assert list(found)[:4] == ["a0", "a1", "b0", "c0"]  # as they were asked for; then what else lies there
    running = found["b0"]
    assert (running.step, running.steps, running.loss, running.tokens_per_s) == (100, 400, 3.25, 5000.0)
    assert running.left == pytest.approx(300 * 0.05)
    assert found["a1"].why == "out of memory" and found["b1"].silent > QUIET
    assert not ended(list(found.values())) and ended([found["a0"], found["a1"]])


def test_the_time_left_counts_who_runs_and_who_waits(study: Path) -> None:
    assert watch.time_left(standings(study)) == pytest.approx((300 + 400) * 0.05)  # one at a time, 50 ms a step
    assert watch.time_left([one for one in standings(study) if one.state == "waiting"]) is None


def test_half_a_row_is_no_news(study: Path) -> None:
    with open(study / "b0" / record.METRICS, "a") as file:
        file.write(json.dumps(ROW | {"step": 120})[:-5])
    assert {one.run: one.step for one in standings(study)}["b0"] == 100


def test_elsewhere_than_in_a_terminal_it_is_told_once(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch.main([str(study)]) == 0
    said = capsys.readouterr().out
    for words in ("seed 0", "25 % 3.250", "done 3.250", "failed", "waiting", "a1: failed, out of memory", "about 35 s left"):
        assert words in said
    assert "\x1b" not in said


def test_an_empty_folder_is_an_error_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert watch.main([str(folder)]) == 2
        assert capsys.readouterr().err.startswith(f"error: {folder}: no run was asked for here")


def test_a_page_of_half_a_sweep_says_so(tmp_path: Path) -> None:
    from analysis import report

    study = records.write_study(tmp_path, arms={"baseline": records.Arm(), "gqa": records.Arm(0.1)}, seeds=(0, 1))
    assert "Not finished" not in report.build(study)[0].read_text()
    asked = {f"later-{seed}": {"arm": "gqa", "seed": seed, "steps": 400} for seed in (2, 3)}
    record.write_plan(study, asked)
    assert "Not finished: 4 of 6 runs ended so far" in report.build(study)[0].read_text()
