"""What a run costs: FLOPs, rates, memory. Parameters and FLOPs per token are told by the blocks (``model.cost``)."""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time

import torch

# Dense bf16 peak of a device by its name, FLOP/s: the makers' data sheets, without sparsity.
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "T4": 65e12,
    "V100": 125e12,
}
BACKWARD = 2  # a backward pass costs two forward passes: one product for the input, one for the weight


def train_flops(forward_flops: float) -> float:
    """FLOPs of a training step from those of its forward pass."""
    return forward_flops * (1 + BACKWARD)


def peak_flops(device: torch.device, precision: str) -> tuple[float, str]:
    """(FLOP/s, where it is from): the table for a known GPU in bf16, else the matmul rate measured here and now."""
    if device.type == "cuda" and precision == "bf16":
        name = torch.cuda.get_device_name(device)
        for key, peak in PEAKS.items():
            if key in name:
                return peak, f"table: {key}, dense bf16"
    return matmul_rate(
        device, torch.bfloat16 if precision == "bf16" else torch.float32
    ), "measured: matrix product on this machine"


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product: the median of a few, after one to warm up."""
    n = 4096 if device.type == "cuda" else 1024
    a, b = torch.randn(2, n, n).to(device, dtype)
    seconds = []
    for _ in range(6):
        synchronise(device)
        start = time.perf_counter()
        a @ b
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / statistics.median(seconds[1:])


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was asked: only where a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """The most memory that the run held, in bytes: allocated on a GPU; on a CPU, of the process above where it started."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.start = _resident_now()

    def bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return max(0, _resident_peak() - self.start)


def _resident_now() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _resident_peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
