"""One run's record, checked down to the type of every value that a table uses, as a row and its logged steps."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
HUGE = 1e100  # no number of a run comes near, and its square is still a number


class Logged(NamedTuple):
    """A run: its row among the runs, and the rows of metrics.jsonl in the order of their steps, each step once."""

    row: dict[str, Any]
    steps: list[dict[str, Any]]


def read_run(path: str, *, steps: bool = True) -> Logged:
    """A run's record. steps: read its rows too; else those of a run that ended are trusted by their digest.

    Raises RecordError: the first thing that is damaged, or of another type than expected; one line.
    """
    folder = Path(path)
    try:
        row = _row(folder, read(folder))
        ended = row["status"] in ENDED
        return Logged(row, _steps(folder / METRICS, cut_off=not ended) if steps or not ended else [])
    except OSError as error:
        raise RecordError(f"{error.filename or folder}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise _broken(folder / CONFIG, "nested too deeply") from None


def _row(folder: Path, found: Record) -> dict[str, Any]:
    config, env = Part(folder / CONFIG, found.config), Part(folder / ENV, found.env)
    summary = Part(folder / SUMMARY, found.summary)
    study, train = config.part("study"), config.part("train")
    tokens = math.prod(train.take(name, _count) for name in ("steps", "batch_size", "seq_len"))
    if tokens >= 2**63:
        raise _broken(folder / CONFIG, f"{tokens:,} tokens of training, fewer than 2^63 were expected")
    row: dict[str, Any] = {
        "run": folder.name,
        "study": study.take("name", _text_or_none) or folder.parent.name,
        "arm": config.take("label", _text),
        "given_name": study.take("arm", _text_or_none),
        "baseline": study.take("baseline", _text_or_none),
        "config": config.take("arm_hash", _text),
        "identity": config.take("identity", _text),
        "question": _question(study),
        "seed": config.take("seed", _count),
        "status": found.status,
        "error": summary.take("error", _text_or_none),
    }
    chosen = config.part("choices")
    row |= {name: chosen.take(name, _text_or_none) for name in chosen.content if name in KEYS and name not in OWN}
    metrics, cost = summary.part("metrics"), summary.part("cost")
    row |= dict.fromkeys((*COSTS, *SPEEDS), math.nan)
    row |= {name: cost.take(name, _number) for name in cost.content if name in COSTS or name in SPEEDS}
    row |= _timing(folder / TIMING)
    row |= {name: metrics.take(name, _number) for name in metrics.content if name.startswith(("val_", "routing_"))}
    row |= {"causal": summary.take("causal", _flag), "tokens": tokens, "eval_tokens": _eval_tokens(train)}
    row["chance"] = env.take("chance", _number)
    row |= {name: env.take(name, _flag if name == "git_dirty" else _text_or_none) for name in MACHINE if name != "threads"}
    row["threads"] = _threads(env)
    parts = {name: value for name, value in config.content.items() if name not in NOT_SETTINGS}
    row |= {name if "." in name else f"config.{name}": value for name, value in _flat(parts)}
    shown = {_column(name): printable(value) if isinstance(value, str) else value for name, value in row.items()}
    return shown | {"folder": str(folder)}


def _timing(file: Path) -> dict[str, Any]:
    """The speeds of a run that was timed in turns with others, for those that it had in training; timed: in which session."""
    if not file.exists():
        return {"timed": None}
    timing = Part(file, read_json(file))
    return {"timed": timing.take("session", _text)} | {name: timing.take(name, _number) for name in TIMED}


def _threads(env: Part) -> str | None:
    """The numbers of threads of all sessions: 2, or 1, 2."""
    sessions = [env, *(Part(env.file, session) for session in env.take("earlier", _objects))]
    counts = {session.take("threads", _count) for session in sessions if session.content.get("threads") is not None}
    return ", ".join(map(str, sorted(counts))) or None


def _eval_tokens(train: Part) -> float:
    """Held-out tokens of each evaluation: eval_batches x batch_size x seq_len; nan where the first was not recorded."""
    batches = train.take("eval_batches", _number)
    return batches * train.take("batch_size", _count) * train.take("seq_len", _count)


def _question(study: Part) -> str | None:
    """What the study registered, as JSON text: a dictionary in a cell breaks groupby and nunique."""
    if study.take("question", _object_or_none) is None:
        return None
    asked = study.part("question")
    kinds: dict[str, Callable[[Any], Any]] = {"claim": _text, "source": _text, "predicted": _predictions}
    found = {name: asked.take(name, kind) for name, kind in kinds.items()}
    found |= {
        "margin": asked.take("margin", _numbers),
        "against": asked.take("against", _names),
        "equal": asked.take("equal", _texts),
    }
    try:
        return json.dumps(Question(**found).to_json())
    except ValueError as error:
        raise _broken(study.file, f'"question": {error}') from None


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:  # a list in a cell breaks groupby and nunique
            yield prefix + name, json.dumps(value) if isinstance(value, (list, dict)) else value


def _steps(file: Path, *, cut_off: bool) -> list[dict[str, Any]]:
    """The checked rows; of a step that was logged again after a resume, the last. cut_off: the last line may be half a line."""
    try:
        lines = file.read_bytes().decode().split("\n") if file.exists() else []
    except UnicodeDecodeError as error:
        raise _broken(file, f"not UTF-8 at byte {error.start}") from None
    if cut_off and lines and not _is_json(lines[-1]):
        lines.pop()
    rows = {}
    for number, line in enumerate(lines, start=1):
        if line:
            row = _step(line, file, number)
            rows[row["split"], row["step"], row.get("layer")] = row
    return sorted(rows.values(), key=lambda row: row["step"])


def _step(line: str, file: Path, number: int) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except RecursionError:
        raise _broken(file, f"line {number}: nested too deeply") from None
    except ValueError as error:
        raise _broken(file, f"line {number}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise _broken(file, f"line {number} holds a {type(content).__name__}, an object was expected")
    part = Part(file, content, f"line {number}: ")
    row: dict[str, Any] = {"step": part.take("step", _count), "split": part.take("split", _text)}
    if row["split"] != "routing":
        return row | {name: part.take(name, _number) for name in STEP}
    load = part.take("load", _shares)
    row |= {"layer": printable(part.take("layer", _text)), "load": load}
    return row | {name: part.take(name, _number) for name in ROUTING}


class Part(NamedTuple):
    """An object of a file, whose values are taken by type."""

    file: Path
    content: dict[str, Any]
    where: str = ""

    def take(self, name: str, kind: Callable[[Any], Any]) -> Any:
        """Raises RecordError: the value is of another kind."""
        value = self.content.get(name)
        try:
            return kind(value)
        except TypeError as error:
            raise _broken(self.file, f'{self.where}"{name}" is {_shown(value)}, {error} was expected') from None

    def part(self, name: str) -> Part:
        return Part(self.file, self.take(name, _object_or_none) or {})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _text_or_none(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError("text or null")
    return value


def _predictions(value: Any) -> dict[str, dict[str, str | float]]:
    if not isinstance(value, dict) or not all(isinstance(metrics, dict) for metrics in value.values()):
        raise TypeError("an arm with its metrics for each")
    return {
        printable(arm): {
            printable(metric): side if isinstance(side, str) else _number(side) for metric, side in metrics.items()
        }
        for arm, metrics in value.items()
    }


def _numbers(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or any(item is None for item in value.values()):
        raise TypeError("an object of numbers")
    return {printable(name): _number(item) for name, item in value.items()}


def _names(value: Any) -> dict[str, str]:
    if value is not None and not (isinstance(value, dict) and all(isinstance(item, str) for item in value.values())):
        raise TypeError("an object of texts or null")
    return {printable(name): printable(item) for name, item in (value or {}).items()}


def _texts(value: Any) -> list[str]:
    if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise TypeError("a list of texts or null")
    return value or []


def _object_or_none(value: Any) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise TypeError("an object")
    return value


def _objects(value: Any) -> list[dict[str, Any]]:
    if value is not None and not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
        raise TypeError("a list of objects or null")
    return value or []


def _flag(value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise TypeError("true, false or null")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise TypeError("a whole number from 0")
    return value


def _number(value: Any) -> float:
    """A missing number is nan."""
    if type(value) in (float, int) and -HUGE < value < HUGE:
        return float(value)
    if value is not None:
        raise TypeError("a number or null")
    return math.nan


def _shares(value: Any) -> list[float]:
    if not isinstance(value, list) or not value:
        raise TypeError("a list of numbers")
    return [_number(share) for share in value]


def printable(text: str) -> str:
    """The text in one line, with a question mark in a diamond for what has no picture or would turn the text around it."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))


@functools.lru_cache(maxsize=4096)
def _column(name: str) -> str:
    """The same string for the same name in every row: thousands of rows share it."""
    return printable(name)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _shown(value: Any) -> str:
    """Short, whatever it is."""
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__}"
    text = f"{value:.3g}" if type(value) is float else f"'{value}'" if isinstance(value, str) else str(value)
    return printable(text if len(text) <= 60 else text[:59] + "…")


def _broken(file: Path, what: str) -> RecordError:
    return RecordError(f"{file}: {what}; delete its folder and give the run's command again")
