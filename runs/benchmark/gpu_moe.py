"""Routed decoders on a GPU, a training step each, against a dense one of equal active FLOPs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from arch import MoE

from ..job.timing import Timed
from ..training.evaluation import loss_of
from ..training.measure import peak_flops
from .case import Bar, Case, Turn, lazily, times, used
from .gpu_decoders import Shape, batch, described, one_step, run_of, step_flops
from .moe import loop

LARGE = Shape(768, 12, 12, 2 * 2048, 50_304, batch=32, seq=1024)  # d_gated: of all experts that a token meets
TINY = Shape(32, 2, 2, 64, 300, batch=2, seq=24)
BARS = {(8, 2): {"mfu": 0.38, "speed": 0.85}, (64, 8): {"mfu": 0.28, "speed": 0.65}}


def cases(device: torch.device) -> Iterator[Case]:
    shape, peak = LARGE if device.type == "cuda" else TINY, peak_flops(device, "bf16")[0]
    dense = run_of(shape, device, "ffn=swiglu")
    contenders: dict[str, Turn] = {"dense": lazily(lambda: one_step(Timed(dense), shape))}
    bars, twins = [Bar("MFU of the dense one", used("dense", step_flops(dense), peak))], {}
    for (n_experts, top_k), least in BARS.items():
        run = run_of(shape, device, "ffn=moe_swiglu", f"size.n_experts={n_experts}", f"size.top_k={top_k}")
        model = functools.cache(functools.partial(Timed, run))
        name = f"{n_experts} experts, {top_k} chosen"
        twins[name] = f"{name}: expert after expert, eager, forward alone"
        contenders[twins[name]] = lazily(functools.partial(of_model, forward_alone, model, shape))
        contenders[name] = lazily(functools.partial(of_model, one_step, model, shape))
        bars.append(Bar(f"{name}: MFU in the step, of active FLOPs", used(name, step_flops(run), peak), at_least=least["mfu"]))
        bars.append(Bar(f"{name}: time of the dense one over its own", times("dense", name), at_least=least["speed"]))
    yield Case(f"routed decoders, {described(shape)}", contenders, bars, twins, tolerance=5e-3)


def of_model(make: Callable[[Timed, Shape], Turn], model: Callable[[], Timed], shape: Shape) -> Turn:
    return make(model(), shape)


def forward_alone(model: Timed, shape: Shape) -> Turn:
    """The plain twin: the loss of the weights as they are, with the loop over experts in every MoE's place."""
    given = batch(shape)

    def turn() -> Sequence[Tensor]:
        eager = torch.compiler.set_stance("force_eager")
        with eager, torch.no_grad(), model.autocast(), expert_after_expert(model.task):
            return [torch.tensor(loss_of(model.task, given, model.device))]

    return turn


@contextlib.contextmanager
def expert_after_expert(module: nn.Module) -> Iterator[None]:
    def forward(moe: MoE, x: Tensor, *, positions: Tensor | None = None) -> Tensor:
        return loop(moe, x)

    found = [one for one in module.modules() if isinstance(one, MoE)]
    for moe in found:
        moe.__dict__["forward"] = functools.partial(forward, moe)
    try:
        yield
    finally:
        for moe in found:
            del moe.__dict__["forward"]
