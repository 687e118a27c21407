"""Native sparse attention query by query and head by head, from the weights alone."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from arch.mixer import NativeSparse
from arch.mixer.native_sparse import Compress

from .attention import Bias, Rotate


def documents_of(places: list[int]) -> list[int]:
    numbers, number = [], 0
    for place in places:
        number += place == 0
        numbers.append(-1 if place < 0 else number)
    return numbers


def complete(places: list[int], size: int, i: int) -> dict[int, list[int]]:
    """Number of the block -> its tokens, for every block that the token i sees whole: of its document, up to itself."""
    if places[i] < 0:
        return {}
    document = documents_of(places)
    token = {places[j]: j for j in range(i + 1) if document[j] == document[i]}
    blocks = {m: [token.get(m * size + t) for t in range(size)] for m in range(places[i] // size + 1)}
    return {m: [j for j in tokens if j is not None] for m, tokens in blocks.items() if None not in tokens}


def selected(weights: dict[int, float], own: int, top_n: int) -> set[int]:
    """The blocks beside its own that a query selects, by the weights of the complete ones."""
    rest = {m: w for m, w in weights.items() if m != own}
    forced = [m for m in {0, own - 1} if m in rest]
    best = sorted((m for m in rest if m not in forced), key=lambda m: (-rest[m], m))
    return {*forced, *best[: top_n - 1 - len(forced)]}


def summary(compress: Compress, x: Tensor) -> Tensor:
    """One block (l, d) -> (d,)."""
    placed = torch.cat([token + place for token, place in zip(x, compress.position_embedding, strict=True)])
    return compress.out_proj.weight @ F.silu(compress.in_proj.weight @ placed)


def attended(q: Tensor, keys: Tensor, values: Tensor, added: list[float]) -> tuple[Tensor, Tensor]:
    """One query (d,) over keys (k, d) -> its output (d,), zeros where there are none, and the weights (k,)."""
    weights = (keys @ q / math.sqrt(len(q)) + torch.tensor(added, dtype=q.dtype)).softmax(0)
    return weights @ values, weights


def plain_native_sparse(
    layer: NativeSparse,
    x: Tensor,
    positions: Tensor | None = None,
    *,
    rotate: Rotate = lambda head, places: head,
    bias: Bias = lambda head, i, j: 0.0,
    choices: list[set[int]] | None = None,
) -> Tensor:
    """What layer(x, positions=positions) has to be. choices: takes in what each query of each key head selects."""
    d, size, n_groups = layer.d_head, layer.block, layer.n_kv_heads
    per_group = layer.n_heads // n_groups
    rows = []
    for b in range(x.shape[0]):
        places = list(range(x.shape[1])) if positions is None else positions[b].tolist()
        document = documents_of(places)
        q, k, v, gates = (F.linear(x[b], p.weight) for p in (layer.q_proj, layer.k_proj, layer.v_proj, layer.gate_proj))
        outputs: list[list[Tensor]] = [[torch.empty(0)] * layer.n_heads for _ in places]
        for g in range(n_groups):
            parts = [slice((c * n_groups + g) * d, (c * n_groups + g + 1) * d) for c in range(3)]
            k_raw, k_selected, k_window = k[:, parts[0]], rotate(k[:, parts[1]], places), rotate(k[:, parts[2]], places)
            v_raw, v_selected, v_window = (v[:, part] for part in parts)
            coarse: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
            for i, place in enumerate(places):
                blocks = complete(places, size, i)
                for m, tokens in blocks.items():
                    if (document[i], m) not in coarse:
                        key = rotate(summary(layer.k_compress, k_raw[tokens])[None], [m * size + size - 1])[0]
                        coarse[document[i], m] = key, summary(layer.v_compress, v_raw[tokens])
                from_blocks, importance = [], dict.fromkeys(blocks, 0.0)
                rotated = [rotate(q[:, h * d : (h + 1) * d], places)[i] for h in range(g * per_group, (g + 1) * per_group)]
                keys, values = (
                    torch.stack([coarse[document[i], m][part] for m in blocks]) if blocks else x.new_zeros(0, d)
                    for part in (0, 1)
                )
                for h, of_head in enumerate(rotated, start=g * per_group):
                    y, weights = attended(of_head, keys, values, [bias(h, place, m * size + size - 1) for m in blocks])
                    from_blocks.append(y)
                    for m, weight in zip(blocks, weights.tolist(), strict=True):
                        importance[m] += weight
                own = place // size
                picked = selected(importance, own, layer.top_n)
                if choices is not None:
                    choices.append(picked)
                past = [j for j in range(i + 1) if document[j] == document[i]]
                fine = [j for j in past if places[j] // size == own] + [j for m in picked for j in blocks[m]]
                near = [j for j in past if place - places[j] < layer.pattern.window]
                for h, of_head in enumerate(rotated, start=g * per_group):
                    from_fine, _ = attended(
                        of_head, k_selected[fine], v_selected[fine], [bias(h, place, places[j]) for j in fine]
                    )
                    from_near, _ = attended(of_head, k_window[near], v_window[near], [bias(h, place, places[j]) for j in near])
                    branches = (from_blocks[h - g * per_group], from_fine, from_near)
                    outputs[i][h] = sum(gates[i, c * layer.n_heads + h].sigmoid() * y for c, y in enumerate(branches))
        rows.append(F.linear(torch.stack([torch.cat(heads) for heads in outputs]), layer.o_proj.weight))
    unused = 0.0 * sum(parameter.sum() for parameter in layer.parameters())  # gradients of 0 where no block is complete
    return torch.stack(rows) + unused
