"""The training loop against the bare step: what batches, schedule, clipping and metrics add to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..compose.compose import composed
from ..job.run import Run
from ..job.start import begin, build_optimiser, build_task, load_data
from ..job.timing import Timed
from ..training.fit import Progress, fit
from .case import Bar, Case, Turn, times

STEPS = 5  # of a turn
WORDS = "size=nano mixer=gqa ffn=swiglu norm=rmsnorm position=rotary"
SIZE = "size.d_model=256 size.d_gated=688 size.n_layers=4 size.n_heads=8"
TRAIN = "train.device=cpu train.batch_size=8 train.seq_len=256 train.steps=1000000 train.log_every=10 train.eval_every=1000000"


def cases() -> Iterator[Case]:
    run = composed(f"{WORDS} {SIZE} {TRAIN}".split()).run
    contenders = {"bare steps": bare(run), "the lab's loop": looped(Timed(run), STEPS)}
    bar = Bar("the loop's time over that of bare steps", times("the lab's loop", "bare steps"), at_most=1.02)
    yield Case(f"{STEPS} steps of a decoder, 4 layers of 256", contenders, [bar], {"the lab's loop": "bare steps"})


class Until:
    """A recorder that keeps nothing, and asks to stop after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def log(self, row: dict[str, Any]) -> None: ...

    def save(self, progress: Progress) -> None: ...

    def asked_to_stop(self) -> bool:
        self.left -= 1
        return self.left == 0


def looped(model: Timed, steps: int) -> Turn:
    begun = Progress()

    def turn() -> Sequence[Tensor]:
        nonlocal begun
        outcome = fit(
            task=model.task,
            data=model.data,
            optimiser=model.optimiser,
            schedule=lambda step, steps: 1.0,
            settings=model.run.settings,
            recorder=Until(steps),
            device=model.device,
            bf16=model.bf16,
            seed=model.run.seed,
            start=begun,
        )
        begun = outcome.progress
        return [p.detach() for p in model.task.parameters()]

    return turn


def bare(run: Run) -> Turn:
    """The same batches, made before; forward, backward, clipping and the update, and nothing else."""
    data, settings = load_data(run), run.settings
    task = build_task(run, data)
    begin(task, run)
    model: nn.Module = task.model.train()
    optimiser, step = build_optimiser(run, task), 0
    sizes = {"batch_size": settings.batch_size, "seq_len": settings.seq_len}
    batches = [data.batch(seed=run.seed, step=number, **sizes) for number in range(100)]

    def turn() -> Sequence[Tensor]:
        nonlocal step
        for _ in range(STEPS):
            batch = batches[step % len(batches)]
            logits = model(batch.tokens, positions=batch.positions)
            loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
            loss.backward()
            if settings.clip is not None:
                nn.utils.clip_grad_norm_(task.parameters(), settings.clip)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
        return [p.detach() for p in task.parameters()]

    return turn
