"""The training loop: plain arguments in, an outcome out. It knows nothing of configs, folders or sweeps.

One step: a batch that is a function of (seed, step), one backward per piece of it, one update. Inside a step nothing
waits for the device; numbers are read only where a row of metrics is due.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch.contracts import Router, Routing
from arch.ffn import MoE
from arch.init import stream
from arch.losses import load_balance_loss, router_z_loss
from arch.model import Decoder
from arch.routing import dropped, entropy, load, pop_routings

from .data.contract import IGNORED, Batch, Data
from .measure import synchronise, train_flops
from .schedule import Schedule

EXPLODED = 3.0  # a training loss of this many times a uniform guess counts as divergence


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long, on how much, and how often it is looked at. Counts are steps unless they say otherwise.

    batch_size: sequences per step, cut into ``accumulate`` pieces. seq_len: tokens. clip: largest gradient norm, None =
    no clipping. eval_batches: held-out batches. checkpoint_every: 0 = only at the end, None = never.
    load_balance, router_z: weights of the routers' losses.
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

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "seq_len", "accumulate", "log_every", "eval_every", "eval_batches"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}={getattr(self, key)}: at least 1 is needed")
        for key in ("checkpoint_every", "load_balance", "router_z"):
            if (getattr(self, key) or 0) < 0:
                raise ValueError(f"{key}={getattr(self, key)}: at least 0 is needed")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip={self.clip}: a norm above 0 is needed, or null for no clipping")
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate={self.accumulate} does not divide batch_size={self.batch_size}")

    @property
    def tokens(self) -> int:
        """Per step."""
        return self.batch_size * self.seq_len

    def evaluates(self, done: int) -> bool:
        return done == self.steps or done % self.eval_every == 0

    def saves(self, done: int) -> bool:
        if self.checkpoint_every is None:
            return False
        return done == self.steps or (self.checkpoint_every > 0 and done % self.checkpoint_every == 0)

    def logs(self, done: int) -> bool:
        return done % self.log_every == 0 or self.evaluates(done) or self.saves(done)


class Keeper(Protocol):
    """Whoever keeps what a run leaves: rows of metrics, and the state to go on from."""

    def log(self, row: dict[str, Any]) -> None: ...
    def save(self, step: int, seconds: float) -> None: ...


@dataclass
class Outcome:
    """How a run ended, and what it measured on the way."""

    status: str  # done or diverged
    error: str | None
    metrics: dict[str, float]
    seconds: float


@dataclass
class Window:
    """What has come up since the last row of metrics: sums on the device, read once."""

    loss: Tensor
    norm: Tensor  # of the last step's gradient
    steps: int = 0
    loads: dict[str, Tensor] = field(default_factory=dict)
    routings: dict[str, Routing] = field(default_factory=dict)  # of the last piece
    tick: float = field(default_factory=time.perf_counter)

    @classmethod
    def opened(cls, device: torch.device) -> Window:
        return cls(torch.zeros((), device=device), torch.zeros((), device=device))


def fit(
    *,
    model: Decoder,
    data: Data,
    optimiser: Any,
    schedule: Schedule,
    settings: Settings,
    keeper: Keeper,
    device: torch.device,
    bf16: bool,
    seed: int,
    start: int = 0,
    seconds: float = 0.0,
) -> Outcome:
    """Train in place, from step ``start`` (``seconds`` of training lie behind it) to settings.steps."""
    rates = [group["lr"] for group in optimiser.param_groups]
    amp = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    flops = settings.tokens * train_flops(model.cost(settings.seq_len).flops)
    limit = EXPLODED * math.log(data.vocab_size)
    metrics: dict[str, float] = {}

    def diverged(which: str, loss: float) -> Outcome:
        error = f"{which} loss {loss:.4g} at step {done}: above {limit:.2f}, {EXPLODED:g} times a uniform guess"
        return Outcome("diverged", error, metrics, seconds)

    model.train()
    window = Window.opened(device)
    for step in range(start, settings.steps):
        factor = schedule(step, settings.steps)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        torch.manual_seed(stream(seed, "step", step))  # dropout and router noise: a function of (seed, step) too
        batch = data.batch(seed=seed, step=step, batch_size=settings.batch_size, seq_len=settings.seq_len)
        train_step(model, optimiser, batch, settings, amp, window)

        done = step + 1
        if not settings.logs(done):
            continue
        loss = window.loss.item() / window.steps  # here the host waits for the device
        synchronise(device)
        spent = time.perf_counter() - window.tick
        seconds += spent
        so_far = {"step": done, "tokens": done * settings.tokens, "flops": done * flops, "seconds": seconds}
        row = {
            "loss": loss,
            "lr": rates[0] * factor,
            "grad_norm": window.norm.item(),
            "tokens_per_s": window.steps * settings.tokens / spent,
        }
        keeper.log({**so_far, "split": "train", **row})
        for layer in routing_rows(window):
            keeper.log({**so_far, "split": "routing", **layer})
        if not loss <= limit:
            return diverged("training", loss)
        if settings.evaluates(done):
            with amp:
                metrics = evaluate(model, data, settings, device)
            keeper.log({**so_far, "split": "val", **metrics})
            if not metrics["loss"] <= limit:
                return diverged("validation", metrics["loss"])
        if settings.saves(done):
            keeper.save(done, seconds)
        window = Window.opened(device)
    if start == settings.steps:  # all was trained before, but not told
        with amp:
            metrics = evaluate(model, data, settings, device)
    return Outcome("done", None, metrics, seconds)


def train_step(model: Decoder, optimiser: Any, batch: Batch, settings: Settings, amp: Any, window: Window) -> None:
    """One update, added to the window. The host asks for nothing back."""
    loads: dict[str, Tensor] = {}
    for piece, n_targets in pieces(batch, settings.accumulate, window.loss.device):
        with amp:
            loss = summed_loss(model(piece.tokens, positions=piece.positions), piece.targets) / n_targets
            window.loss += loss.detach()  # the routers' losses are left out: arms are compared by what they predict
            window.routings = pop_routings(model)
            for name, routing in window.routings.items():  # the mean over layers and pieces
                extra = settings.router_z * router_z_loss(routing)
                if not router_of(model, name).balances_itself:
                    extra = extra + settings.load_balance * load_balance_loss(routing)
                loss = loss + extra / (len(window.routings) * settings.accumulate)
                loads[name] = loads.get(name, 0) + load(routing)
        loss.backward()
    window.norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if settings.clip is None else settings.clip)
    optimiser.step()
    optimiser.zero_grad()
    for name, counts in loads.items():
        router_of(model, name).after_step(counts)
        window.loads[name] = window.loads.get(name, 0) + counts
    window.steps += 1


def router_of(model: Decoder, name: str) -> Router:
    return cast(MoE, model.get_submodule(name)).router


def pieces(batch: Batch, n: int, device: torch.device) -> Iterator[tuple[Batch, int]]:
    """Cut a batch into n equal parts on the device, each with the number of targets in the whole batch."""
    n_targets = int((batch.targets != IGNORED).sum())  # on the host: nothing waits
    rows = batch.tokens.shape[0] // n
    for i in range(n):
        tokens, targets, positions = (t if t is None else to_device(t[i * rows : (i + 1) * rows], device) for t in batch)
        assert tokens is not None and targets is not None
        yield Batch(tokens, targets, positions), n_targets


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def summed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy summed over what is asked, in fp32. logits: (b, s, vocab), targets: (b, s)."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def routing_rows(window: Window) -> Iterator[dict[str, Any]]:
    """One row per MoE layer: loads and dead experts over the window, entropy and dropped share of its last piece."""
    for name, counts in window.loads.items():
        routing = window.routings[name]
        total = counts.sum().clamp(min=1)
        yield {
            "layer": name,
            "load": [round(share, 6) for share in (counts / total).tolist()],
            "entropy": entropy(routing).item(),
            "dropped": dropped(routing).item(),
            "dead": int((counts == 0).sum()),
        }


@torch.no_grad()
def evaluate(model: Decoder, data: Data, settings: Settings, device: torch.device) -> dict[str, float]:
    """Held-out loss in nats per token, accuracy of the likeliest token, and bits per byte where tokens are text."""
    model.eval()
    nats = correct = asked = n_bytes = torch.zeros((), dtype=torch.float64)
    batches = data.evaluation(n_batches=settings.eval_batches, batch_size=settings.batch_size, seq_len=settings.seq_len)
    for whole in batches:
        ((batch, n_targets),) = pieces(whole, 1, device)
        logits = model(batch.tokens, positions=batch.positions)
        nats = nats + summed_loss(logits, batch.targets).cpu()
        correct = correct + (logits.argmax(-1) == batch.targets).sum().cpu()
        asked = asked + n_targets
        if data.token_bytes is not None:
            n_bytes = n_bytes + data.token_bytes[whole.targets[whole.targets != IGNORED]].sum()
    pop_routings(model)
    model.train()
    metrics = {"loss": (nats / asked).item(), "accuracy": (correct / asked).item()}
    if data.token_bytes is not None:
        metrics["bits_per_byte"] = (nats / n_bytes).item() / math.log(2)
    return metrics
