"""What a model does with a text: attention weights and expert choices."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from arch.contracts import Cache, Memory, Routing, SequenceMixer
from arch.mixer import MLA, CrossAttention
from arch.mixer.heads import Heads
from arch.routing import pop_routings


class Values(NamedTuple):
    """Where a mixer's values come from: the last channels of each head of a projection, after ``skipped`` others."""

    proj: nn.Module
    heads: int
    skipped: int


class Captured(NamedTuple):
    """attention: by the mixer's name, (heads, queries, keys). cross: the names of cross-attention. without_weights: mixers
    that have no weight for each pair of tokens, name -> kind. routings: by the MoE's name."""

    attention: dict[str, Tensor]
    cross: set[str]
    without_weights: dict[str, str]
    routings: dict[str, Routing]


def capture(model: nn.Module, *inputs: Tensor) -> Captured:
    """Run the model once, in evaluation mode, on inputs of one row, and then every mixer again on its own inputs."""
    calls: list[tuple[str, SequenceMixer, tuple[Any, ...], dict[str, Any]]] = []
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, SequenceMixer):

            def record(mixer: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
                assert isinstance(mixer, SequenceMixer)
                calls.append((name, mixer, args, kwargs))

            handles.append(module.register_forward_pre_hook(record, with_kwargs=True))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            pop_routings(model)
            model(*inputs)
            routings = pop_routings(model)
            for handle in handles:
                handle.remove()
            weights = {name: attention_weights(mixer, *args, **kwargs) for name, mixer, args, kwargs in calls}
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    attention = {name: found[0] for name, found in weights.items() if found is not None}
    cross = {name for name, mixer, _, _ in calls if isinstance(mixer, CrossAttention)}
    without_weights = {name: type(mixer).__name__ for name, mixer, _, _ in calls if weights[name] is None}
    return Captured(attention, cross, without_weights, routings)


def attention_weights(
    mixer: SequenceMixer,
    x: Tensor,
    *,
    positions: Tensor | None = None,
    cache: Cache | None = None,
    memory: Memory | None = None,
) -> Tensor | None:
    """The weight of each key for each query, (b, heads, queries, keys), as the mixer's own code path computes it; or None.

    Attention is linear in its values. With one-hot values, a 1 in channel j for token j, the inputs of the output projection
    are the weights themselves, whatever the score, pattern, positions or kernel. A head has d channels, so d tokens are done
    at a time.
    """
    values = values_of(mixer)
    if values is None:
        return None
    outputs: list[Tensor] = []
    first = n_keys = 0

    def one_hot_values(proj: nn.Module, args: Any, out: Tensor) -> Tensor:
        nonlocal n_keys
        n_keys = out.shape[1]
        by_head = rearrange(out, "b s (g d) -> b s g d", g=values.heads).clone()  # d: skipped + channels
        d = by_head.shape[-1] - values.skipped
        token = torch.arange(n_keys, device=out.device)[:, None] - first
        by_head[..., values.skipped :] = (token == torch.arange(d, device=out.device))[:, None]
        return rearrange(by_head, "b s g d -> b s (g d)")

    def record(proj: nn.Module, args: Any) -> None:
        outputs.append(rearrange(args[0], "b s (h d) -> b h s d", h=mixer.n_heads))

    o_proj: Any = mixer.o_proj
    handles = [values.proj.register_forward_hook(one_hot_values), o_proj.register_forward_pre_hook(record)]
    try:
        while first == 0 or first < n_keys:
            mixer(x, positions=positions, cache=cache, **({"memory": memory} if mixer.reads_memory else {}))
            first += outputs[-1].shape[-1]
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(outputs, dim=-1)[..., :n_keys]


def values_of(mixer: SequenceMixer) -> Values | None:
    """None for recurrences, and for attention to summaries of several tokens (NativeSparse)."""
    if isinstance(mixer, Heads):
        return Values(mixer.v_proj, mixer.n_kv_heads, 0)
    if isinstance(mixer, MLA):
        return Values(mixer.kv_up_proj, mixer.n_heads, mixer.d_nope)
    return None


def gates(routing: Routing) -> Tensor:
    """(tokens, experts): the weight of each expert on each token, NaN where it does not work on it."""
    t, e = routing.logits.shape
    served = routing.expert < e  # the others were dropped
    index = (routing.token[served], routing.expert[served])
    gate = routing.gate.detach()[served].float()
    chosen = gate.new_zeros(t, e, dtype=torch.bool).index_put(index, torch.ones_like(gate, dtype=torch.bool))
    return gate.new_zeros(t, e).index_put(index, gate, accumulate=True).masked_fill(~chosen, torch.nan)
