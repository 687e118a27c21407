"""What a command costs beside the training itself: until its first step, when all is done, for a grid, and of a sweep."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from .case import Bar, Case, Measured, Turn, seconds, times

ROOT = Path(__file__).resolve().parent.parent.parent
SHORT = "size=micro train.steps=1 train.batch_size=2 train.seq_len=64 train.eval_batches=1"
LONGER = "size=micro train.steps=100 train.batch_size=8 train.seq_len=128 train.eval_batches=1 train.eval_every=100"
GRID = "mixer=mha,gqa,mamba ffn=dense,swiglu,moe,moe_fine norm=layernorm,rmsnorm block=pre_norm,post_norm size=nano"  # 48


def cases() -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        yield commands(Path(folder))
        yield sweeps(Path(folder))


def commands(place: Path) -> Case:
    fresh, done = (place / str(number) for number in itertools.count()), place / "done"
    subprocess.run(train(done, SHORT), cwd=ROOT, check=True, capture_output=True)
    contenders = {
        "one step": lambda: called(train(next(fresh), SHORT)),
        "the same, done": lambda: called(train(done, SHORT)),
        "import torch": lambda: called([sys.executable, "-c", "import torch"]),
        "import torch, arch": lambda: called([sys.executable, "-c", "import torch, arch"]),
        "a grid of 48 checked": lambda: called([sys.executable, "-m", "runs.check", "-m", *GRID.split()]),
    }

    def over_torch(m: Measured) -> list[float]:
        return [one - other for one, other in zip(m.seconds["import torch, arch"], m.seconds["import torch"], strict=True)]

    bars = [
        Bar("seconds of a command with one step", seconds("one step"), at_most=3.5),
        Bar("seconds of the same, once it is done", seconds("the same, done"), at_most=2.5),
        Bar("seconds of import arch over those of torch", over_torch, at_most=0.06),
        Bar("seconds for 48 points of a grid, composed and checked", seconds("a grid of 48 checked"), at_most=10),
    ]
    return Case("commands", contenders, bars)


def sweeps(place: Path) -> Case:
    fresh = (place / f"sweep-{number}" for number in itertools.count())

    def sweep(n_runs: int, slots: int, words: str) -> Turn:
        seeds = f"seed={','.join(map(str, range(n_runs)))}"
        return lambda: called(train(next(fresh), f"{words} {seeds} study.slots={slots}", "-m"))

    few, many, alone, beside = "2 runs of one step", "8 runs of one step", "6 runs one after another", "6 runs, two at a time"
    contenders = {few: sweep(2, 1, SHORT), many: sweep(8, 1, SHORT), alone: sweep(6, 1, LONGER), beside: sweep(6, 2, LONGER)}

    def each(m: Measured) -> list[float]:
        return [(more - less) / 6 for more, less in zip(m.seconds[many], m.seconds[few], strict=True)]

    bars = [
        Bar("seconds that one more run takes beside its training", each, at_most=0.8),
        Bar("time of runs one after another over that of two at a time", times(alone, beside), at_least=1.2),
    ]
    return Case("sweeps of runs of seconds", contenders, bars)


def train(out: Path, words: str, *first: str) -> list[str]:
    return [sys.executable, "-m", "runs.train", *first, *words.split(), f"out={out}"]


def called(command: Sequence[str], **variables: str) -> Sequence[Tensor]:
    """variables: of its environment, beside those of this process."""
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=os.environ | variables)
    return []
