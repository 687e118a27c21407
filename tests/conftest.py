"""One thread per test process: the tensors are tiny, and workers share the cores. How long the fuzz test looks."""

import datetime
import os

import torch
from hypothesis import HealthCheck, settings

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
torch.set_num_threads(1)

# The same examples at every call; `pytest --hypothesis-profile torture` draws others each time, and more of them.
# Of each of three kinds of lines:
COMMON = {"deadline": datetime.timedelta(seconds=60), "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("default", max_examples=100, derandomize=True, **COMMON)
settings.register_profile("torture", max_examples=700, derandomize=False, print_blob=True, **COMMON)
settings.load_profile("default")
