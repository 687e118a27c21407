"""What one sample of same-seed differences says: intervals and p. Pure functions over an array, one value per seed."""

from __future__ import annotations

import math

import numpy as np
from scipy import special, stats

CONFIDENCE = 0.95
BCA_SEEDS = 8  # fewer values have too few resamples for the ends of a bootstrap interval
EXACT_SEEDS = 40  # the sign patterns of more are not counted; Student's t is then the same to the third digit

Interval = tuple[float, float, float]


def t_interval(values: np.ndarray) -> Interval:
    """Mean and 95 % interval, mean +- t(n - 1) sd / sqrt(n); no interval from fewer than two values."""
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    if n < 2:
        return mean, math.nan, math.nan
    half = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2) * np.std(values, ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half


def bca_interval(values: np.ndarray) -> tuple[float, float]:
    """The bias-corrected and accelerated bootstrap interval of the mean, seeds resampled; (nan, nan) from few seeds.

    Paper: Efron 1987, Better Bootstrap Confidence Intervals. It assumes no shape of the noise, where the t interval does.
    """
    if len(values) < BCA_SEEDS:
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap((values,), np.mean, confidence_level=CONFIDENCE, method="BCa", rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def welch_interval(first: np.ndarray, second: np.ndarray) -> Interval:
    """Mean of the second minus mean of the first, and its 95 % interval where seeds are not shared (Welch's)."""
    difference = float(np.mean(second) - np.mean(first)) if min(len(first), len(second)) else math.nan
    if min(len(first), len(second)) < 2:
        return difference, math.nan, math.nan
    parts = [float(np.var(values, ddof=1)) / len(values) for values in (first, second)]
    if not sum(parts):
        return difference, difference, difference
    df = sum(parts) ** 2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, df)) * math.sqrt(sum(parts))
    return difference, difference - half, difference + half


def sign_flip_p(differences: np.ndarray) -> float:
    """Exact two-sided p: the share of the 2^n sign patterns whose sum is at least as far from zero as the observed one.

    Counted through the sums of two halves, so that 40 seeds take a second; of more it is Student's. nan for none.
    """
    n = len(differences)
    if n == 0:
        return math.nan
    if n > EXACT_SEEDS:
        return float(2 * special.stdtr(n - 1, -abs(_student(differences))))
    left, right = (_signed_sums(half) for half in (differences[: n // 2], differences[n // 2 :]))
    right = np.sort(right)
    observed = abs(float(np.sum(differences))) * (1 - 1e-12) - 1e-15  # a tie counts, whatever the rounding
    below = np.searchsorted(right, -observed - left, side="right")
    above = len(right) - np.searchsorted(right, observed - left, side="left")
    return min(1.0, float(np.sum(below + above)) / 2**n)


def equivalence_p(differences: np.ndarray, margin: float) -> float:
    """p of "the difference is at least the margin": the greater of two one-sided t tests (TOST); nan without a margin.

    p = P(T(n - 1) > (margin - |mean|) sqrt(n) / sd)        Paper: Schuirmann 1987
    """
    n = len(differences)
    if n < 2 or not margin > 0:
        return 1.0 if margin > 0 else math.nan
    nearest = differences - math.copysign(margin, float(np.mean(differences)))  # from the nearer edge of the margin
    inside = abs(float(np.mean(differences))) < margin
    student = abs(_student(nearest))
    return float(special.stdtr(n - 1, -student if inside else student))


def beyond_p(differences: np.ndarray, margin: float) -> float:
    """p of "the difference is smaller than the margin": the sign-flip p about the edge that the mean lies beyond; else 1."""
    if len(differences) < 2 or not margin > 0:
        return 1.0 if margin > 0 else math.nan
    mean = float(np.mean(differences))
    return sign_flip_p(differences - math.copysign(margin, mean)) if abs(mean) > margin else 1.0


def _student(values: np.ndarray) -> float:
    """Student's t of the mean against zero."""
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    if error:
        return mean / error
    return math.copysign(math.inf, mean) if mean else 0.0


def _signed_sums(values: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums
