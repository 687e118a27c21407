"""The question that a study registers before anything runs: what is claimed, by whom, and what would count as an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..build.errors import nearest
from .record import COSTS, SPEEDS

OUTCOMES = ("lower", "higher", "equivalent")
MEASURED = (*COSTS, *SPEEDS)
PREFIXES = ("val_", "routing_")  # of the other metrics, those of the held-out rows and of the routers


class Prediction(NamedTuple):
    """What is expected of one arm's metric. outcome: lower, higher or equivalent, against another arm (None: the baseline), or
    the number that the metric itself is to come to. margin: the smallest difference that would matter, in the metric's unit."""

    arm: str
    metric: str
    outcome: str | float
    margin: float
    against: str | None


@dataclass(frozen=True, kw_only=True)
class Question:
    """A claim with what it predicts.

    claim: in one sentence. source: who says so. predicted: arm -> metric -> lower, higher or equivalent, against the
    baseline's, or a number that it comes to. margin: metric -> the smallest difference that would matter, in its unit.
    against: arm -> the arm that it is held against instead of the baseline. equal: costs that every arm shares, within 1 %,
    with what it is held against.
    """

    claim: str
    source: str
    predicted: Mapping[str, Mapping[str, str | float]]
    margin: Mapping[str, float]
    against: Mapping[str, str] = field(default_factory=dict)
    equal: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.predicted:
            raise ValueError("predicted={}: at least one arm, with what is expected of it, is needed")
        for arm, metrics in self.predicted.items():
            if not isinstance(metrics, Mapping) or not metrics:
                raise ValueError(f"predicted.{arm}={metrics!r}: a metric with what is expected of it is needed")
            for metric, outcome in metrics.items():
                self._refuse(arm, metric, outcome)
        for arm in self.against:
            if arm not in self.predicted:
                raise ValueError(f"against.{arm}: nothing is predicted of it; {nearest(arm, list(self.predicted))}")
            if not any(isinstance(outcome, str) for outcome in self.predicted[arm].values()):
                raise ValueError(f"against.{arm}: numbers are predicted of it, which are held against no arm; leave it out")
        for metric in self.margin:
            if not any(metric in metrics for metrics in self.predicted.values()):
                raise ValueError(f"margin.{metric}: nothing is predicted of it")
        for cost in self.equal:
            if cost not in COSTS:
                raise ValueError(f"equal: {cost} is none of {', '.join(COSTS)}")

    def _refuse(self, arm: str, metric: str, outcome: str | float) -> None:
        if not metric.startswith(PREFIXES) and metric not in MEASURED:
            raise ValueError(f"predicted.{arm}.{metric}: val_... or a cost is expected; {nearest(metric, MEASURED)}")
        if isinstance(outcome, str) and outcome not in OUTCOMES:
            raise ValueError(f"predicted.{arm}.{metric}={outcome!r}: one of {', '.join(OUTCOMES)}, or a number, is expected")
        if metric not in self.margin:
            raise ValueError(f"margin.{metric} is missing: the smallest difference that would matter, in the metric's unit")
        if not self.margin[metric] > 0:
            raise ValueError(
                f"margin.{metric}={self.margin[metric]}: more than 0 is needed: a difference that would not matter"
            )

    def __iter__(self) -> Iterator[Prediction]:
        for arm, metrics in self.predicted.items():
            for metric, outcome in metrics.items():
                yield Prediction(arm, metric, outcome, self.margin[metric], self.against.get(arm))

    @property
    def metrics(self) -> list[str]:
        """What is predicted, each once."""
        return list(dict.fromkeys(prediction.metric for prediction in self))

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "equal": list(self.equal)}
