"""Everything that can be known of a run before it trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from arch import Attention, Full, Position
from arch.init import refuse_undrawable

from ..build.errors import ConfigError
from ..build.objects import build
from ..data.contract import Batch, Data
from ..objective import Task
from . import record
from .job import one_line, read_settings
from .start import begin, build_task, load_data, refuse_other_start, refuse_other_tokenizer


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
