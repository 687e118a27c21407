"""The loop of every benchmark: contenders in turns, forwards and backwards, so that a slow second meets them all alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from ..training.measure import PeakMemory, synchronise
from .case import Case, Measured, Turn

WARM_UP = 2  # turns that do not count: caches fill, graphs compile


def measure(case: Case, *, turns: int, device: torch.device) -> tuple[Measured, dict[str, str]]:
    """The seconds of each contender, and of those that were left out why: their numbers are not their twin's, or they fail."""
    out: dict[str, str] = {}
    found: dict[str, Sequence[Tensor]] = {}
    for name, turn in case.contenders.items():
        try:
            found[name] = [t.detach().float().cpu() for t in turn()]
        except Exception as error:
            out[name] = f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    for name, twin in case.twins.items():
        if name in found and twin in found and (far := distance(found[name], found[twin])) > case.tolerance:
            out[name] = f"its numbers are {far:.1e} from those of {twin}, and {case.tolerance:.0e} is allowed"
    names = [name for name in case.contenders if name not in out]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(WARM_UP + turns):
        for name in names if number % 2 else reversed(names):
            seconds[name].append(timed(case.contenders[name], device))
    peaks = {name: peak(case.contenders[name], device) for name in names if case.weighed}
    return Measured({name: values[WARM_UP:] for name, values in seconds.items()}, peaks), out


def distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest relative distance of two lists of tensors, one by one; infinite where they do not match or hold no number."""
    if [t.shape for t in ours] != [t.shape for t in theirs]:
        return float("inf")
    far = [((a - b).norm() / b.norm().clamp(min=1e-30)).item() for a, b in zip(ours, theirs, strict=True)]
    return max(far) if all(math.isfinite(value) for value in far) else float("inf")


def timed(turn: Turn, device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    turn()
    synchronise(device)
    return time.perf_counter() - start


def peak(turn: Turn, device: torch.device) -> int:
    gc.collect()
    watch = PeakMemory(device)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    turn()
    synchronise(device)
    return watch.bytes() - before
