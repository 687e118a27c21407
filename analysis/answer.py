"""The answer to a registered question in words: what was claimed, what was measured, and the verdict."""

from __future__ import annotations

import math
from typing import Any

from analysis.comparison import Comparison, short_names
from analysis.digits import MINUS, NONE, count, fixed, si, signed
from runs.job.question import PREFIXES

OF_THE_VERDICT = {True: ", as predicted", False: ", against the prediction", None: ""}


def asked(study: Comparison) -> str:
    """The claim and who says so; empty where nothing was registered."""
    if study.question is None:
        return ""
    return f"{study.question.claim} ({study.question.source})"


def answers(study: Comparison) -> list[str]:
    """A sentence per claim: prediction, measurement, verdict, and why."""
    sentences = []
    for row in rows(study):
        measured = f"measured {row['amounts']} over {count(row['n'], 'seed')}" if row["n"] else "not measured"
        sentences.append(f"{row['name']}: predicted {row['expected']}, {measured}: {row['word']}{row['because']}.")
    return sentences


def rows(study: Comparison) -> list[dict[str, Any]]:
    """The claims as text: name, expected (what was predicted), amounts (what was measured), word (the verdict), because ..."""
    names, found = short_names(study), []
    for row in study.claims.to_dict("records"):
        notes = "; ".join(part for part in (row["why"], row["caution"]) if part)
        word = row["verdict"] or "no verdict"
        found.append(
            {
                **{str(key): value for key, value in row.items()},
                "name": names.get(row["arm"], row["arm"]),
                "expected": _expected(row, names, study.baseline),
                "amounts": _amounts(study, row),
                "word": f"{word}{OF_THE_VERDICT[row['holds']]}",
                "because": f" ({notes})" if notes else "",
                "notes": notes,
            }
        )
    return found


def _expected(row: dict[Any, Any], names: dict[str, str], baseline: str) -> str:
    """lower in val_loss; equivalent in val_loss within 0.01, against mha; val_accuracy 0.526 within 0.02."""
    if not isinstance(row["predicted"], str):
        return f"{row['metric']} {row['predicted']:g} within {row['margin']:g}"
    margin = f" within {row['margin']:g}" if row["predicted"] == "equivalent" else ""
    other = "" if row["against"] == baseline else f", against {names.get(row['against'], row['against'])}"
    return f"{row['predicted']} in {row['metric']}{margin}{other}"


def _amounts(study: Comparison, row: dict[Any, Any]) -> str:
    """A difference, or a metric itself, with its interval, in as many digits as the margin and the noise are worth."""
    metric = row["metric"]
    margin = row["margin"] if row["margin"] > 0 else 1.0
    decimals = max(study.decimals, math.ceil(-math.log10(margin)) + 1)
    signs = isinstance(row["predicted"], str)
    mean, low, high = (_amount(row[name], metric, min(decimals, 6), signs) for name in ("measured", "low", "high"))
    return mean if NONE in (low, high) or low == high else f"{mean} [{low}, {high}]"


def _amount(value: float, metric: str, decimals: int, signs: bool) -> str:
    """A difference has its sign; a cost takes a prefix."""
    if metric.startswith(PREFIXES) or not math.isfinite(value) or not value:
        return signed(value, decimals) if signs else fixed(value, decimals)
    return f"{('+' if value > 0 else MINUS) if signs else ''}{si(abs(value))}"
