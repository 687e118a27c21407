"""What is compared and with what: the metric of a study, its baseline, and the runs that have a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from runs.job.record import RecordError

MATCHED = ("total_params", "active_params", "flops_per_token", "state_bytes")  # what a fair arm holds equal with its baseline


class Metric(NamedTuple):
    """A result: its column among the runs, its column in the curves, and its name and unit in text."""

    column: str
    curve: str
    name: str
    unit: str
    lower_is_better: bool


METRICS = (
    Metric("val_bits_per_byte", "bits_per_byte", "validation bits per byte", "bits per byte", True),
    Metric("val_accuracy", "accuracy", "validation accuracy", "accuracy", False),
    Metric("val_loss", "loss", "validation loss", "nats per token", True),
)
MASKED_TOKENS = Metric("val_loss", "loss", "validation loss on masked tokens", "nats per masked token", True)


def usable(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """The finished runs with a finite value."""
    return runs[(runs["status"] == "done") & np.isfinite(runs[column].astype(float))]


def counted(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The runs, those that diverged with the worst result that any run has: to leave them out would favour their arm."""
    gone = runs["status"] == "diverged"
    if not gone.any() or not metric.startswith("val_"):
        return runs
    finite = usable(runs, metric)[metric]
    worst = finite.min() if "accuracy" in metric else finite.max()
    return runs.assign(**{metric: runs[metric].mask(gone, worst), "status": runs["status"].mask(gone, "done")})


def choose_metric(runs: pd.DataFrame, registered: Sequence[str] = ()) -> Metric:
    """The first registered one that is a result; else bits per byte where text was modelled, the loss where tokens were masked,
    else accuracy (probes), else the loss."""
    masked = "objective" in runs and (runs["objective"] == "masked_lm").all()
    order = {column: place for place, column in enumerate(registered)}
    known = sorted((MASKED_TOKENS,) if masked else METRICS, key=lambda metric: order.get(metric.column, len(order)))
    for metric in known:
        if metric.column in runs and len(usable(runs, metric.column)):
            return metric
    counts = ", ".join(f"{count} {status}" for status, count in runs["status"].value_counts().items())
    raise RecordError(f"no finished run with a result among {len(runs)} ({counts}): give the study's command again to continue")


def choose_baseline(runs: pd.DataFrame, wanted: str | None = None) -> str:
    """The wanted arm, else the one that the study's config names, else the one with most finished runs, the oldest first."""
    done = (runs["status"] == "done").groupby(runs["arm"], dropna=False).sum()
    started = runs["started"].astype(str).groupby(runs["arm"], dropna=False).min()
    order = sorted(done.index, key=lambda arm: (-done[arm], started[arm], arm))
    for name in [wanted] if wanted else [str(name) for name in runs["baseline"].dropna().unique()]:
        found = called(runs, name, order)
        if found:
            return found[0]
        if wanted:
            raise RecordError(f'no arm is called "{wanted}"; the arms are: {"; ".join(sorted(order))}')
    return str(order[0])


def called(runs: pd.DataFrame, name: str, order: list[str] | None = None) -> list[str]:
    """The arms of this label, else those that were given this name."""
    given = runs.groupby("arm", dropna=False)["given_name"].first()
    arms = [str(arm) for arm in (given.index if order is None else order)]
    return [arm for arm in arms if arm == name] or [arm for arm in arms if given[arm] == name]
