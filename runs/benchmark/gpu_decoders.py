"""Dense decoders on a GPU, a training step each, in bf16 and compiled: which share of the device's arithmetic they use."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch.model import Decoder

from ..compose.compose import composed
from ..data.contract import Batch
from ..job.run import Run
from ..job.timing import Timed
from ..training.fit import Window, train_step
from ..training.measure import peak_flops
from .by_hand import ByHand
from .case import Bar, Case, Measured, Turn, lazily, times, used
from .loop import looped
from .steps import drawn

LOOP_STEPS = 20  # of a turn of the loop, with one row of metrics and one evaluation
POINTS = 0.05  # of MFU that the loop may lose


class Shape(NamedTuple):
    d_model: int
    n_layers: int
    n_heads: int
    d_gated: int
    vocab_size: int
    batch: int
    seq: int


LARGE = {
    "124M": Shape(768, 12, 12, 2048, 50_304, batch=32, seq=1024),
    "350M": Shape(1024, 24, 16, 2816, 50_304, batch=16, seq=1024),
}
TINY = {"124M": Shape(32, 2, 2, 64, 300, batch=2, seq=24), "350M": Shape(48, 2, 3, 96, 300, batch=2, seq=24)}


def cases(device: torch.device) -> Iterator[Case]:
    shapes, peak = LARGE if device.type == "cuda" else TINY, peak_flops(device, "bf16")[0]
    yield dense("124M", shapes["124M"], device, peak=peak, mfu=0.42, by_hand=1.15, whole=True)
    yield dense("350M", shapes["350M"], device, peak=peak, mfu=0.50)


def dense(
    name: str,
    shape: Shape,
    device: torch.device,
    *,
    peak: float,
    mfu: float,
    by_hand: float | None = None,
    whole: bool = False,
) -> Case:
    """by_hand: its time over ours, at least. whole: whether the loop is timed too, with all that it does beside the steps."""
    run = run_of(shape, device, "ffn=swiglu")
    model = functools.cache(lambda: Timed(run))
    contenders: dict[str, Turn] = {}
    if by_hand is not None:  # first: its weights are those that the lab's begins with
        contenders["by hand"] = lazily(lambda: hand_written(model(), shape))
    contenders["the lab's"] = lazily(lambda: one_step(model(), shape))
    flops = step_flops(run)
    bars = [Bar("MFU in the step", used("the lab's", flops, peak), at_least=mfu)]
    if by_hand is not None:
        bars.append(Bar("time of one written by hand over the lab's", times("by hand", "the lab's"), at_least=by_hand))
        bars.append(Bar("MFU of the one by hand", used("by hand", flops, peak)))
    if whole:
        contenders["the lab's loop"] = lazily(lambda: looped(model(), LOOP_STEPS))
        average = used("the lab's loop", LOOP_STEPS * flops, peak)

        def lost(m: Measured) -> Sequence[float]:
            return [step - loop for step, loop in zip(bars[0].values(m), average(m), strict=True)]

        bars += [Bar("MFU of a loop with evaluation", average), Bar("what the loop loses of it", lost, at_most=POINTS)]
    twins = {"the lab's": "by hand"} if by_hand is not None else {}
    return Case(f"dense decoder of {name}, {described(shape)}", contenders, bars, twins, tolerance=5e-3)


def described(shape: Shape) -> str:
    return f"{shape.n_layers} layers of {shape.d_model}, {shape.batch} x {shape.seq:,} tokens"


def run_of(shape: Shape, device: torch.device, *words: str) -> Run:
    sizes = {key: value for key, value in shape._asdict().items() if key not in ("batch", "seq")}
    train = {
        "device": device,
        "precision": "bf16",
        "compile": str(device.type == "cuda").lower(),
        "batch_size": shape.batch,
        "seq_len": shape.seq,
        "steps": 1_000_000,  # the loop is stopped before
        "log_every": LOOP_STEPS,
        "eval_every": LOOP_STEPS,
        "eval_batches": 2,
    }
    said = [f"{group}.{key}={value}" for group, of in (("size", sizes), ("train", train)) for key, value in of.items()]
    return composed(["size=small", "mixer=mha", "norm=rmsnorm", "position=rotary", *words, *said]).run


def step_flops(run: Run) -> float:
    """Forward and backward, of matrix products and of the pairs that are seen; of a routed model the active ones."""
    from ..build.model import build_model

    with torch.device("meta"):
        model = cast(Decoder, build_model(run.model, vocab_size=run.size["vocab_size"], seed=0))
    return 3 * model.cost(run.settings.seq_len).flops * run.settings.tokens


def batch(shape: Shape) -> Batch:
    text = torch.randint(shape.vocab_size, (shape.batch, shape.seq + 1), generator=drawn(1))
    return Batch(text[:, :-1].contiguous(), text[:, 1:].contiguous())


def one_step(model: Timed, shape: Shape) -> Turn:
    """As the loop does it, from a batch on the host to the update. It shows the loss."""
    given = batch(shape)

    def turn() -> Sequence[Tensor]:
        window = Window.opened(model.device)
        train_step(model.task, model.optimiser, given, model.run.settings, model.autocast(), window)
        return [*window.losses.values()]

    return turn


def hand_written(model: Timed, shape: Shape) -> Turn:
    """The same mathematics in one file, compiled as a whole: forward, loss, backward, clipping, fused AdamW."""
    device, decoder = model.device, cast(Decoder, model.task.model)
    theta, eps = (float(model.run.shared[key]) for key in ("rope_theta", "norm_eps"))
    hand = ByHand(decoder, n_heads=shape.n_heads, n_kv_heads=shape.n_heads, theta=theta, eps=eps).to(device)
    optimiser = torch.optim.AdamW(hand.parameters(), lr=1e-4, fused=True)
    given, clip = batch(shape), model.run.settings.clip

    def loss_of(tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            logits = hand(tokens)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    compute = torch.compile(loss_of) if device.type == "cuda" else loss_of

    def turn() -> Sequence[Tensor]:
        loss = compute(given.tokens.to(device), given.targets.to(device))
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(hand.parameters(), clip)
        optimiser.step()
        optimiser.zero_grad()
        return [loss]

    return turn
