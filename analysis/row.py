"""One run's record, checked down to the type of every value that a table uses, as a row and its logged steps."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from analysis import kinds
from runs.build.groups import KEYS
from runs.job.question import Question
from runs.job.record import (
    CONFIG,
    COSTS,
    ENDED,
    ENV,
    METRICS,
    SPEEDS,
    SUMMARY,
    TIMED,
    TIMING,
    Record,
    RecordError,
    read,
    read_json,
)

MACHINE = ("device", "torch", "python", "threads", "git_commit", "git_dirty", "data_sha256", "started")
OWN = (
    "run",
    "folder",
    "study",
    "arm",
    "given_name",
    "baseline",
    "config",
    "identity",
    "seed",
    "status",
    "error",
    "causal",
    "tokens",
    "eval_tokens",
    "chance",
    "question",
    "timed",
    *COSTS,
    *SPEEDS,
    *MACHINE,
)
NOT_SETTINGS = ("schema", "label", "arm_hash", "identity", "seed", "out", "study", "choices", "model")  # of config.json
STEP = ("loss", "bits_per_byte", "accuracy", "lr", "grad_norm", "tokens", "seconds", "flops", "tokens_per_s")
ROUTING = ("entropy", "dropped", "dead")


class Logged(NamedTuple):
    """A run: its row among the runs, and the rows of metrics.jsonl in the order of their steps, each step once."""

    row: dict[str, Any]
    steps: list[dict[str, Any]]


def read_run(path: str, *, steps: bool = True) -> Logged:
    """A run's record. steps: read its rows too; else those of a run that ended are trusted by their digest.

    Raises RecordError: the first thing that is damaged, or of another type than expected; one line.
    """
    try:
        row = _row(path, read(Path(path)))
        ended = row["status"] in ENDED
        return Logged(row, _steps(f"{path}/{METRICS}", cut_off=not ended) if steps or not ended else [])
    except OSError as error:
        raise RecordError(f"{error.filename or path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise kinds.broken(f"{path}/{CONFIG}", "nested too deeply") from None


def _row(folder: str, found: Record) -> dict[str, Any]:
    config, env = kinds.Part(f"{folder}/{CONFIG}", found.config), kinds.Part(f"{folder}/{ENV}", found.env)
    summary = kinds.Part(f"{folder}/{SUMMARY}", found.summary)
    study, train = config.part("study"), config.part("train")
    tokens = math.prod(train.take(name, kinds.count) for name in ("steps", "batch_size", "seq_len"))
    if tokens >= 2**63:
        raise kinds.broken(f"{folder}/{CONFIG}", f"{tokens:,} tokens of training, fewer than 2^63 were expected")
    row: dict[str, Any] = {
        "run": os.path.basename(folder),
        "study": study.take("name", kinds.text_or_none) or os.path.basename(os.path.dirname(folder)),
        "arm": config.take("label", kinds.text),
        "given_name": study.take("arm", kinds.text_or_none),
        "baseline": study.take("baseline", kinds.text_or_none),
        "config": config.take("arm_hash", kinds.text),
        "identity": config.take("identity", kinds.text),
        "question": _question(study),
        "seed": config.take("seed", kinds.count),
        "status": found.status,
        "error": summary.take("error", kinds.text_or_none),
    }
    chosen = config.part("choices")
    row |= {name: chosen.take(name, kinds.text_or_none) for name in chosen.content if name in KEYS and name not in OWN}
    metrics, cost = summary.part("metrics"), summary.part("cost")
    row |= dict.fromkeys((*COSTS, *SPEEDS), math.nan)
    row |= {name: cost.take(name, kinds.number) for name in cost.content if name in COSTS or name in SPEEDS}
    row |= _timing(f"{folder}/{TIMING}")
    row |= {name: metrics.take(name, kinds.number) for name in metrics.content if name.startswith(("val_", "routing_"))}
    row |= {"causal": summary.take("causal", kinds.flag), "tokens": tokens, "eval_tokens": _eval_tokens(train)}
    row["chance"] = env.take("chance", kinds.number)
    row |= {
        name: env.take(name, kinds.flag if name == "git_dirty" else kinds.text_or_none) for name in MACHINE if name != "threads"
    }
    row["threads"] = _threads(env)
    parts = {name: value for name, value in config.content.items() if name not in NOT_SETTINGS}
    _flatten(parts, "", row)
    shown = {_column(name): kinds.printable(value) if isinstance(value, str) else value for name, value in row.items()}
    return shown | {"folder": folder}


def _timing(file: str) -> dict[str, Any]:
    """The speeds of a run that was timed in turns with others, for those that it had in training; timed: in which session."""
    if not os.path.exists(file):
        return {"timed": None}
    timing = kinds.Part(file, read_json(file))
    return {"timed": timing.take("session", kinds.text)} | {name: timing.take(name, kinds.number) for name in TIMED}


def _threads(env: kinds.Part) -> str | None:
    """The numbers of threads of all sessions: 2, or 1, 2."""
    sessions = [env, *(kinds.Part(env.file, session) for session in env.take("earlier", kinds.objects))]
    counts = {session.take("threads", kinds.count) for session in sessions if session.content.get("threads") is not None}
    return ", ".join(map(str, sorted(counts))) or None


def _eval_tokens(train: kinds.Part) -> float:
    """Held-out tokens of each evaluation: eval_batches x batch_size x seq_len; nan where the first was not recorded."""
    batches = train.take("eval_batches", kinds.number)
    return batches * train.take("batch_size", kinds.count) * train.take("seq_len", kinds.count)


def _question(study: kinds.Part) -> str | None:
    """What the study registered, as JSON text: a dictionary in a cell breaks groupby and nunique."""
    if study.take("question", kinds.object_or_none) is None:
        return None
    asked = study.part("question")
    wanted: dict[str, Callable[[Any], Any]] = {"claim": kinds.text, "source": kinds.text, "predicted": kinds.predictions}
    found = {name: asked.take(name, kind) for name, kind in wanted.items()}
    found |= {
        "margin": asked.take("margin", kinds.numbers),
        "against": asked.take("against", kinds.names),
        "equal": asked.take("equal", kinds.texts),
    }
    try:
        return json.dumps(Question(**found).to_json())
    except ValueError as error:
        raise kinds.broken(study.file, f'"question": {error}') from None


def _flatten(tree: dict[str, Any], prefix: str, row: dict[str, Any]) -> None:
    """Puts the leaves of a config into the row: a.b.c, and config.a for one that is alone."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            _flatten(value, f"{prefix}{name}.", row)
        else:  # a list in a cell breaks groupby and nunique
            cell = json.dumps(value) if isinstance(value, (list, dict)) else value
            row[f"{prefix}{name}" if prefix or "." in name else f"config.{name}"] = cell


def _steps(file: str, *, cut_off: bool) -> list[dict[str, Any]]:
    """The checked rows; of a step that was logged again after a resume, the last. cut_off: the last line may be half a line."""
    try:
        lines = Path(file).read_bytes().decode().split("\n") if os.path.exists(file) else []
    except UnicodeDecodeError as error:
        raise kinds.broken(file, f"not UTF-8 at byte {error.start}") from None
    if cut_off and lines and not _is_json(lines[-1]):
        lines.pop()
    rows = {}
    for number, line in enumerate(lines, start=1):
        if line:
            row = _step(line, file, number)
            rows[row["split"], row["step"], row.get("layer")] = row
    return sorted(rows.values(), key=lambda row: row["step"])


def _step(line: str, file: str, number: int) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except RecursionError:
        raise kinds.broken(file, f"line {number}: nested too deeply") from None
    except ValueError as error:
        raise kinds.broken(file, f"line {number}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise kinds.broken(file, f"line {number} holds a {type(content).__name__}, an object was expected")
    part = kinds.Part(file, content, f"line {number}: ")
    row: dict[str, Any] = {"step": part.take("step", kinds.count), "split": part.take("split", kinds.text)}
    if row["split"] != "routing":
        return row | _numbers(part, STEP)
    load = part.take("load", kinds.shares)
    row |= {"layer": kinds.printable(part.take("layer", kinds.text)), "load": load}
    return row | _numbers(part, ROUTING)


def _numbers(part: kinds.Part, names: Iterable[str]) -> dict[str, float]:
    """What is a number already, as most are, is taken as it is: a study has hundreds of thousands."""
    found = {name: part.content.get(name) for name in names}
    return {
        name: value if type(value) is float and -kinds.HUGE < value < kinds.HUGE else part.take(name, kinds.number)
        for name, value in found.items()
    }


@functools.lru_cache(maxsize=4096)
def _column(name: str) -> str:
    """The same string for the same name in every row: thousands of rows share it."""
    return kinds.printable(name)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
