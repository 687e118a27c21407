"""Studies of thousands of runs: what reading and reporting them takes, printed in seconds and in seconds of a processor."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pandas as pd
import pytest

from analysis import load, report
from tests import records

pytestmark = pytest.mark.torture


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The records are thrown away: nothing waits for the disk to hold them."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


class Clock:
    """The seconds since it was made, and how many of them this process has computed."""

    def __init__(self) -> None:
        self.began, self.computed = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        return f"{time.perf_counter() - self.began:.2f} s ({time.process_time() - self.computed:.2f} s computing)"


def arms(number: int) -> dict[str, records.Arm]:
    """Arms that differ a little, with experts in every other one of them."""
    few = [records.Arm(choices=arm.choices) for arm in records.ARMS.values()]
    return {"baseline": records.Arm()} | {f"arm {place:04d}": few[place % len(few)] for place in range(number - 1)}


def test_ten_thousand_runs_are_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = records.write_study(tmp_path, arms=arms(1000), seeds=tuple(range(10)))
    clock = Clock()
    first = load(study)
    cold = str(clock)

    new = records.run(tmp_path, "baseline", 10, 2.0)
    time.sleep(0.2)  # until its files are older than the clock of the disk is coarse
    clock = Clock()
    again = load(study)
    warm = str(clock)
    with capsys.disabled():
        print(f"\n10,000 runs: {cold}; with one more, in the same process: {warm}")

    assert (len(first), len(again)) == (10_000, 10_001)
    added = again["run"] == new.name
    assert again.loc[added, "val_bits_per_byte"].tolist() == [2.0]
    pd.testing.assert_frame_equal(again[~added].reset_index(drop=True)[first.columns], first, check_dtype=False)


def test_five_hundred_runs_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = records.write_study(tmp_path, arms=arms(50), seeds=tuple(range(10)))
    damaged = next(study.glob("arm_0007-s3-*"))
    (damaged / "metrics.jsonl").write_text("")
    clock = Clock()
    page, comparison = report.build(study)
    report.terminal_table(comparison)
    with capsys.disabled():
        print(f"\na report on 500 runs: {clock}")

    assert len(comparison.runs) == 499 and [run for run, _ in comparison.set_aside] == [damaged.name]
    found = json.loads(page.with_name("verdicts.json").read_text())
    assert len(found["comparisons"]) == 49 and found["seeds_needed"] == 11
    assert "49 more" not in page.read_text() and "arm 0048" in page.read_text()
