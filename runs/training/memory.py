"""What training needs in memory at least, known before anything is allocated, and what a device has."""

from __future__ import annotations

import copy
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from arch.routing import pop_routings

from ..data.contract import Batch
from ..objective import Task
from .evaluation import losses, pieces, weighted
from .optim import parts

GIB = 2**30


class Memory(NamedTuple):
    """Bytes, of fp32 weights. activations: what one piece of a batch keeps for its backward."""

    weights: int
    gradients: int
    optimiser: int
    activations: int

    @property
    def least(self) -> int:
        """Activations are freed while gradients are made: at no time need both be there whole."""
        return self.weights + self.optimiser + max(self.gradients, self.activations)


def training_memory(task: Task, optimiser: Any, draw: Callable[[int], Batch], rows: int) -> Memory:
    """Of a task on the meta device, with its optimiser.

    Args:   draw: a batch with that many rows. rows: of a piece that goes through the model at once.
    """
    learning = [p for p in task.parameters() if p.requires_grad]
    # What all rows share, such as a mask, is kept once; and of a single row some views are kept that are copies otherwise.
    few = kept_bytes(task, draw(min(2, rows)))
    more = kept_bytes(task, draw(3)) if rows > 2 else few
    return Memory(
        weights=tensor_bytes([*task.parameters(), *task.buffers()]),
        gradients=tensor_bytes(learning),
        optimiser=sum(state_bytes(part) for part in parts(optimiser)),
        activations=few + (more - few) * max(0, rows - 2),
    )


def kept_bytes(task: Task, batch: Batch) -> int:
    """What a forward pass keeps for its backward, on the meta device: every storage once, weights left out."""
    own = {t.untyped_storage()._cdata for t in [*task.parameters(), *task.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no number stands for two of them

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage._cdata, storage)
        return tensor

    ((piece, counts),) = pieces(task, batch, 1, torch.device("meta"))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), FusedKernels():
        weighted(task, losses(task, piece, counts))
    pop_routings(task.model)
    return sum(storage.nbytes() for number, storage in kept.items() if number not in own)


class FusedKernels(TorchFunctionMode):
    """Stand-ins for kernels that the meta device writes out, a pair or a token at a time: they take, give and keep what real
    ones do."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return attended(*args, **(kwargs or {}))
        if func in (torch.gru, torch.lstm) and isinstance(args[2], (list, tuple)):
            x, state, (w, *_), both_ways = args[0], args[1], args[2], args[-2]
            states = state if isinstance(state, tuple) else (state,)
            return (Carried.apply(x, w, states[0].shape[-1] * (2 if both_ways else 1)), *states)
        return func(*args, **(kwargs or {}))


def attended(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """Raises RuntimeError: shapes that do not go together."""
    batch, heads, groups = query.shape[:-3], query.shape[-3], key.shape[-3]
    if heads % groups:
        raise RuntimeError(f"{heads} heads of queries cannot share {groups} heads of keys")
    with torch.no_grad():
        scores = query[..., :1, :, :] @ key[..., :1, :, :].mT
        scores @ value[..., :1, :, :]
        if attn_mask is not None:
            attn_mask.expand(*batch, heads, *scores.shape[-2:])
    return cast(Tensor, Attended.apply(query, key, value))


class Attended(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        *batch, heads, seq, _ = q.shape
        y = q.new_empty(*batch, seq, heads, v.shape[-1]).transpose(-2, -3)  # head by head in each token, as kernels write it
        ctx.save_for_backward(q, k, v, y)
        return y


class Carried(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, d_out: int) -> Tensor:
        y, gates = x.new_empty(*x.shape[:2], d_out), x.new_empty(*x.shape[:2], w.shape[0])
        ctx.save_for_backward(x, y, gates)
        return y


def state_bytes(optimiser: torch.optim.Optimizer) -> int:
    """What an optimiser will keep: found by letting it step on a parameter of four numbers."""
    found = 0
    for group in optimiser.param_groups:
        probe = nn.Parameter(torch.zeros(2, 2))
        probe.grad = torch.zeros_like(probe)
        twin = copy.copy(optimiser)
        twin.state, twin.param_groups = defaultdict(dict), [{**group, "params": [probe]}]
        twin.step()
        own = tensor_bytes(t for t in twin.state[probe].values() if isinstance(t, Tensor) and t.shape == probe.shape)
        found += sum(p.numel() for p in group["params"]) * own // probe.numel()
    return found


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def device_memory(device: torch.device) -> int:
    """Bytes that a process may fill: of a CPU, the machine's, or what its control group is allowed."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *control_group_limits()])


def control_group_limits(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Of the process's group and all above it, in both versions of Linux's control groups; elsewhere there are none."""
    lines = own.read_text().splitlines() if own.exists() else []
    found = []
    for _, controllers, group in (line.split(":", maxsplit=2) for line in lines):
        base, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        if controllers in ("", "memory"):
            place = base / group.lstrip("/")
            for folder in (place, *place.parents):
                file = folder / name
                if folder.is_relative_to(base) and file.is_file() and (text := file.read_text().strip()).isdigit():
                    found.append(int(text))
    return found
