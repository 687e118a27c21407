"""Linear attention by whichever kernel is there: on a GPU another package's, if it is installed and agrees, else ``chunked``.

products: in which dtype a text's own products are taken, which such a kernel does too. In fp32 none is asked, since they cut it
short, nor for None, where documents start inside the text.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import chunked, of_fla
from .kernels import TORCH, agreeing, may_ask
from .seeds import stacked

Outputs = tuple[Tensor, Tensor]
HALF = (torch.bfloat16, torch.float16)
WAYS: dict[str, tuple[Any, Any]] = {  # the plain one, and that of fla
    "decays by channel": (chunked.decayed_attention, of_fla.by_channel),
    "decays by head": (chunked.decayed_attention, of_fla.by_head),
    "delta rule": (chunked.delta_rule, of_fla.delta_rule),
}


def decayed_attention(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor, *, chunk: int, products: torch.dtype | None
) -> Outputs:
    """As ``chunked.decayed_attention``."""
    way = "decays by head" if decay.shape[-1] == 1 else "decays by channel"
    return run(way, q, k, v, decay, state, chunk=chunk, products=products)


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, state: Tensor, *, chunk: int, products: torch.dtype | None
) -> Outputs:
    """As ``chunked.delta_rule``."""
    return run("delta rule", q, k, v, decay, beta, state, chunk=chunk, products=products)


def run(way: str, q: Tensor, k: Tensor, v: Tensor, *others: Tensor, chunk: int, products: torch.dtype | None) -> Outputs:
    plain, kernel = WAYS[way]
    name = TORCH
    if products in HALF and may_ask(q) and not stacked() and q.shape[1] >= chunk:  # a token that is written is no work for one
        name = chosen(way, q.device, products, v.shape[2] // q.shape[2], q.shape[3], v.shape[3])
    found: Outputs
    found = plain(q, k, v, *others, chunk=chunk) if name == TORCH else kernel(q, k, v, *others, dtype=products)
    return found


def chosen(way: str, device: torch.device, products: torch.dtype, heads: int, d_k: int, d_v: int) -> str:
    """By name. heads: that share a query. It is settled once for heads of these sizes."""
    return tried(way, device, products, heads, d_k, d_v)


# A graph is made for the one that is chosen. This is all that torch.compiler.assume_constant_result does, but for importing the
# compiler, which takes a second.
chosen._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def tried(way: str, device: torch.device, products: torch.dtype, heads: int, d_k: int, d_v: int) -> str:
    draw, seq = torch.Generator().manual_seed(0), 100
    plain, kernel = WAYS[way]
    q, k = torch.randn(2, 1, seq, 1, d_k, generator=draw) * d_k**-0.5
    v, state = torch.randn(1, seq, heads, d_v, generator=draw), torch.randn(1, heads, d_k, d_v, generator=draw)
    decay = F.logsigmoid(torch.randn(1, seq, heads, d_k if way == "decays by channel" else 1, generator=draw)) / 8
    beta = [torch.rand(1, seq, heads, 1, generator=draw)] if way == "delta rule" else []
    return agreeing(
        f"linear attention, {way}, heads of {d_k} x {d_v}",
        functools.partial(plain, chunk=32),
        {"fla": functools.partial(kernel, dtype=products)},
        [t.to(device) for t in (q, k, v, decay, *beta, state)],
    )
