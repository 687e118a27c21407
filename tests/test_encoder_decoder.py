"""Encoders and encoder-decoders: who sees whom, padding, one table for all, decoding from a source."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from arch import CrossAttention, Embedding, Encoder, EncoderDecoder, LayerNorm, Learned, PostNorm, generate
from arch.mixer import Attention, Memory
from arch.pattern import Full
from tests.lab import VOCAB, tiny_model, tokens

FAMILIES = ("model=transformer_base", "model=gru_seq2seq", "model=encoder_decoder")
every_family = pytest.mark.parametrize("family", FAMILIES)


def built(family: str) -> EncoderDecoder:
    model = tiny_model(family, "size=micro")
    assert isinstance(model, EncoderDecoder)
    return model


def padded(text: Tensor, left: int, right: int) -> tuple[Tensor, Tensor]:
    """The text between other tokens, and the positions that say so."""
    b, n = text.shape
    around = [tokens(b, left, seed=7), text, tokens(b, right, seed=8)]
    positions = [torch.full((left,), -1), torch.arange(n), torch.full((right,), -1)]
    return torch.cat(around, dim=1), torch.cat(positions).expand(b, -1)


@every_family
def test_a_logit_depends_on_all_of_the_source_and_on_no_later_token(family: str) -> None:
    model, source, text = built(family), tokens(2, 9), tokens(2, 12, seed=1)
    before = model(source, text)
    assert before.shape == (2, 12, VOCAB)
    for place in (0, 8):
        other = source.clone()
        other[:, place] = (other[:, place] + 1) % VOCAB
        assert ((model(other, text) - before).abs().amax(-1) > 1e-6).all(), place
    other = text.clone()
    other[:, 7:] = (other[:, 7:] + 1) % VOCAB
    torch.testing.assert_close(model(source, other)[:, :7], before[:, :7], atol=1e-5, rtol=1e-5)
    assert model.causal


@pytest.mark.parametrize(("left", "right"), [(0, 4), (3, 0), (2, 5)])
@every_family
def test_padding_around_source_and_target_changes_nothing(family: str, left: int, right: int) -> None:
    model, source, text = built(family), tokens(2, 9), tokens(2, 12, seed=1)
    wide, positions = padded(source, left, right)
    long, own = padded(text, left, right)
    got = model(wide, long, source_positions=positions, positions=own)[:, left : left + 12]
    torch.testing.assert_close(got, model(source, text), atol=2e-5, rtol=1e-4)


@every_family
def test_decoding_from_a_source_equals_the_full_forward(family: str) -> None:
    model, source, text = built(family), tokens(2, 9), tokens(2, 12, seed=1)
    conditioned = model.condition(*padded(source, 1, 2))
    cache = conditioned.init_cache(2, 12)
    steps = [conditioned(part, cache=cache) for part in text.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(steps, dim=1), model(source, text), atol=2e-5, rtol=1e-4)


@every_family
def test_a_text_is_written_with_and_without_a_cache_alike(family: str) -> None:
    conditioned = built(family).condition(tokens(2, 9))
    prompts = [[3], [5, 1, 4]]  # of unequal length: the first is padded
    written = generate(conditioned, prompts, max_tokens=10, temperature=0)
    assert written == generate(conditioned, prompts, max_tokens=10, temperature=0, cache=False)
    other = generate(built(family).condition(tokens(2, 9, seed=3)), prompts, max_tokens=10, temperature=0)
    assert written != other


def test_cross_attention_equals_the_plain_one() -> None:
    torch.manual_seed(0)
    mixer = CrossAttention(d_model=12, n_heads=6, n_kv_heads=2, bias=True).double()
    x, source = torch.randn(2, 7, 12, dtype=torch.double), torch.randn(2, 5, 12, dtype=torch.double)
    q, k, v = (
        p(t).unflatten(-1, (-1, 2)).transpose(1, 2)
        for p, t in ((mixer.q_proj, x), (mixer.k_proj, source), (mixer.v_proj, source))
    )
    rows = []
    for head in range(6):
        weights = (q[:, head] @ k[:, head // 3].mT / 2**0.5).softmax(-1)
        rows.append(weights @ v[:, head // 3])
    plain = mixer.o_proj(torch.cat(rows, dim=-1))
    torch.testing.assert_close(mixer(x, memory=Memory(x=source)), plain)


def test_a_cache_takes_the_memory_over_at_the_first_call() -> None:
    torch.manual_seed(0)
    mixer, x, memory = CrossAttention(d_model=12, n_heads=3), torch.randn(2, 7, 12), Memory(torch.randn(2, 5, 12))
    expected, cache = mixer(x, memory=memory), mixer.init_cache(2, 7)
    with pytest.raises(ValueError, match="nothing to look at"):
        mixer(x, cache=cache)
    first = mixer(x[:, :3], memory=memory, cache=cache)
    second = mixer(x[:, 3:5], memory=Memory(torch.randn(2, 5, 12)), cache=cache)  # a later one is not read
    torch.testing.assert_close(torch.cat([first, second, mixer(x[:, 5:], cache=cache)], dim=1), expected)


def test_cross_attention_without_a_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to look at"):
        CrossAttention(d_model=8, n_heads=2)(torch.zeros(1, 3, 8))
    with pytest.raises(ValueError, match="no layer of the decoder attends to the source"):
        EncoderDecoder(encoder=tiny_model("model=encoder"), decoder=tiny_model())


@every_family
def test_told_costs_are_the_built_ones(family: str) -> None:
    model = built(family)
    assert model.cost(20).params == sum(p.numel() for p in model.parameters())
    conditioned = model.condition(tokens(1, 20))
    cache = conditioned.init_cache(1, 20)
    conditioned(tokens(1, 20), cache=cache)
    kept = 0
    for layer in cache.layers:
        parts = layer.state if hasattr(layer, "state") else (layer.k, layer.v) if hasattr(layer, "k") else layer.projected[:2]
        kept += sum(part.numel() * part.element_size() for part in parts)
    assert model.cost(20).state_bytes == kept


def test_one_table_serves_source_target_and_logits() -> None:
    model = built("model=transformer_base")
    assert model.encoder.embedding.weight is model.decoder.embedding.weight
    two = EncoderDecoder(encoder=tiny_model("model=encoder"), decoder=built("model=transformer_base").decoder, shared=False)
    assert two.encoder.embedding.weight is not two.decoder.embedding.weight
    assert two.cost(9).params == sum(p.numel() for p in two.parameters())


def test_an_encoder_sees_both_sides_and_its_padding_is_not_seen() -> None:
    model, text = tiny_model("model=bert_base", "size=micro"), tokens(2, 9)
    before = model(text)
    other = text.clone()
    other[:, -1] = (other[:, -1] + 1) % VOCAB
    assert ((model(other) - before).abs().amax(-1) > 1e-6).all()
    wide, positions = padded(text, 0, 4)
    torch.testing.assert_close(model(wide, positions=positions)[:, :9], before, atol=2e-5, rtol=1e-4)
    assert not model.causal


def test_an_encoder_pools_its_first_token() -> None:
    model, text = tiny_model("model=bert_base", "size=micro"), tokens(2, 9)
    x = model(text)
    torch.testing.assert_close(model.pooled(x), torch.tanh(model.pooler.proj(x[:, 0])))
    with pytest.raises(ValueError, match="no pooler"):
        tiny_model("model=encoder").pooled(x)


def test_an_embedding_adds_scale_place_segment_and_norm() -> None:
    torch.manual_seed(0)
    norm = LayerNorm(d_model=6)
    full = Embedding(d_model=6, vocab_size=11, position=Learned(d_model=6, max_seq=9), norm=norm, scale=3.0, n_types=2)
    text, positions, types = torch.tensor([[4, 10]]), torch.tensor([[5, 0]]), torch.tensor([[1, 0]])
    wanted = norm(3.0 * full.weight[text] + full.position.table.weight[positions] + full.types.weight[types])
    torch.testing.assert_close(full(text, positions, types), wanted)
    torch.testing.assert_close(full(text, positions), full(text, positions, torch.zeros_like(types)))
    with pytest.raises(ValueError, match="no segments"):
        Embedding(d_model=6, vocab_size=11)(text, types=types)


def test_layers_that_see_both_sides_do_not_decode() -> None:
    block = PostNorm(mixer=Attention(d_model=8, n_heads=2, pattern=Full(causal=False)), mixer_norm=LayerNorm(d_model=8))
    encoder = Encoder(embedding=Embedding(d_model=8, vocab_size=5), layers=[block])
    with pytest.raises(ValueError, match="later tokens"):
        generate(encoder, [[1]], max_tokens=1)
