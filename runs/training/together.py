"""Several runs in one process, as often as possible by one step for all of them: their models are rows of one.

A small model leaves a GPU idle, and eight of them in one pass take little longer than one. What a run computes is the same but
for rounding: batches, clipping and the optimiser are its own, and so is all that stands around a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from arch.contracts import Routing

from ..data.contract import Batch
from ..objective import Task
from .evaluation import Counts, pieces, to_device
from .fit import Course, Ended, Passed, Settings, Step, forward, onward, train_step, update

T = TypeVar("T")


def together(courses: Sequence[Course[T]]) -> list[T | Exception]:
    """What comes of each of the courses, or what has ended it. Where one ends the others go on; they need not stand at the same
    step."""
    found: dict[int, T | Exception] = {}
    failed: Exception | None = None  # why the last steps could not be taken
    weights: Weights | None = None
    with ExitStack() as open_ones:
        for course in courses:
            open_ones.enter_context(closing(course))
        while going := [i for i in range(len(courses)) if i not in found]:
            due: list[Step] = []
            for i in going:
                try:
                    step = onward(courses[i], failed)
                except Exception as error:
                    found[i] = error
                    continue
                if isinstance(step, Ended):
                    found[i] = step.value
                else:
                    due.append(step)
            tasks, failed = [step.task for step in due], None
            try:
                if len(due) > 1 and one_shape(due):
                    weights = weights if weights is not None and weights.tasks == tasks else Weights(tasks)
                    train_steps(due, weights)
                else:
                    for step in due:
                        train_step(*step)
            except Exception as error:
                failed = error
    return [found[i] for i in range(len(courses))]


def one_shape(steps: Sequence[Step]) -> bool:
    """Of all batches; not where rows are as long as their texts."""
    return len({tuple(None if t is None else t.shape for t in step.batch) for step in steps}) == 1


def train_steps(steps: Sequence[Step], weights: Weights) -> None:
    """``train_step`` for the tasks that have these weights."""
    for piece, counts in pieces_together(steps):
        made = forward_together(weights, piece, counts, steps[0].settings, steps[0].amp)
        made.loss.sum().backward()
        for i, step in enumerate(steps):
            step.window.add(row(made, i))
    weights.give_gradients()
    for step, own in zip(steps, weights.rows, strict=True):
        update(step.task, own, step.optimiser, step.batch, step.settings, step.window)


def pieces_together(steps: Sequence[Step]) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    """The pieces of all batches, (tasks, ...) each, with the numbers of their targets, (tasks,)."""
    device, n = steps[0].window.norm.device, steps[0].settings.accumulate
    for of_all in zip(*(pieces(step.task, step.batch, n, device) for step in steps), strict=True):
        rows, counts = zip(*of_all, strict=True)
        batch = Batch(*(None if t[0] is None else torch.stack(t) for t in zip(*rows, strict=True)))  # type: ignore[arg-type]
        yield batch, {name: to_device(torch.tensor([own[name] for own in counts]), device) for name in counts[0]}


class Weights:
    """The weights of some tasks, each tensor once for all of them: (tasks, ...). Those of the tasks become rows of it, so that
    whatever changes them, as an optimiser, changes it. What no checkpoint holds, as a table of frequencies, all have in common.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = list(tasks)
        states = [task.state_dict(keep_vars=True) for task in tasks]
        names = {id(tensor): name for name, tensor in states[0].items()}  # one for each: a shared table has several
        self.rows = [[state[name] for name in names.values()] for state in states]  # of each task
        self.whole = [in_one_place(rows) for rows in zip(*self.rows, strict=True)]
        by_id = dict(zip(names, self.whole, strict=True))
        self.named = {name: by_id[id(tensor)] for name, tensor in states[0].items()}

    def give_gradients(self) -> None:
        """To the tasks' own weights, which are those that an optimiser knows."""
        for whole, *rows in zip(self.whole, *self.rows, strict=True):
            if whole.grad is not None:
                for row, grad in zip(rows, whole.grad.unbind(), strict=True):
                    row.grad = grad
                whole.grad = None


def in_one_place(rows: Sequence[Tensor]) -> Tensor:
    """A tensor (tasks, ...) whose rows they are from now on."""
    whole = torch.stack([row.detach() for row in rows])
    for row, own in zip(rows, whole.unbind(), strict=True):
        row.data = own
    return whole.requires_grad_(rows[0].requires_grad)


def forward_together(weights: Weights, piece: Batch, counts: dict[str, Tensor], settings: Settings, amp: Any) -> Passed:
    """``forward`` of every task, in one pass of the first one's modules with the weights of all. (tasks, ...) each."""
    module = Forward(weights.tasks[0], settings, amp)
    given = {f"task.{name}": whole for name, whole in weights.named.items()}
    dims = Batch(*(None if t is None else 0 for t in piece))  # type: ignore[arg-type]
    of_all = torch.vmap(lambda own, *batch: functional_call(module, own, batch, tie_weights=False), in_dims=(0, dims, 0))
    return Passed(*of_all(given, piece, counts))


class Forward(nn.Module):
    """``forward`` as a module's, so that other weights can stand in for its task's."""

    def __init__(self, task: Task, settings: Settings, amp: Any) -> None:
        super().__init__()
        self.task, self.settings, self.amp = task, settings, amp

    def forward(self, piece: Batch, counts: Counts) -> Passed:
        made = forward(self.task, piece, counts, self.settings, self.amp)
        there = {name: tuple(t for t in routing if t is not None) for name, routing in made.routings.items()}
        return made._replace(routings=there)  # type: ignore[arg-type]  # torch.vmap gives back tensors alone


def row(made: Passed, i: int) -> Passed:
    """What a pass of all has come to for one of them."""
    routings = {name: Routing(*(t[i].detach() for t in routing if t is not None)) for name, routing in made.routings.items()}
    parts, loads = ({name: t[i] for name, t in tensors.items()} for tensors in (made.parts, made.loads))
    return Passed(made.loss[i], parts, routings, loads)
