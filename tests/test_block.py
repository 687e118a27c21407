"""Wirings: each against its formula, with and without an ffn, with a cache and with dropout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from arch.block import OutputNorm, Parallel, PostNorm, PreNorm, Sandwich
from arch.contracts import Block, ChannelMixer, Cost, parameters_only
from arch.mixer import Attention
from arch.norm import RMSNorm


class Doubled(ChannelMixer):
    """An ffn of one matrix, to tell the two sublayers apart."""

    def __init__(self, *, d_model: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, *, positions: Tensor | None = None) -> Tensor:
        return self.up_proj(x).tanh() * 2

    def cost(self, seq: int) -> Cost:
        return parameters_only(self) + Cost(flops=2.0 * self.up_proj.weight.numel())


def norms(*names: str) -> dict[str, RMSNorm]:
    """Norms that differ, so that none can stand in another's place."""
    built = {name: RMSNorm(d_model=12) for name in names}
    with torch.no_grad():
        for norm in built.values():
            norm.weight.normal_()
    return built


def pre(b: PreNorm, x: Tensor) -> Tensor:
    x = x + b.mixer(b.mixer_norm(x))
    return x + b.ffn(b.ffn_norm(x)) if b.ffn else x


def post(b: PostNorm, x: Tensor) -> Tensor:
    x = b.mixer_norm(x + b.mixer(x))
    return b.ffn_norm(x + b.ffn(x)) if b.ffn else x


def output(b: OutputNorm, x: Tensor) -> Tensor:
    x = x + b.mixer_norm(b.mixer(x))
    return x + b.ffn_norm(b.ffn(x)) if b.ffn else x


def sandwich(b: Sandwich, x: Tensor) -> Tensor:
    x = x + b.mixer_out_norm(b.mixer(b.mixer_norm(x)))
    return x + b.ffn_out_norm(b.ffn(b.ffn_norm(x))) if b.ffn else x


def parallel(b: Parallel, x: Tensor) -> Tensor:
    return x + b.mixer(b.norm(x)) + (b.ffn(b.norm(x)) if b.ffn else 0)


TWO = ("mixer_norm", "ffn_norm")
KINDS: dict[str, tuple[type[Block], Callable[..., Tensor], tuple[str, ...]]] = {
    "pre": (PreNorm, pre, TWO),
    "post": (PostNorm, post, TWO),
    "output": (OutputNorm, output, TWO),
    "sandwich": (Sandwich, sandwich, (*TWO, "mixer_out_norm", "ffn_out_norm")),
    "parallel": (Parallel, parallel, ("norm",)),
}


def block(kind: str, *, with_ffn: bool = True, dropout: float = 0.0) -> Block:
    torch.manual_seed(0)
    build, _, names = KINDS[kind]
    ffn = Doubled(d_model=12) if with_ffn else None
    return build(mixer=Attention(d_model=12, n_heads=3), ffn=ffn, dropout=dropout, **norms(*names))


@pytest.mark.parametrize("with_ffn", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_wiring_equals_its_formula(kind: str, with_ffn: bool) -> None:
    layer, x = block(kind, with_ffn=with_ffn), torch.randn(2, 7, 12)
    y = layer(x)
    torch.testing.assert_close(y, KINDS[kind][1](layer, x))
    names, parameters = zip(*layer.named_parameters(), strict=True)
    for name, gradient in zip(names, torch.autograd.grad(y.square().sum(), parameters, allow_unused=True), strict=True):
        assert gradient is not None and gradient.abs().sum() > 0, f"{name} is a dead weight"


@pytest.mark.parametrize("kind", KINDS)
def test_positions_and_cache_reach_the_mixer(kind: str) -> None:
    layer, x = block(kind), torch.randn(2, 7, 12)
    positions = torch.tensor([0, 1, 2, 0, 1, 2, 3]).expand(2, -1)
    packed = layer(x, positions=positions)
    separate = torch.cat([layer(part) for part in x.split((3, 4), dim=1)], dim=1)
    torch.testing.assert_close(packed, separate)
    cache = layer.mixer.init_cache(2, 7)
    steps = [layer(x[:, i : i + 1], cache=cache) for i in range(7)]
    torch.testing.assert_close(torch.cat(steps, dim=1), layer(x))


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_for_training_and_keeps_the_mean(kind: str) -> None:
    layer, x = block(kind, dropout=0.5), torch.randn(1, 3, 12)
    assert torch.equal(layer.eval()(x), block(kind)(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    silent = block(kind, dropout=0.5).train()
    silent.dropout.p = 1.0
    expected = x if kind != "post" else silent.ffn_norm(silent.mixer_norm(x))
    torch.testing.assert_close(silent(x), expected)


@pytest.mark.parametrize("with_ffn", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_block_costs_what_its_parts_cost(kind: str, with_ffn: bool) -> None:
    layer = block(kind, with_ffn=with_ffn)
    cost = layer.cost(10)
    assert cost.params == sum(p.numel() for p in layer.parameters())
    assert cost.flops == layer.mixer.cost(10).flops + with_ffn * 2 * 144
    assert cost.state_bytes == layer.mixer.cost(10).state_bytes > 0


def test_an_ffn_without_its_norm_is_refused() -> None:
    parts = {"mixer": Attention(d_model=12, n_heads=3), "ffn": Doubled(d_model=12)}
    with pytest.raises(ValueError, match="PostNorm with an ffn needs 2 norms, got 1: pass ffn_norm"):
        PostNorm(**parts, **norms("mixer_norm"))
    with pytest.raises(ValueError, match="Sandwich with an ffn needs 4 norms, got 3: pass ffn_out_norm"):
        Sandwich(**parts, **norms("mixer_norm", "ffn_norm", "mixer_out_norm"))
