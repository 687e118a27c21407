"""Records into tables: one tidy pandas row per run, per logged step, per expert. Reads only; executes nothing."""

from __future__ import annotations

import functools
import os
import time
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pandas.api.types import is_numeric_dtype

from analysis.kinds import printable
from analysis.row import OWN, ROUTING, STEP, Logged, read_run
from runs.build.groups import AXES
from runs.job.record import CHECKPOINT, CONFIG, ENV, METRICS, SUMMARY, TIMING, RecordError

RUN_KEYS = ["study", "run", "arm", "seed", "status"]


class SetAside(NamedTuple):
    """A run that no table holds, since its record is damaged."""

    run: str
    reason: str


class Records(NamedTuple):
    """The tables of ``load``, ``load_curves`` and ``load_routing``, and the runs that none of them holds."""

    runs: pd.DataFrame
    curves: pd.DataFrame
    routing: pd.DataFrame
    set_aside: list[SetAside]


def load(path: str | Path) -> pd.DataFrame:
    """One row per run under ``path``: a study's folder, a folder of studies, or one run's folder.

    Columns: run, study, arm, seed, status, error, the choices (ffn, mixer, ...), metrics and costs by their names, the machine,
    and the settings as ``train.steps`` and so on (lists as text). ``arm`` is the label that the run was launched with;
    ``config`` is what all seeds of an arm share: two arms that share it are the same model under two names, and one name for
    two of them is split. A run whose record is damaged is left out (``read`` says why); RecordError: none is left. Nothing is
    changed on disk.
    """
    return _runs(_sorted_out(path, _row_alone)[0])


def load_curves(path: str | Path) -> pd.DataFrame:
    """One row per logged step of each run: run, arm, seed, step, split (train or val), loss, tokens, seconds, flops ..."""
    return read(path).curves


def load_routing(path: str | Path) -> pd.DataFrame:
    """One row per expert, layer and logged step: its share of the assignments, and the layer's entropy, dropped, dead."""
    return read(path).routing


def read(path: str | Path) -> Records:
    """All there is to know about the runs under ``path``, each file read once."""
    found, set_aside = _sorted_out(path, read_run)
    runs = _runs(found)
    keys = runs[RUN_KEYS].to_dict("records")
    steps = [(key, row) for key, run in zip(keys, found, strict=True) for row in run.steps]
    curves = [(key, row) for key, row in steps if row["split"] != "routing"]
    experts = [
        (key, row | {"expert": expert, "n_experts": len(row["load"]), "share": share})
        for key, row in steps
        if row["split"] == "routing"
        for expert, share in enumerate(row["load"])
    ]
    return Records(
        runs,
        _table(curves, ["step", "split"], STEP),
        _table(experts, ["step", "layer", "expert", "n_experts"], ("share", *ROUTING)),
        set_aside,
    )


def choices(runs: pd.DataFrame) -> list[str]:
    """The columns that hold a chosen option, the five axes first."""
    found = [name for name in runs.columns if "." not in name and name not in OWN and not is_numeric_dtype(runs[name])]
    return sorted(found, key=lambda name: AXES.index(name) if name in AXES else len(AXES))


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


def _sorted_out(path: str | Path, read: Callable[[str], Logged]) -> tuple[list[Logged], list[SetAside]]:
    """The runs that can be read, and the others. Raises RecordError: there is none of the former."""
    whole: list[Logged] = []
    set_aside: list[SetAside] = []
    first: dict[tuple[str, str | None, str], str] = {}
    for folder in run_folders(Path(path)):
        try:
            run = read(folder)
            same = (run.row["study"], run.row["given_name"], run.row["identity"])  # two names for one run are two arms
            original = first.setdefault(same, folder)
            if original is not folder:
                raise RecordError(f"a copy of {os.path.basename(original)}, and a run counts once; delete one of the two")
            whole.append(run)
        except RecordError as error:
            reason = str(error).replace(f"{folder}{os.sep}", "")
            set_aside.append(SetAside(printable(os.path.basename(folder)), printable(reason)))
    for run, why in _strays(whole):
        whole.remove(run)
        set_aside.append(SetAside(run.row["run"], why))
    if not whole and not set_aside:
        raise RecordError(f"{path}: no run has left a record here; expected <study>/<run>/config.json below it")
    if not whole:
        first_one = f"the first is {set_aside[0].run}, {set_aside[0].reason}"
        raise RecordError(f"{path}: no whole record among {len(set_aside)}; {first_one}")
    return whole, set_aside


def _strays(runs: list[Logged]) -> list[tuple[Logged, str]]:
    """The runs of another study than most in their folder, as somebody has put them there, and why they do not belong."""
    studies: dict[str, Counter[str]] = {}
    if len({run.row["study"] for run in runs}) > 1:
        for run in runs:
            studies.setdefault(os.path.dirname(run.row["folder"]), Counter())[run.row["study"]] += 1
    usual = {folder: counts.most_common(1)[0][0] for folder, counts in studies.items()}
    found = [(run, usual.get(os.path.dirname(run.row["folder"]), run.row["study"])) for run in runs]
    return [
        (run, f"of study {run.row['study']}, not {study} as the others") for run, study in found if run.row["study"] != study
    ]


def _row_alone(folder: str) -> Logged:
    """A run without its steps; remembered for as long as its files stay as they are."""
    state = tuple(_state(f"{folder}/{name}") for name in (".", CONFIG, ENV, METRICS, SUMMARY, TIMING, CHECKPOINT))
    settled = max(changed for changed, *_ in state) < time.time_ns() - 10**8  # the clocks of disks are coarse
    return (_remembered if settled else _remembered.__wrapped__)(folder, state)


def _state(file: str) -> tuple[int, int, int]:
    try:
        stat = os.lstat(file)
    except OSError:
        return 0, 0, 0
    return stat.st_ctime_ns, stat.st_size, stat.st_ino


@functools.lru_cache(maxsize=2**15)
def _remembered(folder: str, state: tuple[tuple[int, int, int], ...]) -> Logged:
    return read_run(folder, steps=False)._replace(steps=[])


def _runs(found: list[Logged]) -> pd.DataFrame:
    rows = [run.row for run in found]
    names = dict.fromkeys(chain.from_iterable(rows))
    runs = pd.DataFrame({name: [row.get(name) for row in rows] for name in names})
    shared = runs.groupby(["study", "arm"], dropna=False)["config"].transform("nunique") > 1
    return runs.assign(arm=runs["arm"].mask(shared, runs["arm"] + " (" + runs["config"].str[:8] + ")"))


def _table(rows: list[tuple[dict[Any, Any], dict[str, Any]]], names: list[str], numbers: tuple[str, ...]) -> pd.DataFrame:
    of_run = {name: [key[name] for key, _ in rows] for name in RUN_KEYS}
    table = pd.DataFrame(of_run | {name: [row[name] for _, row in rows] for name in [*names, *numbers]})
    return table.astype(dict.fromkeys(numbers, float))
