"""Records into tables: one tidy pandas row per run, per logged step, per expert. Reads only; executes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from runs.build.groups import AXES
from runs.job.record import CONFIG, COSTS, ENV, METRICS, SPEEDS, STATUSES, SUMMARY, RecordError

MACHINE = ("device", "torch", "python", "threads", "git_commit", "git_dirty", "data_sha256", "started")
OWN = (
    "run",
    "folder",
    "study",
    "arm",
    "given_name",
    "baseline",
    "config",
    "seed",
    "status",
    "error",
    "causal",
    "tokens",
    *COSTS,
    *SPEEDS,
    *MACHINE,
)
NOT_SETTINGS = ("schema", "label", "arm_hash", "identity", "seed", "out", "study", "choices", "model")  # of config.json


def load(path: str | Path) -> pd.DataFrame:
    """One row per run under ``path``: a study's folder, a folder of studies, or one run's folder.

    Columns: run, study, arm, seed, status, error, the choices (ffn, mixer, ...), metrics and costs by their names, the machine,
    and the settings as ``train.steps`` and so on (lists as text). ``arm`` is the label that the run was launched with;
    ``config`` is what all seeds of an arm share: two arms that share it are the same model under two names, and one name for
    two of them is split. Broken records raise RecordError; nothing is changed on disk.
    """
    folders = run_folders(Path(path))
    if not folders:
        raise RecordError(f"{path}: no run has left a record here; expected <study>/<run>/config.json below it")
    runs = pd.DataFrame([_row(folder) for folder in folders])
    shared = runs.groupby(["study", "arm"], dropna=False)["config"].transform("nunique") > 1
    return runs.assign(arm=runs["arm"].mask(shared, runs["arm"] + " (" + runs["config"].str[:8] + ")"))


def load_curves(path: str | Path) -> pd.DataFrame:
    """One row per logged step of each run: run, arm, seed, step, split (train or val), loss, tokens, seconds, flops ..."""
    names = ["loss", "bits_per_byte", "accuracy", "lr", "grad_norm", "tokens", "seconds", "flops", "tokens_per_s"]
    rows = [
        keys | {"step": row["step"], "split": row["split"]} | {name: row.get(name) for name in names}
        for keys, row in _metrics(path, routing=False)
    ]
    curves = pd.DataFrame(rows, columns=[*_RUN_KEYS, "step", "split", *names])
    curves[names] = curves[names].astype(float)
    return curves.drop_duplicates(["study", "run", "step", "split"], keep="last", ignore_index=True)


def load_routing(path: str | Path) -> pd.DataFrame:
    """One row per expert, layer and logged step: its share of the assignments, and the layer's entropy, dropped, dead."""
    rows = [
        keys
        | {"step": row["step"], "layer": row["layer"], "expert": expert, "n_experts": len(row["load"]), "share": share}
        | {name: row.get(name) for name in ("entropy", "dropped", "dead")}
        for keys, row in _metrics(path, routing=True)
        for expert, share in enumerate(row["load"])
    ]
    names = ["share", "entropy", "dropped", "dead"]
    routing = pd.DataFrame(rows, columns=[*_RUN_KEYS, "step", "layer", "expert", "n_experts", *names])
    routing[names] = routing[names].astype(float)
    return routing.drop_duplicates(["study", "run", "step", "layer", "expert"], keep="last", ignore_index=True)


_RUN_KEYS = ("study", "run", "arm", "seed", "status")


def choices(runs: pd.DataFrame) -> list[str]:
    """The columns that hold a chosen option, the five axes first."""
    found = [name for name in runs.columns if "." not in name and name not in OWN and not is_numeric_dtype(runs[name])]
    return sorted(found, key=lambda name: AXES.index(name) if name in AXES else len(AXES))


def run_folders(path: Path) -> list[Path]:
    """The runs at ``path``, one level below it, or two levels below it: the nearest level that holds any."""
    if not path.is_dir():
        raise RecordError(f"{path}: no such folder; runs leave their records in runs/out/<study>/")
    level = [path]
    for _ in range(3):
        runs = [folder for folder in level if any((folder / name).exists() for name in (CONFIG, SUMMARY, METRICS))]
        if runs:
            return runs
        level = [below for folder in level for below in sorted(folder.iterdir()) if below.is_dir() and below.name[0] != "."]
    return []


def _row(folder: Path) -> dict[str, Any]:
    config = _object(folder / CONFIG)
    summary = _object(folder / SUMMARY) if (folder / SUMMARY).exists() else {"status": "unfinished"}
    env = _object(folder / ENV) if (folder / ENV).exists() else {}
    study, train = (_part(config, name, folder / CONFIG) for name in ("study", "train"))
    for name in ("label", "arm_hash"):
        if not isinstance(config.get(name), str):
            raise _broken(folder / CONFIG, f'"{name}" is {config.get(name)!r}, text was expected')
    if not isinstance(config.get("seed"), int):
        raise _broken(folder / CONFIG, f'"seed" is {config.get("seed")!r}, a whole number was expected')
    if summary.get("status") not in STATUSES:
        raise _broken(folder / SUMMARY, f'"status" is {summary.get("status")!r}, one of {", ".join(STATUSES)} was expected')
    numbers = {
        name: _number(name, value, folder / SUMMARY)
        for part in ("metrics", "cost")
        for name, value in _part(summary, part, folder / SUMMARY).items()
    }
    budget = [count for count in (train.get(name) for name in ("steps", "batch_size", "seq_len")) if isinstance(count, int)]
    row: dict[str, Any] = {
        "run": folder.name,
        "folder": str(folder),
        "study": str(study.get("name") or folder.parent.name),
        "arm": config["label"],
        "given_name": study.get("arm"),
        "baseline": study.get("baseline"),
        "config": config["arm_hash"],
        "seed": config["seed"],
        "status": summary["status"],
        "error": summary.get("error"),
    }
    chosen = _part(config, "choices", folder / CONFIG)
    for name, value in chosen.items():
        if name != "study" and "/" not in name:
            row[name if name not in OWN else f"choices.{name}"] = None if value is None else str(value)
    row |= dict.fromkeys((*COSTS, *SPEEDS), math.nan) | numbers
    row |= {"causal": summary.get("causal"), "tokens": math.prod(budget) if len(budget) == 3 else math.nan}
    row |= {name: env.get(name) for name in MACHINE}
    parts = {name: value for name, value in config.items() if name not in NOT_SETTINGS}
    return row | {name if "." in name else f"config.{name}": value for name, value in _flat(parts)}


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:  # a list in a cell breaks groupby and nunique
            yield prefix + name, json.dumps(value) if isinstance(value, (list, dict)) else value


def _metrics(path: str | Path, *, routing: bool) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(the run's keys, row) for the rows of every run that are, or are not, about routing."""
    for run in load(path).to_dict("records"):
        file = Path(run["folder"]) / METRICS
        lines = _read(file).split("\n") if file.exists() else []
        if lines and lines[-1] and run["status"] != "done" and not _is_json(lines[-1]):
            lines.pop()  # cut off while it was writing
        for number, line in enumerate(lines, start=1):
            if not line or ('"routing"' in line) != routing:
                continue
            row = _parse(line, file, first_line=number)
            wanted = {"step": int, "split": str} | ({"layer": str, "load": list} if routing else {})
            wrong = [name for name, kind in wanted.items() if not isinstance(row.get(name), kind)]
            if wrong:
                raise _broken(file, f'line {number} has no usable "{wrong[0]}"')
            yield {name: run[name] for name in _RUN_KEYS}, row


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _broken(file, f"not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise RecordError(f"{file}: cannot be read ({error.strerror})") from None


def _parse(text: str, file: Path, first_line: int = 1) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise _broken(file, f"not JSON at line {error.lineno + first_line - 1} column {error.colno} ({error.msg})") from None
    except RecursionError:
        raise _broken(file, "nested too deeply") from None
    if not isinstance(content, dict):
        raise _broken(file, f"line {first_line} holds a {type(content).__name__}, an object was expected")
    return content


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _object(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise _broken(file, "missing")
    return _parse(_read(file), file)


def _part(content: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    part = content.get(name)
    if part is not None and not isinstance(part, dict):
        raise _broken(file, f'"{name}" is a {type(part).__name__}, an object was expected')
    return part or {}


def _number(name: str, value: Any, file: Path) -> float:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise _broken(file, f'"{name}" is {value!r}, a number or null was expected')
    return math.nan if value is None else float(value)


def _broken(file: Path, what: str) -> RecordError:
    return RecordError(f"{file}: {what}; delete the folder {file.parent} and give the same command again to run it anew")
