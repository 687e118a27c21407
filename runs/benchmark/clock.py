"""The loop of every benchmark: contenders in turns, forwards and backwards, so that a slow second meets them all alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ..training.measure import PeakMemory, synchronise
from .case import Case, Measured, Turn

Result = TypeVar("Result")

WARM_UP = 2  # turns that do not count: caches fill, graphs compile


class DeviceLost(RuntimeError):
    """After some errors of a kernel a GPU does nothing more for the process that met them."""


def measure(case: Case, *, turns: int, device: torch.device) -> tuple[Measured, dict[str, str]]:
    """The seconds of each contender, and of those that were left out why: their numbers are not their twin's, or they fail.

    Raises: DeviceLost: the device can do nothing more.
    """
    out: dict[str, str] = {}
    found: dict[str, Sequence[Tensor]] = {}

    def attempt(name: str, work: Callable[[Turn], Result]) -> Result | None:
        try:
            return work(case.contenders[name])
        except Exception as error:
            out[name] = f"failed: {type(error).__name__}: {first_line(error)}"
        refuse_lost(device)
        return None

    compared = {*case.twins, *case.twins.values()}
    for name in case.contenders:
        shown = attempt(name, lambda turn: turn())
        if shown is not None and name in compared:
            found[name] = [t.detach().float().cpu() for t in shown]
    for name, twin in case.twins.items():
        if name in found and twin in found and (far := distance(found[name], found[twin])) > case.tolerance:
            out[name] = f"its numbers are {far:.1e} from those of {twin}, and {case.tolerance:.0e} is allowed"
    names = [name for name in case.contenders if name not in out]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(WARM_UP + turns):
        for name in names if number % 2 else reversed(names):
            if name not in out and (spent := attempt(name, lambda turn: timed(turn, device))) is not None:
                seconds[name].append(spent)
    names = [name for name in names if name not in out]
    peaks = {name: peak(case.contenders[name], device) for name in names if case.weighed}
    return Measured({name: seconds[name][WARM_UP:] for name in names}, peaks), out


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else ""


def refuse_lost(device: torch.device) -> None:
    """Let go of what a failed turn held. Raises: DeviceLost."""
    gc.collect()
    try:
        synchronise(device)
    except Exception as error:
        raise DeviceLost(first_line(error)) from error
    if device.type == "cuda":
        torch.cuda.empty_cache()


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
