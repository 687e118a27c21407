"""Bars and what was measured, side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scipy import stats

from .case import Bar, Case, Measured

LEAST = 6  # values that an interval of their median takes


def rows(case: Case, measured: Measured, left_out: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """One for each contender, and one for each bar whose contenders all took part."""
    for name in case.contenders:
        if name in left_out:
            yield {"case": case.name, "what": name, "left_out": left_out[name]}
        else:
            middle, low, high = interval([1000 * value for value in measured.seconds[name]])
            times = {"ms": middle, "ms_low": low, "ms_high": high, "peak_bytes": measured.bytes.get(name)}
            yield {"case": case.name, "what": name, **times}
    for bar in case.bars:
        try:
            middle, low, high = interval(bar.values(measured))
        except KeyError as missing:
            yield {"case": case.name, "what": bar.what, "bar": said(bar), "left_out": f"without {missing.args[0]}"}
        else:
            measures = {"measured": middle, "low": low, "high": high, "holds": holds(bar, low, high)}
            yield {"case": case.name, "what": bar.what, "bar": said(bar), **measures}


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median and, from six values on, its 95 % interval by order statistics."""
    middle = statistics.median(values)
    if len(values) < LEAST:
        return middle, min(values), max(values)
    found = stats.quantile_test(values, q=middle, p=0.5).confidence_interval(0.95)
    low, high = (float(one) for one in found)
    return middle, low if math.isfinite(low) else min(values), high if math.isfinite(high) else max(values)


def holds(bar: Bar, low: float, high: float) -> str:
    """Decided by the interval alone."""
    if bar.at_least <= low and high <= bar.at_most:
        return "yes"
    return "no" if high < bar.at_least or low > bar.at_most else "open"


def said(bar: Bar) -> str:
    if math.isfinite(bar.at_most):
        return f"<= {bar.at_most:g}"
    return f">= {bar.at_least:g}" if math.isfinite(bar.at_least) else ""


def line(row: Mapping[str, Any]) -> str:
    if "left_out" in row:
        return f"  {row['what']:58} {row.get('bar', ''):>8}  {row['left_out']}"
    if "ms" in row:
        memory = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:,.0f} MiB"
        return f"  {row['what']:58} {'':8}  {row['ms']:,.1f} ms [{row['ms_low']:,.1f}, {row['ms_high']:,.1f}]  {memory}"
    measured = f"{row['measured']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
    return f"  {row['what']:58} {row['bar']:>8}  {measured}  {row['holds'] if row['bar'] else ''}"
