"""Native sparse attention against its plain twin: what is selected, documents, the cache, and what it costs."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from arch.init import initialise
from arch.mixer import NativeSparse
from arch.mixer.native_sparse import NativeSparseCache
from arch.ops.document_blocks import complete_blocks
from arch.position import ALiBi, Rotary
from tests.reference.attention import one_thread, outputs_and_gradients, padded_text, rotated_by, text  # noqa: F401
from tests.reference.native_sparse import complete, plain_native_sparse

ROTATE = rotated_by([1.0, 0.1, 0.01, 0.001])
LENGTHS = ((1,), (63,), (100,), (20, 1, 30, 12))


def small_nsa(
    *, position: str = "rotary", n_heads: int = 4, n_kv_heads: int = 2, dtype: torch.dtype = torch.float64, **sizes: int
) -> NativeSparse:
    """Heads of 8 channels, the same weights at every call, none of them at a value that would hide a mistake."""
    torch.manual_seed(0)
    sizes = {"block": 4, "top_n": 4, "window": 6} | sizes
    place = {"rotary": lambda: Rotary(d_head=8), "alibi": lambda: ALiBi(n_heads=n_heads), "none": lambda: None}[position]()
    layer = NativeSparse(d_model=24, n_heads=n_heads, n_kv_heads=n_kv_heads, d_head=8, position=place, **sizes)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer.to(dtype)


def decode(layer: NativeSparse, x: Tensor, parts: list[int], positions: Tensor | None = None) -> Tensor:
    cache = layer.init_cache(x.shape[0], x.shape[1])
    places = [None] * len(parts) if positions is None else positions.split(parts, dim=1)
    steps = [layer(part, positions=p, cache=cache) for part, p in zip(x.split(parts, dim=1), places, strict=True)]
    return torch.cat(steps, dim=1)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(4, 2), (3, 1), (3, 3)])
def test_outputs_and_gradients_are_those_of_the_plain_twin(n_heads: int, n_kv_heads: int, lengths: tuple[int, ...]) -> None:
    layer, (x, positions) = small_nsa(n_heads=n_heads, n_kv_heads=n_kv_heads), text(*lengths)
    given = None if len(lengths) == 1 else positions
    fast = outputs_and_gradients(partial(layer, positions=given), x, layer)
    plain = outputs_and_gradients(partial(plain_native_sparse, layer, positions=positions, rotate=ROTATE), x, layer)
    torch.testing.assert_close(fast, plain)


@pytest.mark.parametrize(
    "sizes", [{"block": 1}, {"block": 64}, {"window": 1}, {"top_n": 3}, {"top_n": 40, "block": 3}], ids=str
)
def test_every_size_equals_its_plain_twin(sizes: dict[str, int]) -> None:
    layer, (x, positions) = small_nsa(**sizes), text(22, 1, 10)
    fast = outputs_and_gradients(partial(layer, positions=positions), x, layer)
    plain = outputs_and_gradients(partial(plain_native_sparse, layer, positions=positions, rotate=ROTATE), x, layer)
    torch.testing.assert_close(fast, plain)


@pytest.mark.parametrize("lengths", [(1,), (33,), (20, 1, 14)], ids=str)
def test_a_bias_reaches_all_three_branches(lengths: tuple[int, ...]) -> None:
    layer, (x, positions) = small_nsa(position="alibi"), text(*lengths)

    def bias(head: int, i: int, j: int) -> float:
        return -(2.0 ** (-2 * (head + 1))) * (i - j)

    fast = outputs_and_gradients(partial(layer, positions=positions), x, layer)
    plain = outputs_and_gradients(partial(plain_native_sparse, layer, positions=positions, bias=bias), x, layer)
    torch.testing.assert_close(fast, plain)


def test_a_text_cut_out_of_a_longer_one_equals_its_plain_twin() -> None:
    layer, (x, _) = small_nsa(), text(40)
    positions = torch.stack((torch.arange(5, 45), torch.cat((torch.arange(7, 20), torch.arange(27)))))
    plain = plain_native_sparse(layer, x, positions, rotate=ROTATE)
    torch.testing.assert_close(layer(x, positions=positions), plain)


def test_the_selection_matters_and_differs_between_queries_and_groups() -> None:
    layer, (x, _) = small_nsa(), text(63)
    choices: list[set[int]] = []
    y = plain_native_sparse(layer, x[:1], rotate=ROTATE, choices=choices)
    groups = choices[:63], choices[63:]
    assert groups[0] != groups[1]
    assert len({frozenset(choice) for choice in groups[0]}) > 16
    for choice in groups:
        for i, blocks in enumerate(choice):
            own = i // 4
            assert len(blocks) == min(own, 3)
            assert {0, own - 1} - {own, -1} <= blocks <= set(range(own))
    few = copy.deepcopy(layer)
    few.top_n = 3
    assert not torch.allclose(few(x[:1]), y)


def test_equal_blocks_are_selected_from_the_first_on() -> None:
    layer = small_nsa(position="none", top_n=5)
    x = torch.randn(1, 1, 24, dtype=torch.double).repeat(1, 63, 1)
    x[:, 5:10] += torch.arange(5)[:, None]  # else all selections would give the same output
    with torch.no_grad():
        layer.k_compress.out_proj.weight.zero_()  # every block scores exactly 0
    torch.testing.assert_close(layer(x), plain_native_sparse(layer, x))


def test_complete_blocks_are_those_of_the_definition() -> None:
    rows = [
        [3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 4, 5, 6],  # cut out of a longer text
        [0, 0, 0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3],
        [0, 1, 2, 3, 0, 1, 2, 7, 8, 9, 10, 11, 12],  # goes on with the number of tokens, as decoding does after a packed prompt
        list(range(13)),
        [-1, -1, -1, -1, -1, 0, 1, 2, 3, 4, -1, -1, -1],  # padding is in no block
    ]
    for size in (1, 3, 4, 8, 20):
        blocks = complete_blocks(torch.tensor(rows), size)
        for b, places in enumerate(rows):
            wanted = {(m, *tokens) for i in range(13) for m, tokens in complete(places, size, i).items()}
            ours = zip(blocks.number[b].tolist(), blocks.tokens[b].tolist(), blocks.document[b].tolist(), strict=True)
            found = [(number, *tokens) for number, tokens, document in ours if document >= 0]
            assert found == sorted(wanted, key=lambda block: block[1])
            for j, block in enumerate(blocks.of_token[b].tolist()):
                assert j in found[block][1:] if block < 13 // size else all(j not in tokens for _, *tokens in found)


@torch.no_grad()
@pytest.mark.parametrize("position", ["rotary", "alibi"])
def test_cached_decoding_equals_the_full_forward(position: str) -> None:
    for sizes in ({}, {"block": 1}, {"block": 16}, {"window": 50}):
        layer, (x, positions) = small_nsa(position=position, **sizes), text(11, 1, 3, 28)
        for given in (None, positions):
            full = layer(x, positions=given)
            for parts in ([1] * 43, [20, 1, 5, 17], [2, 3, 38], [43]):
                torch.testing.assert_close(decode(layer, x, parts, given), full)


@torch.no_grad()
def test_a_cache_takes_rows_whose_blocks_end_at_different_tokens() -> None:
    layer, (x, _) = small_nsa(), text(30)
    positions = torch.stack((torch.arange(30), torch.cat((torch.zeros(3), torch.arange(6), torch.arange(21))).long()))
    for parts in ([1] * 30, [7, 1, 9, 13]):
        torch.testing.assert_close(decode(layer, x, parts, positions), layer(x, positions=positions))


@torch.no_grad()
def test_places_may_be_given_for_a_part_alone() -> None:
    layer, (x, positions) = small_nsa(), text(30)
    cache = layer.init_cache(2, 30)
    steps = [
        layer(x[:, :6], cache=cache),
        layer(x[:, 6:13], positions=positions[:, 6:13], cache=cache),
        layer(x[:, 13:], cache=cache),
    ]
    torch.testing.assert_close(torch.cat(steps, dim=1), layer(x))


@torch.no_grad()
def test_packed_documents_equal_separate_runs() -> None:
    layer, lengths = small_nsa(), (17, 1, 1, 50)
    x, positions = text(*lengths)
    separate = torch.cat([layer(part) for part in x.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(layer(x, positions=positions), separate)


@pytest.mark.parametrize("sizes", [{}, {"block": 1}, {"block": 16}, {"window": 50}], ids=str)
@pytest.mark.parametrize("position", ["rotary", "alibi"])
def test_padding_is_invisible(position: str, sizes: dict[str, int]) -> None:
    layer, (x, positions, inside) = small_nsa(position=position, **sizes), padded_text(13, 37, 20)
    padded = outputs_and_gradients(lambda x: layer(x, positions=positions)[:, inside], x, layer)
    torch.testing.assert_close(padded, outputs_and_gradients(lambda x: layer(x[:, inside]), x, layer))
    assert all(
        value.isfinite().all() for value in outputs_and_gradients(partial(layer, positions=positions), x, layer).values()
    )
    with torch.no_grad():
        decoded = decode(layer, x, [9, 20, 1, 1, 39], positions)[:, inside]
    torch.testing.assert_close(decoded, padded["y"])


def test_a_later_token_changes_nothing_before_it() -> None:
    layer, (x, _) = small_nsa(), text(40)
    for at in (20, 23):  # the first and the last token of a block
        changed = x.clone()
        changed[:, at] += 1.0
        moved = (layer(changed) - layer(x)).abs().amax(dim=(0, 2)) > 1e-9
        assert moved[at]
        assert not moved[:at].any()


@pytest.mark.parametrize("seq", [1, 3, 4, 40, 63])
def test_reported_cost_is_that_of_the_built_layer(seq: int) -> None:
    layer, (x, _) = small_nsa(), text(seq)
    cost, d, h, g = layer.cost(seq), 8, 4, 2
    assert cost.params == cost.active_params == sum(p.numel() for p in layer.parameters())
    assert cost.params == 2 * d * (24 * (h + 3 * g) + 4 * (d + 1) + d) + 3 * 24 * h

    choices: list[set[int]] = []
    plain_native_sparse(layer, x[:1], choices=choices)
    coarse = sum((i + 1) // 4 for i in range(seq))
    fine = sum(i % 4 + 1 + 4 * len(blocks) for i, blocks in enumerate(choices[:seq]))
    near = sum(min(i + 1, 6) for i in range(seq))
    compressing = 2 * (seq // 4) * g * (4 * d * d + d * d)
    projections = 24 * d * (2 * h + 6 * g) + 24 * 3 * h
    assert cost.flops == pytest.approx(2 * projections + (2 * compressing + 4 * h * d * (coarse + fine + near)) / seq)

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        layer(x)
    if seq < 16:  # else the window is cut into blocks
        every = seq * (seq // 4) + 2 * seq * seq  # through masks, all pairs are multiplied
        unreported = 4 * h * d * (every - coarse - fine - near)
        assert counter.get_total_flops() == pytest.approx(2 * (seq * cost.flops + unreported), rel=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("seq", [1, 3, 40])
def test_the_state_has_the_reported_bytes(seq: int) -> None:
    layer, (x, _) = small_nsa(), text(seq)
    cache = layer.init_cache(1, seq)
    layer(x[:1], cache=cache)
    assert isinstance(cache, NativeSparseCache)
    held = [t for part in (cache, cache.incomplete, cache.selected, cache.window) for t in (part.k, part.v)]
    assert sum(t.untyped_storage().nbytes() for t in held) == layer.cost(seq).state_bytes


def test_seeds_draw_the_places_anew() -> None:
    layer, other = small_nsa(), small_nsa()
    initialise(layer, seed=0)
    initialise(other, seed=1)
    assert not torch.equal(layer.k_compress.position_embedding, other.k_compress.position_embedding)
    assert not torch.equal(layer.k_compress.position_embedding, layer.v_compress.position_embedding)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_kv_heads": 3}, "n_kv_heads 3 does not divide n_heads 4"),
        ({"block": 0}, "block=0: at least 1 is needed"),
        ({"top_n": 2}, "top_n is 2: at least 3 is needed"),
        ({"window": 0}, "window is 0: at least 1 is needed"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_nsa(**sizes)


@torch.no_grad()
def test_bf16_follows_fp32() -> None:
    layer, (x, _) = small_nsa(dtype=torch.float32, top_n=40), text(70, dtype=torch.float32)  # all: a near tie must not matter
    half, parts = copy.deepcopy(layer).bfloat16(), [40, 1, 29]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = (layer(x), decode(layer, x, parts))
    y = layer(x)
    for z in (half(x.bfloat16()), decode(half, x.bfloat16(), parts), *cast):
        assert z.dtype == torch.bfloat16
        assert (z.float() - y).norm() / y.norm() < 0.03


def test_compiled_equals_eager() -> None:
    torch.compiler.reset()
    layer, (x, positions) = small_nsa(), text(20, 23)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    ours = outputs_and_gradients(partial(compiled, positions=positions), x, layer)
    torch.testing.assert_close(ours, outputs_and_gradients(partial(layer, positions=positions), x, layer))
