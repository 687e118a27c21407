"""One thread per test process: the tensors are tiny, and workers share the cores. How long the fuzz test looks."""

import datetime
import os

import torch
from hypothesis import HealthCheck, settings
from torch.utils.flop_counter import register_flop_formula

from arch.ops.linear import BUILT_IN

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
torch.set_num_threads(1)


def linear_flops(x: list[int], weight: list[int], *others: object, **kwargs: object) -> int:
    """torch's counter knows no product of oneDNN's."""
    return 2 * x[0] * x[1] * weight[0]


if BUILT_IN:
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(linear_flops)


# The same examples at every call; `pytest --hypothesis-profile torture` draws others each time, and more of them.
# Of each of three kinds of lines:
COMMON = {"deadline": datetime.timedelta(seconds=60), "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("default", max_examples=100, derandomize=True, **COMMON)
settings.register_profile("torture", max_examples=700, derandomize=False, print_blob=True, **COMMON)
settings.load_profile("default")
