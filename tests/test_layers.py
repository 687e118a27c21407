"""What a stack asks of its layers: blocks, wrapped or not, that say themselves what they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arch import Attention, Decoder, Embedding, Full, LayerNorm, PreNorm, RelativeBias, generate
from arch.contracts import Block
from arch.mixer import Mamba
from tests.lab import tiny_model, tokens


class Passing(nn.Module):
    """A wrapper of one's own around a block, as libraries for checkpointing and sharding have them."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, **rest: Any) -> Tensor:
        y: Tensor = self.block(x, **rest)
        return y

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.block, name)


def rewrapped(model: Decoder, wrap: Any) -> Decoder:
    layers = [wrap(layer) for layer in model.layers]
    return Decoder(embedding=model.embedding, layers=layers, final_norm=model.final_norm).eval()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_layers_give_the_eager_logits(backend: str) -> None:
    model, text = tiny_model("ffn=moe"), tokens(2, 19)
    assert isinstance(model, Decoder)
    torch.compiler.reset()
    compiled = rewrapped(model, lambda layer: torch.compile(layer, backend=backend))
    positions = torch.cat([torch.full((3,), -1), torch.arange(7), torch.arange(9)])[None].expand(2, -1)
    with torch.no_grad():
        torch.testing.assert_close(compiled(text), model(text), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(compiled(text, positions=positions), model(text, positions=positions), atol=1e-5, rtol=1e-5)


def test_a_wrapped_model_says_decodes_and_costs_what_the_bare_one_does() -> None:
    model = tiny_model()
    assert isinstance(model, Decoder)
    wrapped = rewrapped(model, Passing)
    assert generate(wrapped, [[1, 2, 3]], max_tokens=8, temperature=0) == generate(
        model, [[1, 2, 3]], max_tokens=8, temperature=0
    )
    assert wrapped.cost(20) == model.cost(20) and wrapped.causal


@pytest.mark.parametrize(
    ("layer", "missing"),
    [
        (
            nn.Linear(24, 24),
            "layer 1 is a Linear without mixer, mixer.init_cache, .* ffn, .* causal, outputs_add_up, cost: a Block",
        ),
        (nn.Sequential(nn.Identity()), "layer 1 is a Sequential without mixer"),
    ],
)
def test_a_layer_that_is_no_block_is_refused_by_its_number_and_kind(layer: nn.Module, missing: str) -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match=missing):
        Decoder(embedding=model.embedding, layers=[model.layers[0], layer])  # type: ignore[index, list-item]


def test_a_block_that_does_not_say_whether_its_outputs_add_up_is_refused() -> None:
    class Mine(Block):
        def __init__(self) -> None:
            super().__init__()
            self.mixer, self.ffn = Attention(d_model=8, n_heads=2), None

    with pytest.raises(ValueError, match="layer 0 is a Mine without outputs_add_up: a Block is expected"):
        Decoder(embedding=Embedding(d_model=8, vocab_size=5), layers=[Mine()])


def stack(mixer: Any) -> Decoder:
    block = PreNorm(mixer=mixer, mixer_norm=LayerNorm(d_model=8))
    return Decoder(embedding=Embedding(d_model=8, vocab_size=5), layers=[block, block])


def test_a_part_of_a_mixer_does_not_say_what_the_mixer_sees() -> None:
    """A bias for both sides inside causal attention: later tokens are hidden all the same."""
    both = RelativeBias(n_heads=2, causal=False)
    causal = stack(Attention(d_model=8, n_heads=2, position=both))
    assert causal.causal and causal.layers[0].causal
    assert len(generate(causal, [[1]], max_tokens=3)[0]) == 3
    assert not stack(Attention(d_model=8, n_heads=2, position=both, pattern=Full(causal=False))).causal
    assert stack(Mamba(d_model=8)).causal


def test_what_looks_ahead_is_named_by_the_layers() -> None:
    with pytest.raises(ValueError, match=r"sees later tokens \(Attention, MoE with ExpertChoice\)"):
        generate(tiny_model("causal=false", "ffn=moe", "router=expert_choice"), [[1]], max_tokens=1)
