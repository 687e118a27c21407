"""What runs belong together for: a study's name and arms, the question that it asks, and how its arms are tuned."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..build.errors import ConfigError
from ..build.objects import call
from .question import Question
from .record import TIMED


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How each arm's learning rate is found before the arms are compared.

    rates: of optim.lr, each twice the one before; the grid grows where the best one is its first or last.
    seeds: of the trials, none of them a seed of the study.
    """

    rates: Sequence[float]
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.rates) < 3 or not self.seeds:
            raise ValueError(f"rates={list(self.rates)}, seeds={list(self.seeds)}: at least 3 rates and 1 seed are needed")
        if any(not 1.99 * before < after < 2.01 * before for before, after in itertools.pairwise(self.rates)):
            raise ValueError(f"rates={list(self.rates)}: numbers above 0 are expected, each twice the one before")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Which runs belong together. name: of their folder. arm: this run's given name. baseline: the arm that others are compared
    with. slots: runs at a time; timeout: seconds after which a run counts as hung. memory: GiB that a run may need: auto = what
    the device has, None = any. timing: turns in which the arms are timed afterwards, None = not."""

    name: str
    arm: str | None = None
    baseline: str | None = None
    question: Question | None = None
    tuning: Tuning | None = None
    slots: int = 1
    timeout: float | None = None
    memory: float | Literal["auto"] | None = "auto"
    timing: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^\s./\\][^/\\\n\r\0]{0,99}", self.name) or not self.name.isprintable():
            raise ConfigError(f"study.name={self.name!r}: a plain folder name is expected, of at most 100 characters")
        if isinstance(self.memory, float | int) and self.memory <= 0:
            raise ValueError(f"memory={self.memory}: more than 0 GiB are needed, auto for what is there, or null for no limit")
        if self.slots < 1:
            raise ValueError(f"slots={self.slots}: at least 1 run at a time is needed")
        if self.timing is not None and self.timing < 1:
            raise ValueError(f"timing={self.timing}: at least 1 turn is needed, or null for none")
        speeds = [prediction.metric for prediction in (self.question or ()) if prediction.metric in TIMED]
        if speeds and self.timing is None:
            raise ValueError(
                f"timing=null: the question is about {speeds[0]}; say in how many turns to time the arms, such as 20"
            )
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"timeout={self.timeout}: more than 0 seconds are needed, or null for no limit")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(content: Mapping[str, Any]) -> Study:
        """From what a config or a record says. Raises ConfigError: an unknown key or a wrong value."""
        parts = {name: content.get(name) for name in ("question", "tuning")}
        for name, part in parts.items():
            if part is not None and not isinstance(part, dict):
                raise ConfigError(f"study.{name}={part!r}: its parts are expected, or null")
        question, tuning = parts["question"], parts["tuning"]
        return call(
            Study,
            {key: value for key, value in content.items() if key not in parts},
            "study",
            question=None if question is None else call(Question, question, "study.question"),
            tuning=None if tuning is None else call(Tuning, tuning, "study.tuning"),
        )
