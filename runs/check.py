"""A dry run of a command: what it would train and cost, or why it cannot. Nothing is trained, no weight is allocated.

python -m runs.check model=mixtral_8x7b                          one model, at its own context
python -m runs.check ffn=moe size.n_experts=16 size=small        one run: parameters, FLOPs, state, memory
python -m runs.check -m ffn=dense,moe norm=layernorm,rmsnorm     a grid
python -m runs.check -m study=demo                               the arms of a study
"""

from __future__ import annotations

if not __package__:
    raise SystemExit("start it as a module, from the top of the repository: python -m runs.check")
if __name__ == "__main__":
    from .usage import answer_help

    answer_help(__doc__, composes=True)  # before torch is imported

import sys

import torch

from arch.contracts import Cost
from arch.lora import adapter_cost, without_adapters

from .command import collect, guarded
from .compose.explain import explain
from .compose.match import told
from .job.check import Checked, check
from .job.record import RecordError
from .job.run import Run
from .objective.contract import lookups
from .training.memory import device_memory


def main() -> int:
    command = collect(reads=["size.max_seq"])  # the context that costs are reported for
    for error in command.refused:
        print(explain(error))
    good = 0
    for run in command.runs:
        try:
            found = costs(run, check(run))
        except (ValueError, OSError, RecordError) as error:
            print(f"{run.title}: {explain(error)}")
            continue
        good += 1
        short = f": parameters {found['parameters']}; FLOPs per token {found['FLOPs per token']}"
        print(run.title + ("" if command.total == 1 else short))
        for key, value in found.items() if command.total == 1 else ():
            print(f"  {key:{max(map(len, found))}} {value}")
    for line in told(command.runs):
        print(line)
    print(f"{good} of {command.total} runs can be built")
    return 0 if good == command.total else 1


def costs(run: Run, checked: Checked) -> dict[str, str]:
    """What a person asks of a model before training it, in words. The context: the longest text it is made for."""
    (task, memory), context, settings = checked, run.size["max_seq"], run.settings
    with without_adapters(task.model):
        model: Cost = task.model.cost(context)  # type: ignore[operator]
    adapters = adapter_cost(task.model)
    heads = {name: sum(p.numel() for p in head.parameters()) for name, head in task.heads.items()}
    besides = [f"{n:,} of the objective's head {name}" for name, n in heads.items()]
    besides += [f"{adapters.params:,} of the adapters, which alone learn with the heads"] if adapters.params else []
    tokens, here = settings.steps * settings.tokens, device_memory(torch.device(run.machine.device))
    return {
        "parameters": f"{model.params:,} in all, {model.active_params:,} active "
        f"({model.active_params - lookups(task.model):,} without tables that are only looked up)",
        **({"parameters besides": "; ".join(besides)} if besides else {}),
        "FLOPs per token": f"{task.cost(context).flops:,.0f} forward, in a text of {context:,} tokens; "
        f"{task.train_flops(settings.seq_len) * tokens:.3g} to train on {tokens:,} tokens in rows of {settings.seq_len:,}",
        "state": f"{model.state_bytes:,} bytes a sequence of {context:,} tokens in fp32, {model.state_bytes // 2:,} in bf16",
        "memory to load": f"{4 * model.params:,} bytes in fp32, {2 * model.params:,} in bf16",
        "memory to train": f"{memory.least:,} bytes at least: {memory.weights:,} for fp32 weights, {memory.optimiser:,} "
        f"for the optimiser, and the larger of {memory.gradients:,} for gradients and {memory.activations:,} for activations; "
        + (f"this machine has {here:,}" if memory.least <= here else f"more than this machine has, {here:,}"),
    }


if __name__ == "__main__":
    sys.exit(guarded(main))
