"""Folders of published weights: config.json and safetensors, read under our names and written back in the family's layout.

A folder may be anybody's: what its config.json says is held against the headers of its files before memory is taken for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..build.errors import ConfigError
from . import family, files
from .family import overrides
from .files import CONFIG, SHARDS, TOKENIZER, WHOLE
from .settings import LARGEST, Config, whole

TOKENIZER_CONFIG = "tokenizer_config.json"
WIDTHS = (
    "d_model",
    "n_heads",
    "d_head",
    "d_rotary",
    "d_rope",
    "d_latent",
    "n_experts",
    "vocab_size",
)  # each is a tensor's side
LONGEST_LINE = 800  # characters of a message: a name may have any length


class FolderError(ConfigError):
    """What is wrong with a folder of weights, which it names."""


def load(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder, under our names; those of a task's heads begin with ``heads.``.

    Raises: ConfigError: no weights, no config, pickled weights, a model that our blocks do not express, names that do not fit,
            numbers that are none.
    """
    with of_folder(folder):
        config, own = _held(folder)
        theirs = files.tensors(folder, own)
        ours = family.names(config, theirs).to_ours(theirs)
        for name, tensor in ours.items():
            if not tensor.float().isfinite().all():  # in fp32, as they are computed with
                raise ConfigError(f"{name} is not finite, it holds NaN or infinity; these weights are of no use")
        return ours


def shapes(folder: Path) -> dict[str, Tensor]:
    """As load, on the meta device: what the files' headers say, before anything is read."""
    with of_folder(folder):
        config, own = _held(folder)
        return _ours(config, files.shapes(folder, own))


def read_config(folder: Path) -> Config:
    """The config.json. Raises ConfigError: there is none, or its layers, experts and widths are not those of the files."""
    with of_folder(folder):
        return _held(folder)[0]


def tokenizer(folder: Path) -> list[str]:
    """The overrides that read text as a folder's model does. Raises ConfigError: it has no tokenizer.json."""
    path = str(tokenizer_file(folder)).replace("'", "\\'")
    return ["tokenizer=file", f"tokenizer.path='{path}'"]


def tokenizer_file(folder: Path) -> Path:
    with of_folder(folder):
        if not files.exists(folder, TOKENIZER):
            raise ConfigError(
                f"no {TOKENIZER} there, so nobody knows which tokens its model reads; put it there, or say "
                "tokenizer=file tokenizer.path=FILE (tokenizer=bytes for a model of bytes)"
            )
    return folder / TOKENIZER


def token_ids(config: Config, key: str, *, vocab_size: int = LARGEST) -> list[int]:
    """The tokens that an entry of config.json numbers: one, several, or none, which older files write as -1.

    Numbers beyond the vocabulary are left out: small models often keep those of the large one that they are made after.
    """
    found = config.get(key)
    listed = found if isinstance(found, list) else [] if found in (None, -1) else [found]
    numbers = [whole(f"{CONFIG}: {key}", token, least=0) for token in listed]
    return [token for token in numbers if token < vocab_size]


def save(folder: Path, ours: Mapping[str, Tensor], config: dict[str, Any]) -> None:
    """Write weights and their config.json in the layout of the family that config names.

    Args:   ours: weights under our names. config: that of the family, as read_config gives it.
    Raises: ConfigError: a folder that holds any of its files already.  ValueError: names that do not fit the family.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise ConfigError(f"{folder} is there already and no folder; choose another place")
    written = (WHOLE, SHARDS, CONFIG, TOKENIZER, TOKENIZER_CONFIG)
    if there := [name for name in written if os.path.lexists(folder / name)]:  # a link would be written through
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


@contextmanager
def of_folder(folder: Path) -> Iterator[None]:
    """What is wrong with a folder is said of it, in one line: names in it may hold anything, line ends too."""
    try:
        yield
    except FolderError:
        raise  # it is said already
    except ValueError as error:
        said = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(str(error).split()))
        raise FolderError(f"weights={folder}: {said[:LONGEST_LINE]}") from error


def _held(folder: Path) -> tuple[Config, list[str]]:
    """The config.json of a folder and its files of weights, one held against the other by what the headers say."""
    own = files.of_weights(folder)
    if not files.exists(folder, CONFIG):
        raise ConfigError(f"no {CONFIG} there, so nobody knows which model its weights belong to")
    config = files.json_object(folder / CONFIG)
    if "model_type" not in config:
        raise ConfigError(f"its {CONFIG} names no model_type; one such as gpt2 or llama is expected")
    words = dict(word.split("=", maxsplit=1) for word in overrides(config))  # refuses what the blocks do not express
    theirs = files.shapes(folder, own)
    n_layers, n_matrices = int(words["size.n_layers"]), family.n_matrices(config)
    if max(n_layers, n_matrices) > len(theirs):
        of_experts = f" and {n_matrices:,} experts" if n_matrices else ""
        raise ConfigError(f"{CONFIG} says {n_layers:,} layers{of_experts}, but its files hold {len(theirs):,} tensors alone")
    longest = max(side for tensor in theirs.values() for side in (*tensor.shape, 0))
    for key in WIDTHS:
        if int(words.get(f"size.{key}", 0)) > longest:
            raise ConfigError(f"{CONFIG}: {key} is {int(words[f'size.{key}']):,}, but its files hold no side over {longest:,}")
    _ours(config, theirs)
    return config, own


def _ours(config: Config, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under our names, on the meta device."""
    with torch.device("meta"):
        ours = family.names(config, theirs).to_ours(theirs)
    for name, tensor in ours.items():
        if not tensor.is_floating_point():
            raise ConfigError(f"{name} is no weight: floats of 16, 32 or 64 bits are expected")
    return ours
