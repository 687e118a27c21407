"""The files of a record: how they are written and read, who may write. Standard library only; nothing is executed.

config.yaml (people)  config.json (resolved)  metrics.jsonl (append-only)  summary.json (atomic)  env.json  checkpoint/
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONFIG, SUMMARY, METRICS, ENV = "config.json", "summary.json", "metrics.jsonl", "env.json"
STATUSES = ("done", "failed", "diverged", "unfinished")
ENDED = ("done", "diverged")  # nothing is left to do
HABITS = ("log_every", "checkpoint_every")  # train keys that change how a run is watched and saved, not what it computes


COSTS = ("total_params", "active_params", "flops_per_token", "train_flops", "state_bytes")  # of summary.json, computed
SPEEDS = ("tokens_per_s", "step_ms", "mfu", "peak_memory_bytes")  # and measured


class RecordError(Exception):
    """A file of a record that cannot be read or written: one line, with what to do."""


def status(path: Path) -> str:
    """One of STATUSES; unfinished where no summary was written."""
    return str(read_json(path / SUMMARY)["status"]) if (path / SUMMARY).exists() else "unfinished"


def labels(study: Path) -> dict[tuple[str | None, str], str]:
    """What the arms in a study's folder are called: (given name, hash) -> label. A record that cannot be read has no say."""
    found = {}
    for file in sorted(study.glob(f"*/{CONFIG}")):
        with contextlib.suppress(RecordError, OSError, KeyError, TypeError):
            config = read_json(file)
            found[config["study"]["arm"], config["arm_hash"]] = config["label"]
    return found


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
