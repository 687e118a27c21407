"""The published models, by name: their exact parameters, their parts, and that they train at toy size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from arch import Encoder, EncoderDecoder
from tests.lab import VOCAB, config, model_of, options, tiny_model, tokens

# The integers of the published checkpoints (transformer_*: with V = 37,000, attention biases and no final norms).
TOTAL = {
    "transformer_base": 63_082_496,
    "transformer_big": 214_245_376,
    "gpt1": 116_534_784,
    "gpt2": 124_439_808,
    "gpt2_medium": 354_823_168,
    "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200,
    "bert_base": 109_482_240,
    "bert_large": 335_141_888,
    "llama2_7b": 6_738_415_616,
    "llama3_8b": 8_030_261_248,
    "phi3_mini": 3_821_079_552,
    "qwen2_5_0_5b": 494_032_768,
    "mixtral_8x7b": 46_702_792_704,
    "olmoe_1b_7b": 6_919_161_856,
    "deepseek_moe_16b": 16_375_728_128,
    "deepseek_v2_lite": 15_706_484_224,
    "mamba_130m": 129_135_360,
    "mamba2_130m": 128_989_632,
}
# Of those that one token meets: with both embedding tables, and without the one that is only looked up.
ACTIVE = {
    "mixtral_8x7b": (12_879_925_248, 12_748_853_248),
    "olmoe_1b_7b": (1_282_017_280, 1_178_994_688),
    "deepseek_moe_16b": (2_828_650_496, 2_618_935_296),
    "deepseek_v2_lite": (2_661_150_208, 2_451_435_008),
}
FRAMES = {"decoder", "encoder", "encoder_decoder"}  # what the others are made from


def on_meta(name: str) -> tuple[nn.Module, int]:
    """The model at its own size, and its context."""
    chosen = config(f"model={name}")
    with torch.device("meta"):
        return model_of(chosen, 256), chosen.size["max_seq"]


@pytest.mark.parametrize("name", TOTAL)
def test_a_published_model_has_its_published_parameters(name: str) -> None:
    model, context = on_meta(name)
    assert sum(p.numel() for p in model.parameters()) == TOTAL[name]
    cost = model.cost(context)
    assert cost.params == TOTAL[name]
    active, without_inputs = ACTIVE.get(name, (TOTAL[name], None))
    assert cost.active_params == active
    if without_inputs is not None:
        assert cost.active_params - model.embedding.weight.numel() == without_inputs


@pytest.mark.parametrize(("name", "gates"), [("gru", 3), ("lstm", 4)])
def test_recurrent_models_follow_their_formula(name: str, gates: int) -> None:
    """vocab * d for the tied table; a layer has gates * (2 d^2 + 2 d): two matrices and two biases per gate."""
    model = tiny_model(f"model={name}", "size.n_layers=3")
    d = 24
    assert sum(p.numel() for p in model.parameters()) == VOCAB * d + 3 * gates * (2 * d * d + 2 * d)
    model = tiny_model(f"model={name}_seq2seq", "size.n_layers=3")
    recurrent = gates * (2 * d * d + 2 * d) + 2 * d  # with its norm
    look = 4 * d * d + 2 * d
    assert sum(p.numel() for p in model.parameters()) == VOCAB * d + 3 * (2 * recurrent + look) + 2 * 2 * d


def test_every_model_of_the_group_is_held_against_a_published_number() -> None:
    assert set(options("model")) - FRAMES == {*TOTAL, "gru", "lstm", "gru_seq2seq", "lstm_seq2seq"}


def outputs(model: nn.Module, text: Tensor) -> Tensor:
    """Something as wide as the vocabulary at every place, whatever kind of model it is."""
    if isinstance(model, EncoderDecoder):
        return model(text.flip(1), text)
    if isinstance(model, Encoder):
        return model(text) @ model.embedding.weight.T
    return model(text)


@pytest.mark.parametrize("name", sorted({*TOTAL, "gru", "lstm", "gru_seq2seq", "lstm_seq2seq"} - {"gpt2_xl", "gpt2_large"}))
def test_a_published_model_trains_at_toy_size(name: str) -> None:
    model = tiny_model(f"model={name}", "size=micro").train()
    assert model.causal == (not isinstance(model, Encoder))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    text, losses = tokens(4, 17), []
    for step in range(12):
        torch.manual_seed(step)
        shown = text if isinstance(model, Encoder) else text[:, :-1]
        wanted = text.roll(1, dims=1) if isinstance(model, Encoder) else text[:, 1:]  # neither is what stands there
        loss = torch.nn.functional.cross_entropy(outputs(model, shown).flatten(0, 1), wanted.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0], losses


def test_a_block_of_a_published_model_can_be_swapped() -> None:
    swapped = tiny_model("model=gpt2", "size=micro", "mixer=mamba", "ffn=moe_swiglu", "position=none")
    assert torch.isfinite(swapped(tokens(1, 9))).all()
    assert swapped.blocks[0].mixer_norm.bias is not None  # still GPT-2's norms


def test_biases_stand_where_the_models_have_them() -> None:
    def biased(name: str) -> set[str]:
        names = dict(tiny_model(f"model={name}", "size=micro").layers[-1].named_parameters())
        return {n.removesuffix(".bias") for n in names if n.endswith("_proj.bias")}

    attention = {f"mixer.{p}_proj" for p in "qkvo"}
    assert biased("gpt2") == attention | {"ffn.up_proj", "ffn.down_proj"}
    assert biased("qwen2_5_0_5b") == {"mixer.q_proj", "mixer.k_proj", "mixer.v_proj"}
    assert biased("llama2_7b") == set()


def test_deepseeks_first_layer_is_dense() -> None:
    model = model_of(config("model=deepseek_moe_16b", "size=micro", "size.n_layers=3"))
    assert [hasattr(layer.ffn, "router") for layer in model.layers] == [False, True, True]
