"""Patterns: what is seen, counted against the definitions of their papers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from arch.contracts import Pattern
from arch.mixer import Attention
from arch.pattern import BlockSparse, Full, SlidingWindow, Strided
from tests.reference.attention import CAUSAL, PATTERNS, one_thread, random_blocks  # noqa: F401

LENGTHS = (1, 2, 8, 63, 100)


def seen(pattern: Pattern, seq: int) -> Tensor:
    places = torch.arange(seq)
    return pattern.allows(places, places)


@pytest.mark.parametrize("seq", LENGTHS)
@pytest.mark.parametrize("name", PATTERNS)
def test_allowed_pairs_are_those_of_the_definition(name: str, seq: int) -> None:
    build, sees = PATTERNS[name]
    by_hand = torch.tensor([[sees(i, j) for j in range(seq)] for i in range(seq)])
    assert torch.equal(seen(build(), seq), by_hand)
    assert build().pairs(seq) == by_hand.sum()
    assert by_hand.diagonal().all()


@pytest.mark.parametrize("name", CAUSAL)
def test_a_longer_text_changes_nothing_before_its_end(name: str) -> None:
    pattern = PATTERNS[name][0]()
    assert torch.equal(seen(pattern, 100)[:63, :63], seen(pattern, 63))


@pytest.mark.parametrize("name", PATTERNS)
def test_a_few_queries_see_what_they_see_in_the_whole_text(name: str) -> None:
    pattern = PATTERNS[name][0]()
    rows = torch.tensor([[3, 50, 99], [0, 1, 2]])
    whole = seen(pattern, 100)
    assert torch.equal(pattern.allows(rows, torch.arange(100).expand(2, -1)), whole[rows])


@pytest.mark.parametrize("causal", [True, False])
def test_limits_of_the_sparse_patterns(causal: bool) -> None:
    full = seen(Full(causal=causal), 40)
    for pattern in (
        SlidingWindow(window=40, causal=causal),
        Strided(window=1, stride=1, causal=causal),
        Strided(window=40, stride=39, causal=causal),
        BlockSparse(block=8, n_global=40, window_blocks=1, n_random=0, causal=causal),
        BlockSparse(block=8, n_global=0, window_blocks=5, n_random=0, causal=causal),
    ):
        assert torch.equal(seen(pattern, 40), full)
    alone = torch.eye(40, dtype=torch.bool)
    assert torch.equal(seen(SlidingWindow(window=1, causal=causal), 40), alone)
    assert torch.equal(seen(BlockSparse(block=1, n_global=0, window_blocks=1, n_random=0, causal=causal), 40), alone)


def test_a_windows_last_query_sees_exactly_the_window() -> None:
    assert seen(SlidingWindow(window=4), 10)[9].tolist() == [False] * 6 + [True] * 4
    assert seen(SlidingWindow(window=4, causal=False), 10)[4].tolist() == [False] + [True] * 7 + [False] * 2


def test_two_strided_layers_connect_any_two_tokens() -> None:
    one = seen(Strided(window=7, stride=7), 100).float()
    assert torch.equal((one @ one) > 0, seen(Full(), 100))


def test_random_blocks_lie_before_the_window_and_vary() -> None:
    pattern = BlockSparse(block=8, n_global=0, window_blocks=3, n_random=4, seed=5)
    q_blocks = torch.arange(400)
    drawn = pattern.random_blocks(q_blocks)
    assert drawn.tolist() == [random_blocks(b, n_random=4, seed=5, window_blocks=3) for b in range(400)]
    assert (drawn[3:] <= q_blocks[3:, None] - 3).all()
    assert (drawn >= 0).all()
    share = drawn[200:] / (q_blocks[200:, None] - 3)  # uniform between 0 and 1
    assert abs(share.mean() - 0.5) < 0.05
    assert abs(share.var() - 1 / 12) < 0.02
    other = BlockSparse(block=8, n_global=0, window_blocks=3, n_random=4, seed=6).random_blocks(q_blocks)
    assert (drawn[200:] == other[200:]).float().mean() < 0.05


def test_a_large_seed_and_a_distant_block_stay_within_64_bits() -> None:
    pattern = BlockSparse(block=8, n_global=0, window_blocks=1, n_random=3, seed=2**62)
    far = 2**28
    assert pattern.random_blocks(torch.tensor([far])).tolist() == [random_blocks(far, n_random=3, seed=2**62, window_blocks=1)]


@pytest.mark.parametrize("window", [1, 2, 5])
def test_what_stacked_windows_reach_is_the_product_of_their_masks(window: int) -> None:
    """The receptive field of three layers, measured by gradients: w + (w - 1) + (w - 1) tokens."""
    torch.manual_seed(0)
    layers = [Attention(d_model=8, n_heads=2, pattern=SlidingWindow(window=window)).double() for _ in range(3)]
    x = torch.randn(1, 20, 8, dtype=torch.float64, requires_grad=True)
    y = x
    for layer in layers:
        y = layer(y)
    felt = torch.stack([torch.autograd.grad(y[0, i].sum(), x, retain_graph=True)[0][0].abs().sum(-1) > 0 for i in range(20)])
    step = seen(SlidingWindow(window=window), 20).float()
    reached = (step @ step @ step) > 0
    assert torch.equal(felt, reached)
    assert reached[19].sum() == 3 * window - 2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SlidingWindow(window=0), "window is 0: at least 1 is needed"),
        (lambda: Strided(window=0, stride=3), "window is 0 and stride is 3: at least 1"),
        (lambda: Strided(window=3, stride=0), "window is 3 and stride is 0: at least 1"),
        (
            lambda: BlockSparse(block=0, n_global=1, window_blocks=1, n_random=1),
            "block is 0 and window_blocks is 1: at least 1",
        ),
        (
            lambda: BlockSparse(block=8, n_global=1, window_blocks=0, n_random=1),
            "block is 8 and window_blocks is 0: at least 1",
        ),
        (
            lambda: BlockSparse(block=8, n_global=-1, window_blocks=1, n_random=1),
            "n_global is -1 and n_random is 1: at least 0",
        ),
        (
            lambda: BlockSparse(block=8, n_global=1, window_blocks=1, n_random=-2),
            "n_global is 1 and n_random is -2: at least 0",
        ),
    ],
)
def test_impossible_patterns_are_refused(build: type[Pattern], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
