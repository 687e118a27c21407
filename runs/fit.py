"""The training loop: plain arguments in, an outcome out. It knows nothing of configs, folders or sweeps.

One step: a batch that is a function of (seed, step), one backward per piece of it, one update. Inside a step nothing
waits for the device; numbers are read only where a row of metrics is due.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch.contracts import Routing
from arch.init import stream
from arch.losses import load_balance_loss, router_z_loss
from arch.routing import dropped, entropy, load, pop_routings

from .data.contract import IGNORED, Batch, Data
from .measure import synchronise, train_flops
from .schedule import Schedule

EXPLODED = 3.0  # a training loss of this many times a uniform guess counts as divergence


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
    tokens_per_s: float | None


@dataclass
class Window:
    """What has come up since the last row of metrics: sums on the device, read once."""

    loss: Tensor
    steps: int = 0
    loads: dict[str, Tensor] = field(default_factory=dict)
    routings: dict[str, Routing] = field(default_factory=dict)  # of the last step


def fit(
    *,
    model: nn.Module,
    data: Data,
    optimiser: Any,
    schedule: Schedule,
    keeper: Keeper,
    device: torch.device,
    bf16: bool,
    seed: int,
    start: int,
    seconds: float,
    steps: int,
    batch_size: int,
    seq_len: int,
    accumulate: int,
    clip: float | None,
    log_every: int,
    eval_every: int,
    eval_batches: int,
    checkpoint_every: int | None,
    load_balance: float,
    router_z: float,
) -> Outcome:
    """Train in place, from step ``start`` to ``steps``.

    Args:   start, seconds: steps taken and seconds trained before, by the checkpoint. accumulate: pieces of a batch.
            clip: largest gradient norm; None = no clipping. load_balance, router_z: weights of the routers' losses.
    """
    rates = [group["lr"] for group in optimiser.param_groups]
    amp = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    tokens = batch_size * seq_len
    flops = tokens * train_flops(model.cost(seq_len).flops)
    limit = EXPLODED * math.log(data.vocab_size)
    speeds: list[float] = []
    metrics: dict[str, float] = {}

    model.train()
    window, tick = Window(torch.zeros((), device=device)), time.perf_counter()
    for step in range(start, steps):
        torch.manual_seed(stream(seed, "step", step))  # dropout and router noise: a function of (seed, step) too
        batch = data.batch(seed=seed, step=step, batch_size=batch_size, seq_len=seq_len)
        loads: dict[str, Tensor] = {}
        for piece, n_targets in pieces(batch, accumulate, device):
            with amp:
                loss, routings = piece_loss(model, piece, n_targets, accumulate, load_balance, router_z)
            loss.backward()
            window.loss += loss.detach()
            for name, routing in routings.items():
                loads[name] = loads.get(name, 0) + load(routing)
        norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if clip is None else clip)
        factor = schedule(step, steps)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        optimiser.step()
        optimiser.zero_grad()
        for name, counts in loads.items():
            model.get_submodule(name).router.after_step(counts)  # type: ignore[operator, union-attr]
            window.loads[name] = window.loads.get(name, 0) + counts
        window.steps += 1
        window.routings = routings

        done, last = step + 1, step + 1 == steps
        evaluating = last or done % eval_every == 0
        saving = checkpoint_every is not None and (last or (checkpoint_every > 0 and done % checkpoint_every == 0))
        if not (evaluating or saving or done % log_every == 0):
            continue
        mean_loss = window.loss.item() / window.steps  # here the host waits for the device
        synchronise(device)
        spent = time.perf_counter() - tick
        seconds += spent
        speeds.append(window.steps * tokens / spent)
        so_far = {"step": done, "tokens": done * tokens, "flops": done * flops, "seconds": seconds}
        row = {"loss": mean_loss, "lr": rates[0] * factor, "grad_norm": norm.item(), "tokens_per_s": speeds[-1]}
        keeper.log({**so_far, "split": "train", **row})
        for layer in routing_rows(window):
            keeper.log({**so_far, "split": "routing", **layer})
        if not mean_loss <= limit:
            error = f"training loss {mean_loss:.4g} at step {done}: above {limit:.2f}, {EXPLODED:g} times a uniform guess"
            return Outcome("diverged", error, metrics, seconds, usual(speeds))
        if evaluating:
            with amp:
                metrics = evaluate(model, data, device, eval_batches, batch_size, seq_len)
            keeper.log({**so_far, "split": "val", **metrics})
        if saving:
            keeper.save(done, seconds)
        window, tick = Window(torch.zeros((), device=device)), time.perf_counter()
    return Outcome("done", None, metrics, seconds, usual(speeds))


def pieces(batch: Batch, accumulate: int, device: torch.device) -> Iterator[tuple[Batch, int]]:
    """Cut a batch into equal parts on the device, each with the number of targets in the whole batch."""
    n_targets = int((batch.targets != IGNORED).sum())  # on the host: nothing waits
    rows = batch.tokens.shape[0] // accumulate
    for i in range(accumulate):
        part = [None if t is None else to_device(t[i * rows : (i + 1) * rows], device) for t in batch]
        yield Batch(*part), n_targets


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def piece_loss(
    model: nn.Module, batch: Batch, n_targets: int, n_pieces: int, load_balance: float, router_z: float
) -> tuple[Tensor, dict[str, Routing]]:
    """The loss of one piece as its share of the batch's mean, and what the routers decided."""
    logits = model(batch.tokens, positions=batch.positions)
    loss = summed_loss(logits, batch.targets) / n_targets
    routings = pop_routings(model)
    for routing in routings.values():
        extra = load_balance * load_balance_loss(routing) + router_z * router_z_loss(routing)
        loss = loss + extra / (len(routings) * n_pieces)  # the mean over layers and pieces
    return loss, routings


def summed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy summed over what is asked, in fp32. logits: (b, s, vocab), targets: (b, s)."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def routing_rows(window: Window) -> Iterator[dict[str, Any]]:
    """One row per MoE layer: loads and dead experts over the window, entropy and dropped share of its last step."""
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
def evaluate(
    model: nn.Module, data: Data, device: torch.device, n_batches: int, batch_size: int, seq_len: int
) -> dict[str, float]:
    """Held-out loss in nats per token, accuracy of the likeliest token, and bits per byte where tokens are text."""
    model.eval()
    nats = correct = asked = n_bytes = torch.zeros((), dtype=torch.float64)
    for whole in data.evaluation(n_batches=n_batches, batch_size=batch_size, seq_len=seq_len):
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


def usual(speeds: list[float]) -> float | None:
    """The median rate, without the first window, in which kernels are compiled and caches filled."""
    return statistics.median(speeds[1:] or speeds) if speeds else None
