"""A dry run of a command: what it would train and cost, or why it cannot. Nothing is trained, no weight is allocated.

python -m runs.check model=mixtral_8x7b                          one model, at its own context
python -m runs.check -m ffn=dense,moe norm=layernorm,rmsnorm     a grid
"""

from __future__ import annotations

if not __package__:
    raise SystemExit("start it as a module, from the top of the repository: python -m runs.check")

import sys
from typing import Any

from torch import nn

from arch.lora import adapter_cost, merge

from .command import collect, guarded
from .job.check import check
from .job.run import Run
from .objective import Task
from .training.measure import train_flops


def main() -> int:
    command = collect()
    for error in command.refused:
        print(error)
    good = 0
    for run in command.runs:
        try:
            found = costs(run, check(run))
        except (ValueError, OSError) as error:
            print(f"{name(run)}: {error}")
            continue
        good += 1
        short = f": parameters {found['parameters']}; FLOPs per token {found['FLOPs per token']}"
        print(name(run) + ("" if command.total == 1 else short))
        for key, value in found.items() if command.total == 1 else ():
            print(f"  {key:{max(map(len, found))}} {value}")
    print(f"{good} of {len(command.runs) + len(command.refused)} runs can be built")
    return 0 if good == command.total else 1


def name(run: Run) -> str:
    model = run.choices["model"]
    own = run.study.arm is not None or model in ("decoder", "encoder", "encoder_decoder")
    return f"{run.label if own else model} seed {run.seed}"


def costs(run: Run, task: Task) -> dict[str, str]:
    """What a person asks of a model before training it, in words. The context: the longest text it is made for."""
    context, settings = run.size["max_seq"], run.settings
    model = task.model
    adapters, total = adapter_cost(model), sum(p.numel() for p in model.parameters())
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    merge(model)  # a block reports what it costs without them
    cost: Any = model.cost(context)  # type: ignore[operator]
    short: Any = model.cost(settings.seq_len)  # type: ignore[operator]
    heads = {name: sum(p.numel() for p in head.parameters()) for name, head in task.heads.items()}
    besides = [f"{n:,} of the objective's head {name}" for name, n in heads.items()]
    besides += [f"{adapters.params:,} of the adapters, which alone learn with the heads"] if adapters.params else []
    tokens = settings.steps * settings.tokens
    inputs = lookup_only(model)
    return {
        "parameters": f"{cost.params:,} in all, {cost.active_params:,} active "
        f"({cost.active_params - inputs:,} without the table that is only looked up)",
        **({"parameters besides": "; ".join(besides)} if besides else {}),
        "FLOPs per token": f"{cost.flops:,.0f} forward, in a text of {context:,} tokens; "
        f"{train_flops(short.flops) * tokens:.3g} to train on {tokens:,} tokens in rows of {settings.seq_len:,}",
        "state": f"{cost.state_bytes:,} bytes a sequence of {context:,} tokens in fp32, {cost.state_bytes // 2:,} in bf16",
        "memory to load": f"{4 * cost.params:,} bytes in fp32, {2 * cost.params:,} in bf16",
        "memory to train": f"{16 * learning + 4 * (total - learning):,} bytes for fp32 weights, gradients and AdamW; "
        "activations come on top",
    }


def lookup_only(model: nn.Module) -> int:
    """Parameters of the input table where the logits have one of their own: no matrix product reads it."""
    head, table = getattr(getattr(model, "decoder", model), "lm_head", None), getattr(model, "embedding", None)
    return 0 if head is None or table is None else table.weight.numel()


if __name__ == "__main__":
    sys.exit(guarded(main))
