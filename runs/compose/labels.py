"""What tables and figures call an arm: made once, when its command is launched, and recorded with the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..build.groups import AXES
from ..job.run import Run
from .compose import Point
from .effect import by_name
from .overrides import group_of, key_of

STARTS = ("run", "weights")  # folders that runs begin from: they name an arm by their last part


def labelled(points: Sequence[Point]) -> list[Run]:
    """The runs of one command with their labels: the arm's name, and what else varies among them.

    Where nothing varies, all that was said and read; where nothing was said, the five axes.
    """
    said = [{key_of(word): word.partition("=")[2] for word in point.words if names_an_arm(word, point)} for point in points]
    keys = list(dict.fromkeys(key for words in said for key in words))
    varying = [key for key in keys if len({words.get(key) for words in said}) > 1]
    keys = sorted(varying or keys, key=lambda key: AXES.index(key) if key in AXES else len(AXES))
    runs = []
    for point, words in zip(points, said, strict=True):
        arm = point.run.study.arm
        shown = keys if arm is None or varying else []
        parts = [*([] if arm is None else [arm]), *(part(key, words[key], point.run) for key in shown if key in words)]
        plain = [point.run.choices[axis] for axis in AXES if axis in point.run.choices]
        runs.append(point.run.labelled(", ".join(parts or plain)))
    return runs


def names_an_arm(word: str, point: Point) -> bool:
    return word in point.read and (not by_name(word) or group_of(word) in (*STARTS, "train"))


def part(key: str, value: str, run: Run) -> str:
    if key == "stack":
        return run.choices["mixer"]
    if key in STARTS:
        return f"{key} {Path(value.strip(chr(39))).name}"
    return f"{key.rpartition('.')[2]} {value}" if "." in key else value
