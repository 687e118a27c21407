"""Numbers as text: three digits and a prefix, a true minus sign, a dash where there is no number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

LONG = 1e7  # what is larger, and has no prefix, takes an exponent: no table has room for its digits
MINUS, TIMES, NONE = "\u2212", "\u00d7", "\u2013"


def si(value: float, unit: str = "") -> str:
    """25123 -> 25.1k, and 4.1e8 in B -> 410 MB."""
    if not math.isfinite(value):
        return NONE
    scale, prefix = _scale(value, unit)
    return three(value / scale) + (f" {prefix}{unit}" if unit else prefix)


def _scale(value: float, unit: str) -> tuple[float, str]:
    for scale, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G" if unit else "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * scale:
            return scale, prefix
    return 1.0, ""


def tick(value: float, step: float, unit: str = "") -> str:
    """The same for an axis whose ticks are ``step`` apart: 8k, and 117.2k where 117k would stand there twice."""
    if value == 0:
        return "0"
    scale, prefix = _scale(value, unit)
    near = 0.01 * (step or value) / scale  # less than the eye can distinguish
    number = next((f"{value / scale:.{p}f}" for p in range(6) if abs(round(value / scale, p) - value / scale) <= near), "")
    return (number or f"{value / scale:.6g}") + (f" {prefix}{unit}" if unit else prefix)


def three(value: float) -> str:
    """Three significant digits, no exponent below ten million."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else NONE
    if abs(value) >= LONG:
        return f"{value:.2e}"
    value = float(f"{value:.3g}")
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def fixed(value: float, decimals: int = 3) -> str:
    text = f"{value:.{decimals}f}" if abs(value) < LONG else f"{value:.2e}"
    return text.replace("-", MINUS) if math.isfinite(value) else NONE


def signed(value: float, decimals: int = 3) -> str:
    """A sign always, except on what rounds to zero."""
    if not math.isfinite(value):
        return NONE
    text = f"{value:+.{decimals}f}" if abs(value) < LONG else f"{value:+.2e}"
    return text[1:] if not text.strip("+-0.") else text.replace("-", MINUS)


def interval(low: float, high: float, decimals: int = 3) -> str:
    return f"[{signed(low, decimals)}, {signed(high, decimals)}]" if math.isfinite(low) else ""


def delta(row: Mapping[Any, Any], decimals: int) -> str:
    """A difference and, if there is one, its interval."""
    return f"{signed(row['difference'], decimals)} {interval(row['low'], row['high'], decimals)}".strip()


def percent(value: float) -> str:
    """A mismatch; below a twentieth of a percent it counts as equal."""
    if not math.isfinite(value):
        return NONE
    return "=" if abs(value) < 0.05 else f"{signed(value, 1 if abs(value) < 9.95 else 0)} %"


def share(part: float) -> str:
    """0.354 -> 35 %."""
    return f"{three(100 * part) if part < 0.1 else f'{100 * part:.0f}'} %" if math.isfinite(part) else NONE


def times(value: float) -> str:
    return f"{fixed(value, 2)}{TIMES}" if math.isfinite(value) else NONE


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 6) -> str:
    """a, b and c; a long list is cut, with the number of the others."""
    shown = list(names[:most]) + ([f"{len(names) - most} more"] if len(names) > most else [])
    return "".join(shown) if len(shown) < 2 else ", ".join(shown[:-1]) + " and " + shown[-1]
