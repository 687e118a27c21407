"""Attention as its papers define it, pair by pair and head by head: slow, plain, the measure of the fast ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch.contracts import Pattern, Position
from arch.mixer import Attention
from arch.pattern import BlockSparse, Full, SlidingWindow, Strided
from arch.position import ALiBi, RelativeBias, Rotary, YaRNScaling
from arch.score import DotProduct, FullWidthQKNorm, Gaussian, QKNorm, Score, Sink, SoftCap


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads only get in each other's way at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


Sees = Callable[[int, int], bool]  # may the query at place i see the key at place j?
Rotate = Callable[[Tensor, list[int]], Tensor]  # one head (s, d) and its places -> (s, d)
Bias = Callable[[int, int, int], Tensor | float]  # head, places of query and key
Weigh = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # q (q, d), k (k, d), scores to add (q, k), head -> weights (q, k)


def visible(places: list[int], sees: Sees) -> Tensor:
    """(s, s): pairs of one document that the pattern allows."""
    document, number = [], 0
    for place in places:
        number += place == 0
        document.append(number)
    pairs = [
        [dq == dk and sees(i, j) for j, dk in zip(places, document, strict=True)]
        for i, dq in zip(places, document, strict=True)
    ]
    return torch.tensor(pairs)


def softmax_of(scores: Callable[[Tensor, Tensor, int], Tensor]) -> Weigh:
    return lambda q, k, added, head: (scores(q, k, head) + added).softmax(-1)


def scaled(q: Tensor, k: Tensor, head: int) -> Tensor:
    return q @ k.T / math.sqrt(q.shape[-1])


def plain_attention(
    layer: Attention,
    x: Tensor,
    positions: Tensor | None = None,
    *,
    sees: Sees,
    rotate: Rotate = lambda head, places: head,
    bias: Bias | None = None,
    weigh: Weigh | None = None,
    normalise: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda q, k: (q, k),
) -> Tensor:
    """What layer(x, positions=positions) has to be, from its weights alone."""
    weigh = weigh or softmax_of(scaled)
    batch, seq, _ = x.shape
    d, shared_by = layer.d_head, layer.n_heads // layer.n_kv_heads
    rows = []
    for b in range(batch):
        places = list(range(seq)) if positions is None else positions[b].tolist()
        allowed = visible(places, sees)
        q, k, v = (F.linear(x[b], p.weight, p.bias) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
        q, k = normalise(q, k)
        heads = []
        for h in range(layer.n_heads):
            of_q, of_kv = slice(h * d, (h + 1) * d), slice(h // shared_by * d, (h // shared_by + 1) * d)
            added = torch.zeros(seq, seq, dtype=x.dtype)
            if bias is not None:
                added = torch.stack(
                    [torch.stack([torch.as_tensor(bias(h, i, j), dtype=x.dtype) for j in places]) for i in places]
                )
            added = torch.where(allowed, added, -math.inf)
            heads.append(weigh(rotate(q[:, of_q], places), rotate(k[:, of_kv], places), added, h) @ v[:, of_kv])
        rows.append(F.linear(torch.cat(heads, dim=-1), layer.o_proj.weight, layer.o_proj.bias))
    return torch.stack(rows)


def rotated_by(frequencies: list[float], times: float = 1.0) -> Rotate:
    """Rotary embedding with complex numbers: channel j is the real and channel j + d/2 the imaginary part."""

    def rotate(head: Tensor, places: list[int]) -> Tensor:
        n = len(frequencies)
        angles = torch.tensor(places)[:, None] * torch.tensor(frequencies, dtype=torch.float32)
        z = torch.complex(head[:, :n], head[:, n : 2 * n]) * torch.complex(angles.cos() * times, angles.sin() * times)
        return torch.cat((z.real, z.imag, head[:, 2 * n :]), dim=-1)

    return rotate


def random_blocks(q_block: int, *, n_random: int, seed: int, window_blocks: int) -> list[int]:
    """BigBird's picks for one block, in Python's own integers."""
    picks = []
    for j in range(n_random):
        x = (q_block * n_random + j + seed * 0x9E3779B1) % 2**31
        x = (x ^ (x >> 15)) * 0x7FEB352D % 2**31
        x = (x ^ (x >> 15)) * 0x846CA68B % 2**31
        picks.append((x ^ (x >> 16)) % max(1, q_block - window_blocks + 1))
    return picks


def sees_big_bird(
    i: int, j: int, *, block: int, n_global: int, window_blocks: int, n_random: int, seed: int, causal: bool
) -> bool:
    q_block, k_block = i // block, j // block
    seen = j < n_global or abs(q_block - k_block) < window_blocks
    seen = seen or k_block in random_blocks(q_block, n_random=n_random, seed=seed, window_blocks=window_blocks)
    return seen and j <= i if causal else seen or i < n_global


BIG_BIRD = {"block": 8, "n_global": 3, "window_blocks": 2, "n_random": 1, "seed": 4}
PATTERNS: dict[str, tuple[Callable[[], Pattern], Sees]] = {
    "full": (Full, lambda i, j: j <= i),
    "full, both sides": (lambda: Full(causal=False), lambda i, j: True),
    "window": (lambda: SlidingWindow(window=9), lambda i, j: 0 <= i - j < 9),
    "window, both sides": (lambda: SlidingWindow(window=9, causal=False), lambda i, j: abs(i - j) < 9),
    "strided": (lambda: Strided(window=4, stride=7), lambda i, j: j <= i and (i - j < 4 or (i - j) % 7 == 0)),
    "strided, both sides": (
        lambda: Strided(window=4, stride=7, causal=False),
        lambda i, j: abs(i - j) < 4 or abs(i - j) % 7 == 0,
    ),
    "block sparse": (lambda: BlockSparse(**BIG_BIRD), lambda i, j: sees_big_bird(i, j, causal=True, **BIG_BIRD)),
    "block sparse, both sides": (
        lambda: BlockSparse(**BIG_BIRD, causal=False),
        lambda i, j: sees_big_bird(i, j, causal=False, **BIG_BIRD),
    ),
}
CAUSAL = [name for name in PATTERNS if "both sides" not in name]
POSITIONS: dict[str, Callable[[], Position | None]] = {
    "none": lambda: None,
    "rotary": lambda: Rotary(d_head=8),
    "yarn": lambda: Rotary(d_head=8, d_rotary=6, scaling=YaRNScaling(factor=4.0, trained_seq=32)),
    "alibi": lambda: ALiBi(n_heads=3),
    "relative bias": lambda: RelativeBias(n_heads=3, n_buckets=8, max_distance=20),
}
SCORES: dict[str, Callable[[], Score]] = {
    "dot": DotProduct,
    "unscaled": lambda: DotProduct(scale=1.0),
    "qk norm": lambda: QKNorm(d_head=8),
    "full-width qk norm": lambda: FullWidthQKNorm(d_head=8, n_heads=3, n_kv_heads=3),
    "soft cap": lambda: SoftCap(cap=0.7),
    "sink": lambda: Sink(n_heads=3),
    "gaussian": lambda: Gaussian(d_head=8, n_heads=3),
    "fixed gaussian": lambda: Gaussian(d_head=8, n_heads=3, sigma=1.3, learned=False),
}


def padded_text(*n_tokens: int) -> tuple[Tensor, Tensor, slice]:
    """Two rows of padding, a text, and padding again, of that many tokens each: x (2, all, 24), positions, the text's slice."""
    before, length, after = n_tokens
    x, _ = text(sum(n_tokens), seed=3)
    positions = torch.cat((torch.full((before,), -1), torch.arange(length), torch.full((after,), -1)))
    return x, positions.expand(2, -1), slice(before, before + length)


def small_attention(
    pattern: str = "full",
    position: str = "none",
    score: str = "dot",
    *,
    n_kv_heads: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Attention:
    """3 heads of 8 channels, the same weights at every call, none of them at a value that would hide a mistake."""
    torch.manual_seed(0)
    layer = Attention(
        d_model=24,
        n_heads=3,
        n_kv_heads=n_kv_heads,
        bias=True,
        pattern=PATTERNS[pattern][0](),
        position=POSITIONS[position](),
        score=SCORES[score](),
    )
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer.to(dtype)


def text(*lengths: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Two rows of documents packed one after another: x (2, sum of lengths, 24) and positions (2, sum of lengths)."""
    x = torch.randn(2, sum(lengths), 24, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return x, torch.cat([torch.arange(n) for n in lengths]).expand(2, -1)


def outputs_and_gradients(function: Callable[[Tensor], Tensor], x: Tensor, layer: nn.Module) -> dict[str, Tensor]:
    """function(x), and what a fixed direction in its outputs gives for x and for every parameter of the layer."""
    x = x.detach().clone().requires_grad_()
    y = function(x)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    gradients = torch.autograd.grad((y * direction).sum(), (x, *parameters))
    return {"y": y.detach()} | dict(zip(("x", *names), gradients, strict=True))
