"""Other people's implementations of an operation: taken where they are installed and give the plain one's numbers, else not.

Each is tried once for every size of head, on a small input on the device that it is to run on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

TORCH = "torch"  # the plain one
TOLERANCE = 5e-2  # relative distance: they multiply in bf16 or in fp32 cut short
RUNNING: dict[str, str] = {}  # which implementation every operation runs by that has been asked for

Operation = Callable[..., Sequence[Tensor]]


def may_ask(x: Tensor) -> bool:
    """Whether any is looked for: they are made for CUDA."""
    return x.is_cuda


def agreeing(operation: str, plain: Operation, others: Mapping[str, Operation], inputs: Sequence[Tensor]) -> str:
    """The first of the others that gives the plain one's outputs and gradients of these inputs, by name; TORCH if none does.

    One whose package is not installed is passed over in silence, one that fails or gives other numbers with a line.
    """
    wanted, found = outputs_and_gradients(plain, inputs), TORCH
    for name, run in others.items():
        try:
            far = distance(outputs_and_gradients(run, inputs), wanted)
        except ModuleNotFoundError:
            continue
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        else:
            if far <= TOLERANCE:
                found = name
                break
            why = f"its numbers are {far:.1e} from the plain ones, and {TOLERANCE:.0e} is allowed"
        logging.getLogger(__name__).warning("%s: %s is not taken: %s", operation, name, why)
    RUNNING[operation] = found
    return found


def outputs_and_gradients(run: Operation, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Also where the caller wants no gradients: the choice serves both."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(inputs[0].device.type, enabled=False):
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        outputs = run(*leaves)
        gradients = torch.autograd.grad(torch.stack([y.float().square().sum() for y in outputs]).sum(), leaves)
    return [t.detach() for t in (*outputs, *gradients)]


def distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest relative distance, one by one; infinite where one is no number."""
    far = [((a - b).float().norm() / b.float().norm().clamp(min=1e-30)).item() for a, b in zip(ours, theirs, strict=True)]
    return max(far) if all(map(math.isfinite, far)) else math.inf
