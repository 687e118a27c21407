"""Arrays that took long to make, stored between runs. Losing any of it, or all of it, costs time and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np

from ..cache_folder import folder

HEADER = 4096  # bytes before the first array: one line of JSON, padded, so that every array starts aligned
ALIGN = 64
DTYPES = ("|u1", "<u2", "<u4", "<i8")  # of what is stored: tokens, and where texts end


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
    if where is None or not name.isalnum():
        return None
    path = where / name
    try:
        if path.is_symlink() or not path.is_file():  # a pipe would never end
            return None
        with open(path, "rb") as file:
            header = json.loads(file.read(HEADER))
        arrays = {label: _mapped(path, **entry) for label, entry in header["arrays"].items()}
        facts = {str(key): value for key, value in header["facts"].items() if isinstance(value, str)}
        return arrays, facts
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _mapped(path: Path, *, dtype: str, offset: int, length: int, crc32: int) -> np.ndarray:
    """Raises ValueError: no whole numbers, not all of them there, or not those that were stored."""
    if dtype not in DTYPES or offset < HEADER or length < 0:
        raise ValueError
    array: np.ndarray = np.zeros(0, dtype=dtype)
    if length:  # an empty array cannot be mapped
        array = np.memmap(path, mode="r", dtype=dtype, offset=offset, shape=(length,))
    if zlib.crc32(array.data) != crc32:
        raise ValueError
    return array
