"""A dry run of a command: what it would train and cost, or why it cannot. Nothing is trained, no weight is allocated.

python -m runs.check ffn=moe mixer=gqa size=small        one run
python -m runs.check -m ffn=dense,moe norm=layernorm,rmsnorm     a grid
"""

from __future__ import annotations

import sys
from typing import Any

from . import record
from .train import collect, guarded


def main() -> int:
    asked = collect()
    for error in asked.refused:
        print(error)
    good = sum(describe(point) for point in asked.points)
    total = len(asked.points) + len(asked.refused)
    print(f"{good} of {total} runs can be built")
    return 0 if good == total else 1


def describe(point: dict[str, Any]) -> bool:
    """Print a run's costs, or what keeps it from being built."""
    from .job import check
    from .measure import train_flops

    name = f"{record.arm_name(point)} seed {point['seed']}"
    try:
        model = check(point)
    except (ValueError, OSError) as error:
        print(f"{name}: {error}")
        return False
    train = point["train"]
    cost = model.cost(train["seq_len"])
    tokens = train["steps"] * train["batch_size"] * train["seq_len"]
    print(
        f"{name}: {cost.params:,} parameters, {cost.active_params:,} active; {cost.flops:,.0f} FLOPs per token forward, "
        f"{train_flops(cost.flops) * tokens:.3g} to train; {cost.state_bytes:,} bytes of state at {train['seq_len']} tokens; "
        f"{16 * cost.params:,} bytes for fp32 weights, gradients and AdamW"
    )
    return True


if __name__ == "__main__":
    sys.exit(guarded(main))
