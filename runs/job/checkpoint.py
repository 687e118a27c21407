"""Weights and optimiser state in one safetensors file: written whole or not at all, checked when read, never unpickled.

The model's weights are named ``model.*``, those of the objective's heads ``heads.*``.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..training.fit import Progress
from ..training.optim import parts
from .record import RecordError


def contents(task: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds of a task: each tensor under its first name only, and no frozen parameter."""
    first = dict(task.named_parameters())
    every = task.named_parameters(remove_duplicate=False)  # a shared table has several names
    left_out = {name for name, parameter in every if name not in first or not parameter.requires_grad}
    return {name: tensor for name, tensor in task.state_dict().items() if name not in left_out}


def save(path: Path, *, task: nn.Module, optimiser: Any, progress: Progress) -> None:
    tensors = contents(task) | _optimiser_state(optimiser)
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    facts = {**vars(progress), "checksum": _checksum(tensors)}
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")  # the folder is claimed: nobody else writes here
    try:
        save_file(tensors, scratch, metadata={"archlab": json.dumps(facts)})
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except SafetensorError as error:  # what the disk said, in its words
        raise OSError(f"{path}: {error}; free some space, or choose another folder with out=...") from None
    finally:
        scratch.unlink(missing_ok=True)


def load(path: Path, *, task: nn.Module, optimiser: Any = None) -> Progress:
    """Put a checkpoint back, in place; how far the run had come. Raises RecordError: damaged, or of another model."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["archlab"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise RecordError(f"{path}: not a whole checkpoint ({error}); delete it and the run starts anew") from None
    if facts["checksum"] != _checksum(tensors):
        raise RecordError(f"{path}: its bytes do not match their checksum; delete it and the run starts anew")
    weights = {name: t for name, t in tensors.items() if not name.startswith("optimiser.")}
    if difference := misfit(weights, contents(task)):
        raise RecordError(f"{path}: of another model ({difference}); delete it to start anew")
    task.load_state_dict(weights, strict=False)
    if optimiser is not None:
        _restore_optimiser(optimiser, tensors)
    return Progress(facts["step"], facts["seconds"], facts["tokens"])


def misfit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """The first difference between two sets of weights in names or shapes, in words; None = they fit."""
    for name in sorted(given.keys() | wanted.keys()):
        if name not in given or name not in wanted:
            return f"{name} is {'missing' if name not in given else 'not wanted'}"
        if given[name].shape != wanted[name].shape:
            return f"{name} is {tuple(given[name].shape)}, {tuple(wanted[name].shape)} is wanted"
    return None


def _optimiser_state(optimiser: Any) -> dict[str, Tensor]:
    """Only the tensors: rates and the like come from the config again."""
    return {
        f"optimiser.{o}.{index}.{name}": value
        for o, part in enumerate(parts(optimiser))
        for index, state in part.state_dict()["state"].items()
        for name, value in state.items()
    }


def _restore_optimiser(optimiser: Any, tensors: dict[str, Tensor]) -> None:
    for o, part in enumerate(parts(optimiser)):
        state: dict[int, dict[str, Tensor]] = {}
        for path, value in tensors.items():
            if path.startswith(f"optimiser.{o}."):
                _, _, index, name = path.split(".")
                state.setdefault(int(index), {})[name] = value
        part.load_state_dict({**part.state_dict(), "state": state})


def _checksum(tensors: dict[str, Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(name.encode(), total)
        flat = tensors[name].reshape(-1).contiguous()
        if flat.numel():
            total = zlib.crc32(flat.view(torch.uint8).numpy().tobytes(), total)
    return total
