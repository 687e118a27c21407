"""Seeds trained at once (train.stack) against the same seeds one after the other. For a GPU: on a CPU it gains
little or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..compose.compose import composed
from ..job.run import Run
from ..job.together import first_step
from ..training.fit import Step, train_step
from ..training.measure import synchronise
from ..training.together import Weights, train_steps
from .case import Bar, Case, Turn, lazily, times

SEEDS = 8
WORDS = "mixer=gqa norm=rmsnorm position=rotary data=markov data.vocab_size=256 train.batch_size=8 train.seq_len=128"
TINY = "size.d_model=16 size.n_layers=2 size.n_heads=2 size.n_kv_heads=1 size.d_ff=32 train.batch_size=2 train.seq_len=32"
SMALL = "size.d_model=128 size.n_layers=4 size.n_heads=4 size.n_kv_heads=2 size.d_ff=512"
LARGE = "size.d_model=256 size.n_layers=6 size.n_heads=8 size.n_kv_heads=2 size.d_ff=1024"


def cases(device: torch.device) -> Iterator[Case]:
    if device.type != "cuda":
        yield case("2 layers of 16", f"{WORDS} {TINY} ffn=swiglu", device)
        return
    yield case("4 layers of 128", f"{WORDS} {SMALL} ffn=swiglu", device)
    yield case("6 layers of 256", f"{WORDS} {LARGE} ffn=swiglu", device)
    yield case("8 experts, 2 chosen, 4 layers of 128", f"{WORDS} {SMALL} ffn=moe_swiglu", device)


def case(what: str, words: str, device: torch.device) -> Case:
    run = composed([*words.split(), f"train.device={device.type}"]).run
    contenders = {
        "one after the other": lazily(lambda: one_by_one(steps(run))),
        "at once": lazily(lambda: at_once(steps(run))),
    }
    bar = Bar("the time of one after the other over that of all at once", times("one after the other", "at once"), at_least=4)
    tolerance = 1e-3 if run.machine.precision == "fp32" else 1e-2
    return Case(f"{SEEDS} seeds of a decoder, {what}", contenders, [bar], {"at once": "one after the other"}, tolerance)


def steps(run: Run) -> list[Step]:
    return [first_step(replace(run, seed=seed, identity="")) for seed in range(SEEDS)]


def one_by_one(steps: Sequence[Step]) -> Turn:
    def turn() -> Sequence[Tensor]:
        for step in steps:
            train_step(*step)
        return losses(steps)

    return turn


def at_once(steps: Sequence[Step]) -> Turn:
    weights = Weights([step.task for step in steps])

    def turn() -> Sequence[Tensor]:
        train_steps(steps, weights)
        return losses(steps)

    return turn


def losses(steps: Sequence[Step]) -> list[Tensor]:
    """What each of them has learnt so far; the device has done all of it."""
    synchronise(steps[0].window.norm.device)
    return [torch.stack([step.window.losses[""] / step.window.steps for step in steps])]
