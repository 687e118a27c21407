"""What a model says it costs, against what a counter sees and what the text-book formulas say."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from runs.training.measure import matmul_rate
from tests.lab import TINY, VOCAB, config, model_of, tiny_model, tokens


@pytest.mark.parametrize("ffn", ["dense", "swiglu"])
@pytest.mark.parametrize("mixer", ["mha", "gqa", "mqa"])
def test_told_flops_are_the_counted_ones(mixer: str, ffn: str) -> None:
    model = tiny_model(f"mixer={mixer}", f"ffn={ffn}", "causal=false")  # both sides: every pair is allowed, and counted
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(tokens(2, 50))
    assert counter.get_total_flops() == 2 * 50 * model.cost(50).flops


def test_a_training_step_costs_three_forward_passes() -> None:
    model = tiny_model("causal=false", "position=rotary").train()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(tokens(2, 50)).sum().backward()
    assert counter.get_total_flops() == pytest.approx(2 * 50 * 3 * model.cost(50).flops, rel=0.01)


def test_a_causal_model_is_told_the_pairs_below_the_diagonal() -> None:
    both, causal = (tiny_model(f"causal={value}").cost(50).flops for value in ("false", "true"))
    d_model, n_layers = 24, 2
    assert both - causal == pytest.approx(n_layers * 4 * d_model * (50 - 51 / 2))


def test_gpt2_small_has_its_published_parameters_beside_the_biases() -> None:
    with torch.device("meta"):
        model = model_of(config("size=small", "size.max_seq=1024"), 50257)
    blocks, norms = 12 * 12 * 768**2, 25 * 2 * 768
    assert model.cost(1024).params == 50257 * 768 + 1024 * 768 + blocks + norms
    assert sum(p.numel() for p in model.parameters()) == model.cost(1024).params


def test_key_value_bytes_follow_the_heads() -> None:
    """2 * layers * kv heads * d_head * bytes per token: the claim behind GQA, exactly."""
    for mixer, kv_heads in (("mha", 4), ("gqa", 2), ("mqa", 1)):
        assert tiny_model(f"mixer={mixer}").cost(100).state_bytes == 2 * 2 * kv_heads * 6 * 4 * 100


def test_untied_heads_count_twice() -> None:
    tied, untied = (tiny_model(f"model.tied={value}").cost(10) for value in ("true", "false"))
    assert untied.params - tied.params == VOCAB * 24
    assert untied.flops == tied.flops


def test_moe_arms_have_the_active_flops_of_dense() -> None:
    dense = model_of(config(*TINY, "size.d_model=96", "size.d_ff=384")).cost(64)
    for ffn in ("moe", "moe_shared", "moe_fine", "swiglu"):
        cost = model_of(config(*TINY, "size.d_model=96", "size.d_ff=384", f"ffn={ffn}")).cost(64)
        router = 2 * 2 * 96 * (32 if ffn == "moe_fine" else 4) if ffn.startswith("moe") else 0
        assert cost.flops - router == dense.flops
    assert cost.params == dense.params  # swiglu: three matrices of two thirds of the width


def test_the_measured_matmul_rate_is_a_rate() -> None:
    assert 1e8 < matmul_rate(torch.device("cpu"), torch.float32) < 1e14
