"""The rows of a record: metrics.jsonl, one a line, only ever appended. Standard library only."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from .record import RecordError, finite, named


class Extent(NamedTuple):
    """How much of the file there was at some time: its length, and the SHA-256 of that much."""

    bytes: int
    sha256: str


NONE = Extent(0, hashlib.sha256().hexdigest())


class Metrics:
    """Rows are flushed, so that a killed run loses at most its last line, and known by their digest, so that a run which goes
    on from a checkpoint has all the rows up to it, and those alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.sha256()
        self._bytes = 0

    @property
    def extent(self) -> Extent:
        return Extent(self._bytes, self._digest.hexdigest())

    def begins_with(self, extent: Extent) -> bool:
        """Whether the rows of that time are all there, as they were."""
        return hashlib.sha256(self._read(extent.bytes)).hexdigest() == extent.sha256

    def keep(self, extent: Extent) -> None:
        """Forget all that came later: the run goes on from there."""
        kept = self._read(extent.bytes)
        self._bytes, self._digest = len(kept), hashlib.sha256(kept)
        with named(self.path), open(self.path, "ab") as file:
            file.truncate(self._bytes)
            os.fsync(file.fileno())

    def append(self, row: dict[str, Any]) -> None:
        finished = {key: finite(value) if isinstance(value, float) else value for key, value in row.items()}
        line = (json.dumps(finished) + "\n").encode()
        with named(self.path), open(self.path, "ab") as file:
            file.write(line)
        self._digest.update(line)
        self._bytes += len(line)

    def sync(self) -> None:
        """Bring it to the disk: before a checkpoint that builds on it, or a summary."""
        with named(self.path), open(self.path, "ab") as file:
            os.fsync(file.fileno())

    def rows(self) -> list[dict[str, Any]]:
        lines = self._read(self._bytes).decode().splitlines()
        try:
            return [json.loads(line) for line in lines]
        except ValueError:
            raise RecordError(f"{self.path}: somebody else has written into it; give the run's command again") from None

    def _read(self, size: int) -> bytes:
        """The first bytes of it; fewer where it has fewer."""
        if not self.path.exists():
            return b""
        with open(self.path, "rb") as file:
            return file.read(size)
