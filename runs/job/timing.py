"""How fast the models of some runs are: all of them in one process, in turns, so that a slow second meets them all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from ..training.compiling import compile_layers
from ..training.device import keep_memory, pick_device
from ..training.fit import Window, train_step
from ..training.measure import synchronise
from . import record
from .execute import writing_ms
from .run import Run
from .start import begin, build_optimiser, build_task, load_data

WARM_UP = 2  # turns that do not count
WRITES = 3  # turns in which tokens are written: each of them reads the whole context first


def time_in_turns(runs: Sequence[Run], turns: int) -> None:
    """Time a training step of every run in every turn, and leave the medians in their folders, as timing.json: a run's own, and
    the step_ms of all that it was timed beside.

    Every other turn goes backwards. The models begin as the runs did; what they learn here is lost.
    Raises: OSError: nothing can be written. RecordError: the record of one of them is damaged.
    """
    keep_memory()
    models = [Timed(run) for run in runs]
    for turn in range(WARM_UP + turns):
        for model in models if turn % 2 else reversed(models):
            model.step(turn)
    for _ in range(WRITES):
        for model in models:
            model.write()
    results = [model.result() for model in models]
    shared = {
        "turns": turns,
        "session": f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {runs[0].identity[:8]}",
        "beside": {run.identity: result["step_ms"] for run, result in zip(runs, results, strict=True)},
    }
    for run, result in zip(runs, results, strict=True):
        record.write_json(run.folder / record.TIMING, {**result, **shared})


class Timed:
    """A run's model as it began, and how long its steps took."""

    def __init__(self, run: Run) -> None:
        self.run, self.device = run, pick_device(run.machine.device)
        self.bf16 = run.machine.precision == "bf16"
        self.data = load_data(run)
        self.task = build_task(run, self.data)
        begin(self.task, run)
        self.task.to(self.device).train()
        self.optimiser = build_optimiser(run, self.task)
        if run.machine.compile:
            compile_layers(self.task)
        self.steps: list[float] = []  # milliseconds, warm-up included
        self.tokens: list[float] = []
        self.writes: list[float] = []

    def step(self, number: int) -> None:
        settings, window = self.run.settings, Window.opened(self.device)
        synchronise(self.device)
        start = time.perf_counter()
        batch = self.data.batch(seed=self.run.seed, step=number, batch_size=settings.batch_size, seq_len=settings.seq_len)
        train_step(self.task, self.optimiser, batch, settings, self.autocast(), window)
        synchronise(self.device)
        self.steps.append(1000 * (time.perf_counter() - start))
        self.tokens.append(window.tokens)

    def autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def write(self) -> None:
        if self.run.settings.decode_tokens:
            self.writes.append(writing_ms(self.task, self.data, self.run, self.device))

    def result(self) -> dict[str, Any]:
        step_ms = statistics.median(self.steps[WARM_UP:])
        rate = 1000 * statistics.fmean(self.tokens[WARM_UP:]) / step_ms
        peak = record.read_json(self.run.folder / record.ENV)["peak_flops"]
        return {
            "step_ms": step_ms,
            "tokens_per_s": rate,
            "mfu": self.task.train_flops(self.run.settings.seq_len) * rate / peak,
            "decode_ms": statistics.median(self.writes) if self.writes else None,
        }
