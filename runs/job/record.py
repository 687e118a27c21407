"""What a run leaves behind: its folder, what lies in it, who may write. Standard library only; nothing is executed.

config.yaml (people)  config.json (resolved)  metrics.jsonl (append-only)  summary.json (atomic)  env.json  checkpoint/
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

AXES = ("ffn", "mixer", "norm", "block", "position")
PLACE = ("out", "study", "choices")  # where a run lies and what it is called; what it computes does not depend on them
HABITS = ("checkpoint_every",)  # train keys that change how a run is kept, not what it computes


class RecordError(Exception):
    """A file of a record that cannot be read or written: one line, with what to do."""


def identity(config: dict[str, Any]) -> str:
    """64 hex digits that name what a resolved config computes, seed included."""
    content = {key: value for key, value in config.items() if key not in PLACE}
    content["train"] = {key: value for key, value in config["train"].items() if key not in HABITS}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def arm_name(config: dict[str, Any]) -> str:
    """The arm's given name, else the five axes."""
    return config["study"]["arm"] or "-".join(config["choices"].get(axis, "") for axis in AXES)


def folder(config: dict[str, Any]) -> Path:
    """<out>/<study>/<short-name>-<hash8>: readable, and no two configs share one."""
    short = re.sub(r"[^\w.+-]+", "_", f"{arm_name(config)}-s{config['seed']}")[:80]
    return Path(config["out"]) / config["study"]["name"] / f"{short}-{identity(config)[:8]}"


def status(path: Path) -> str:
    """done, failed, diverged, or unfinished where no summary was written."""
    return str(read_json(path / "summary.json")["status"]) if (path / "summary.json").exists() else "unfinished"


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not valid JSON ({error}); delete that file and give the command again") from None
    if not isinstance(content, dict):
        raise RecordError(f"{path}: an object was expected, not {type(content).__name__}; delete it and give the command again")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all: a reader never sees half a file."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(scratch, "w") as file:
            json.dump(content, file, indent=2, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def finite(value: float) -> float | None:
    """JSON has no NaN and no infinity: they become null."""
    return value if math.isfinite(value) else None


class Metrics:
    """metrics.jsonl, one row a line, appended and flushed, so that a killed run loses at most its last line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep_until(self, step: int) -> None:
        """Forget the rows after this step, and a half-written last line: the run goes on from its checkpoint."""
        rows = [line for line, row in self._lines() if row["step"] <= step]
        scratch = self.path.with_suffix(".tmp")
        scratch.write_text("".join(rows))
        os.replace(scratch, self.path)

    def append(self, row: dict[str, Any]) -> None:
        line = json.dumps({key: finite(value) if isinstance(value, float) else value for key, value in row.items()})
        with open(self.path, "a") as file:
            file.write(line + "\n")

    def rows(self) -> list[dict[str, Any]]:
        return [row for _, row in self._lines()]

    def _lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                yield line, json.loads(line)
            except ValueError:
                if number < len(lines):
                    raise RecordError(
                        f"{self.path}: line {number} of {len(lines)} is not JSON; delete the run's folder to run it anew"
                    ) from None


@contextlib.contextmanager
def claim(path: Path) -> Iterator[None]:
    """Hold a run's folder; a second process in it is refused. The claim ends with the process, however it ends."""
    import fcntl

    path.mkdir(parents=True, exist_ok=True)
    with open(path / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise RecordError(
                f"{path}: process {file.read().strip()} is running this very run; wait for it, or end it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
