"""The answer to a registered question in words: what was claimed, what was measured, and the verdict."""

from __future__ import annotations

import math
from typing import Any

from analysis.comparison import Comparison, short_names
from analysis.digits import MINUS, NONE, count, si, signed

OF_THE_VERDICT = {True: ", as predicted", False: ", against the prediction", None: ""}


def asked(study: Comparison) -> str:
    """The claim and who says so; empty where nothing was registered."""
    if study.question is None:
        return ""
    source = f" ({study.question.source})" if study.question.source else ""
    return f"{study.question.claim}{source}"


def answers(study: Comparison) -> list[str]:
    """A sentence per claim: prediction, measurement, verdict, and why."""
    sentences = []
    for row in rows(study):
        heading = f"{row['name']}: predicted {row['predicted']} in {row['metric']}"
        margin = f" within {row['margin']:g}" if row["predicted"] == "equivalent" else ""
        measured = f"measured {row['measured']} over {count(row['n'], 'seed')}" if row["n"] else "not measured"
        sentences.append(f"{heading}{margin}, {measured}: {row['word']}{row['because']}.")
    return sentences


def rows(study: Comparison) -> list[dict[str, Any]]:
    """The claims as text: name, predicted, metric, margin, measured, n, word (the verdict), because, caution, holds."""
    names, found = short_names(study), []
    for row in study.claims.to_dict("records"):
        notes = "; ".join(part for part in (row["why"], row["caution"]) if part)
        word = row["verdict"] or "no verdict"
        found.append(
            {
                **{str(key): value for key, value in row.items()},
                "name": names.get(row["arm"], row["arm"]),
                "measured": _amounts(study, row),
                "word": f"{word}{OF_THE_VERDICT[row['holds']]}",
                "because": f" ({notes})" if notes else "",
                "notes": notes,
            }
        )
    return found


def _amounts(study: Comparison, row: dict[Any, Any]) -> str:
    """A difference with its interval, in as many digits as the margin and the noise are worth."""
    metric = row["metric"]
    margin = row["margin"] if row["margin"] > 0 else 1.0
    decimals = max(study.decimals, math.ceil(-math.log10(margin)) + 1)
    mean, low, high = (_amount(row[name], metric, min(decimals, 6)) for name in ("measured", "low", "high"))
    return mean if NONE in (low, high) or low == high else f"{mean} [{low}, {high}]"


def _amount(value: float, metric: str, decimals: int) -> str:
    """With its sign; a cost takes a prefix."""
    if metric.startswith("val_") or not math.isfinite(value) or not value:
        return signed(value, decimals)
    return f"{'+' if value > 0 else MINUS}{si(abs(value))}"
