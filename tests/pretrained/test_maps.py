"""Name maps: nothing is lost on the way, and what does not fit is reported."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from arch.pretrained import NameMap, bert, gpt2, llama, marian, mixtral, phi3
from arch.pretrained.mapping import SQUEEZE, STACK, TRANSPOSE, chunks, reorder, rule, split
from runs.published.family import names as names_of
from tests.pretrained import peers
from tests.pretrained.ours import our_state, their_state


@pytest.mark.parametrize("family", peers.FAMILIES)
def test_there_and_back_is_the_same_to_the_bit(family: str) -> None:
    peer = peers.FAMILIES[family]()
    before, after = peer.state_dict(), their_state(peer, our_state(peer))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@pytest.mark.parametrize("family", peers.FAMILIES)
def test_tied_tensors_may_be_left_out(family: str) -> None:
    peer = peers.FAMILIES[family]()
    ours, tied = our_state(peer), tuple(peer._tied_weights_keys or []) if peer.config.tie_word_embeddings else ()
    given = {name: t for name, t in peer.state_dict().items() if not name.endswith(tied)}
    again = names_of(peer.config.to_dict(), given).to_ours(given)
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[name], ours[name]) for name in ours)


@pytest.mark.parametrize(
    ("operation", "n_theirs", "shape"),
    [
        (TRANSPOSE, 1, (5, 7)),
        (STACK, 3, (5, 7)),
        (SQUEEZE, 1, (1, 7)),
        (split(1, 4), 1, (5, 7)),
        (chunks(5), 1, (15, 7)),
        (reorder(torch.tensor([2, 0, 1])), 1, (3, 7)),
        (reorder(torch.tensor([2, 0, 1, 3]), dim=1), 1, (5, 4)),
    ],
)
def test_operations_are_undone(operation: Any, n_theirs: int, shape: tuple[int, ...]) -> None:
    theirs = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(n_theirs)]
    back = operation.backward(operation.forward(theirs))
    assert len(back) == n_theirs
    assert all(torch.equal(a, b) for a, b in zip(theirs, back, strict=True))


def test_operations_follow_one_another_and_are_undone_in_reverse() -> None:
    names = NameMap([rule("w", ["a", "b"], TRANSPOSE, chunks(2))])
    w = torch.arange(8.0).view(2, 4)
    ours = names.to_ours({"w": w})
    assert torch.equal(ours["b"], w[:, 2:].T)
    assert torch.equal(names.to_theirs(ours)["w"], w)


def gpt2_without(prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in peers.gpt2().state_dict().items() if name != "lm_head.weight"}


def test_older_spellings_of_gpt2() -> None:
    names = gpt2.names(n_layers=2)
    older = gpt2_without("transformer.") | {f"h.{i}.attn.bias": torch.ones(1, 1, 40, 40) for i in range(2)}
    assert "wte.weight" in older
    new, old = names.to_ours(gpt2_without("")), names.to_ours(older)
    assert new.keys() == old.keys() and all(torch.equal(new[name], old[name]) for name in new)


def test_older_spellings_of_bert() -> None:
    def spelt(name: str) -> str:
        name = name.removeprefix("bert.")
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    theirs = peers.bert().bert.state_dict()
    older = {spelt(name): t for name, t in theirs.items()} | {"embeddings.position_ids": torch.arange(40)[None]}
    names = bert.names(n_layers=2, heads=())
    new, old = names.to_ours(theirs), names.to_ours(older)
    assert new.keys() == old.keys() and all(torch.equal(new[name], old[name]) for name in new)


def test_older_spellings_of_llama() -> None:
    theirs = peers.llama().state_dict()
    names = llama.names(n_layers=2)
    older = theirs | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    assert names.to_ours(older).keys() == names.to_ours(theirs).keys()


def test_a_name_without_a_rule_is_reported_with_the_nearest() -> None:
    state = peers.llama().state_dict()
    state["model.layers.1.mlp.up_prj.weight"] = state.pop("model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ValueError, match=r"up_prj.weight \(did you mean model.layers.1.mlp.up_proj.weight\?\): no such tensor"):
        llama.names(n_layers=2).to_ours(state)


def test_a_missing_tensor_is_reported() -> None:
    state = peers.mixtral().state_dict()
    del state["model.layers.0.block_sparse_moe.experts.3.w2.weight"]
    with pytest.raises(ValueError, match=r"^model.layers.0.block_sparse_moe.experts.3.w2.weight: missing"):
        mixtral.names(n_layers=2, n_experts=5).to_ours(state)


def test_more_layers_than_given_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model.layers.1.* and 6 more: no such tensor"):
        llama.names(n_layers=1).to_ours(peers.llama().state_dict())


def test_the_way_back_is_as_strict() -> None:
    ours = our_state(peers.llama())
    ours["layers.0.mixer.score.q_norm.weight"] = torch.ones(8)
    with pytest.raises(ValueError, match=r"layers.0.mixer.score.q_norm.weight.*no such tensor"):
        llama.names(n_layers=2).to_theirs(ours)
    del ours["layers.0.mixer.score.q_norm.weight"], ours["final_norm.weight"]
    with pytest.raises(ValueError, match=r"^final_norm.weight: missing"):
        llama.names(n_layers=2).to_theirs(ours)


def test_a_copy_that_differs_is_refused() -> None:
    state = dict(peers.gpt2().state_dict())
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    with pytest.raises(ValueError, match=r"lm_head.weight differs from transformer.wte.weight"):
        gpt2.names(n_layers=2).to_ours(state)


def test_our_own_copy_that_differs_is_refused() -> None:
    ours = our_state(peers.marian())
    ours["decoder.embedding.weight"] = ours["decoder.embedding.weight"] + 1
    with pytest.raises(ValueError, match=r"decoder.embedding.weight differs from encoder.embedding.weight"):
        marian.names(n_layers=2, n_decoder_layers=2, d_model=36, max_seq=40).to_theirs(ours)


def test_positions_that_no_formula_gives_are_refused() -> None:
    state = dict(peers.marian().state_dict())
    name = "model.decoder.embed_positions.weight"
    state[name] = state[name].flip(0)
    with pytest.raises(ValueError, match=rf"{name} holds other numbers"):
        marian.names(n_layers=2, n_decoder_layers=2, d_model=36, max_seq=40).to_ours(state)


def test_a_shape_that_does_not_fit_is_reported() -> None:
    with pytest.raises(
        ValueError, match=r"layers.0.self_attn.qkv_proj.weight \(80, 48\): does not become layers.0.mixer.q_proj"
    ):
        phi3.names(n_layers=2, n_heads=6, n_kv_heads=6, d_head=8).to_ours(peers.phi3().state_dict())


def test_a_matrix_that_is_none_is_reported_in_one_line() -> None:
    state = dict(peers.gpt2().state_dict())
    state["transformer.h.0.mlp.c_fc.weight"] = torch.ones(4)
    with pytest.raises(ValueError, match=r"mlp.c_fc.weight \(4,\): does not become layers.0.ffn.up_proj.weight") as caught:
        gpt2.names(n_layers=2).to_ours(state)
    assert "\n" not in str(caught.value)


def test_a_tensor_under_two_spellings_is_refused() -> None:
    state = gpt2_without("")
    state["wte.weight"] = state["transformer.wte.weight"]
    with pytest.raises(ValueError, match=r"hold transformer.wte.weight twice"):
        gpt2.names(n_layers=2).to_ours(state)
