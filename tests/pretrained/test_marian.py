"""The encoder-decoder of the reference implementation against ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.pretrained import peers
from tests.pretrained.ours import built, close, right_padded, their_state, twin
from tests.pretrained.peers import VOCAB

MODELS: dict[str, Callable[[], Any]] = {
    "marian": peers.marian,
    "marian, swish, not scaled": lambda: peers.marian(
        activation_function="swish", scale_embedding=False, encoder_layers=1, decoder_layers=1
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(2, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


@every_model
def test_two_texts(name: str) -> None:
    peer, source, target = MODELS[name](), tokens(3, 17), tokens(3, 9, seed=2)
    close(twin(peer)(source, target), peer(input_ids=source, decoder_input_ids=target).logits)


@every_model
def test_padding_around_the_source_is_not_seen(name: str) -> None:
    peer, (real, positions) = MODELS[name](), right_padded([14, 6, 1])
    source, target = tokens(*real.shape), tokens(3, 8, seed=2)
    expected = peer(input_ids=source, attention_mask=real.long(), decoder_input_ids=target).logits
    close(twin(peer)(source, target, source_positions=positions), expected)


@every_model
def test_padding_behind_the_target_changes_no_real_token(name: str) -> None:
    peer, (real, positions) = MODELS[name](), right_padded([10, 4])
    source, target = tokens(2, 12), tokens(*real.shape, seed=2)
    expected = peer(input_ids=source, decoder_input_ids=target, decoder_attention_mask=real.long()).logits
    close(twin(peer)(source, target, positions=positions)[real], expected[real])


@every_model
def test_step_by_step(name: str) -> None:
    peer, (real, positions) = MODELS[name](), right_padded([11, 5])
    source, target = tokens(*real.shape), tokens(2, 9, seed=2)
    conditioned = twin(peer).condition(source, positions)
    cache = conditioned.init_cache(2, 9)
    logits = torch.cat([conditioned(part, cache=cache) for part in target.split([3, 1, 1, 2, 1, 1], dim=1)], dim=1)
    close(logits, peer(input_ids=source, attention_mask=real.long(), decoder_input_ids=target).logits)


@every_model
def test_our_weights_in_the_reference(name: str) -> None:
    peer, source, target = MODELS[name](), tokens(2, 12), tokens(2, 7, seed=2)
    model = built(peer)
    peers.randomise(model, seed=7)
    peer.load_state_dict(their_state(peer, model.state_dict()), strict=True)
    close(model(source, target), peer(input_ids=source, decoder_input_ids=target).logits)
