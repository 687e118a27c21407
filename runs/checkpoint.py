"""Weights and optimiser state in one safetensors file: written whole or not at all, checked when read, never unpickled."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .optim import parts
from .record import RecordError


def save(path: Path, *, model: nn.Module, optimiser: Any, step: int, seconds: float) -> None:
    """step, seconds: how many steps were taken, and how long they took."""
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    tensors |= _optimiser_state(optimiser)
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    facts = {"step": step, "seconds": seconds, "checksum": _checksum(tensors)}
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


def load(path: Path, *, model: nn.Module, optimiser: Any = None) -> tuple[int, float]:
    """Put a checkpoint back, in place; (step, seconds). Raises RecordError where the file is damaged or of another model."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["archlab"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise RecordError(f"{path}: not a whole checkpoint ({error}); delete it and the run starts anew") from None
    if facts["checksum"] != _checksum(tensors):
        raise RecordError(f"{path}: its bytes do not match their checksum; delete it and the run starts anew")
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RecordError(
            f"{path}: of another model ({str(error).splitlines()[-1].strip()}); delete it to start anew"
        ) from None
    if optimiser is not None:
        _restore_optimiser(optimiser, tensors)
    return facts["step"], facts["seconds"]


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
