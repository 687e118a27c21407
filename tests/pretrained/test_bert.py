"""BERT of the reference implementation against ours, with the heads of its two tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from arch import LayerNorm, MaskedLMHead
from tests.pretrained import peers
from tests.pretrained.ours import built, close, our_state, right_padded, their_state, twin
from tests.pretrained.peers import VOCAB


def heads(peer: Any) -> nn.ModuleDict:
    d_model, eps = peer.config.hidden_size, peer.config.layer_norm_eps
    mlm = MaskedLMHead(d_model=d_model, vocab_size=VOCAB, norm=LayerNorm(d_model=d_model, eps=eps))
    return nn.ModuleDict({"mlm": mlm, "nsp": nn.Linear(d_model, 2)})


def with_weights(peer: Any) -> tuple[Any, nn.ModuleDict]:
    own = heads(peer)
    own.load_state_dict({n.removeprefix("heads."): t for n, t in our_state(peer).items() if n.startswith("heads.")})
    return twin(peer), own


def text(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and segments."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(2, VOCAB, shape, generator=generator), torch.randint(2, shape, generator=generator)


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("make", [peers.bert, lambda: peers.bert(layer_norm_eps=0.1, type_vocab_size=3)])
def test_hidden_pooled_and_both_heads(make: Callable[[], Any]) -> None:
    peer, (tokens, types) = make(), text(3, 19)
    model, own = with_weights(peer)
    x, expected = model(tokens, types=types), peer(tokens, token_type_ids=types, output_hidden_states=True)
    close(x, expected.hidden_states[-1])
    close(model.pooled(x), peer.bert(tokens, token_type_ids=types).pooler_output)
    close(own["mlm"](x, model.embedding.weight), expected.prediction_logits)
    close(own["nsp"](model.pooled(x)), expected.seq_relationship_logits)


def test_padding_changes_no_real_token() -> None:
    peer, (real, positions) = peers.bert(), right_padded([15, 7, 1])
    tokens, types = text(*real.shape)
    model, own = with_weights(peer)
    x, expected = (
        model(tokens, types=types, positions=positions),
        peer(tokens, attention_mask=real.long(), token_type_ids=types),
    )
    close(own["mlm"](x, model.embedding.weight)[real], expected.prediction_logits[real])
    close(own["nsp"](model.pooled(x)), expected.seq_relationship_logits)


def test_packed_documents_are_separate_ones() -> None:
    peer, lengths = peers.bert(), [6, 1, 9]
    tokens, types = text(2, sum(lengths))
    positions = torch.cat([torch.arange(length) for length in lengths]).expand(2, -1)
    parts = zip(tokens.split(lengths, dim=1), types.split(lengths, dim=1), strict=True)
    expected = torch.cat([peer.bert(part, token_type_ids=kind).last_hidden_state for part, kind in parts], dim=1)
    close(twin(peer)(tokens, types=types, positions=positions), expected)


def test_no_segments_are_segment_0() -> None:
    peer, (tokens, _) = peers.bert(), text(2, 8)
    close(twin(peer)(tokens), peer.bert(tokens).last_hidden_state)


@pytest.mark.parametrize("eps", [1e-12, 1e-5])
def test_an_encoder_alone(eps: float) -> None:
    peer, (tokens, types) = peers.bert("BertModel", layer_norm_eps=eps), text(2, 11)
    x = twin(peer)(tokens, types=types)
    close(x, peer(tokens, token_type_ids=types).last_hidden_state)


def test_a_classifier() -> None:
    peer, (tokens, types) = peers.bert("BertForSequenceClassification", num_labels=3), text(2, 11)
    ours = our_state(peer)
    pooled = twin(peer).pooled(twin(peer)(tokens, types=types))
    logits = torch.nn.functional.linear(pooled, ours["heads.classifier.weight"], ours["heads.classifier.bias"])
    close(logits, peer(tokens, token_type_ids=types).logits)
    assert their_state(peer, ours).keys() == peer.state_dict().keys()


def test_the_head_for_hidden_tokens_alone() -> None:
    ours = {name: t for name, t in our_state(peers.bert()).items() if not name.startswith("heads.nsp.")}
    theirs = their_state(peers.bert(), ours)
    assert peers.bert().state_dict().keys() - theirs.keys() == {"cls.seq_relationship.weight", "cls.seq_relationship.bias"}


def test_our_weights_in_the_reference() -> None:
    peer, (tokens, types) = peers.bert(), text(2, 13)
    model, own = built(peer), heads(peer)
    for module in (model, own):
        peers.randomise(module, seed=7)
    ours = model.state_dict() | {f"heads.{name}": t for name, t in own.state_dict().items()}
    peer.load_state_dict(their_state(peer, ours), strict=True)
    x, expected = model(tokens, types=types), peer(tokens, token_type_ids=types)
    close(own["mlm"](x, model.embedding.weight), expected.prediction_logits)
    close(own["nsp"](model.pooled(x)), expected.seq_relationship_logits)
