"""What tables and figures call an arm: made once, when its command is launched, and recorded with the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..build.groups import AXES, KEYS
from ..job import record
from ..job.run import Run
from .compose import Point
from .effect import by_name
from .overrides import group_of, key_of

STARTS = ("run", "weights")  # folders that runs begin from: they name an arm by their last part


def labelled(points: Sequence[Point]) -> list[Run]:
    """The runs of one command with their labels: the arm's name, and what else varies among them.

    Where nothing varies, what was said of the model; where nothing was said, what it is made of. An arm that the study has
    already keeps its label; one whose label another arm has gets a longer one.
    """
    said = [{key_of(word): word.partition("=")[2] for word in point.words if names_an_arm(word, point)} for point in points]
    keys = list(dict.fromkeys(key for words in said for key in words))
    varying = [key for key in keys if len({words.get(key) for words in said}) > 1]
    known = {folder: record.labels(folder) for folder in {point.run.folder.parent for point in points}}
    runs = []
    for point, words in zip(points, said, strict=True):
        run, labels = point.run, known[point.run.folder.parent]
        own = (run.study.arm, run.arm_hash)
        if own not in labels:
            labels[own] = next(label for label in candidates(run, words, varying) if label not in labels.values())
        runs.append(run.labelled(labels[own]))
    return runs


def candidates(run: Run, words: dict[str, str], varying: Sequence[str]) -> Iterator[str]:
    """Names for an arm, from the shortest to one that nothing else has."""
    given = [] if run.study.arm is None else [run.study.arm]
    of_the_model = [key for key in words if KEYS[group_of(key)].inherited or group_of(key) in STARTS]
    for keys in (varying or ([] if given else of_the_model), [*words]):
        shown = sorted((key for key in keys if key in words), key=lambda key: AXES.index(key) if key in AXES else len(AXES))
        parts = [*given, *(part(key, words[key], run, shown) for key in shown)]
        yield ", ".join(parts or run.made_of)
    yield f"{run.name} {run.arm_hash[:8]}"


def names_an_arm(word: str, point: Point) -> bool:
    return word in point.read and (not by_name(word) or group_of(word) in (*STARTS, "train"))


def part(key: str, value: str, run: Run, shown: Sequence[str]) -> str:
    """What a label says of a key: an option alone, else the key, as short as it stays clear among those that are shown."""
    value = {"True": "true", "False": "false"}.get(value, value.strip("'\""))  # Hydra has read them
    if key == "stack":
        return run.choices["mixer"]
    if key in STARTS:
        return f"{key} {Path(value).name}"
    if key in run.choices:
        return value
    name = key.rpartition(".")[2]
    return f"{name if [other.rpartition('.')[2] for other in shown].count(name) == 1 else key} {value}"
