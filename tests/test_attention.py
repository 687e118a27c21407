"""Attention against its plain twin, its caches, its masks and its costs."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from arch.contracts import Pattern
from arch.mixer import Attention, KVCache
from arch.ops import blocked
from arch.pattern import BlockSparse, Full, SlidingWindow, Strided
from arch.position import Rotary
from tests.reference.attention import (
    CAUSAL,
    PATTERNS,
    POSITIONS,
    SCORES,
    one_thread,  # noqa: F401
    outputs_and_gradients,
    padded_text,
    plain_attention,
    small_attention,
    text,
)

SIZES = ((1,), (10,), (63,), (100,), (20, 1, 30, 12))  # 10: one more than the window; several: documents in one text


@pytest.fixture(params=["masked", "blocked"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to compute a sparse pattern, whatever would be faster at the size of a test."""
    monkeypatch.setattr(blocked, "MAX_KEY_SHARE", math.inf if request.param == "blocked" else 0.0)
    return str(request.param)


@pytest.mark.parametrize("lengths", SIZES, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_equals_its_plain_twin(pattern: str, lengths: tuple[int, ...], path: str) -> None:
    layer, (x, positions) = small_attention(pattern), text(*lengths)
    sees = PATTERNS[pattern][1]
    given = None if len(lengths) == 1 else positions
    fast = outputs_and_gradients(partial(layer, positions=given), x, layer)
    plain = outputs_and_gradients(lambda x: plain_attention(layer, x, positions, sees=sees), x, layer)
    torch.testing.assert_close(fast, plain)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("pattern", ["window", "window, both sides", "block sparse", "strided", "strided, both sides"])
def test_skipping_blocks_changes_nothing(pattern: str, position: str, score: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for lengths in SIZES:
        x, positions = text(*lengths)
        given = None if len(lengths) == 1 else positions
        results = []
        for share in (math.inf, 0.0):
            monkeypatch.setattr(blocked, "MAX_KEY_SHARE", share)
            layer = small_attention(pattern, position, score)
            results.append(outputs_and_gradients(partial(layer, positions=given), x, layer))
        assert all(value.isfinite().all() for value in results[0].values())
        torch.testing.assert_close(*results)


def test_blocks_are_skipped_where_that_pays_and_only_there() -> None:
    cpu = torch.device("cpu")
    for pattern, seq, pays in (
        (SlidingWindow(window=16), 64, True),
        (SlidingWindow(window=16), 63, False),
        (SlidingWindow(window=256), 1024, True),
        (SlidingWindow(window=999), 1024, False),
        (BlockSparse(block=16, n_global=16, window_blocks=2, n_random=1), 128, True),
        (BlockSparse(block=16, n_global=16, window_blocks=2, n_random=1), 100, False),
        (BlockSparse(block=16, n_global=16, window_blocks=2, n_random=1, causal=False), 1000, False),
        (Strided(window=32, stride=32), 1024, True),
        (Strided(window=32, stride=32), 512, False),
        (Full(), 1000, False),
    ):
        assert (blocked.make_plan(pattern, seq, cpu, joins=True) is not None) == pays
    assert blocked.make_plan(Strided(window=32, stride=32), 1024, cpu) is None


def test_several_sets_of_keys_are_joined_where_the_score_is_plain_and_the_mask_does_not_learn() -> None:
    for position, score, joins in (
        ("rotary", "qk norm", True),
        ("alibi", "dot", True),
        ("relative bias", "dot", False),
        ("rotary", "soft cap", False),
        ("rotary", "sink", False),
    ):
        assert small_attention("strided", position, score).joins == joins


def test_every_key_that_a_query_sees_lies_in_one_of_its_key_blocks() -> None:
    for name, (build, _) in PATTERNS.items():
        pattern = build()
        for seq in (1, 63, 100):
            parts = pattern.parts(seq)
            assert bool(parts) == (name not in ("full", "full, both sides", "block sparse, both sides"))
            place = torch.arange(seq)
            listed = torch.zeros(seq, seq, dtype=torch.bool)
            for size, key_blocks, stride in parts:
                block = (place % stride * (len(key_blocks) * size // stride) + place // stride) // size
                listed |= (key_blocks[block][:, None, :] == block[:, None]).any(-1)  # (q, k)
                for row in key_blocks.tolist():
                    assert len([p for p in row if p >= 0]) == len({p for p in row if p >= 0}), (
                        "a key listed twice would count twice"
                    )
            assert not parts or not (pattern.allows(place, place) & ~listed).any()


@pytest.mark.parametrize("n_kv_heads", [1, 2, 3, 6])
def test_grouped_heads_equal_heads_that_are_copies(n_kv_heads: int) -> None:
    torch.manual_seed(0)
    grouped = Attention(d_model=24, n_heads=6, n_kv_heads=n_kv_heads, pattern=SlidingWindow(window=8))
    full = Attention(d_model=24, n_heads=6, pattern=SlidingWindow(window=8))
    full.load_state_dict(
        grouped.state_dict()
        | {
            f"{name}.weight": getattr(grouped, name)
            .weight.unflatten(0, (n_kv_heads, 4))
            .repeat_interleave(6 // n_kv_heads, 0)
            .flatten(0, 1)
            for name in ("k_proj", "v_proj")
        }
    )
    for seq in (5, 63, 100):  # without a mask, with one, in blocks
        x = torch.randn(2, seq, 24)
        torch.testing.assert_close(grouped(x), full(x))


def test_one_kv_head_per_query_head_is_multi_head_attention() -> None:
    x, _ = text(33)
    torch.testing.assert_close(small_attention(n_kv_heads=3)(x), small_attention()(x), rtol=0, atol=0)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [33, 34, 500])
def test_a_window_as_long_as_the_text_is_full_attention(window: int, causal: bool) -> None:
    full, windowed = (
        Attention(d_model=24, n_heads=3, pattern=p) for p in (Full(causal=causal), SlidingWindow(window=window, causal=causal))
    )
    windowed.load_state_dict(full.state_dict())
    x = torch.randn(2, 33, 24)
    torch.testing.assert_close(windowed(x), full(x), rtol=0, atol=0)
    positions = torch.arange(33).expand(2, -1)
    torch.testing.assert_close(windowed(x, positions=positions), full(x))


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_packed_documents_equal_separate_runs(pattern: str, position: str) -> None:
    layer = small_attention(pattern, position)
    lengths = (17, 1, 1, 50, 31)
    x, positions = text(*lengths)
    separate = torch.cat([layer(part) for part in x.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(layer(x, positions=positions), separate)


def decode(layer: Attention, x: Tensor, parts: list[int], positions: Tensor | None = None) -> Tensor:
    cache = layer.init_cache(x.shape[0], x.shape[1])
    places = [None] * len(parts) if positions is None else positions.split(parts, dim=1)
    steps = [layer(part, positions=p, cache=cache) for part, p in zip(x.split(parts, dim=1), places, strict=True)]
    return torch.cat(steps, dim=1)


@torch.no_grad()
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("pattern", CAUSAL)
def test_cached_decoding_equals_the_full_forward(pattern: str, position: str, score: str) -> None:
    layer = small_attention(pattern, position, score)
    x, positions = text(11, 4, 18)
    for given in (None, positions):
        full = layer(x, positions=given)
        for parts in ([1] * 33, [20, 1, 5, 7], [33]):
            torch.testing.assert_close(decode(layer, x, parts, given), full, msg=lambda m, p=parts: f"in parts of {p}: {m}")


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_padding_is_invisible(pattern: str, position: str, path: str) -> None:
    layer, (x, positions, inside) = small_attention(pattern, position), padded_text(13, 50, 37)
    padded = outputs_and_gradients(lambda x: layer(x, positions=positions)[:, inside], x, layer)
    alone = outputs_and_gradients(lambda x: layer(x[:, inside]), x, layer)  # gradients of padding are zeros
    torch.testing.assert_close(padded, alone)


@torch.no_grad()
@pytest.mark.parametrize("pattern", CAUSAL)
def test_left_padding_is_invisible_to_a_cache(pattern: str) -> None:
    layer, (x, positions, inside) = small_attention(pattern, "rotary"), padded_text(11, 12, 0)
    torch.testing.assert_close(decode(layer, x, [9, 8, 1, 1, 4], positions)[:, inside], layer(x[:, inside]))


@torch.no_grad()
def test_places_go_on_from_a_prompt_that_was_given_them() -> None:
    layer, (x, positions) = small_attention("window", "rotary"), text(20)
    cache = layer.init_cache(2, 20)
    steps = [
        layer(x[:, :6], cache=cache),
        layer(x[:, 6:13], positions=positions[:, 6:13], cache=cache),
        layer(x[:, 13:], cache=cache),
    ]
    torch.testing.assert_close(torch.cat(steps, dim=1), layer(x))


@torch.no_grad()
def test_after_a_packed_prompt_the_last_document_goes_on() -> None:
    layer, (x, positions) = small_attention("full", "rotary"), text(4, 3, 2)
    cache = layer.init_cache(2, 9)
    steps = [
        layer(x[:, :7], positions=positions[:, :7], cache=cache),
        layer(x[:, 7:8], cache=cache),
        layer(x[:, 8:], cache=cache),
    ]
    counted_on = torch.tensor([0, 1, 2, 3, 0, 1, 2, 7, 8]).expand(2, -1)
    torch.testing.assert_close(torch.cat(steps, dim=1), layer(x, positions=counted_on))


def test_a_cache_says_what_it_cannot_hold() -> None:
    layer = small_attention()
    cache = layer.init_cache(1, 8)
    layer(torch.randn(1, 5, 24, dtype=torch.float64), cache=cache)
    with pytest.raises(ValueError, match="9 tokens do not fit into a cache for 8: max_seq has to be at least 9"):
        layer(torch.randn(1, 4, 24, dtype=torch.float64), cache=cache)


def test_attention_to_both_sides_does_not_decode() -> None:
    layer = small_attention("full, both sides")
    assert not layer.causal
    with pytest.raises(NotImplementedError, match="Attention does not decode step by step"):
        layer.init_cache(1, 8)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_later_token_matters_only_where_keys_ahead_are_seen(pattern: str, path: str) -> None:
    layer = small_attention(pattern, "rotary")
    x, _ = text(63)
    changed = x.clone()
    changed[:, 40] += 1.0
    moved = (layer(changed) - layer(x)).abs().amax(dim=(0, 2)) > 1e-9
    assert moved[40:].any()
    assert moved[:40].any() == (not layer.causal)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_reported_cost_is_that_of_the_built_layer(pattern: str) -> None:
    layer = small_attention(pattern, "relative bias", "sink")
    cost, seq = layer.cost(40), 40
    assert cost.params == cost.active_params == sum(p.numel() for p in layer.parameters())
    sees = PATTERNS[pattern][1]
    pairs = sum(sees(i, j) for i in range(seq) for j in range(seq))
    assert cost.flops == pytest.approx(2 * 4 * 24 * 24 + 4 * 24 * pairs / seq)
    if not layer.causal:
        assert cost.state_bytes == 0
        return
    cache = layer.init_cache(1, seq)
    with torch.no_grad():
        layer(torch.randn(1, seq, 24, dtype=torch.float64), cache=cache)
    held = [value for value in vars(cache).values() if isinstance(value, Tensor)]
    assert cost.state_bytes == sum(t.numel() * t.element_size() for t in held)


@pytest.mark.parametrize("n_kv_heads", [1, 3])
def test_reported_flops_are_the_counted_ones(n_kv_heads: int) -> None:
    layer = small_attention("full, both sides", n_kv_heads=n_kv_heads)
    x, _ = text(40)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == layer.cost(40).flops * 2 * 40


def test_a_window_keeps_only_its_window() -> None:
    layer = small_attention("window")
    assert layer.cost(8).state_bytes == 8 * layer.cost(1).state_bytes
    assert layer.cost(9).state_bytes == layer.cost(5000).state_bytes == 9 * layer.cost(1).state_bytes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"d_model": 24, "n_heads": 5},
            r"n_heads 5 does not divide d_model 24: take one of 1, 2, 3, 4, 6, 8, 12, 24 \(or pass d_head\)",
        ),
        ({"d_model": 24, "n_heads": 0}, r"n_heads=0: at least 1 is needed"),
        ({"d_model": 24, "n_heads": 6, "n_kv_heads": 4}, r"n_kv_heads 4 does not divide n_heads 6: take one of 1, 2, 3, 6$"),
        ({"d_model": 24, "n_heads": 6, "n_kv_heads": 0}, r"n_kv_heads 0 does not divide n_heads 6"),
    ],
)
def test_impossible_heads_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Attention(**arguments)


def test_heads_may_be_wider_than_the_model_allows() -> None:
    layer = Attention(d_model=24, n_heads=5, n_kv_heads=1, d_head=16)
    assert layer(torch.randn(2, 7, 24)).shape == (2, 7, 24)
    assert layer.cost(7).params == sum(p.numel() for p in layer.parameters()) == 24 * 16 * (5 + 1 + 1 + 5)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("position", POSITIONS)
def test_bf16_follows_fp32(position: str, score: str) -> None:
    for pattern in ("full", "window"):
        x, _ = text(70, dtype=torch.float32)
        layer = small_attention(pattern, position, score, dtype=torch.float32)
        half = copy.deepcopy(layer).to(torch.bfloat16)
        y = half(x.bfloat16())
        assert y.dtype == torch.bfloat16
        error = (y.float() - layer(x)).norm() / layer(x).norm()
        assert error < 0.03
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = layer(x)
        assert (z.float() - layer(x)).norm() / layer(x).norm() < 0.03


@pytest.mark.parametrize(
    ("pattern", "position", "score"),
    [
        ("full", "rotary", "qk norm"),
        ("window", "relative bias", "gaussian"),
        ("block sparse", "yarn", "sink"),
        ("strided", "alibi", "soft cap"),
    ],
)
def test_compiled_equals_eager(pattern: str, position: str, score: str) -> None:
    torch.compiler.reset()
    layer = small_attention(pattern, position, score)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for lengths in ((100,), (63,), (20, 43)):
        x, positions = text(*lengths)
        given = None if len(lengths) == 1 else positions
        ours = outputs_and_gradients(partial(compiled, positions=given), x, layer)
        torch.testing.assert_close(ours, outputs_and_gradients(partial(layer, positions=given), x, layer))


def test_what_evaluation_remembers_serves_training() -> None:
    layer, x = small_attention("window", "rotary"), text(100)[0][:1]
    with torch.inference_mode():
        before = layer(x)
    plan = layer._plans[100, x.device]
    assert plan is not None
    assert not plan.masks[0].allowed.is_inference(), "a score may have to keep it for its gradient"
    after = outputs_and_gradients(layer, x, layer)
    torch.testing.assert_close(after["y"], before)
    assert set(layer.state_dict()) == {f"{p}_proj.{w}" for p in "qkvo" for w in ("weight", "bias")}


def test_plans_do_not_pile_up() -> None:
    layer = small_attention("window")
    for seq in range(40, 80):
        layer(torch.randn(1, seq, 24, dtype=torch.float64))
    assert len(layer._plans) <= 8


def test_a_layer_built_on_the_meta_device_comes_to_life() -> None:
    with torch.device("meta"):
        layer = Attention(d_model=24, n_heads=3, pattern=SlidingWindow(window=9), position=Rotary(d_head=8))
        assert layer(torch.empty(2, 100, 24)).shape == (2, 100, 24)
        assert layer.cost(100).params == 4 * 24 * 24
    layer.to_empty(device="cpu")
    like = Attention(d_model=24, n_heads=3, pattern=SlidingWindow(window=9), position=Rotary(d_head=8))
    layer.load_state_dict(like.state_dict())
    x = torch.randn(2, 100, 24)
    torch.testing.assert_close(layer(x), like(x), rtol=0, atol=0)


def test_a_pattern_of_ones_own_needs_only_to_say_what_it_allows() -> None:
    class EvenOrSelf(Pattern):
        causal = True

        def allows(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
            q, k = q_positions[..., :, None], k_positions[..., None, :]
            return (k <= q) & ((k % 2 == 0) | (k == q))

    torch.manual_seed(0)
    layer = Attention(d_model=24, n_heads=3, pattern=EvenOrSelf()).double()
    x, positions = text(12, 21)
    plain = plain_attention(layer, x, positions, sees=lambda i, j: j <= i and (j % 2 == 0 or i == j))
    torch.testing.assert_close(layer(x, positions=positions), plain)
    torch.testing.assert_close(decode(layer, x, [20, 13], positions), plain)
    assert layer.cost(10).flops == 2 * 4 * 24 * 24 + 4 * 24 * (1 + 2 + 2 + 3 + 3 + 4 + 4 + 5 + 5 + 6) / 10


def test_a_cache_made_by_hand_is_the_contracts() -> None:
    cache = small_attention("window").init_cache(2, 100)
    assert isinstance(cache, KVCache)
    assert cache.k.shape == (2, 3, 9, 8)
    assert cache.k.dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("how", ["eager", "compiled"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.05)], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("pattern", "position", "score"),
    [
        ("full", "rotary", "qk norm"),
        ("window", "relative bias", "sink"),
        ("block sparse", "alibi", "gaussian"),
        ("strided", "yarn", "dot"),
    ],
)
def test_a_gpu_agrees_and_never_waits(
    pattern: str, position: str, score: str, dtype: torch.dtype, tolerance: float, how: str
) -> None:
    torch.compiler.reset()
    exact = small_attention(pattern, position, score)
    layer = small_attention(pattern, position, score, dtype=dtype).cuda()
    run = torch.compile(layer, fullgraph=True) if how == "compiled" else layer
    for lengths in ((100,), (20, 43)):
        x, positions = text(*lengths)
        given = None if len(lengths) == 1 else positions
        y = exact(x, positions=given)
        direction = torch.randn(y.shape, dtype=y.dtype)
        wanted = dict(
            zip(
                ["y", *dict(exact.named_parameters())],
                [y, *torch.autograd.grad(y, [*exact.parameters()], direction)],
                strict=True,
            )
        )
        on_gpu = x.to("cuda", dtype), given if given is None else given.cuda(), direction.to("cuda", dtype)

        def step(x: Tensor, given: Tensor | None, direction: Tensor) -> list[Tensor]:
            y = run(x, positions=given)
            return [y, *torch.autograd.grad(y, [*layer.parameters()], direction)]

        step(*on_gpu)  # whatever is made once per length may wait
        torch.cuda.set_sync_debug_mode("error")
        try:
            got = step(*on_gpu)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for (name, value), ours in zip(wanted.items(), got, strict=True):
            error = (ours.detach().cpu().double() - value).norm() / (value.norm() + 1e-3)
            assert error < tolerance, f"{name} is off by {error:.4f}"
