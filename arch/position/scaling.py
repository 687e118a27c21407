"""Ways to stretch rotary frequencies to texts longer than those of the training."""

from __future__ import annotations

import math


class RotaryScaling:
    """Slows the frequencies of a Rotary: list of radians per token, fastest first -> list of the same length.

    temperature: both q and k are multiplied by it, so that the scores grow by its square.
    """

    temperature: float = 1.0

    def __call__(self, frequencies: list[float]) -> list[float]:
        raise NotImplementedError


class LinearScaling(RotaryScaling):
    """Position interpolation: every frequency is slowed alike, as if the places were squeezed together.

    f' = f / factor

    Paper: Chen 2023, arXiv:2306.15595 (eq. 3). Differs: nothing.
    Args:   factor: longest text over the longest of the training.
    """

    def __init__(self, *, factor: float) -> None:
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
        self.factor = factor

    def __call__(self, frequencies: list[float]) -> list[float]:
        last = max(len(frequencies) - 1, 1)
        return [f * self.factor ** (-i / last) for i, f in enumerate(frequencies)]


class YaRNScaling(RotaryScaling):
    """YaRN: frequencies that turn often within a training text stay, those that turn less than once are interpolated.

    f' = (1 - r) * f / factor + r * f,  r = clamp((turns - slow) / (fast - slow), 0, 1),  turns = trained_seq * f / (2 pi)
    temperature = 0.1 * ln(factor) + 1

    Paper: Peng 2023, arXiv:2309.00071 (sections 3.2-3.4). Differs: the ramp runs over turns, as in the paper, where the
    published code lets it run over channel numbers.
    Args:   factor: longest text over the longest of the training. trained_seq: longest text of the training, in tokens.
            slow, fast: turns per trained_seq below which a frequency is interpolated, above which it stays.
    """

    def __init__(self, *, factor: float, trained_seq: int, slow: float = 1.0, fast: float = 32.0) -> None:
        self.factor = factor
        self.trained_seq = trained_seq
        self.slow = slow
        self.fast = fast
        self.temperature = 0.1 * math.log(factor) + 1.0

    def __call__(self, frequencies: list[float]) -> list[float]:
        return [self._stretched(f) for f in frequencies]

    def _stretched(self, f: float) -> float:
        turns = self.trained_seq * f / (2 * math.pi)
        r = min(max((turns - self.slow) / (self.fast - self.slow), 0.0), 1.0)
        return (1 - r) * f / self.factor + r * f
