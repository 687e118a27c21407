"""Arrays that took long to make, stored between runs. Losing any of it, or all of it, costs time and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np

HEADER = 4096  # bytes before the first array: one line of JSON, padded, so that every array starts aligned
ALIGN = 64


def folder() -> Path | None:
    """$ARCHLAB_CACHE, else ~/.cache/archlab; None on a machine without a home."""
    named = os.environ.get("ARCHLAB_CACHE")
    try:
        return Path(named) if named else Path.home() / ".cache" / "archlab"
    except RuntimeError:
        return None


def key(*parts: str) -> str:
    """A file name for what these strings decide together."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def store(name: str, arrays: dict[str, np.ndarray], facts: dict[str, str]) -> None:
    """Write atomically; a folder that cannot be written, or a full disk, means that nothing is stored."""
    where = folder()
    if where is None:
        return
    placed = {}
    offset = HEADER
    for label, array in arrays.items():
        placed[label] = {"dtype": array.dtype.str, "offset": offset, "length": len(array), "crc32": zlib.crc32(array.data)}
        offset += -(-array.nbytes // ALIGN) * ALIGN
    header = json.dumps({"facts": facts, "arrays": placed}).encode()
    temporary = None
    try:
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=where, prefix=".", suffix=".part", delete=False) as file:
            temporary = file.name
            file.write(header.ljust(HEADER, b" "))
            for label, array in arrays.items():
                file.seek(placed[label]["offset"])
                file.write(array.data)
        os.replace(temporary, where / name)
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def load(name: str) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
    """What was stored, mapped from disk; None if it is not there or not as it was written."""
    where = folder()
    if where is None:
        return None
    path = where / name
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(HEADER))
        arrays = {}
        for label, entry in header["arrays"].items():
            array: np.ndarray = np.zeros(0, dtype=entry["dtype"])
            if entry["length"]:  # an empty array cannot be mapped
                array = np.memmap(path, mode="r", dtype=entry["dtype"], offset=entry["offset"], shape=(entry["length"],))
            if zlib.crc32(array.data) != entry["crc32"]:
                return None
            arrays[label] = array
        return arrays, header["facts"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
