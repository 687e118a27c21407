"""Seeds trained at once (train.stack) against the same seeds one after the other. For a GPU: on a CPU it gains nothing."""

from __future__ import annotations

import math
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
from .case import Bar, Case, Turn, times

SEEDS = 8
AT_LEAST = 4.0  # times as fast, on a GPU
WORDS = "mixer=gqa norm=rmsnorm position=rotary data=markov data.vocab_size=256 train.batch_size=8 train.seq_len=128"
SMALL = "size.d_model=128 size.n_layers=4 size.n_heads=4 size.n_kv_heads=2 size.d_ff=512"
LARGE = "size.d_model=256 size.n_layers=6 size.n_heads=8 size.n_kv_heads=2 size.d_ff=1024"


def cases() -> Iterator[Case]:
    yield case("4 layers of 128", f"{WORDS} {SMALL} ffn=swiglu")
    yield case("6 layers of 256", f"{WORDS} {LARGE} ffn=swiglu")
    yield case("8 experts, 2 chosen, 4 layers of 128", f"{WORDS} {SMALL} ffn=moe_swiglu")


def case(what: str, words: str) -> Case:
    run = composed(words.split()).run
    contenders = {"one after the other": one_by_one(steps(run)), "at once": at_once(steps(run))}
    gpu = run.machine.device.startswith("cuda")
    speedup = times("one after the other", "at once")
    bar = Bar("the time of one after the other over that of all at once", speedup, at_least=AT_LEAST if gpu else -math.inf)
    name = f"{SEEDS} seeds of a decoder, {what}, on {run.machine.device}"
    return Case(name, contenders, [bar], {"at once": "one after the other"}, tolerance=1e-3 if not gpu else 1e-2)


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
