"""What tests of the command line share: a text, small runs, real processes, and what a record holds whatever the clock said."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from runs.command import guarded
from runs.train import main

ROOT = Path(__file__).resolve().parent.parent
SMALL = (
    "size=micro",
    "size.d_model=24",
    "size.d_ff=48",
    "train.batch_size=2",
    "train.seq_len=32",
    "train.eval_batches=1",
    "train.log_every=2",
    "train.device=cpu",
)
CLOCK = ("seconds", "tokens_per_s", "step_ms")  # what differs between two runs that are the same


def write_text(path: Path) -> Path:
    path.write_text("".join(f"The {n}th line tells of {n * n} sheep and {n % 7} wolves.\n" for n in range(2000)))
    return path


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "runs.train", *words]


def small(text: Path, out: Path, *words: str) -> list[str]:
    """The words of a run that takes seconds, but for what they say otherwise."""
    said = {word.partition("=")[0] for word in words}
    plain = (word for word in SMALL if word.partition("=")[0] not in said)
    return [*words, *plain, "data=text", f"data.path={text}", f"out={out}"]


def train(text: Path, out: Path, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*small(text, out, *words)), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, **how
    )


def study(plan: str, out: Path, text: Path, *words: str) -> int:
    """Train a study in this process, as ``runs.train -m study=`` would, six steps a run; the exit code."""
    folder = out / "conf" / "study"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(plan)
    search = f"hydra.searchpath=[file://{folder.parent}]"
    before, sys.argv = sys.argv, ["train", "-m", search, *small(text, out, "study=mine", "train.steps=6", *words)]
    try:
        return guarded(main)
    finally:
        sys.argv = before


def begin(text: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    """A process that goes on beside the test, in a process group of its own, as a terminal has it."""
    return subprocess.Popen(
        command(*small(text, out, *words)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(true: Callable[[], Any], seconds: float = 120) -> Any:
    """What it returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.01)
    return found


def runs(out: Path) -> list[Path]:
    return sorted(path.parent for path in out.glob("*/*/config.json"))


def summary(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "summary.json").read_text())
    return found


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "checkpoint" / "state.safetensors")


def rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in (path / "metrics.jsonl").read_text().splitlines():
        yield {key: value for key, value in json.loads(line).items() if key not in CLOCK}


def assert_same(one: Path, other: Path) -> None:
    """Two runs ended with the same weights bit for bit, the same rows, each once, and the same results."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert list(rows(one)) == list(rows(other))
    assert summary(one)["metrics"] == summary(other)["metrics"] and summary(one)["status"] == summary(other)["status"]
