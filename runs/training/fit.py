"""The training loop: plain arguments in, an outcome out. It knows nothing of configs, folders or sweeps.

One step: a batch that is a function of (seed, step), one backward per piece of it, one update. Inside a step nothing
waits for the device; numbers are read only where a row of metrics is due.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from arch.contracts import Routing
from arch.init import stream
from arch.routing import load, pop_routings

from ..data.contract import Batch, Data
from ..objective import Task
from .evaluation import evaluate, loss_of, losses, named, pieces, weighted
from .measure import synchronise
from .optim import Optimiser
from .router_losses import after_step, router_of, routing_loss, routing_rows
from .schedule import Schedule

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

    @classmethod
    def opened(cls, device: torch.device) -> Window:
        return cls(torch.zeros((), device=device), torch.zeros((), device=device))

    def rates(self, seconds: float) -> dict[str, float]:
        return {
            "grad_norm": self.norm.item(),
            "tokens_per_s": self.tokens / seconds,
            "step_ms": 1000 * seconds / self.steps,
        }

    def means(self) -> dict[str, float]:
        """Each term's loss per step; here the host waits for the device."""
        return {named(name, "loss"): loss.item() / self.steps for name, loss in self.losses.items()}


def fit(
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
) -> Outcome:
    """Train in place, from where ``start`` has come to settings.steps. Rows of metrics count real tokens, and FLOPs by them."""
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
        train_step(task, optimiser, batch, settings, amp, window)

        done = step + 1
        stopping = done < settings.steps and recorder.asked_to_stop()
        if not settings.logs(done) and not stopping:
            continue
        means = window.means()
        synchronise(device)
        spent = time.perf_counter() - window.tick
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


def train_step(task: Task, optimiser: Optimiser, batch: Batch, settings: Settings, amp: Any, window: Window) -> None:
    """One update, added to the window. The host asks for nothing back."""
    loads: dict[str, Tensor] = {}
    step_loss = torch.zeros_like(window.worst)
    for piece, counts in pieces(task, batch, settings.accumulate, window.norm.device):
        with amp:
            parts = losses(task, piece, counts)
            for name, part in parts.items():  # the routers' losses are left out: arms are compared by what they predict
                window.losses[name] = window.losses.get(name, 0) + part.detach()
            step_loss += next(iter(parts.values())).detach()
            loss = weighted(task, parts)
            window.routings = pop_routings(task.model)
            for name, routing in window.routings.items():  # the mean over layers and pieces
                weights = {"load_balance": settings.load_balance, "router_z": settings.router_z}
                extra = routing_loss(router_of(task.model, name), routing, **weights)
                loss = loss + extra / (len(window.routings) * settings.accumulate)
                loads[name] = loads.get(name, 0) + load(routing)
        loss.backward()
    window.norm = nn.utils.clip_grad_norm_(task.parameters(), math.inf if settings.clip is None else settings.clip)
    optimiser.step()
    optimiser.zero_grad()
    for name, counted in loads.items():
        after_step(router_of(task.model, name), counted)
        window.loads[name] = window.loads.get(name, 0) + counted
    window.worst = torch.maximum(window.worst, step_loss)
    window.steps += 1
    window.tokens += task.tokens(batch)
