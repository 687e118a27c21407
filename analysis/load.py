"""Records into tables: one tidy pandas row per run, per logged step, per expert. Reads only; executes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pandas.api.types import is_numeric_dtype

from analysis.columns import Columns, by_column, table, without_collection
from analysis.kept import rows_alone
from analysis.row import OWN, ROUTING, STEP
from analysis.sorting import SetAside, belonging, each, run_folders
from runs.build.groups import AXES

RUN_KEYS = ["study", "run", "arm", "seed", "status"]


class Records(NamedTuple):
    """The tables of ``load``, ``load_curves`` and ``load_routing``, and the runs that none of them holds."""

    runs: pd.DataFrame
    curves: pd.DataFrame
    routing: pd.DataFrame
    set_aside: list[SetAside]


@without_collection()
def load(path: str | Path) -> pd.DataFrame:
    """One row per run under ``path``: a study's folder, a folder of studies, or one run's folder.

    Columns: run, study, arm, seed, status, error, the choices (ffn, mixer, ...), metrics and costs by their names, the machine,
    and the settings as ``train.steps`` and so on (lists as text). ``arm`` is the label that the run was launched with;
    ``config`` is what all seeds of an arm share: two arms that share it are the same model under two names, and one name for
    two of them is split. A run whose record is damaged is left out (``read`` says why); RecordError: none is left. Nothing is
    changed in the folder; of many runs the rows are kept in the user's cache (``kept``).
    """
    columns, damaged = rows_alone(Path(path))
    return _runs(belonging(path, columns, damaged)[0])


def load_curves(path: str | Path) -> pd.DataFrame:
    """One row per logged step of each run: run, arm, seed, step, split (train or val), loss, tokens, seconds, flops ..."""
    return read(path).curves


def load_routing(path: str | Path) -> pd.DataFrame:
    """One row per expert, layer and logged step: its share of the assignments, and the layer's entropy, dropped, dead."""
    return read(path).routing


@without_collection()
def read(path: str | Path) -> Records:
    """All there is to know about the runs under ``path``, each file read once."""
    found, damaged = each(run_folders(Path(path)), steps=True)
    columns, set_aside = belonging(path, by_column([run.row for run in found]), damaged)
    runs, steps_of = _runs(columns), {run.row["folder"]: run.steps for run in found}
    keys = runs[RUN_KEYS].to_dict("records")
    steps = [(key, row) for key, folder in zip(keys, runs["folder"], strict=True) for row in steps_of[folder]]
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


def _runs(columns: Columns) -> pd.DataFrame:
    runs = table(columns)
    shared = runs.groupby(["study", "arm"], dropna=False)["config"].transform("nunique") > 1
    return runs.assign(arm=runs["arm"].mask(shared, runs["arm"] + " (" + runs["config"].str[:8] + ")"))


def _table(rows: list[tuple[dict[Any, Any], dict[str, Any]]], names: list[str], numbers: tuple[str, ...]) -> pd.DataFrame:
    of_run = {name: [key[name] for key, _ in rows] for name in RUN_KEYS}
    found = pd.DataFrame(of_run | {name: [row[name] for _, row in rows] for name in [*names, *numbers]})
    return found.astype(dict.fromkeys(numbers, float))
