"""Dense ffns: their formulas, names and costs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from arch.contracts import ChannelMixer
from arch.ffn import GLU, MLP
from arch.ops.activation import ACTIVATIONS

KINDS = [MLP, GLU]


def plain(name: str, x: torch.Tensor) -> torch.Tensor:
    """Each activation by its textbook formula."""
    return {
        "relu": lambda: x.clamp(min=0),
        "relu2": lambda: x.clamp(min=0) ** 2,
        "silu": lambda: x / (1 + torch.exp(-x)),
        "gelu": lambda: x * (1 + torch.erf(x / 2**0.5)) / 2,
        "gelu_tanh": lambda: x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
    }[name]()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_mlp_is_its_formula(activation: str) -> None:
    torch.manual_seed(0)
    ffn = MLP(d_model=7, d_ff=13, activation=activation, bias=True)
    x = torch.randn(2, 5, 7)
    hidden = plain(activation, x @ ffn.up_proj.weight.T + ffn.up_proj.bias)
    torch.testing.assert_close(ffn(x), hidden @ ffn.down_proj.weight.T + ffn.down_proj.bias)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_glu_is_its_formula(activation: str) -> None:
    torch.manual_seed(0)
    ffn = GLU(d_model=7, d_ff=13, activation=activation)
    x = torch.randn(2, 5, 7)
    hidden = plain(activation, x @ ffn.gate_proj.weight.T) * (x @ ffn.up_proj.weight.T)
    torch.testing.assert_close(ffn(x), hidden @ ffn.down_proj.weight.T)


def test_the_defaults_are_gelu_and_swiglu_without_biases() -> None:
    x = torch.randn(3, 6)
    mlp, glu = MLP(d_model=6, d_ff=8), GLU(d_model=6, d_ff=8)
    torch.testing.assert_close(mlp(x), mlp.down_proj(F.gelu(mlp.up_proj(x))))
    torch.testing.assert_close(glu(x), glu.down_proj(F.silu(glu.gate_proj(x)) * glu.up_proj(x)))
    assert all(name.endswith("weight") for ffn in (mlp, glu) for name, _ in ffn.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [False, True])
def test_the_told_cost_is_the_counted_one(kind: type[ChannelMixer], bias: bool) -> None:
    ffn = kind(d_model=6, d_ff=10, bias=bias)
    cost = ffn.cost(seq=64)
    with FlopCounterMode(display=False) as counter:
        ffn(torch.randn(9, 6))
    assert cost.params == cost.active_params == sum(p.numel() for p in ffn.parameters())
    assert 9 * cost.flops == counter.get_total_flops()
    assert cost.state_bytes == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_dense_ffn_can_be_copied_and_pickled(kind: type[ChannelMixer], activation: str) -> None:
    ffn, x = kind(d_model=4, d_ff=6, activation=activation), torch.randn(3, 4)
    assert torch.equal(copy.deepcopy(ffn)(x), ffn(x))
    assert torch.equal(pickle.loads(pickle.dumps(ffn))(x), ffn(x))


@pytest.mark.parametrize(("wrong", "right"), [("gleu", "gelu"), ("swish", None), ("relu6", "relu"), ("Silu", "silu")])
def test_an_unknown_activation_is_told_with_what_there_is(wrong: str, right: str | None) -> None:
    with pytest.raises(ValueError, match=f"unknown activation '{wrong}'.*relu2") as error:
        MLP(d_model=4, d_ff=4, activation=wrong)
    assert (f"did you mean '{right}'" in str(error.value)) == (right is not None)
    assert "\n" not in str(error.value)
