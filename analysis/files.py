"""Files that analysis writes: whole or not at all, never through a link, with numbers that JSON has."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from runs.job.record import RecordError, named


def plain(value: Any) -> Any:
    """Numpy's numbers as Python's, and nan as null, since JSON has none."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def refuse_links(*targets: Path) -> None:
    """A link in somebody else's study would lead what is written, and what is deleted, to another place."""
    for target in targets:
        if target.is_symlink():
            raise RecordError(f"{target}: a link to {os.readlink(target)}, and a report is written to plain files; remove it")


def write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with named(file):
            scratch.write_bytes(content)
        os.replace(scratch, file)
    finally:
        scratch.unlink(missing_ok=True)
