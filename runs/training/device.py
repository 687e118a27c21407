"""Where a run computes, and in which precision."""

from __future__ import annotations

import contextlib
import ctypes
import os

import torch

from ..build.errors import ConfigError


def pick_device(name: object) -> torch.device:
    """auto: CUDA, else Apple's GPU, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(str(name))
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"train.device={name}: known: auto, cpu, cuda, mps")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"train.device={name}: torch {torch.__version__} sees no CUDA device here; use auto or cpu")
    return device


def pick_precision(name: object, device: torch.device) -> str:
    """auto: bf16 on CUDA, where it is fast, fp32 elsewhere."""
    if name not in ("auto", "fp32", "bf16"):
        raise ConfigError(f"train.precision={name}: known: auto, fp32, bf16")
    return str(name) if name != "auto" else "bf16" if device.type == "cuda" else "fp32"


def keep_memory() -> None:
    """Let this process keep the memory that it frees, for the tensors of the next step.

    As it comes, the C library hands every large tensor's pages back to the system, which clears them before it gives them out
    again: a fifth of a step of four layers of 256 channels, on two cores. Only glibc is asked; elsewhere nothing happens.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h; from 32 MiB on a tensor still has pages of its own
    with contextlib.suppress(OSError, AttributeError):
        malloc_option = ctypes.CDLL(None).mallopt
        malloc_option(mmap_threshold, 2**25)
        malloc_option(trim_threshold, 2**31 - 1)
        malloc_option(top_pad, 2**26)


def cores() -> int:
    """Threads that this process may use: its share of the machine, or less where OMP_NUM_THREADS says so."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(here, int(asked)) if asked.isdigit() and int(asked) > 0 else here
