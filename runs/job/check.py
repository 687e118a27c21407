"""Everything that can be known of a run before it trains."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from arch import Attention, Decoder, Full, Position
from arch.init import refuse_undrawable
from arch.lora import without_adapters

from ..build.errors import ConfigError
from ..build.objects import build
from ..build.sizes import refuse_huge, refuse_other_size
from ..data.contract import Batch, Data
from ..objective import Task
from ..training.memory import GIB, Memory, device_memory, training_memory
from ..training.schedule import Schedule
from . import record
from .execute import one_line
from .run import Run
from .start import begin, build_optimiser, build_task, load_data, refuse_other_start, refuse_other_tokenizer


class Checked(NamedTuple):
    """A run that can be trained: its model with the objective's heads, on the meta device, and what training takes at least."""

    task: Task
    memory: Memory


def check(run: Run) -> Checked:
    """Everything that can be known of a run wherever it is to be trained: keys, types, sizes, data.

    Raises: ConfigError, ValueError or OSError, in one line.
    """
    for key, size in run.size.items():
        refuse_other_size(key, size)
    refuse_huge(run.model, "model")
    build(run.schedule, "schedule", Schedule)
    refuse_large_batches(run)
    data = load_data(run)
    refuse_other_data(run, data)
    own_size = run.size["vocab_size"]
    if own_size is not None and own_size < data.vocab_size:
        raise ConfigError(f"size.vocab_size={own_size}: the data has {data.vocab_size} different tokens, so at least as many")
    seq_len = run.settings.seq_len
    try:
        with torch.device("meta"):
            task = build_task(run, data)
        refuse_undrawable(task)
        refuse_longer_texts(task, seq_len)
        refuse_other_writers(task.model, seq_len, run.settings.decode_tokens)
    except (TypeError, RuntimeError, IndexError, ArithmeticError) as error:
        raise ConfigError(f"this model cannot be built: {one_line(error)}") from error
    refuse_other_start(run.folder, begin(task, run))
    memory = try_out(run, task, data)
    refuse_idle_patterns(task.model, max(seq_len, run.size["max_seq"]))
    with without_adapters(task.model):
        refuse_wrong_cost(task.model, seq_len)
    return Checked(task, memory)


def check_here(run: Run) -> None:
    """``check``, and whether this machine has the memory. Raises as it does."""
    refuse_more_than_memory(run, check(run).memory)


def try_out(run: Run, task: Task, data: Data) -> Memory:
    """What training takes at least: a few rows go through a task on the meta device, to its losses.

    Raises: ConfigError: they do not go through, and in which part.
    """
    settings = run.settings

    def draw(rows: int) -> Batch:
        return data.batch(seed=run.seed, step=0, batch_size=rows, seq_len=settings.seq_len)

    optimiser = build_optimiser(run, task)
    names, entered = {module: name for name, module in task.named_modules()}, ["model"]
    hook = register_module_forward_pre_hook(lambda module, _: entered.append(names.get(module) or entered[-1]))
    try:
        found = training_memory(task, optimiser, draw, settings.batch_size // settings.accumulate)
    except (TypeError, RuntimeError, IndexError, ArithmeticError) as error:
        raise ConfigError(f"{entered[-1]}: this model cannot be built: {one_line(error)}") from error
    finally:
        hook.remove()
    # autocast keeps most of what it keeps in two bytes a number
    return found if run.machine.precision == "fp32" else found._replace(activations=found.activations // 2)


def refuse_more_than_memory(run: Run, needed: Memory) -> None:
    parts = ", ".join(f"{name} {bytes / GIB:,.2f}" for name, bytes in needed._asdict().items())
    refuse_bytes(run, needed.least, f"training this takes at least {needed.least / GIB:,.2f} GiB ({parts})")


def refuse_large_batches(run: Run) -> None:
    """Before any row is drawn: tokens and targets, where the held-out rows stand, and what is written behind them."""
    s = run.settings
    batch, held_out = 16 * s.tokens, 16 * s.eval_batches * s.batch_size
    said = f"train.batch_size={s.batch_size} rows of train.seq_len={s.seq_len}"
    refuse_bytes(run, batch, f"{said}: a batch alone takes {batch / GIB:,.2f} GiB")
    said = f"train.eval_batches={s.eval_batches} of train.batch_size={s.batch_size}"
    refuse_bytes(run, held_out, f"{said}: to know where they stand takes {held_out / GIB:,.2f} GiB")
    written = 16 * s.batch_size * s.decode_tokens
    said = f"train.decode_tokens={s.decode_tokens} in train.batch_size={s.batch_size} rows"
    refuse_bytes(run, written, f"{said}: they alone take {written / GIB:,.2f} GiB")


def refuse_bytes(run: Run, needed: int, said: str) -> None:
    if run.study.memory is None:
        return
    auto = run.study.memory == "auto"
    allowed = device_memory(torch.device(run.machine.device)) if auto else float(run.study.memory) * GIB
    if needed > allowed:
        place = f"{run.machine.device} has" if auto else "study.memory allows"
        raise ConfigError(f"{said}, {place} {allowed / GIB:,.2f} GiB; take less, or study.memory=null, which does not look")


def refuse_longer_texts(model: nn.Module, seq_len: int) -> None:
    for module in model.modules():
        if isinstance(module, Position) and module.longest is not None and seq_len > module.longest:
            raise ConfigError(
                f"train.seq_len={seq_len}: the model's position table has {module.longest} places; take at most "
                f"train.seq_len={module.longest}"
            )


def refuse_other_writers(model: nn.Module, seq_len: int, n_tokens: int) -> None:
    """What cannot write train.decode_tokens behind a text of seq_len."""
    if n_tokens == 0:
        return
    if not isinstance(model, Decoder) or not model.causal:
        why = "sees later tokens" if isinstance(model, Decoder) else f"is of the kind {type(model).__name__}"
        raise ConfigError(
            f"train.decode_tokens={n_tokens}: only a causal decoder writes behind a text, and this model {why}; leave it out"
        )
    for module in model.modules():
        if isinstance(module, Position) and module.longest is not None and seq_len + n_tokens > module.longest:
            raise ConfigError(
                f"train.decode_tokens={n_tokens}: behind train.seq_len={seq_len} they end at {seq_len + n_tokens}, and the "
                f"model's position table has {module.longest} places; take size.max_seq={seq_len + n_tokens}"
            )


def refuse_wrong_cost(model: nn.Module, seq: int) -> None:
    reported, built = model.cost(seq).params, sum(p.numel() for p in model.parameters())  # type: ignore[operator]
    if reported != built:
        raise ConfigError(f"a block's cost() is wrong: the parts report {reported:,} parameters, the model has {built:,}")


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


def refuse_other_data(run: Run, data: Data) -> None:
    """A run's identity names its data; should the text behind the name have changed, its record must not be mixed."""
    file = run.folder / record.ENV
    if file.exists() and (before := record.read_json(file).get("data_sha256")) != data.sha256:
        raise ConfigError(
            f"{file.parent}: was begun on other data (SHA-256 {str(before)[:8]}..., now {data.sha256[:8]}...); "
            "bring the old text back, or take another study.name"
        )
    refuse_other_tokenizer(file.parent, data)
