"""What a run costs: FLOPs, rates, memory. Parameters and FLOPs per token come from the blocks (``model.cost``)."""

from __future__ import annotations

import contextlib
import re
import resource
import statistics
import sys
import time

import torch

from arch.ops.linear import linear

# Dense bf16 peak of a device by its name, FLOP/s: the makers' data sheets, without sparsity. The first that fits counts.
PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "T4": 65e12,
}


def peak_flops(device: torch.device, precision: str) -> tuple[float, str]:
    """(FLOP/s, where it is from): the table for a known GPU in bf16, else the matmul rate measured here and now."""
    if device.type == "cuda" and precision == "bf16":
        key = known_peak(torch.cuda.get_device_name(device))
        if key is not None:
            return PEAKS[key], f"table: {key}, dense bf16"
    return matmul_rate(
        device, torch.bfloat16 if precision == "bf16" else torch.float32
    ), "measured: matrix product on this machine"


def known_peak(name: str) -> str | None:
    """The entry of PEAKS that a device's name stands for; a slice of a GPU (MIG) has none."""
    return next((key for key in PEAKS if re.search(rf"\b{key}\b", name) and not re.search(r"\bMIG\b", name)), None)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product, by the library that the models take: the median of a few, after one to warm up."""
    n = 4096 if device.type == "cuda" else 1024
    a, b = torch.randn(2, n, n).to(device, dtype)
    seconds = []
    for _ in range(6):
        synchronise(device)
        start = time.perf_counter()
        linear(a, b)
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / statistics.median(seconds[1:])


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was asked: only where a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class PeakMemory:
    """The most memory that the run held, in bytes: allocated on a GPU; on a CPU, of the process above where it started."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # Linux: the peak counts from here; elsewhere it is that of the whole process
        self.start = _resident("VmRSS")

    def bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return max(0, _resident("VmHWM") - self.start)


def _resident(key: str) -> int:
    """VmRSS: bytes in memory now; VmHWM: the most there have been."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{key}:"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit if key == "VmHWM" else 0
