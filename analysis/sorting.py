"""Which folders hold runs, which of these can be read, and which of those count."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis.columns import Columns
from analysis.kinds import printable
from analysis.row import Logged, read_run
from runs.job.record import CONFIG, METRICS, SUMMARY, RecordError


class SetAside(NamedTuple):
    """A run that no table holds, since its record is damaged."""

    run: str
    reason: str


def run_folders(path: Path) -> list[str]:
    """The runs at ``path``, one level below it, or two levels below it: the nearest level that holds any."""
    if not path.is_dir():
        raise RecordError(f"{path}: no such folder; runs leave their records in runs/out/<study>/")
    level = [str(path)]
    for _ in range(3):
        runs = [folder for folder in level if any(os.path.lexists(f"{folder}/{name}") for name in (CONFIG, SUMMARY, METRICS))]
        if runs:
            return runs
        level = [below for folder in level for below in _folders(folder)]
    return []


def _folders(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.path for entry in entries if entry.name[0] != "." and entry.is_dir())


def each(folders: Sequence[str], *, steps: bool) -> tuple[list[Logged], list[SetAside]]:
    """The runs that can be read, and the others."""
    whole: list[Logged] = []
    damaged: list[SetAside] = []
    for folder in folders:
        try:
            whole.append(read_run(folder, steps=steps))
        except RecordError as error:
            reason = str(error).replace(f"{folder}{os.sep}", "")
            damaged.append(SetAside(printable(os.path.basename(folder)), printable(reason)))
    return whole, damaged


def belonging(path: str | Path, columns: Columns, damaged: list[SetAside]) -> tuple[Columns, list[SetAside]]:
    """The rows without copies and strays, and all that is set aside. Raises RecordError: there is none of the former."""
    out = _copies(columns)
    out |= _strays(columns, out)
    set_aside = [*damaged, *(SetAside(columns["run"][place], why) for place, why in out.items())]
    n = len(columns.get("run", []))
    if not n and not set_aside:
        raise RecordError(f"{path}: no run has left a record here; expected <study>/<run>/config.json below it")
    if not n:
        first_one = f"the first is {set_aside[0].run}, {set_aside[0].reason}"
        raise RecordError(f"{path}: no whole record among {len(set_aside)}; {first_one}")
    if out:
        columns = {name: [value for place, value in enumerate(values) if place not in out] for name, values in columns.items()}
    return columns, set_aside


def _copies(columns: Columns) -> dict[int, str]:
    """The places of the runs that are there once more, and why they do not count."""
    first: dict[Any, int] = {}
    names = (columns.get(name, []) for name in ("study", "given_name", "identity"))  # two names for one run are two arms
    originals = [first.setdefault(same, place) for place, same in enumerate(zip(*names, strict=True))]
    said = "a copy of {}, and a run counts once; delete one of the two"
    return {
        place: said.format(os.path.basename(columns["folder"][original]))
        for place, original in enumerate(originals)
        if original != place
    }


def _strays(columns: Columns, out: Mapping[int, str]) -> dict[int, str]:
    """The places of the runs of another study than most in their folder, as somebody has put them there, and why they do not
    belong. out: of the runs that do not count anyway."""
    if len(set(columns.get("study", []))) < 2:
        return {}
    studies: dict[str, Counter[str]] = {}
    runs = [(place, os.path.dirname(folder), columns["study"][place]) for place, folder in enumerate(columns["folder"])]
    for place, folder, study in runs:
        if place not in out:
            studies.setdefault(folder, Counter())[study] += 1
    usual = {folder: counts.most_common(1)[0][0] for folder, counts in studies.items()}
    return {
        place: f"of study {study}, not {usual[folder]} as the others"
        for place, folder, study in runs
        if place not in out and study != usual[folder]
    }
