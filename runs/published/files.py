"""The files of a folder of weights, which anybody may have made: plain ones in the folder itself, whole, and no pickles.

A pickle is a program, and reading it runs it. Errors do not name the folder; who reads it does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..build.errors import ConfigError
from .settings import shown

WHOLE, SHARDS, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
TOKENIZER = "tokenizer.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PICKLED = (
    "is pickled, and unpickling runs whatever code is in the file, so it is not read; get the model's model.safetensors, "
    "or convert it where you trust it (transformers: from_pretrained, then save_pretrained)"
)
LARGEST_JSON = 2**26  # bytes; the index of the largest models takes a tenth of it
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def exists(folder: Path, name: str) -> bool:
    """Whether a folder has a plain file of this name. Raises ConfigError: it is a link to a file elsewhere."""
    if not os.path.isfile(folder / name):  # a pipe or a device would never end
        return False
    home, file = Path(os.path.realpath(folder)), Path(os.path.realpath(folder / name))
    store = home.parents[1] / "blobs" if home.parent.name == "snapshots" else home  # as huggingface_hub keeps what it fetched
    if file.parent not in (home, store):
        raise ConfigError(f"{name} is a link out of the folder, to {file}; put the file itself there")
    return True


def json_object(file: Path) -> dict[str, Any]:
    if (size := file.stat().st_size) > LARGEST_JSON:
        raise ConfigError(f"{file.name} has {size:,} bytes; at most {LARGEST_JSON:,} are expected")
    try:
        content = json.loads(file.read_bytes())
    except RecursionError:
        raise ConfigError(f"{file.name}: not readable as JSON (nested too deep)") from None
    except (ValueError, OSError) as error:
        raise ConfigError(f"{file.name}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file.name}: a JSON object is expected, not {type(content).__name__}")
    return content


def of_weights(folder: Path) -> list[str]:
    """The files that hold a folder's weights: one, or those that its index names."""
    if exists(folder, SHARDS):
        table = json_object(folder / SHARDS).get("weight_map")
        if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
            raise ConfigError(f"{SHARDS}: weight_map is {shown(table)}; names of tensors with names of files are expected")
        files = sorted(set(table.values()))
        if missing := [name for name in files if Path(name).name != name or not exists(folder, name)]:
            raise ConfigError(f"{SHARDS} names files that are not in the folder: {shown(missing[0])}; get all {len(files)}")
        return files
    if exists(folder, WHOLE):
        return [WHOLE]
    pickles = sorted(path for path in (folder, *folder.glob("*")) if path.suffix in PICKLES and path.is_file())
    if pickles:
        raise ConfigError(f"{pickles[0].name} {PICKLED}")
    if not folder.is_dir():
        raise ConfigError(f"no such folder; one that holds {CONFIG} and {WHOLE} is expected")
    raise ConfigError(f"no {WHOLE} there")


def shapes(folder: Path, files: list[str]) -> dict[str, Tensor]:
    """The tensors on the meta device, as the files' headers tell them: no number is read and no memory taken."""
    found: dict[str, Tensor] = {}
    for file in files:
        with _whole(file), safe_open(folder / file, framework="pt") as opened:
            here = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            kinds = {name: FLOATS.get(part.get_dtype(), torch.bool) for name, part in here.items()}  # no other is of weights
            told = {n: torch.empty(part.get_shape(), dtype=kinds[n], device="meta") for n, part in here.items()}
        if twice := found.keys() & told.keys():
            raise ConfigError(f"{file}: {min(twice)} is in another of its files too; one of the two is of other weights")
        found |= told
    return found


def tensors(folder: Path, files: list[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in files:
        with _whole(file):
            found |= load_file(folder / file)
    return found


@contextmanager
def _whole(file: str) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, KeyError, TypeError, RuntimeError) as error:  # of a header that lies, there are many
        raise ConfigError(f"{file}: not whole ({error}); get the file again") from error
