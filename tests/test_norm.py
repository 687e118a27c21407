"""Norms against their formulas."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from arch.contracts import Norm
from arch.norm import DynamicTanh, LayerNorm, RMSNorm
from tests.lab import options, tiny_model

FORMULAS: dict[str, tuple[Callable[[], Norm], Callable[..., Tensor], int]] = {
    "layernorm": (
        lambda: LayerNorm(d_model=24, eps=1e-3),
        lambda x, n: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-3).sqrt() * n.weight + n.bias,
        48,
    ),
    "layernorm without bias": (
        lambda: LayerNorm(d_model=24, bias=False),
        lambda x, n: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt() * n.weight,
        24,
    ),
    "rmsnorm": (
        lambda: RMSNorm(d_model=24, eps=1e-3),
        lambda x, n: x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * n.weight,
        24,
    ),
    "dynamic tanh": (
        lambda: DynamicTanh(d_model=24, alpha=0.7),
        lambda x, n: torch.tanh(n.alpha * x) * n.weight + n.bias,
        49,
    ),
}


@pytest.mark.parametrize("shape", [(2, 5, 24), (7, 24), (24,)], ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_every_norm_equals_its_formula(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    build, formula, n_params = FORMULAS[name]
    norm = build().double()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(shape, dtype=torch.float64)
    results = []
    for y in (norm(x), formula(x, norm)):
        results.append((y.detach(), *torch.autograd.grad((y * direction).sum(), (x, *norm.parameters()))))
    torch.testing.assert_close(*results)
    assert norm.cost(100).params == norm.cost(100).active_params == sum(p.numel() for p in norm.parameters()) == n_params
    assert norm.cost(100).flops == norm.cost(100).state_bytes == 0


def test_the_gradients_of_a_norm_have_gradients() -> None:
    """Of a norm whose own are written by hand: a plain one beside it."""
    torch.manual_seed(0)
    norm, x = RMSNorm(d_model=24).double(), torch.randn(5, 24, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, x) and torch.autograd.gradgradcheck(norm, x)
    mapped = torch.func.vmap(norm)(x)
    torch.testing.assert_close(mapped, norm(x))


@pytest.mark.parametrize(
    "choice",
    [*(f"mixer={option}" for option in options("mixer")), *(f"score={option}" for option in options("score")), "norm=rmsnorm"],
)
def test_every_norm_of_a_model_takes_the_shared_eps(choice: str) -> None:
    model = tiny_model(choice, "shared.norm_eps=0.125")
    found = {name: module.eps for name, module in model.named_modules() if hasattr(module, "eps")}
    assert found
    assert set(found.values()) == {0.125}, found


def test_latent_queries_are_normalised_with_the_shared_eps_too() -> None:
    mixer = tiny_model("mixer=mla", "mixer.d_q_latent=8", "shared.norm_eps=0.125").layers[0].mixer
    assert mixer.q_norm.eps == mixer.kv_norm.eps == 0.125


def test_norms_start_neutral_whatever_the_memory_held() -> None:
    x = torch.randn(3, 24) * 5 + 2
    for build, _, _ in FORMULAS.values():
        norm = build()
        before = norm(x)
        with torch.no_grad():
            for parameter in norm.parameters():
                parameter.fill_(torch.nan)
        norm.reset_parameters()
        assert torch.equal(norm(x), before)
    torch.testing.assert_close(RMSNorm(d_model=24)(x).square().mean(-1), torch.ones(3))
    torch.testing.assert_close(LayerNorm(d_model=24)(x).mean(-1), torch.zeros(3), atol=1e-6, rtol=0)
    assert DynamicTanh(d_model=24).alpha.item() == 0.5


@pytest.mark.parametrize("name", FORMULAS)
def test_norms_take_bf16_inputs_under_autocast_and_bf16_weights(name: str) -> None:
    norm, x = FORMULAS[name][0](), torch.randn(2, 5, 24)
    exact = norm(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(norm(x.bfloat16()).float(), exact, atol=0.05, rtol=0.02)
    half = norm.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.02)
