"""A dry run of a command: what it would train and cost, or why it cannot. Nothing is trained, no weight is allocated.

python -m runs.check model=mixtral_8x7b                          one model, at its own context
python -m runs.check -m ffn=dense,moe norm=layernorm,rmsnorm     a grid
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from arch import Attention, Full, Position
from arch.init import refuse_undrawable
from arch.lora import adapter_cost, merge

from . import record
from .build import build
from .data.contract import Batch, Data
from .errors import ConfigError
from .job import one_line, read_settings
from .measure import train_flops
from .objective import Task
from .start import begin, build_task, load_data, refuse_other_start, refuse_other_tokenizer
from .train import collect, guarded


def main() -> int:
    asked = collect()
    for error in asked.refused:
        print(error)
    total = len(asked.points) + len(asked.refused)
    good = 0
    for point in asked.points:
        try:
            told = costs(point, check(point))
        except (ValueError, OSError) as error:
            print(f"{name(point)}: {error}")
            continue
        good += 1
        short = f": parameters {told['parameters']}; FLOPs per token {told['FLOPs per token']}"
        print(name(point) + ("" if total == 1 else short))
        for key, value in told.items() if total == 1 else ():
            print(f"  {key:{max(map(len, told))}} {value}")
    print(f"{good} of {total} runs can be built")
    return 0 if good == total else 1


def name(point: dict[str, Any]) -> str:
    arm, model = record.arm_name(point), point["choices"].get("model", "decoder")
    own = point["study"]["arm"] is not None or model in ("decoder", "encoder", "encoder_decoder")
    return f"{arm if own else model} seed {point['seed']}"


def costs(point: dict[str, Any], task: Task) -> dict[str, str]:
    """What a person asks of a model before training it, in words. The context: the longest text it is made for."""
    context, train = point["size"]["max_seq"], point["train"]
    model = task.model
    adapters, total = adapter_cost(model), sum(p.numel() for p in model.parameters())
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    merge(model)  # a block tells what it costs without them
    cost: Any = model.cost(context)  # type: ignore[operator]
    short: Any = model.cost(train["seq_len"])  # type: ignore[operator]
    heads = {name: sum(p.numel() for p in head.parameters()) for name, head in task.heads.items()}
    besides = [f"{n:,} of the objective's head {name}" for name, n in heads.items()]
    besides += [f"{adapters.params:,} of the adapters, which alone learn with the heads"] if adapters.params else []
    tokens = train["steps"] * train["batch_size"] * train["seq_len"]
    inputs = lookup_only(model)
    return {
        "parameters": f"{cost.params:,} in all, {cost.active_params:,} active "
        f"({cost.active_params - inputs:,} without the table that is only looked up)",
        **({"parameters besides": "; ".join(besides)} if besides else {}),
        "FLOPs per token": f"{cost.flops:,.0f} forward, in a text of {context:,} tokens; "
        f"{train_flops(short.flops) * tokens:.3g} to train on {tokens:,} tokens in rows of {train['seq_len']:,}",
        "state": f"{cost.state_bytes:,} bytes a sequence of {context:,} tokens in fp32, {cost.state_bytes // 2:,} in bf16",
        "memory to load": f"{4 * cost.params:,} bytes in fp32, {2 * cost.params:,} in bf16",
        "memory to train": f"{16 * learning + 4 * (total - learning):,} bytes for fp32 weights, gradients and AdamW; "
        "activations come on top",
    }


def lookup_only(model: nn.Module) -> int:
    """Parameters of the input table where the logits have one of their own: no matrix product reads it."""
    head, table = getattr(getattr(model, "decoder", model), "lm_head", None), getattr(model, "embedding", None)
    return 0 if head is None or table is None else table.weight.numel()


def check(config: dict[str, Any]) -> Task:
    """Everything that can be known before training: keys, types, sizes, data, device. The model with its objective's heads,
    on the meta device.

    Raises: ConfigError, ValueError or OSError, in one line.
    """
    if not isinstance(config["seed"], int) or isinstance(config["seed"], bool) or config["seed"] < 0:
        raise ConfigError(f"seed={config['seed']!r}: a whole number from 0 is expected")
    settings = read_settings(config["train"])
    for key, size in config["size"].items():
        if key == "vocab_size" and size is None:
            continue
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ConfigError(f"size.{key}={size!r}: a whole number from 1 is expected")
    build(config["schedule"], "schedule")
    data = load_data(config)
    refuse_other_data(config, data)
    vocab_size = config["size"]["vocab_size"]
    if vocab_size is not None and vocab_size < data.vocab_size:
        raise ConfigError(f"size.vocab_size={vocab_size}: the data has {data.vocab_size} different tokens, so at least as many")
    try:
        with torch.device("meta"):
            task = build_task(config, data)
        refuse_undrawable(task)
        refuse_longer_texts(task, settings.seq_len)
        first = data.batch(seed=config["seed"], step=0, batch_size=1, seq_len=settings.seq_len)
        task(Batch(*(None if tensor is None else tensor.to("meta") for tensor in first)))  # type: ignore[arg-type]
    except (TypeError, RuntimeError, IndexError) as error:
        raise ConfigError(f"this model cannot be built: {one_line(error)}") from error
    model = task.model
    refuse_idle_patterns(model, max(settings.seq_len, config["size"]["max_seq"]))
    told, built = model.cost(settings.seq_len).params, sum(p.numel() for p in model.parameters())  # type: ignore[operator]
    if told != built:
        raise ConfigError(f"a block's cost() is wrong: the parts tell {told:,} parameters, the model has {built:,}")
    refuse_other_start(record.folder(config), begin(task, config))
    build(config["optim"], "optim", model=task)
    return task


def refuse_longer_texts(model: nn.Module, seq_len: int) -> None:
    for module in model.modules():
        if isinstance(module, Position) and module.longest is not None and seq_len > module.longest:
            raise ConfigError(
                f"train.seq_len={seq_len}: the model's position table has {module.longest} places; take at most "
                f"train.seq_len={module.longest}"
            )


def refuse_idle_patterns(model: nn.Module, seq: int) -> None:
    """A sparse pattern that hides nothing at this length would be full attention under another name."""
    for module in model.modules():
        if isinstance(module, Attention) and not isinstance(module.pattern, Full):
            pairs = module.pattern.pairs(seq)
            if pairs == Full(causal=module.causal).pairs(seq):
                kind = type(module.pattern).__name__
                raise ConfigError(
                    f"pattern: {kind} hides none of the {pairs:,} pairs of {seq} tokens; take a smaller window or a longer text"
                )


def refuse_other_data(config: dict[str, Any], data: Data) -> None:
    """A run's identity names its data; should the text behind the name have changed, its record must not be mixed."""
    file = record.folder(config) / "env.json"
    if file.exists() and (before := record.read_json(file).get("data_sha256")) != data.sha256:
        raise ConfigError(
            f"{file.parent}: was begun on other data (SHA-256 {str(before)[:8]}..., now {data.sha256[:8]}...); "
            "bring the old text back, or take another study.name"
        )
    refuse_other_tokenizer(file.parent, data)


if __name__ == "__main__":
    sys.exit(guarded(main))
