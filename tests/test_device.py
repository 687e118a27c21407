"""What a process asks of the machine that it computes on."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from runs.training.measure import PEAKS, known_peak

FAULTS = """
import resource, torch
from torch import nn
from runs.training.device import keep_memory
{first}
layers = nn.Sequential(*(nn.Sequential(nn.Linear(256, 688), nn.SiLU(), nn.Linear(688, 256)) for _ in range(8)))
x = torch.randn(4096, 256)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        layers(x).square().sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(3):
    faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_memory_that_was_freed_is_taken_again() -> None:
    """A page that comes from the system is a fault when it is first written."""

    def faults(first: str) -> int:
        command = [sys.executable, "-c", FAULTS.format(first=first)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    # the least of a few: a system short of memory takes pages back, and every one of them is a fault more
    assert min(faults("keep_memory()") for _ in range(3)) < faults("") / 5


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_a_gpu_is_known_by_its_name(name: str, peak: float | None) -> None:
    found = known_peak(name)
    assert (None if found is None else PEAKS[found]) == peak
