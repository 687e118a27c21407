"""The training loop: plain arguments in, an outcome out. It knows nothing of configs, folders or sweeps.

One step: a batch that is a function of (seed, step), one backward per piece of it, one update. Inside a step nothing
waits for the device; numbers are read only where a row of metrics is due.

A run is a course of steps that it asks for and somebody else takes, so that the steps of several runs can be taken at once
(``together``) and all else is written for one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Generic, NamedTuple, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor, nn

from arch.contracts import Routing
from arch.init import stream
from arch.routing import load, pop_routings

from ..data.contract import Batch, Data
from ..objective import Task
from .evaluation import Counts, evaluate, loss_of, losses, named, pieces, weighted
from .measure import synchronise
from .optim import Optimiser
from .router_losses import after_step, router_of, routing_loss, routing_rows
from .schedule import Schedule

P = ParamSpec("P")
T = TypeVar("T")
EXPLODED = 3.0  # a training loss of this many times a uniform guess counts as divergence


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long, on how much, and how often it is looked at. Counts are steps unless they say otherwise.

    batch_size: sequences per step, cut into ``accumulate`` pieces. seq_len: tokens. clip: largest gradient norm, None =
    no clipping. eval_batches: held-out batches. checkpoint_every: 0 = only at the end, None = never.
    load_balance, router_z: weights of the routers' losses. decode_tokens: written after training, to see how fast; the loop
    does not read it.
    """

    steps: int
    batch_size: int
    seq_len: int
    accumulate: int
    clip: float | None
    log_every: int
    eval_every: int
    eval_batches: int
    checkpoint_every: int | None
    load_balance: float
    router_z: float
    decode_tokens: int = 0

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "seq_len", "accumulate", "log_every", "eval_every", "eval_batches"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}={getattr(self, key)}: at least 1 is needed")
        for key in ("checkpoint_every", "load_balance", "router_z", "decode_tokens"):
            if (getattr(self, key) or 0) < 0:
                raise ValueError(f"{key}={getattr(self, key)}: at least 0 is needed")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip={self.clip}: a norm above 0 is needed, or null for no clipping")
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate={self.accumulate} does not divide batch_size={self.batch_size}")

    @property
    def tokens(self) -> int:
        """Per step, where every row is full."""
        return self.batch_size * self.seq_len

    def evaluates(self, done: int) -> bool:
        return done == self.steps or done % self.eval_every == 0

    def saves(self, done: int) -> bool:
        if self.checkpoint_every is None:
            return False
        return done == self.steps or (self.checkpoint_every > 0 and done % self.checkpoint_every == 0)

    def logs(self, done: int) -> bool:
        return done % self.log_every == 0 or self.evaluates(done) or self.saves(done)


@dataclass(frozen=True)
class Progress:
    """How far a run has come. tokens: real ones, padding left out."""

    step: int = 0
    seconds: float = 0.0
    tokens: float = 0


START = Progress()


class Recorder(Protocol):
    """Takes what a run leaves: rows of metrics, and the state to go on from. It is asked after each step whether to stop."""

    def log(self, row: dict[str, Any]) -> None: ...
    def save(self, progress: Progress) -> None: ...

    def asked_to_stop(self) -> bool: ...


@dataclass
class Outcome:
    """How a run ended, and what it measured on the way."""

    status: str  # done, diverged or unfinished
    error: str | None
    metrics: dict[str, float]
    progress: Progress


class Passed(NamedTuple):
    """What a piece of a batch has come to. loss: with the routers' own. parts: each term of the task's. loads: of experts."""

    loss: Tensor
    parts: dict[str, Tensor]
    routings: dict[str, Routing]
    loads: dict[str, Tensor]


@dataclass
class Window:
    """What has come up since the last row of metrics: sums on the device, read once."""

    norm: Tensor  # of the last step's gradient
    worst: Tensor  # loss of a step, so that a divergence is found however seldom rows are due
    losses: dict[str, Tensor] = field(default_factory=dict)  # of each term
    steps: int = 0
    tokens: float = 0  # real ones: padding is no work done
    loads: dict[str, Tensor] = field(default_factory=dict)
    routings: dict[str, Routing] = field(default_factory=dict)  # of the last piece
    tick: float = field(default_factory=time.perf_counter)
    under_way: list[tuple[Tensor, dict[str, Tensor]]] = field(default_factory=list)  # loss and loads of a step's pieces

    @classmethod
    def opened(cls, device: torch.device) -> Window:
        return cls(torch.zeros((), device=device), torch.zeros((), device=device))

    def add(self, made: Passed) -> None:
        """A piece of the step under way."""
        for name, part in made.parts.items():  # the routers' losses are left out: arms are compared by what they predict
            self.losses[name] = self.losses.get(name, 0) + part.detach()
        self.routings = made.routings
        self.under_way.append((next(iter(made.parts.values())).detach(), made.loads))

    def close_step(self, tokens: float) -> dict[str, Tensor]:
        """All its pieces are there. The load of every expert in it."""
        pieces = [loss for loss, _ in self.under_way]
        self.worst = torch.maximum(self.worst, sum(pieces, torch.zeros_like(self.worst)))
        step: dict[str, Tensor] = {}
        for _, loads in self.under_way:
            for name, counted in loads.items():
                step[name] = step.get(name, 0) + counted
        for name, counted in step.items():
            self.loads[name] = self.loads.get(name, 0) + counted
        self.under_way = []
        self.steps += 1
        self.tokens += tokens
        return step

    def rates(self, seconds: float) -> dict[str, float]:
        return {
            "grad_norm": self.norm.item(),
            "tokens_per_s": self.tokens / seconds,
            "step_ms": 1000 * seconds / self.steps,
        }

    def means(self) -> dict[str, float]:
        """Each term's loss per step; here the host waits for the device."""
        return {named(name, "loss"): loss.item() / self.steps for name, loss in self.losses.items()}


class Step(NamedTuple):
    """A step that is due: what ``train_step`` takes. window: what it is added to."""

    task: Task
    optimiser: Optimiser
    batch: Batch
    settings: Settings
    amp: Any
    window: Window


Course = Generator[Step, None, T]  # asks for steps, which have been taken when it goes on; what comes of it in the end


def course(
    *,
    task: Task,
    data: Data,
    optimiser: Optimiser,
    schedule: Schedule,
    settings: Settings,
    recorder: Recorder,
    device: torch.device,
    bf16: bool,
    seed: int,
    start: Progress = START,
    n_stacked: int = 1,
) -> Course[Outcome]:
    """Train in place, from where ``start`` has come to settings.steps. Rows of metrics count real tokens, and FLOPs by them.

    n_stacked: courses whose steps are taken at once: each is charged an equal share of the seconds.
    """
    rates = [group["lr"] for group in optimiser.param_groups]
    amp = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    flops = task.train_flops(settings.seq_len)
    progress = start
    limit = EXPLODED * math.log(data.vocab_size)
    metrics: dict[str, float] = {}

    def held_out() -> dict[str, float]:
        sizes = {"n_batches": settings.eval_batches, "batch_size": settings.batch_size, "seq_len": settings.seq_len}
        with amp:
            return evaluate(task, data, **sizes, device=device)

    def learnt(batch: Batch) -> float:
        """Held-out rows may be of a kind that was never met, as longer ones: to fail on those alone is no divergence."""
        with amp:
            return loss_of(task, batch, device)

    def diverged(which: str, loss: float) -> Outcome:
        error = f"{which} loss {loss:.4g} at step {done}: above {limit:.2f}, {EXPLODED:g} times a uniform guess"
        return Outcome("diverged", error, metrics, progress)

    task.train()
    window = Window.opened(device)
    for step in range(start.step, settings.steps):
        factor = schedule(step, settings.steps)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        torch.manual_seed(stream(seed, "step", step))  # dropout and router noise: a function of (seed, step) too
        batch = data.batch(seed=seed, step=step, batch_size=settings.batch_size, seq_len=settings.seq_len)
        yield Step(task, optimiser, batch, settings, amp, window)

        done = step + 1
        stopping = done < settings.steps and recorder.asked_to_stop()
        if not settings.logs(done) and not stopping:
            continue
        means = window.means()
        synchronise(device)
        spent = (time.perf_counter() - window.tick) / n_stacked
        progress = Progress(done, progress.seconds + spent, progress.tokens + window.tokens)
        so_far = {**vars(progress), "flops": progress.tokens * flops}
        recorder.log({**so_far, "split": "train", **means, "lr": rates[0] * factor, **window.rates(spent)})
        for layer in routing_rows(window.loads, window.routings):
            recorder.log({**so_far, "split": "routing", **layer})
        if not (worst := window.worst.item()) <= limit:
            return diverged("training", worst)
        if settings.evaluates(done):
            metrics = held_out()
            recorder.log({**so_far, "split": "val", **metrics})
            if not metrics["loss"] <= limit and not learnt(batch) <= limit:
                return diverged("validation", metrics["loss"])
        if settings.saves(done) or (stopping and settings.checkpoint_every is not None):
            recorder.save(progress)
        if stopping:
            return Outcome("unfinished", f"stopped at step {done} of {settings.steps}", metrics, progress)
        window = Window.opened(device)
    if start.step == settings.steps:  # all was trained before, and no summary written
        metrics = held_out()
    return Outcome("done", None, metrics, progress)


@dataclass(frozen=True)
class Ended(Generic[T]):
    """A course that asks for nothing more."""

    value: T


def onward(going: Course[T], error: Exception | None = None) -> Step | Ended[T]:
    """The next step that a course asks for. error: what came of the last one, if it could not be taken."""
    try:
        return next(going) if error is None else going.throw(error)
    except StopIteration as end:
        return Ended(end.value)


def alone(course: Callable[P, Course[T]]) -> Callable[P, T]:
    """As a function that takes the steps itself."""

    @wraps(course)
    def taken(*args: P.args, **kwargs: P.kwargs) -> T:
        with closing(course(*args, **kwargs)) as going:
            due = onward(going)
            while not isinstance(due, Ended):
                try:
                    train_step(*due)
                except Exception as error:
                    due = onward(going, error)
                else:
                    due = onward(going)
            return due.value

    return taken


def train_step(task: Task, optimiser: Optimiser, batch: Batch, settings: Settings, amp: Any, window: Window) -> None:
    """One update, added to the window. The host asks for nothing back."""
    for piece, counts in pieces(task, batch, settings.accumulate, window.norm.device):
        made = forward(task, piece, counts, settings, amp)
        made.loss.backward()
        window.add(made)
    update(task, task.parameters(), optimiser, batch, settings, window)


def forward(task: Task, piece: Batch, counts: Counts, settings: Settings, amp: Any) -> Passed:
    with amp:
        parts = losses(task, piece, counts)
        loss = weighted(task, parts)
        routings = pop_routings(task.model)
        weights = {"load_balance": settings.load_balance, "router_z": settings.router_z}
        for name, routing in routings.items():  # the mean over layers and pieces
            extra = routing_loss(router_of(task.model, name), routing, **weights)
            loss = loss + extra / (len(routings) * settings.accumulate)
        return Passed(loss, parts, routings, {name: load(routing) for name, routing in routings.items()})


def update(
    task: Task, parameters: Iterable[Tensor], optimiser: Optimiser, batch: Batch, settings: Settings, window: Window
) -> None:
    """By the gradients of all pieces. parameters: the task's."""
    window.norm = nn.utils.clip_grad_norm_(parameters, math.inf if settings.clip is None else settings.clip)
    optimiser.step()
    optimiser.zero_grad()
    for name, counted in window.close_step(task.tokens(batch)).items():
        after_step(router_of(task.model, name), counted)


fit = alone(course)
