"""kill -9 at random moments, the writing of checkpoints included: nothing that was recorded is lost, no row comes twice."""

from __future__ import annotations

import functools
import random
import time
from pathlib import Path

import pytest

from tests.door import assert_same, begin, rows, runs, summary, train, until, write_text

pytestmark = pytest.mark.torture

KILLS = 10  # of each run
ARMS = {
    "dense": [],
    "moe": ["ffn=moe", "router=noisy", "block.dropout=0.1"],
    "mamba": ["mixer=mamba"],
    "masked": ["model=encoder", "objective=masked_lm"],
    "muon": ["optim=muon", "train.accumulate=2"],
}


@pytest.mark.parametrize("arm", ARMS)
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(arm: str, tmp_path: Path) -> None:
    text, draw = write_text(tmp_path / "story.txt"), random.Random(arm)
    words = [*ARMS[arm], "train.steps=600", "train.checkpoint_every=2", "train.eval_every=200"]
    kills = came_on = 0
    seen = -1
    while kills < KILLS:
        process = begin(text, tmp_path / "cut", *words)
        grown = until(functools.partial(_last, tmp_path / "cut", seen))
        time.sleep(draw.uniform(0, 0.6))
        assert process.poll() is None, f"it ended after {kills} kills: {process.communicate()}"
        process.kill()
        process.communicate()
        kills += 1
        came_on += grown > seen
        seen = _last(tmp_path / "cut", -1)
    assert train(text, tmp_path / "cut", *words).returncode == 0
    assert train(text, tmp_path / "whole", *words).returncode == 0
    (cut,), (whole,) = runs(tmp_path / "cut"), runs(tmp_path / "whole")
    assert summary(cut)["status"] == "done"
    assert_same(whole, cut)
    print(f"{arm}: {kills} kills, the last at step {seen} of 600; {came_on} came further than the one before; 0 rows lost")


def _last(out: Path, beyond: int) -> int:
    """The last step that a row tells of, if it is beyond another; else 0."""
    for folder in runs(out):
        try:
            found = [row["step"] for row in rows(folder)]
        except (ValueError, OSError):  # half a line
            return 0
        return found[-1] if found and found[-1] > beyond else 0
    return 0
