"""The linear-attention kernels of flash-linear-attention (the package fla-core), called as ``chunked`` calls its own.

They subtract cumulated logarithms of decays, so that a decay of minus infinity, as the start of a document has it, makes no
number of all that follows: they are for texts that are one document.
"""

from __future__ import annotations

import torch
from torch import Tensor

Outputs = tuple[Tensor, Tensor]


def by_channel(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor, *, dtype: torch.dtype) -> Outputs:
    """``decayed_attention`` with a decay per channel of the keys. dtype: of the products."""
    from fla.ops.gla import chunk_gla

    q, k, v = (t.to(dtype) for t in (q, k, v))
    y, last = chunk_gla(q, k, v, decay, scale=1.0, initial_state=state, output_final_state=True)
    return y.to(state.dtype), last


def by_head(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor, *, dtype: torch.dtype) -> Outputs:
    """``decayed_attention`` with one decay per head."""
    from fla.ops.simple_gla import chunk_simple_gla

    shared = v.shape[2] // q.shape[2]
    q, k = (t.repeat_interleave(shared, dim=2) for t in (q, k))
    q, k, v = (t.to(dtype) for t in (q, k, v))
    y, last = chunk_simple_gla(q, k, v, decay.squeeze(-1), scale=1.0, initial_state=state, output_final_state=True)
    return y.to(state.dtype), last


def delta_rule(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, state: Tensor, *, dtype: torch.dtype) -> Outputs:
    """``delta_rule`` with one decay per head."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    q, k, v, beta = (t.to(dtype) for t in (q, k, v, beta.squeeze(-1)))
    y, last = chunk_gated_delta_rule(q, k, v, decay.squeeze(-1), beta, scale=1.0, initial_state=state, output_final_state=True)
    return y.to(state.dtype), last
