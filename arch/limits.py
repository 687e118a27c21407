"""What the numbers of a constructor may be: each is named, so that an error can say which one is wrong."""

from __future__ import annotations

import torch
from torch import nn

FP32 = torch.finfo(torch.float32)


def at_least_one(**sizes: int) -> None:
    """Raises ValueError: a width or a count below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size}: at least 1 is needed")


def above_zero(**numbers: float | None) -> None:
    """Raises ValueError: a number that is not positive and finite in fp32; None stands for a formula."""
    for name, number in numbers.items():
        if number is not None and not FP32.tiny <= number <= FP32.max:
            raise ValueError(f"{name}={number}: more than 0 is needed")


def dropout(share: float) -> nn.Dropout:
    """Raises ValueError: a share below 0, or one that leaves nothing."""
    if not 0 <= share < 1:
        raise ValueError(f"dropout={share}: a share from 0 to below 1 is needed")
    return nn.Dropout(share)
