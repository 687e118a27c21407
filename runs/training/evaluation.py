"""The losses of a task: a batch on its way to the device, its cross-entropies, and the held-out metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch.contracts import Position
from arch.model.readout import Readout
from arch.routing import pop_routings

from ..data.contract import IGNORED, Batch, Data
from ..objective import Task

Counts = dict[str, int]  # term -> its targets


def pieces(task: Task, batch: Batch, n: int, device: torch.device) -> Iterator[tuple[Batch, Counts]]:
    """Cut a batch into n equal parts on the device, each with the number of every term's targets in the whole batch.

    Raises ValueError: a position past the end of the model's table.
    """
    refuse_far_positions(task.model, batch)
    counts = {name: int((targets != IGNORED).sum()) for name, targets in task.targets(batch).items()}  # on the host
    rows = batch.tokens.shape[0] // n
    for i in range(n):
        yield Batch(*(None if t is None else to_device(t[i * rows : (i + 1) * rows], device) for t in batch)), counts  # type: ignore[arg-type]


def refuse_far_positions(model: nn.Module, batch: Batch) -> None:
    """Here they are still on the host: on a GPU a kernel would fail at them, and take the process with it."""
    reader, writer = getattr(model, "encoder", model), getattr(model, "decoder", model)
    for positions, part in ((batch.positions, writer), (batch.source_positions, reader)):
        if positions is None or positions.device.type != "cpu" or not positions.numel():
            continue
        last = int(positions.max())
        for module in part.modules():
            if isinstance(module, Position) and module.longest is not None and last >= module.longest:
                raise ValueError(
                    f"position {last} is past the end of the position table: max_seq is {module.longest}, not {last + 1}"
                )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def losses(task: Task, batch: Batch, counts: Counts) -> dict[str, Tensor]:
    """The cross-entropy of each term, summed over this piece and divided by the targets of the whole batch."""
    targets = task.targets(batch)
    answers: dict[str, Readout] = task(batch)
    return {name: one.loss(targets[name], ignore_index=IGNORED) / counts[name] for name, one in answers.items()}


def weighted(task: Task, parts: dict[str, Tensor]) -> Tensor:
    """The loss: the sum of its terms by their weights."""
    first, *rest = (task.terms[name].weight * part for name, part in parts.items())
    return sum(rest, first)


def named(term: str, metric: str) -> str:
    """What a term's metric is called; those of the first term have no prefix."""
    return f"{term}_{metric}" if term else metric


@dataclass
class Tally:
    """What the held-out batches have shown of one term so far, in sums."""

    nats: Tensor
    correct: Tensor
    n_targets: int = 0
    bytes: int = 0

    def metrics(self) -> dict[str, float]:
        """Loss in nats per target, accuracy of the likeliest class; where bytes are known, bits per byte, bytes per token."""
        found = {"loss": (self.nats / self.n_targets).item(), "accuracy": (self.correct / self.n_targets).item()}
        if self.bytes:
            found["bits_per_byte"] = (self.nats / self.bytes).item() / math.log(2)
            found["bytes_per_token"] = self.bytes / self.n_targets
        return found


@torch.no_grad()
def loss_of(task: Task, batch: Batch, device: torch.device) -> float:
    """The first term's on one batch, as it is evaluated."""
    task.eval()
    ((piece, counts),) = pieces(task, batch, 1, device)
    loss = next(iter(losses(task, piece, counts).values())).item()
    pop_routings(task.model)
    task.train()
    return loss


@torch.no_grad()
def evaluate(
    task: Task, data: Data, *, n_batches: int, batch_size: int, seq_len: int, device: torch.device
) -> dict[str, float]:
    """The metrics of every term on the held-out batches, and what else the task measures there."""
    task.eval()
    zero = torch.zeros((), dtype=torch.float64)
    tallies = {name: Tally(zero, zero) for name in task.terms}
    further: dict[str, Tensor] = {}
    for whole in data.evaluation(n_batches=n_batches, batch_size=batch_size, seq_len=seq_len):
        ((batch, counts),) = pieces(task, whole, 1, device)
        targets, on_host = task.targets(batch), task.targets(whole)
        answers: dict[str, Readout] = task(batch)
        for name, value in task.measured(batch, answers).items():
            further[name] = further.get(name, zero) + value.cpu() / n_batches
        for name, answer in answers.items():
            tally = tallies[name]
            for logits, wanted in answer.pieces(targets[name]):
                nats = F.cross_entropy(logits.float(), wanted, ignore_index=IGNORED, reduction="sum")
                tally.nats = tally.nats + nats.cpu()
                tally.correct = tally.correct + (logits.argmax(-1) == wanted).sum().cpu()
            tally.n_targets += counts[name]
            if task.terms[name].text and data.token_bytes is not None:
                tally.bytes += int(data.token_bytes[on_host[name][on_host[name] != IGNORED]].sum())
    pop_routings(task.model)
    task.train()
    found = {named(name, metric): value for name, tally in tallies.items() for metric, value in tally.metrics().items()}
    return found | {name: value.item() for name, value in further.items()}
