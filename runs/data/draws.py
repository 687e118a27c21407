"""Random draws that are a function of (seed, step) alone."""

from __future__ import annotations

import numpy as np

HELD_OUT = 2**64 - 1  # the seed of everything held out; no run can have it


def generator(seed: int, step: int) -> np.random.Generator:
    """The generator of one step: counter-based, so any step is reached without the ones before it."""
    if not 0 <= seed < HELD_OUT or step < 0:
        raise ValueError(f"seed={seed}, step={step}: both must be at least 0 and seed below 2**64 - 1")
    return np.random.Generator(np.random.Philox(key=np.array([seed, step], dtype=np.uint64)))


def held_out_generator(index: int) -> np.random.Generator:
    """The generator of one held-out batch, the same for every seed of a run."""
    return np.random.Generator(np.random.Philox(key=np.array([HELD_OUT, index], dtype=np.uint64)))


def distinct(rng: np.random.Generator, *, rows: int, count: int, below: int) -> np.ndarray:
    """``count`` different integers of range(below) in each row, in random order. (rows, count)

    Floyd's algorithm: a step for each number drawn, none for the numbers that are not.
    """
    drawn = np.full((rows, count), -1, dtype=np.int64)
    for i, top in enumerate(range(below - count, below)):
        number = rng.integers(0, top + 1, size=rows)
        taken = (drawn == number[:, None]).any(axis=1)
        drawn[:, i] = np.where(taken, top, number)
    return rng.permuted(drawn, axis=1)
