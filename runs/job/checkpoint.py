"""Weights and optimiser state in one safetensors file: written whole or not at all, checked when read, never unpickled.

The model's weights are named ``model.*``, those of the objective's heads ``heads.*``. While a run goes on, the
last two are kept.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..training.fit import Progress
from ..training.optim import parts
from .metrics import Extent
from .record import CHECKPOINT, RecordError, named, replace

BEFORE = "checkpoint/before.safetensors"  # the one before the last


@dataclass(frozen=True)
class State:
    """A checkpoint that is whole. rows: the metrics that there were when it was taken."""

    file: Path
    progress: Progress
    rows: Extent
    tensors: dict[str, Tensor]

    def put(self, task: nn.Module, optimiser: Any = None) -> None:
        """Back into a model, in place. Raises RecordError: it is of another one."""
        self.refuse_other_model(task)
        task.load_state_dict(self.weights, strict=False)
        try:
            if optimiser is not None:
                _restore_optimiser(optimiser, self.tensors)
        except (ValueError, KeyError, RuntimeError) as error:
            raise RecordError(
                f"{self.file}: its optimiser state is of another model ({error}); delete it to start anew"
            ) from None

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name: t for name, t in self.tensors.items() if not name.startswith("optimiser.")}

    def refuse_other_model(self, task: nn.Module) -> None:
        if difference := misfit(self.weights, contents(task)):
            raise RecordError(f"{self.file}: of another model ({difference}); delete it to start anew")


def contents(task: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds of a task: each tensor under its first name only, and no frozen parameter."""
    first = dict(task.named_parameters())
    every = task.named_parameters(remove_duplicate=False)  # a shared table has several names
    left_out = {name for name, parameter in every if name not in first or not parameter.requires_grad}
    return {name: tensor for name, tensor in task.state_dict().items() if name not in left_out}


def save(run: Path, *, task: nn.Module, optimiser: Any, progress: Progress, rows: Extent) -> None:
    """Write the last checkpoint of a run's folder; the one that was the last is kept until the run has ended."""
    tensors = contents(task) | _optimiser_state(optimiser)
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    facts: dict[str, Any] = {**vars(progress), "rows": rows}
    facts["checksum"] = _checksum(facts, tensors)
    path = run / CHECKPOINT
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")  # the folder is claimed: nobody else writes here
    try:
        save_file(tensors, scratch, metadata={"archlab": json.dumps(facts)})
        with named(path), open(scratch, "rb") as file:
            os.fsync(file.fileno())
        if path.exists():
            os.replace(path, run / BEFORE)
        replace(scratch, path)
    except SafetensorError as error:  # what the disk said, in its words
        raise OSError(f"{path}: {error}; free some space, or choose another folder with out=...") from None
    finally:
        scratch.unlink(missing_ok=True)


def kept(run: Path) -> list[Path]:
    """The checkpoints in a run's folder, the last one first."""
    return [file for file in (run / CHECKPOINT, run / BEFORE) if file.exists()]


def forget_the_one_before(run: Path) -> None:
    """Of a run that has ended."""
    (run / BEFORE).unlink(missing_ok=True)


def read(file: Path) -> State:
    """Raises RecordError: it is not whole."""
    try:
        with safe_open(file, framework="pt") as content:
            facts = json.loads((content.metadata() or {})["archlab"])
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        state = State(file, Progress(facts["step"], facts["seconds"], facts["tokens"]), Extent(*facts["rows"]), tensors)
        whole = facts.pop("checksum") == _checksum(facts, tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        raise RecordError(
            f"{file}: not a whole checkpoint ({' '.join(str(error).split())}); give the run's command again"
        ) from None
    if not whole:
        raise RecordError(f"{file}: its bytes do not match their checksum; give the run's command again")
    return state


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


def _checksum(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int:
    total = zlib.crc32(json.dumps(facts).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        if tensor.numel():
            total = zlib.crc32(tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes(), total)
    return total
