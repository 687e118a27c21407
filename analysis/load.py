"""Records into tables: one tidy pandas row per run, per logged step, per expert. Reads only; executes nothing."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

STATUSES = ("done", "failed", "diverged", "unfinished")
AXES = ("ffn", "mixer", "norm", "block", "position")  # the order in which a label names them
COSTS = ("total_params", "active_params", "flops_per_token", "train_flops", "state_bytes")
SPEEDS = ("tokens_per_s", "step_ms", "mfu", "peak_memory_bytes")
MACHINE = ("device", "torch", "python", "threads", "git_commit", "git_dirty", "data_sha256", "started")
OWN = (
    "run",
    "folder",
    "study",
    "arm",
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
HABITS = ("train.checkpoint_every",)  # how a run is kept, not what it computes
FILES = ("config.json", "summary.json", "metrics.jsonl")


class RecordError(Exception):
    """A record that cannot be read: one line with the file, what is wrong in it, and what would be right."""


def load(path: str | Path) -> pd.DataFrame:
    """One row per run under ``path``: a study's folder, a folder of studies, or one run's folder.

    Columns: run, study, arm, seed, status, error, the choices (ffn, mixer, ...), metrics and costs by their names, the machine,
    and the resolved config as ``train.steps`` and so on (lists as text). ``config`` is a hash of everything but the seed:
    two arms that share it are the same model under two names. Broken records raise RecordError; nothing is changed on disk.
    """
    folders = run_folders(Path(path))
    if not folders:
        raise RecordError(f"{path}: no run has left a record here; expected <study>/<run>/config.json below it")
    runs = pd.DataFrame([_row(folder) for folder in folders])
    settings = [*choices(runs), *(name for name in runs.columns if "." in name)]
    labels = pd.concat([_label(study, settings) for _, study in runs.groupby("study", dropna=False)])
    return runs.assign(config=labels["config"], arm=labels["arm"])


def load_curves(path: str | Path) -> pd.DataFrame:
    """One row per logged step of each run: run, arm, seed, step, split (train or val), loss, tokens, seconds, flops ..."""
    names = ["loss", "bits_per_byte", "accuracy", "lr", "grad_norm", "tokens", "seconds", "flops", "tokens_per_s"]
    rows = [
        place | {"step": row["step"], "split": row["split"]} | {name: row.get(name) for name in names}
        for place, row in _metrics(path, routing=False)
    ]
    curves = pd.DataFrame(rows, columns=[*_PLACE, "step", "split", *names])
    curves[names] = curves[names].astype(float)
    return curves.drop_duplicates(["study", "run", "step", "split"], keep="last", ignore_index=True)


def load_routing(path: str | Path) -> pd.DataFrame:
    """One row per expert, layer and logged step: its share of the assignments, and the layer's entropy, dropped, dead."""
    rows = [
        place
        | {"step": row["step"], "layer": row["layer"], "expert": expert, "n_experts": len(row["load"]), "share": share}
        | {name: row.get(name) for name in ("entropy", "dropped", "dead")}
        for place, row in _metrics(path, routing=True)
        for expert, share in enumerate(row["load"])
    ]
    names = ["share", "entropy", "dropped", "dead"]
    routing = pd.DataFrame(rows, columns=[*_PLACE, "step", "layer", "expert", "n_experts", *names])
    routing[names] = routing[names].astype(float)
    return routing.drop_duplicates(["study", "run", "step", "layer", "expert"], keep="last", ignore_index=True)


_PLACE = ("study", "run", "arm", "seed", "status")


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
        runs = [folder for folder in level if any((folder / name).exists() for name in FILES)]
        if runs:
            return runs
        level = [below for folder in level for below in sorted(folder.iterdir()) if below.is_dir() and below.name[0] != "."]
    return []


def _row(folder: Path) -> dict[str, Any]:
    config = _object(folder / "config.json")
    summary = _object(folder / "summary.json") if (folder / "summary.json").exists() else {"status": "unfinished"}
    env = _object(folder / "env.json") if (folder / "env.json").exists() else {}
    study, train = (_part(config, name, folder / "config.json") for name in ("study", "train"))
    if not isinstance(config.get("seed"), int):
        raise _broken(folder / "config.json", f'"seed" is {config.get("seed")!r}, a whole number was expected')
    if summary.get("status") not in STATUSES:
        raise _broken(
            folder / "summary.json", f'"status" is {summary.get("status")!r}, one of {", ".join(STATUSES)} was expected'
        )
    numbers = {
        name: _number(name, value, folder / "summary.json")
        for part in ("metrics", "cost")
        for name, value in _part(summary, part, folder / "summary.json").items()
    }
    budget = [count for count in (train.get(name) for name in ("steps", "batch_size", "seq_len")) if isinstance(count, int)]
    row: dict[str, Any] = {
        "run": folder.name,
        "folder": str(folder),
        "study": str(study.get("name") or folder.parent.name),
        "arm": study.get("arm"),
        "baseline": study.get("baseline"),
        "config": "",
        "seed": config["seed"],
        "status": summary["status"],
        "error": summary.get("error"),
    }
    chosen = _part(config, "choices", folder / "config.json")
    for name, value in chosen.items():
        if name != "study" and "/" not in name:
            row[name if name not in OWN else f"choices.{name}"] = None if value is None else str(value)
    row |= dict.fromkeys((*COSTS, *SPEEDS), math.nan) | numbers
    row |= {"causal": summary.get("causal"), "tokens": math.prod(budget) if len(budget) == 3 else math.nan}
    row |= {name: env.get(name) for name in MACHINE}
    parts = {name: value for name, value in config.items() if name not in ("seed", "out", "study", "choices")}
    return row | {name if "." in name else f"config.{name}": value for name, value in _flat(parts)}


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:  # a list in a cell breaks groupby and nunique
            yield prefix + name, json.dumps(value) if isinstance(value, (list, dict)) else value


def _label(study: pd.DataFrame, settings: list[str]) -> pd.DataFrame:
    """``config`` and ``arm`` per run: the given name, else what varies in the study; both where a name holds two configs."""
    text = study[settings].astype(str).mask(study[settings].isna(), "-").replace(r"\.0$", "", regex=True)
    follows_seed = [name for name in settings if name.endswith(".seed") or (text[name] == study["seed"].astype(str)).all()]
    text = text.drop(columns=[*follows_seed, *(name for name in HABITS if name in settings)])
    hashes = [hashlib.sha256("\n".join(row).encode()).hexdigest()[:12] for row in text.to_numpy()]
    config, arms = pd.Series(hashes, index=study.index), study["arm"].fillna("")
    for name in arms.unique():
        here = arms == name
        told = _what_varies(text[here], config[here])
        if not name:
            fallback = [text[axis] for axis in AXES if axis in text]
            plain = pd.concat(fallback, axis=1)[here].agg(", ".join, axis=1) if fallback else "all runs"
            arms = arms.mask(here, plain if told is None else told)
        elif told is not None:
            arms = arms.mask(here, name + " (" + told + ")")
    return pd.DataFrame({"config": config, "arm": arms})


def _what_varies(text: pd.DataFrame, config: pd.Series[str]) -> pd.Series[str] | None:
    """A label per row: every choice that varies by itself, then as few keys as tell all configs apart. None: nothing varies."""
    varying = [name for name in text.columns if text[name].nunique() > 1]
    options = sorted((n for n in varying if "." not in n), key=lambda name: AXES.index(name) if name in AXES else len(AXES))
    options = [name for i, name in enumerate(options) if not any(_follows(text, name, before) for before in options[:i])]
    keys = sorted((n for n in varying if "." in n), key=lambda name: (name.count("."), name))
    parts = [text[name] for name in options]
    n_told = len(text[options].drop_duplicates()) if options else 1
    shown = list(options)
    for key in keys:
        if n_told == config.nunique():
            break
        n_with_key = len(text[[*shown, key]].drop_duplicates())
        if n_with_key > n_told:
            n_told, shown = n_with_key, [*shown, key]
            parts.append(key.rsplit(".", 1)[1] + " " + text[key])
    return pd.concat(parts, axis=1).agg(", ".join, axis=1) if parts else None


def _follows(text: pd.DataFrame, name: str, other: str) -> bool:
    """Whether one choice comes with another, as the window comes with sparse attention: then it says nothing new."""
    return len(text[[name, other]].drop_duplicates()) == text[other].nunique()


def _metrics(path: str | Path, *, routing: bool) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(place, row) for the rows of every run that are, or are not, about routing."""
    for run in load(path).to_dict("records"):
        file = Path(run["folder"]) / "metrics.jsonl"
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
            yield {name: run[name] for name in _PLACE}, row


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
