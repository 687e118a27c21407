"""Recurrences over matrices in chunks: matrix products inside a chunk, and one state from chunk to chunk.

Decays come as logarithms, at most 0; minus infinity forgets all, as the start of a document does. No logarithm is subtracted
from another and none that is positive meets exp: what lies between two tokens is summed up for each pair, so that nothing
overflows, and weak decays stay exact beside strong ones.

Letters beside the usual: n chunks, c tokens of a chunk, r heads that share a group's queries and keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .scan import linear_scan


def decayed_attention(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor, *, chunk: int) -> tuple[Tensor, Tensor]:
    """Linear attention whose state fades: every output, and the last state.

    S_t = exp(decay_t) * S_{t-1} + k_t v_t^T;  o_t = S_t^T q_t

    Paper: Dao & Gu 2024, arXiv:2405.21060 (section 6) with one decay per head; Yang 2023, arXiv:2312.06635 (section 4) with one
    per channel of the keys. Differs: the state goes from chunk to chunk by a parallel scan.
    Cost per token: c * (groups * d_k + heads * d_v) + 2 * heads * d_k * d_v multiply-adds at c tokens per chunk; with a decay
    per channel the exponentials of c * heads * d_k numbers too.
    Args:   decay: logarithms, at most 0. state: before the first token. chunk: tokens at most that meet in matrix products.
    Shape:  q, k: (batch, seq, groups, d_k), v: (batch, seq, heads, d_v), decay: (batch, seq, heads, 1 or d_k),
            state: (batch, heads, d_k, d_v) -> (batch, seq, heads, d_v), state
    """
    seq, groups = q.shape[1:3]
    q, k, v, decay = (rearrange(cut(x, chunk), "b n (g r) c d -> b n g r c d", g=groups) for x in (q, k, v, decay))
    so_far, to_end = decay.cumsum(-2).exp(), still_to_come(decay).exp()
    if decay.shape[-1] == 1:
        scores = (q @ k.mT) * pair_decays(decay)[..., 0]
    elif has_room(q):
        scores = scores_by_channel(q, k, decay)
    else:
        scores = checkpoint(scores_by_channel, q, k, decay, use_reentrant=False, preserve_rng_state=False)
    added = (k * to_end).mT @ v  # (b, n, g, r, d_k, d_v)
    whole = so_far[..., -1, :, None].expand_as(added)  # what a chunk leaves of the state before it
    state = rearrange(state, "b (g r) k v -> b g r k v", g=groups)
    after = linear_scan(whole, added, state)
    before = torch.cat((state.unsqueeze(1), after[:, :-1]), dim=1)
    o = scores @ v + (q * so_far) @ before
    return join(rearrange(o, "b n g r c d -> b n (g r) c d"), seq), rearrange(after[:, -1], "b g r k v -> b (g r) k v")


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, state: Tensor, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """Linear attention that replaces what its state holds under a key: every output, and the last state.

    S_t = exp(decay_t) * (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T;  o_t = S_t^T q_t

    With u_t = beta_t (v_t - exp(decay_t) S_{t-1}^T k_t), what is new about v_t, S_t = exp(decay_t) * S_{t-1} + k_t u_t^T;
    inside a chunk the u are the solution of one triangular system, linear in the state before the chunk.

    Paper: Yang 2024, arXiv:2412.06464 (section 3.3, the extended WY form). Differs: nothing.
    Cost per token: heads * (c * (2 * d_k + d_v) + 3 * d_k * d_v) multiply-adds at c tokens per chunk, and heads * c *
    (d_k + d_v) / 2 to solve the triangular system, which no count of matrix products holds.
    Args:   decay: logarithms, at most 0. beta: how much of the old value goes, 0 to 1 where k has length 1. state: before the
            first token. chunk: tokens at most that meet in matrix products.
    Shape:  q, k: (batch, seq, heads, d_k), v: (batch, seq, heads, d_v), decay, beta: (batch, seq, heads, 1),
            state: (batch, heads, d_k, d_v) -> (batch, seq, heads, d_v), state
    """
    seq, d_v = q.shape[1], v.shape[3]
    q, k, v, decay, beta = (cut(x, chunk) for x in (q, k, v, decay, beta))  # (b, n, h, c, d)
    between, so_far = pair_decays(decay)[..., 0], decay.cumsum(-2).exp()
    right = torch.cat((beta * v, beta * so_far * k), dim=-1)
    # Only what lies below the diagonal is read; on it stand ones.
    solved = torch.linalg.solve_triangular(beta * (k @ k.mT) * between, right, upper=False, unitriangular=True).contiguous()
    values, reads = solved.split((d_v, k.shape[-1]), dim=-1)  # u = values - reads S, for the state S before the chunk
    written, whole = (k * between[..., -1, :, None]).mT, so_far[..., -1:, :]
    states, new = [], []
    for i in range(q.shape[1]):
        states.append(state)
        new.append(values[:, i] - reads[:, i] @ state)
        state = whole[:, i] * state + written[:, i] @ new[-1]
    o = ((q @ k.mT) * between) @ torch.stack(new, dim=1) + (q * so_far) @ torch.stack(states, dim=1)
    return join(o, seq), state


def has_room(x: Tensor) -> bool:
    """Whether to keep what is c times as large as the keys for the gradients. On a GPU, whose batches are large, it is made
    anew: at 32 texts of 1,024 tokens it were 2 GiB a layer of 12 heads of 32 channels."""
    return x.device.type == "cpu"


def scores_by_channel(q: Tensor, k: Tensor, decay: Tensor) -> Tensor:
    """(..., c, d_k) each -> (..., c, c): q_i . k_j, each channel as much less as it fades from j to i."""
    return ((pair_decays(decay) * k.unsqueeze(-3)) @ q.unsqueeze(-1))[..., 0]


def pair_decays(decay: Tensor) -> Tensor:
    """(..., c, d) logarithms -> (..., c, c, d): at [i, j] what is left at token i of what token j brought; 0 where j > i."""
    c = decay.shape[-2]
    token = torch.arange(c, device=decay.device)
    later = (token[:, None] > token)[..., None]  # (c, c, 1): i > j
    total = decay.unsqueeze(-2).where(later, 0).cumsum(-3)  # from the token after j to i
    return total.masked_fill(later.transpose(0, 1), -torch.inf).exp()


def still_to_come(decay: Tensor) -> Tensor:
    """(..., c, d) logarithms -> for each token the sum of those after it."""
    return F.pad(decay[..., 1:, :], (0, 0, 0, 1)).flip(-2).cumsum(-2).flip(-2)


def chunks(seq: int, chunk: int) -> tuple[int, int]:
    """(n, c): how many chunks, equally long and of at most ``chunk`` tokens, hold the text."""
    n = -(-seq // chunk)
    return n, -(-seq // n)


def cut(x: Tensor, chunk: int) -> Tensor:
    """(b, s, h, d) -> (b, n, h, c, d). The rest is filled with zeros: keys of zero write nothing, decays of zero keep all."""
    n, c = chunks(x.shape[1], chunk)
    return rearrange(F.pad(x, (0, 0, 0, 0, 0, n * c - x.shape[1])), "b (n c) h d -> b n h c d", n=n)


def join(x: Tensor, seq: int) -> Tensor:
    """(b, n, h, c, d) -> (b, s, h, d), without the filling."""
    return rearrange(x, "b n h c d -> b (n c) h d")[:, :seq]
