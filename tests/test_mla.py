"""Latent attention against its plain twin; the form that decodes against the form that trains; sizes, costs and the cache."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from arch.lora import add_lora
from arch.mixer import MLA, KVCache
from arch.position import Rotary
from tests.reference.attention import one_thread, outputs_and_gradients, padded_text, text  # noqa: F401
from tests.reference.mla import plain_mla

SHAPES = {
    "latent queries": {"d_latent": 10, "d_nope": 8, "d_rope": 4, "d_v": 6, "d_q_latent": 14},
    "wide values": {"d_latent": 10, "d_nope": 4, "d_rope": 2, "d_v": 9},
}
every_shape = pytest.mark.parametrize("shape", SHAPES)


def small_mla(shape: str = "latent queries", dtype: torch.dtype = torch.float64) -> MLA:
    """3 heads, the same weights at every call, none of them at a value that would hide a mistake."""
    torch.manual_seed(0)
    layer = MLA(d_model=24, n_heads=3, **SHAPES[shape])
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer.to(dtype)


def decode(layer: MLA, x: Tensor, parts: list[int], positions: Tensor | None = None) -> Tensor:
    cache = layer.init_cache(x.shape[0], x.shape[1])
    places = [None] * len(parts) if positions is None else positions.split(parts, dim=1)
    steps = [layer(part, positions=p, cache=cache) for part, p in zip(x.split(parts, dim=1), places, strict=True)]
    return torch.cat(steps, dim=1)


@pytest.mark.parametrize("lengths", [(1,), (63,), (100,), (20, 1, 30, 12)], ids=str)
@every_shape
def test_outputs_and_gradients_are_those_of_the_plain_twin(shape: str, lengths: tuple[int, ...]) -> None:
    layer, (x, positions) = small_mla(shape), text(*lengths)
    given = None if len(lengths) == 1 else positions
    fast = outputs_and_gradients(partial(layer, positions=given), x, layer)
    torch.testing.assert_close(fast, outputs_and_gradients(partial(plain_mla, layer, positions=positions), x, layer))


@every_shape
def test_attending_among_the_latents_equals_unfolding_them(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for lengths in ((63,), (20, 1, 12)):
        layer, (x, positions) = small_mla(shape), text(*lengths)
        unfolded = outputs_and_gradients(partial(layer, positions=positions), x, layer)
        monkeypatch.setattr(layer, "_unfolded", layer._absorbed)
        torch.testing.assert_close(outputs_and_gradients(partial(layer, positions=positions), x, layer), unfolded)


@torch.no_grad()
@every_shape
def test_cached_decoding_equals_the_full_forward(shape: str) -> None:
    layer, (x, positions) = small_mla(shape), text(11, 4, 18)
    for given in (None, positions):
        full = layer(x, positions=given)
        for parts in ([1] * 33, [20, 1, 5, 7], [33]):
            torch.testing.assert_close(decode(layer, x, parts, given), full)


@torch.no_grad()
def test_packed_documents_equal_separate_runs() -> None:
    layer, lengths = small_mla(), (17, 1, 1, 50)
    x, positions = text(*lengths)
    separate = torch.cat([layer(part) for part in x.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(layer(x, positions=positions), separate)


@torch.no_grad()
def test_padding_is_invisible() -> None:
    layer, (x, positions, inside) = small_mla(), padded_text(5, 17, 8)
    alone = layer(x[:, inside])
    torch.testing.assert_close(layer(x, positions=positions)[:, inside], alone)
    torch.testing.assert_close(decode(layer, x, [3, 9, 1, 17], positions)[:, inside], alone)


def test_a_later_token_changes_nothing_before_it() -> None:
    layer, (x, _) = small_mla(), text(40)
    changed = x.clone()
    changed[:, 20] += 1.0
    moved = (layer(changed) - layer(x)).abs().amax(dim=(0, 2)) > 1e-9
    assert moved[20:].all()
    assert not moved[:20].any()


def test_a_layer_of_deepseek_v2_lite_has_its_published_parameters() -> None:
    with torch.device("meta"):
        layer = MLA(d_model=2048, n_heads=16, d_latent=512, d_nope=128, d_rope=64, d_v=128)
    assert layer.cost(1).params == 13_763_072
    assert layer.cost(1).params == 2048 * 16 * (128 + 64) + 2048 * (512 + 64) + 512 + 512 * 16 * (128 + 128) + 16 * 128 * 2048
    assert layer.cost(1000).state_bytes == 1000 * (512 + 64) * 4


def test_a_layer_of_deepseek_v2_has_latent_queries() -> None:
    with torch.device("meta"):
        layer = MLA(d_model=5120, n_heads=128, d_latent=512, d_nope=128, d_rope=64, d_v=128, d_q_latent=1536)
    queries = 5120 * 1536 + 1536 + 1536 * 128 * 192
    assert layer.cost(1).params == queries + 5120 * 576 + 512 + 512 * 128 * 256 + 128 * 128 * 5120


@every_shape
def test_reported_cost_is_that_of_the_built_layer(shape: str) -> None:
    layer, (x, _), seq = small_mla(shape), text(40), 40
    d_q, d_v = layer.d_nope + layer.d_rope, layer.d_v
    cost = layer.cost(seq)
    assert cost.params == cost.active_params == sum(p.numel() for p in layer.parameters())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        layer(x)
    # The kernel multiplies hidden pairs as well, and values padded to the keys' width.
    unreported = 2 * 3 * ((seq - (seq + 1) / 2) * (d_q + d_v) + seq * (max(d_q, d_v) - d_v))
    assert counter.get_total_flops() == pytest.approx(2 * seq * (cost.flops + unreported), rel=1e-12)


@torch.no_grad()
def test_a_cache_holds_the_latent_and_one_rotary_key_per_token_and_nothing_else() -> None:
    layer, (x, _) = small_mla(), text(40)
    cache = layer.init_cache(1, 40)
    layer(x[:1], cache=cache)
    assert isinstance(cache, KVCache)
    held = {value.untyped_storage().data_ptr(): value.untyped_storage() for value in (cache.k, cache.v)}
    assert sum(storage.nbytes() for storage in held.values()) == layer.cost(40).state_bytes == 40 * (10 + 4) * 8


def test_a_rotation_of_ones_own_is_used() -> None:
    slow = MLA(d_model=24, n_heads=3, **SHAPES["wide values"], position=Rotary(d_head=2, theta=10000.0))
    still = copy.deepcopy(slow)
    still.position = Rotary(d_head=2, theta=5.0)  # two channels turn by the first frequency alone, which is 1 at every base
    x = torch.randn(2, 9, 24)
    torch.testing.assert_close(slow(x), still(x))
    layer = small_mla().float()
    other = copy.deepcopy(layer)
    other.position = Rotary(d_head=4, theta=5.0)
    assert not torch.allclose(layer(x), other(x), atol=1e-4)


def test_an_odd_rotation_is_refused() -> None:
    with pytest.raises(ValueError, match="rotary channels come in pairs: 3 of d_head 3"):
        MLA(d_model=24, n_heads=3, d_latent=10, d_nope=8, d_rope=3, d_v=6)


@torch.no_grad()
def test_bf16_follows_fp32() -> None:
    layer, (x, _) = small_mla(dtype=torch.float32), text(70, dtype=torch.float32)
    half = copy.deepcopy(layer).bfloat16()
    parts = [40, 1, 29]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = (layer(x), decode(layer, x, parts))
    y = layer(x)
    for z in (half(x.bfloat16()), decode(half, x.bfloat16(), parts), *cast):
        assert z.dtype == torch.bfloat16
        assert (z.float() - y).norm() / y.norm() < 0.03


def test_compiled_equals_eager() -> None:
    torch.compiler.reset()
    layer = small_mla()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for lengths in ((63,), (100,), (20, 43)):  # from the second length on, lengths are symbols
        x, positions = text(*lengths)
        given = None if len(lengths) == 1 else positions
        ours = outputs_and_gradients(partial(compiled, positions=given), x, layer)
        torch.testing.assert_close(ours, outputs_and_gradients(partial(layer, positions=given), x, layer))


def test_an_adapted_projection_decodes_as_it_reads() -> None:
    torch.manual_seed(0)
    layer = MLA(d_model=12, n_heads=3, d_latent=8, d_nope=4, d_rope=4, d_v=4).double()
    add_lora(layer, ["kv_up_proj"], rank=2, alpha=4)
    torch.nn.init.normal_(layer.kv_up_proj.lora_b)
    x, cache = torch.randn(2, 9, 12, dtype=torch.double), layer.init_cache(2, 9)
    steps = [layer(part, cache=cache) for part in x.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(steps, dim=1), layer(x))
