"""The rows of many runs, kept between commands in the user's own cache: to lose them costs time and nothing else.

One file of JSON for each path that was asked for: every column as a list, or as one value that all rows share. A row counts for
as long as the files of its run have the times and sizes that they had, and the code that has made it is the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import runs.job.record
from analysis import files, kinds, row
from analysis.columns import Columns, by_column, is_shared
from analysis.sorting import SetAside, each, run_folders
from runs.cache_folder import folder as cache_folder
from runs.job.record import CHECKPOINT, CONFIG, ENV, METRICS, SUMMARY, TIMING

FEWEST = 200  # rows that are worth a file
PATIENCE = 100  # a file is written anew where more than one in so many rows is not in it: before that, reading them is faster
STATE = "state"
COARSE = 10**8  # nanoseconds within which the clock of a disk may not tell one change from the next


def rows_alone(path: Path) -> tuple[Columns, list[SetAside]]:
    """The runs without their steps; of many, those whose files are as they were come from what was kept of them."""
    folders = run_folders(path)
    if len(folders) < FEWEST:
        found, damaged = each(folders, steps=False)
        return by_column([run.row for run in found]), damaged
    known = recall(path)
    states = {folder: state(folder) for folder in folders}
    places = {
        folder: place for place, folder in enumerate(known.get("folder", [])) if states.get(folder) == known[STATE][place]
    }
    found, damaged = each([folder for folder in folders if not states[folder] or folder not in places], steps=False)
    rows = [run.row | {STATE: states[run.row["folder"]]} for run in found]
    columns = _joined(known, rows, places, folders) if found or len(places) < len(known.get(STATE, [])) else known
    if len(found) * PATIENCE > len(folders):
        keep(path, columns)
    return {name: values for name, values in columns.items() if name != STATE}, damaged


def _joined(known: Columns, rows: Sequence[Mapping[str, Any]], places: dict[str, int], folders: list[str]) -> Columns:
    """The rows that were kept and the new ones, in the order of the folders. places: of the former that still count."""
    before, new = len(known.get(STATE, [])), by_column(rows, list(known))
    at = places | {row["folder"]: before + number for number, row in enumerate(rows)}
    order = [at[folder] for folder in folders if folder in at]
    nothing = [None] * before
    whole = {name: known.get(name, nothing) + values for name, values in new.items()}
    return {name: [values[place] for place in order] for name, values in whole.items()}


def state(folder: str) -> str:
    """Of a run's files: what changes where one of them does; empty for what has changed just now, and may again."""
    found = [_stat(f"{folder}/{name}") for name in (".", CONFIG, ENV, METRICS, SUMMARY, TIMING, CHECKPOINT)]
    settled = max(changed for changed, *_ in found) < time.time_ns() - COARSE
    return str(found) if settled else ""


def _stat(file: str) -> tuple[int, int, int]:
    try:
        stat = os.lstat(file)
    except OSError:
        return 0, 0, 0
    return stat.st_ctime_ns, stat.st_size, stat.st_ino


def recall(path: Path) -> Columns:
    """What was kept of the runs under this path, whatever has become of them; empty where there is nothing to be had."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        if file := _file(path):
            content = json.loads(file.read_bytes())
            n = len(content["lists"][STATE])
            columns = content["lists"] | {name: [value] * n for name, value in content["shared"].items()}
            if all(isinstance(values, list) and len(values) == n for values in columns.values()):
                return {name: columns[name] for name in content["names"]}
    return {}


def keep(path: Path, columns: Columns) -> None:
    """Whole or not at all; where it cannot be written it is not."""
    with contextlib.suppress(OSError):
        if file := _file(path):
            shared = {name: values[0] for name, values in columns.items() if is_shared(values)}
            lists = {name: values for name, values in columns.items() if name not in shared or name == STATE}
            files.write(file, json.dumps({"names": list(columns), "lists": lists, "shared": shared}).encode())


def _file(path: Path) -> Path | None:
    """Another one for each path and for each version of the code that makes a row."""
    folder = cache_folder()
    if folder is None:
        return None
    parts = [
        f"{path.absolute()}\0{path}".encode("utf-8", "surrogateescape")
    ]  # the rows hold their folders as they were spelled
    parts += [Path(str(module.__file__)).read_bytes() for module in (row, kinds, runs.job.record)]
    return folder / f"runs-{hashlib.sha256(b''.join(parts)).hexdigest()[:32]}.json"
