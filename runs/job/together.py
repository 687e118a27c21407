"""Several runs that differ in seed and rates alone, trained at once; each leaves the record that it would leave alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..objective import Task
from ..training.device import pick_device
from ..training.evaluation import pieces
from ..training.fit import Step, Window, forward
from ..training.memory import GIB
from ..training.together import Weights, forward_together, pieces_together, together
from .check import check, refuse_bytes
from .execute import Peak, one_line, refuse_to_go_on, work
from .run import Run
from .start import begin, build_optimiser, build_task, load_data
from .stop import Patience

KNOWN = {  # words of torch.vmap -> what they mean here
    "random operation": "a step draws random numbers (dropout, or a noisy router)",
    "setup_context": "an operation in it is written for one model at a time",
    "Batching rule not implemented": "torch has no rule for an operation in it",
}
NEAR = {"fp32": 1e-3, "bf16": 0.1}  # relative distance of two gradients that are the same but for rounding


def execute_together(runs: Sequence[Run], peak: Peak | None = None) -> list[dict[str, Any] | Exception]:
    """As ``execute`` for each run: its summary, or what it would raise. Raises Stopped as it does."""
    patience = Patience()
    found = together([work(run, lambda row: None, peak, patience, len(runs)) for run in runs])
    refuse_to_go_on(patience, [one for one in found if not isinstance(one, Exception)])
    return found


def obstacle(runs: Sequence[Run]) -> str | None:
    """Why these runs cannot be trained at once, in one line; None: they can. Found by trying: the gradients of their first step
    are taken both ways."""
    first = runs[0]
    if first.machine.compile:
        return "train.compile=true"
    try:
        needed = len(runs) * check(first).memory.least
        refuse_bytes(first, needed, f"{len(runs)} of them take at least {needed / GIB:,.2f} GiB")
        with warnings.catch_warnings():  # torch.vmap calls what it has no rule for model by model
            warnings.filterwarnings("error", message="There is a performance drop")
            return difference([first_step(run) for run in runs], NEAR[first.machine.precision])
    except Exception as error:
        known = next((why for words, why in KNOWN.items() if words in str(error)), None)
        return known or one_line(error).partition(". ")[0]


def first_step(run: Run) -> Step:
    device, settings, data = pick_device(run.machine.device), run.settings, load_data(run)
    task = build_task(run, data)
    begin(task, run)
    task.to(device).train()
    batch = data.batch(seed=run.seed, step=0, batch_size=settings.batch_size, seq_len=settings.seq_len)
    amp = torch.autocast(device.type, torch.bfloat16, enabled=run.machine.precision == "bf16")
    return Step(task, build_optimiser(run, task), batch, settings, amp, Window.opened(device))


def difference(steps: Sequence[Step], near: float) -> str | None:
    """Between the gradients that the tasks have alone and at once, where there is one."""
    expected = []
    for step in steps:
        piece, counts = next(pieces(step.task, step.batch, step.settings.accumulate, step.window.norm.device))
        forward(step.task, piece, counts, step.settings, step.amp).loss.backward()
        expected.append(taken(step.task))
    weights = Weights([step.task for step in steps])
    of_all, counts_of_all = next(pieces_together(steps))
    forward_together(weights, of_all, counts_of_all, steps[0].settings, steps[0].amp).loss.sum().backward()
    weights.give_gradients()
    far = max(distance(taken(step.task), one) for step, one in zip(steps, expected, strict=True))
    return None if far <= near else f"its gradients come out otherwise then, by {far:.1g} of their length"


def taken(task: Task) -> list[Tensor | None]:
    """The gradients, which are gone then."""
    found = [parameter.grad for parameter in task.parameters()]
    task.zero_grad()
    return found


def distance(ours: Sequence[Tensor | None], theirs: Sequence[Tensor | None]) -> float:
    """Relative; infinite where only one of the two has a tensor, or there is no number."""
    if [t is None for t in ours] != [t is None for t in theirs]:
        return math.inf
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    length = math.hypot(*(b.norm().item() for _, b in pairs))
    gap = math.hypot(*((a - b).norm().item() for a, b in pairs))
    return gap / max(length, 1e-30) if math.isfinite(gap) else math.inf
