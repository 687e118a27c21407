"""Language models of the reference implementation against ours, logit by logit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.pretrained import peers
from tests.pretrained.ours import built, close, left_padded, right_padded, their_state, twin
from tests.pretrained.peers import VOCAB

MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": peers.gpt2,
    "gpt2, usual width and activation": lambda: peers.gpt2(n_inner=None, activation_function="relu", layer_norm_epsilon=0.1),
    "llama": peers.llama,
    "llama, biases, tied": lambda: peers.llama(attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "llama, wide heads": lambda: peers.llama(head_dim=12, rms_norm_eps=0.1),
    "llama, linear": lambda: peers.llama(rope_scaling=dict(peers.LINEAR)),
    "llama 3.1": lambda: peers.llama(rope_scaling=dict(peers.LLAMA3)),
    "llama, yarn": lambda: peers.llama(rope_scaling=dict(peers.YARN)),
    "llama, yarn, temperature": lambda: peers.llama(rope_scaling={**peers.YARN, "attention_factor": 1.5}),
    "phi3": peers.phi3,
    "phi3, half of it rotates": lambda: peers.phi3(partial_rotary_factor=0.5),
    "phi3, three quarters rotate": lambda: peers.phi3(partial_rotary_factor=0.75, hidden_size=96),
    "phi3, no window": lambda: peers.phi3(sliding_window=None, num_key_value_heads=6, tie_word_embeddings=True),
    "qwen2": peers.qwen2,
    "qwen2, untied": lambda: peers.qwen2(tie_word_embeddings=False),
    "qwen2, yarn": lambda: peers.qwen2(rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}),
    "qwen2, yarn, two scales": lambda: peers.qwen2(rope_scaling={**peers.YARN, "mscale": 2.0, "mscale_all_dim": 0.5}),
    "mixtral": peers.mixtral,
    "mixtral, llama3": lambda: peers.mixtral(rope_scaling=dict(peers.LLAMA3)),
    "mixtral, window": lambda: peers.mixtral(sliding_window=4, num_experts_per_tok=3),
    "olmoe": peers.olmoe,
    "olmoe, normalised gates": lambda: peers.olmoe(norm_topk_prob=True, num_key_value_heads=3, rms_norm_eps=0.1),
    "olmoe, linear": lambda: peers.olmoe(rope_scaling=dict(peers.LINEAR)),
    "deepseek_v2": peers.deepseek_v2,
    "deepseek_v2, yarn": lambda: peers.deepseek_v2(rope_scaling=dict(peers.YARN)),
    "deepseek_v2, yarn, all scores warmed": peers.warmed_deepseek_v2,
    "deepseek_v2, linear": lambda: peers.deepseek_v2(rope_scaling=dict(peers.LINEAR)),
    "deepseek_v2, one shared": lambda: peers.deepseek_v2(n_shared_experts=1),
    "deepseek_v2, three shared": lambda: peers.deepseek_v2(n_shared_experts=3, num_experts_per_tok=3),
    "deepseek_v2, latent queries": lambda: peers.deepseek_v2(q_lora_rank=14, first_k_dense_replace=0, rms_norm_eps=0.1),
    "mamba": peers.mamba,
    "mamba, untied": lambda: peers.mamba(tie_word_embeddings=False, time_step_rank=5, expand=3),
}
PACKS_ITSELF = ("gpt2", "llama", "phi3", "qwen2", "mixtral", "deepseek_v2")  # positions alone mark where documents begin

every_model = pytest.mark.parametrize("name", MODELS)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(2, VOCAB, shape, generator=torch.Generator().manual_seed(1))


def theirs(peer: Any, text: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
    if peer.config.model_type == "mamba":
        more.pop("position_ids", None)  # it has no positions
    logits: torch.Tensor = peer(text, use_cache=False, **more).logits
    return logits


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


@every_model
def test_a_text(name: str) -> None:
    peer, text = MODELS[name](), tokens(3, 21)
    close(twin(peer)(text), theirs(peer, text))


@every_model
@pytest.mark.parametrize("padded", [left_padded, right_padded])
def test_padding_changes_no_real_token(name: str, padded: Callable[..., Any]) -> None:
    peer, (real, positions) = MODELS[name](), padded([17, 9, 1])
    text = tokens(*real.shape)
    expected = theirs(peer, text, attention_mask=real.long(), position_ids=positions.clamp_min(0))
    close(twin(peer)(text, positions=positions)[real], expected[real])


@every_model
def test_packed_documents_are_separate_ones(name: str) -> None:
    peer, lengths = MODELS[name](), [5, 1, 11, 4]
    text = tokens(2, sum(lengths))
    positions = torch.cat([torch.arange(length) for length in lengths]).expand(2, -1)
    logits = twin(peer)(text, positions=positions)
    close(logits, torch.cat([theirs(peer, part) for part in text.split(lengths, dim=1)], dim=1))
    if name in PACKS_ITSELF:
        close(logits, theirs(peer, text, position_ids=positions))


@every_model
def test_step_by_step(name: str) -> None:
    peer, text = MODELS[name](), tokens(2, 14)
    model = twin(peer)
    cache = model.init_cache(2, 14)
    close(
        torch.cat([model(part, cache=cache) for part in text.split([5, 1, 1, 3, 1, 1, 1, 1], dim=1)], dim=1), theirs(peer, text)
    )


@every_model
def test_step_by_step_after_padding(name: str) -> None:
    peer, (real, positions) = MODELS[name](), left_padded([12, 5])
    text = tokens(2, 12)
    model = twin(peer)
    cache = model.init_cache(2, 12)
    steps = [8, 1, 1, 1, 1]
    pieces = zip(text.split(steps, dim=1), positions.split(steps, dim=1), strict=True)
    logits = torch.cat([model(part, positions=at, cache=cache) for part, at in pieces], dim=1)
    close(logits[real], theirs(peer, text, attention_mask=real.long(), position_ids=positions.clamp_min(0))[real])


@every_model
def test_our_weights_in_the_reference(name: str) -> None:
    peer, text = MODELS[name](), tokens(2, 13)
    model = built(peer)
    peers.randomise(model, seed=7)
    peer.load_state_dict(their_state(peer, model.state_dict()), strict=True)
    close(model(text), theirs(peer, text))
