"""Files of text: found, read and fingerprinted, with one clear line for each way in which that fails."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NoReturn


def walk(folder: Path, *, suffixes: Collection[str], without: Collection[str] = ()) -> Iterator[tuple[str, Path]]:
    """Every file below a folder with one of these suffixes, as (name relative to the folder, path), in order of name.

    Hidden files and folders are left out, and so are folders with a name in ``without``; links to folders are not followed.
    """
    found = []
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if name not in without and not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".") and name.endswith(tuple(suffixes))]
    yield from sorted((path.relative_to(folder).as_posix(), path) for path in found if path.is_file())


def read_utf8(path: Path) -> str:
    """The text of a UTF-8 file, line ends as they are."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        _refuse(error)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "LATIN1"
        guess = "it looks like UTF-16; convert it" if kind == "UTF-16" else "convert it, for example from Latin-1"
        raise ValueError(
            f"{path} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}; {guess}: iconv -f {kind} -t UTF-8"
        ) from None


def stamp(name: str, path: Path) -> str:
    """A line that changes with the file's name, size or time of change."""
    stat = path.stat()
    return f"{name}\t{stat.st_size}\t{stat.st_mtime_ns}"


def _refuse(error: OSError) -> NoReturn:
    if isinstance(error, PermissionError):
        raise PermissionError(f"{error.filename} may not be read (permission denied): chmod -R u+rX {error.filename}") from None
    raise error
