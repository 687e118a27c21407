"""Folders of published weights: config.json and safetensors, read under our names and written back in the family's layout.

Nothing is unpickled: a pickle is a program, and reading it runs it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..build.errors import ConfigError
from . import family
from .family import overrides

WHOLE, SHARDS, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
TOKENIZER = "tokenizer.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PICKLED = (
    "is pickled, and unpickling runs whatever code is in the file, so it is not read; get the model's model.safetensors, "
    "or convert it where you trust it (transformers: from_pretrained, then save_pretrained)"
)


def load(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder, under our names; those of a task's heads begin with ``heads.``.

    Raises: ConfigError: no weights, no config, pickled weights, a model that our blocks do not express, names that do not fit.
    """
    files = _files(folder)
    config = read_config(folder)
    try:
        overrides(config)  # refuses what the blocks do not express before the weights are read
        theirs = _tensors(folder, files)
        return family.names(config, theirs).to_ours(theirs)
    except ValueError as error:
        raise ConfigError(f"weights={folder}: {error}") from None


def tokenizer(folder: Path) -> list[str]:
    """The overrides that read text as a folder's model does. Raises ConfigError: it has no tokenizer.json."""
    file = folder / TOKENIZER
    if not file.is_file():
        raise ConfigError(
            f"weights={folder}: no {TOKENIZER} there, so nobody knows which tokens its model reads; put it there, or say "
            "tokenizer=file tokenizer.path=FILE (tokenizer=bytes for a model of bytes)"
        )
    path = str(file).replace("'", "\\'")
    return ["tokenizer=file", f"tokenizer.path='{path}'"]


def save(folder: Path, ours: Mapping[str, Tensor], config: dict[str, Any]) -> None:
    """Write weights and their config.json in the layout of the family that config names.

    Args:   ours: weights under our names. config: that of the family, as read_config gives it.
    Raises: ConfigError: a folder that holds a model or a run already.  ValueError: names that do not fit the family.
    """
    if there := [name for name in (WHOLE, SHARDS, CONFIG) if (folder / name).exists()]:
        raise ConfigError(f"{folder} holds {there[0]} already; choose another folder")
    names = family.names(config, ours)
    left_out = {*names.their_copies, *names.fixed}  # as the family's own files do
    theirs = {name: t.detach().cpu().contiguous() for name, t in names.to_theirs(ours).items() if name not in left_out}
    kinds = {str(t.dtype).removeprefix("torch.") for t in theirs.values()}
    config = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
    if len(kinds) == 1:
        config["torch_dtype"] = kinds.pop()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(theirs, folder / WHOLE, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def of_task(state: Mapping[str, Tensor], heads: Collection[str]) -> tuple[dict[str, Tensor], list[str]]:
    """A task's weights by the names that load gives and save takes, and the heads that were left out.

    Args:   state: its state_dict. heads: those that stay.
    """
    body = {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
    own = {name: tensor for name, tensor in state.items() if name.startswith("heads.")}
    staying = {name: tensor for name, tensor in own.items() if name.split(".")[1] in heads}
    return body | staying, sorted({f"heads.{name.split('.')[1]}" for name in own.keys() - staying.keys()})


def read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"weights={folder}: no {CONFIG} there, so nobody knows which model its weights belong to")
    config = _json(folder / CONFIG)
    if "model_type" not in config:
        raise ConfigError(f"weights={folder}: its {CONFIG} names no model_type; one such as gpt2 or llama is expected")
    return config


def _files(folder: Path) -> list[str]:
    """The files that hold a folder's weights: one, or those that its index names."""
    if (folder / SHARDS).is_file():
        files = sorted(set(_json(folder / SHARDS).get("weight_map", {}).values()))
        if any(Path(name).name != name or not (folder / name).is_file() for name in files):
            why = f"{SHARDS} names files that are not in the folder; get all of {', '.join(files)}"
            raise ConfigError(f"weights={folder}: {why}")
        return files
    if (folder / WHOLE).is_file():
        return [WHOLE]
    pickles = sorted(path for path in (folder, *folder.glob("*")) if path.suffix in PICKLES and path.is_file())
    if pickles:
        raise ConfigError(f"weights={folder}: {pickles[0].name} {PICKLED}")
    if not folder.is_dir():
        raise ConfigError(f"weights={folder}: no such folder; one that holds {CONFIG} and {WHOLE} is expected")
    raise ConfigError(f"weights={folder}: no {WHOLE} there")


def _tensors(folder: Path, files: list[str]) -> dict[str, Tensor]:
    try:
        return {name: tensor for file in files for name, tensor in load_file(folder / file).items()}
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"not whole ({error}); get the file again") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a JSON object is expected, not {type(content).__name__}")
    return content
