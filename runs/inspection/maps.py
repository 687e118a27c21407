"""What a model does with a text: how much each token weighs each other one, and which experts work on it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
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


class Look(NamedTuple):
    """attention: by the mixer's name, (heads, queries, keys). across: those of them that look at another text. without: mixers
    that do not weigh each pair of tokens, and of which kind they are. routings: by the MoE's name."""

    attention: dict[str, Tensor]
    across: set[str]
    without: dict[str, str]
    routings: dict[str, Routing]


def look(model: nn.Module, *inputs: Tensor) -> Look:
    """The model, in evaluation mode, run once on inputs of one row, and every mixer again on what it was given."""
    calls: list[tuple[str, SequenceMixer, tuple[Any, ...], dict[str, Any]]] = []
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, SequenceMixer):

            def note(mixer: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
                assert isinstance(mixer, SequenceMixer)
                calls.append((name, mixer, args, kwargs))

            handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
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
    without = {name: type(mixer).__name__ for name, mixer, _, _ in calls if weights[name] is None}
    across = {name for name, mixer, _, _ in calls if isinstance(mixer, CrossAttention)}
    return Look({name: found[0] for name, found in weights.items() if found is not None}, across, without, routings)


def attention_weights(
    mixer: SequenceMixer,
    x: Tensor,
    *,
    positions: Tensor | None = None,
    cache: Cache | None = None,
    memory: Memory | None = None,
) -> Tensor | None:
    """How much each query weighs each key, (b, heads, queries, keys), as the mixer's own code path has it; None: it has none.

    Attention is linear in its values. Give token j a value that names it, a 1 in channel j and 0 elsewhere, and what the
    mixer hands to its output projection are the weights themselves, whatever its score, pattern, positions or kernel. A head
    has d channels, so d tokens are named at a time.
    """
    values = values_of(mixer)
    if values is None:
        return None
    seen: list[Tensor] = []
    first = n_keys = 0

    def name_tokens(proj: nn.Module, args: Any, out: Tensor) -> Tensor:
        nonlocal n_keys
        n_keys = out.shape[1]
        named = out.unflatten(-1, (values.heads, -1)).clone()  # (b, keys, heads, skipped + d)
        d = named.shape[-1] - values.skipped
        token = torch.arange(n_keys, device=out.device)[:, None] - first
        named[..., values.skipped :] = (token == torch.arange(d, device=out.device))[:, None]
        return named.flatten(-2)

    def keep(proj: nn.Module, args: Any) -> None:
        by_head: Tensor = args[0].unflatten(-1, (mixer.n_heads, -1))  # (b, queries, heads, d)
        seen.append(by_head.transpose(1, 2))

    o_proj: Any = mixer.o_proj
    handles = [values.proj.register_forward_hook(name_tokens), o_proj.register_forward_pre_hook(keep)]
    try:
        while first == 0 or first < n_keys:
            mixer(x, positions=positions, cache=cache, **({"memory": memory} if mixer.reads_memory else {}))
            first += seen[-1].shape[-1]
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(seen, dim=-1)[..., :n_keys]


def values_of(mixer: SequenceMixer) -> Values | None:
    """None for what carries a state from token to token, and for what mixes summaries of several tokens (NativeSparse)."""
    if isinstance(mixer, Heads):
        return Values(mixer.v_proj, mixer.n_kv_heads, 0)
    if isinstance(mixer, MLA):
        return Values(mixer.kv_up_proj, mixer.n_heads, mixer.d_nope)
    return None


def gates(routing: Routing) -> Tensor:
    """(tokens, experts): the weight of each expert on each token, NaN where it does not work on it."""
    t, e = routing.logits.shape
    kept = routing.expert < e
    place = (routing.token[kept], routing.expert[kept])
    gate = routing.gate.detach()[kept].float()
    chosen = gate.new_zeros(t, e, dtype=torch.bool).index_put(place, torch.ones_like(gate, dtype=torch.bool))
    return gate.new_zeros(t, e).index_put(place, gate, accumulate=True).masked_fill(~chosen, torch.nan)
