"""Ways to stretch rotary frequencies to texts longer than those of the training."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from ..limits import above_zero, at_least_one


class RotaryScaling:
    """Slows the frequencies of a Rotary: list of radians per token, fastest first -> list of the same length.

    temperature, unrotated_temperature: what the channels that are rotated, and those that are not, are multiplied by in both q
    and k, so that their share of a score grows by its square.
    """

    temperature: float = 1.0
    unrotated_temperature: float = 1.0

    def __call__(self, frequencies: list[float]) -> list[float]:
        raise NotImplementedError


class LinearScaling(RotaryScaling):
    """Position interpolation: every frequency is slowed alike, as if the positions were squeezed together.

    f' = f / factor

    Paper: Chen 2023, arXiv:2306.15595 (eq. 3). Differs: nothing.
    Args:   factor: longest text over the longest of the training.
    """

    def __init__(self, *, factor: float) -> None:
        above_zero(factor=factor)
        self.factor = factor

    def __call__(self, frequencies: list[float]) -> list[float]:
        return [f / self.factor for f in frequencies]


class NTKScaling(RotaryScaling):
    """NTK-aware scaling: a larger base, so that the fastest frequency stays and the slowest is slowed by the whole factor.

    theta' = theta * factor^(d / (d - 2)), that is f'_i = f_i * factor^(-2i / (d - 2))

    Paper: Peng 2023, arXiv:2309.00071 (section 3.1, definition 1). Differs: nothing.
    Args:   factor: longest text over the longest of the training.
    """

    def __init__(self, *, factor: float) -> None:
        above_zero(factor=factor)
        self.factor = factor

    def __call__(self, frequencies: list[float]) -> list[float]:
        last = max(len(frequencies) - 1, 1)
        return [f * self.factor ** (-i / last) for i, f in enumerate(frequencies)]


class Llama3Scaling(RotaryScaling):
    """The frequencies of Llama 3.1: those that rotate often within a training text stay, slow ones are interpolated.

    f' = (1 - r) * f / factor + r * f,  r = clamp((turns - slow) / (fast - slow), 0, 1),  turns = trained_seq * f / (2 pi)

    Paper: none; the code that came with Llama 3.1 (Dubey 2024, arXiv:2407.21783) has it. Differs: nothing. It is
        YaRN's ramp over turns without its temperature.
    Args:   factor: longest text over the longest of the training. trained_seq: longest text of the training, in tokens.
            slow, fast: turns per trained_seq below which a frequency is interpolated, above which it stays.
    Raises: ValueError: a number that is not positive; slow is not below fast.
    """

    def __init__(self, *, factor: float, trained_seq: int, slow: float = 1.0, fast: float = 4.0) -> None:
        above_zero(factor=factor)
        at_least_one(trained_seq=trained_seq)
        refuse_empty_ramp(slow, fast)
        self.factor, self.trained_seq, self.slow, self.fast = factor, trained_seq, slow, fast

    def __call__(self, frequencies: list[float]) -> list[float]:
        ramp = ramp_by_turns(frequencies, self.trained_seq, self.slow, self.fast)
        return interpolated(frequencies, ramp, self.factor)


class YaRNScaling(RotaryScaling):
    """YaRN: frequencies that rotate often within a training text stay, those that rotate less than once are interpolated.

    f' = (1 - r) * f / factor + r * f,  r = clamp((turns - slow) / (fast - slow), 0, 1),  turns = trained_seq * f / (2 pi)
    temperature = 0.1 * mscale * ln(factor) + 1,  unrotated_temperature = 0.1 * mscale_all_dim * ln(factor) + 1

    Paper: Peng 2023, arXiv:2309.00071 (sections 3.2-3.4). Differs: nothing as it stands; with ramp=channels, r falls over the
        numbers of the channels instead, from the one that rotates fast times, rounded down, to the one that rotates slow times,
        rounded up, as in the code that came with the paper and in all that was made after it; mscale and mscale_all_dim are
        DeepSeek-V2's (arXiv:2405.04434), whose code scales all scores by unrotated_temperature^2 and cos and sin by the ratio.
    Args:   factor: longest text over the longest of the training. trained_seq: longest text of the training, in tokens.
            slow, fast: turns per trained_seq below which a frequency is interpolated, above which it stays.
            ramp: what r is linear in: turns, or channels. mscale, mscale_all_dim: strengths of the temperatures of the
            channels that are rotated and of those that are not. temperature: of the rotated ones; None = by the formula.
    Raises: ValueError: a number that is not positive; slow is not below fast.
    """

    def __init__(
        self,
        *,
        factor: float,
        trained_seq: int,
        slow: float = 1.0,
        fast: float = 32.0,
        ramp: Literal["turns", "channels"] = "turns",
        mscale: float = 1.0,
        mscale_all_dim: float = 0.0,
        temperature: float | None = None,
    ) -> None:
        above_zero(factor=factor)
        at_least_one(trained_seq=trained_seq)
        refuse_empty_ramp(slow, fast)
        self.factor, self.trained_seq, self.slow, self.fast = factor, trained_seq, slow, fast
        self.ramp = ramp_by_turns if ramp == "turns" else ramp_by_channels
        warmer = 0.1 * math.log(max(factor, 1.0))
        self.temperature = mscale * warmer + 1.0 if temperature is None else temperature
        self.unrotated_temperature = mscale_all_dim * warmer + 1.0
        above_zero(temperature=self.temperature, unrotated_temperature=self.unrotated_temperature)

    def __call__(self, frequencies: list[float]) -> list[float]:
        return interpolated(frequencies, self.ramp(frequencies, self.trained_seq, self.slow, self.fast), self.factor)


def interpolated(frequencies: list[float], ramp: list[float], factor: float) -> list[float]:
    """ramp: of each frequency, from 0, slowed by the whole factor, to 1, as trained."""
    return [(1 - r) * f / factor + r * f for f, r in zip(frequencies, ramp, strict=True)]


def ramp_by_turns(frequencies: list[float], trained_seq: int, slow: float, fast: float) -> list[float]:
    turns = [trained_seq * f / (2 * math.pi) for f in frequencies]
    return [clamp((n - slow) / (fast - slow)) for n in turns]


def ramp_by_channels(frequencies: list[float], trained_seq: int, slow: float, fast: float) -> list[float]:
    step = next((math.log(a / b) for a, b in pairwise(frequencies)), math.inf)  # each is the one before it times e^-step

    def channel(turns: float) -> float:
        return math.log(trained_seq * frequencies[0] / (2 * math.pi * turns)) / step

    first, last = max(math.floor(channel(fast)), 0), min(math.ceil(channel(slow)), 2 * len(frequencies) - 1)
    width = (last - first) or 0.001  # as published: a cliff, not a division by zero
    return [1 - clamp((i - first) / width) for i in range(len(frequencies))]


def clamp(x: float) -> float:
    return min(max(x, 0.0), 1.0)


def refuse_empty_ramp(slow: float, fast: float) -> None:
    if not 0 < slow < fast:
        raise ValueError(f"slow is {slow} and fast is {fast}: 0 < slow < fast is needed, there is no ramp between them")
