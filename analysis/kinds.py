"""Values of a record taken by type: what is another kind than a table can use is an error that names the file and the place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from runs.job.record import RecordError

HUGE = 1e100  # no number of a run comes near, and its square is still a number


class Part(NamedTuple):
    """An object of a file, whose values are taken by type."""

    file: str
    content: dict[str, Any]
    where: str = ""

    def take(self, name: str, kind: Callable[[Any], Any]) -> Any:
        """Raises RecordError: the value is of another kind."""
        value = self.content.get(name)
        try:
            return kind(value)
        except TypeError as error:
            raise broken(self.file, f'{self.where}"{name}" is {_shown(value)}, {error} was expected') from None

    def part(self, name: str) -> Part:
        return Part(self.file, self.take(name, object_or_none) or {})


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def text_or_none(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError("text or null")
    return value


def predictions(value: Any) -> dict[str, dict[str, str | float]]:
    if not isinstance(value, dict) or not all(isinstance(metrics, dict) for metrics in value.values()):
        raise TypeError("an arm with its metrics for each")
    return {
        printable(arm): {printable(metric): side if isinstance(side, str) else number(side) for metric, side in metrics.items()}
        for arm, metrics in value.items()
    }


def numbers(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or any(item is None for item in value.values()):
        raise TypeError("an object of numbers")
    return {printable(name): number(item) for name, item in value.items()}


def names(value: Any) -> dict[str, str]:
    if value is not None and not (isinstance(value, dict) and all(isinstance(item, str) for item in value.values())):
        raise TypeError("an object of texts or null")
    return {printable(name): printable(item) for name, item in (value or {}).items()}


def texts(value: Any) -> list[str]:
    if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise TypeError("a list of texts or null")
    return value or []


def object_or_none(value: Any) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise TypeError("an object")
    return value


def objects(value: Any) -> list[dict[str, Any]]:
    if value is not None and not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
        raise TypeError("a list of objects or null")
    return value or []


def flag(value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise TypeError("true, false or null")
    return value


def count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise TypeError("a whole number from 0")
    return value


def number(value: Any) -> float:
    """A missing number is nan."""
    if type(value) in (float, int) and -HUGE < value < HUGE:
        return float(value)
    if value is not None:
        raise TypeError("a number or null")
    return math.nan


def shares(value: Any) -> list[float]:
    if not isinstance(value, list) or not value:
        raise TypeError("a list of numbers")
    return [number(share) for share in value]


def printable(text: str) -> str:
    """The text in one line, with a question mark in a diamond for what has no picture or would turn the text around it."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))


def _shown(value: Any) -> str:
    """Short, whatever it is."""
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__}"
    text = f"{value:.3g}" if type(value) is float else f"'{value}'" if isinstance(value, str) else str(value)
    return printable(text if len(text) <= 60 else text[:59] + "…")


def broken(file: str, what: str) -> RecordError:
    return RecordError(f"{file}: {what}; delete its folder and give the run's command again")
