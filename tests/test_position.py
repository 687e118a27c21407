"""Positions: the numbers of their papers, and what must not change them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from arch.contracts import Position
from arch.position import (
    ALiBi,
    Learned,
    LinearScaling,
    Llama3Scaling,
    NTKScaling,
    RelativeBias,
    Rotary,
    RotaryScaling,
    Sinusoidal,
    YaRNScaling,
)
from arch.position.alibi import slopes
from runs.build.errors import ConfigError
from tests.lab import config, options, tiny_model
from tests.reference.attention import (
    PATTERNS,
    Bias,
    Rotate,
    one_thread,  # noqa: F401
    outputs_and_gradients,
    plain_attention,
    rotated_by,
    small_attention,
    text,
)

SIZES = ((1,), (63,), (20, 1, 14))


def matches_its_plain_twin(
    position: str, lengths: tuple[int, ...], *, rotate: Rotate | None = None, bias: Bias | None = None
) -> None:
    layer, (x, positions) = small_attention("full", position), text(*lengths)
    given = None if len(lengths) == 1 else positions
    rotate = rotate or (lambda head, places: head)
    plain = outputs_and_gradients(
        lambda x: plain_attention(
            layer, x, positions, sees=PATTERNS["full"][1], rotate=rotate, bias=bias and bias_of(layer, bias)
        ),
        x,
        layer,
    )
    fast = outputs_and_gradients(lambda x: layer(x, positions=given), x, layer)
    torch.testing.assert_close(fast, plain)


def bias_of(layer: torch.nn.Module, bias: Bias) -> Bias:
    return lambda h, i, j: (
        bias(h, i, j) if not isinstance(layer.position, RelativeBias) else layer.position.table[int(bias(h, i, j)), h]
    )


@pytest.mark.parametrize("lengths", SIZES, ids=str)
def test_rotary_equals_complex_numbers(lengths: tuple[int, ...]) -> None:
    matches_its_plain_twin("rotary", lengths, rotate=rotated_by([1.0, 0.1, 0.01, 0.001]))


@pytest.mark.parametrize("lengths", SIZES, ids=str)
def test_scaled_partial_rotary_equals_complex_numbers(lengths: tuple[int, ...]) -> None:
    frequencies = YaRNScaling(factor=4.0, trained_seq=32)([1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3)])
    rotate = rotated_by(frequencies, times=0.1 * math.log(4.0) + 1.0)
    matches_its_plain_twin("yarn", lengths, rotate=rotate)


@pytest.mark.parametrize("lengths", SIZES, ids=str)
def test_alibi_equals_its_formula(lengths: tuple[int, ...]) -> None:
    steepness = [2**-4, 2**-8, 2**-2]  # 3 heads: those of 2 heads, then the first of 4 heads
    matches_its_plain_twin("alibi", lengths, bias=lambda h, i, j: -steepness[h] * abs(i - j))


@pytest.mark.parametrize("lengths", SIZES, ids=str)
def test_relative_bias_equals_its_table(lengths: tuple[int, ...]) -> None:
    def row(h: int, i: int, j: int) -> int:
        n = max(i - j, 0)  # 8 rows, 4 of them exact, the last one from 20 tokens on
        return n if n < 4 else min(4 + int(math.log(n / 4) / math.log(20 / 4) * 4), 7)

    matches_its_plain_twin("relative bias", lengths, bias=row)


def rotated(rotary: Rotary, q: Tensor, k: Tensor, start: int) -> tuple[Tensor, Tensor]:
    places = torch.arange(start, start + q.shape[-2])[None]
    return rotary.rotate(q, k, places, places)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(2, 3, 9, 16), torch.randn(2, 1, 9, 16)
    for rotary in (Rotary(d_head=16), Rotary(d_head=16, d_rotary=4)):
        (q0, k0), (q1, k1) = rotated(rotary, q, k, 0), rotated(rotary, q, k, 100)
        torch.testing.assert_close(q1 @ k1.mT, q0 @ k0.mT, atol=1e-4, rtol=1e-4)
        assert (q1 - q0).abs().max() > 0.1


def test_rotary_keeps_lengths_and_leaves_place_0_alone() -> None:
    q, k = torch.randn(2, 3, 9, 16), torch.randn(2, 1, 9, 16)
    q0, k0 = rotated(Rotary(d_head=16), q, k, 0)
    torch.testing.assert_close(q0.norm(dim=-1), q.norm(dim=-1))
    torch.testing.assert_close(k0.norm(dim=-1), k.norm(dim=-1))
    assert torch.equal(q0[..., 0, :], q[..., 0, :])
    assert torch.equal(rotated(Rotary(d_head=16, d_rotary=4), q, k, 5)[0][..., 4:], q[..., 4:])


def test_queries_and_keys_may_stand_at_different_places() -> None:
    rotary = Rotary(d_head=8)
    q, k = torch.randn(1, 1, 2, 8), torch.randn(1, 1, 5, 8)
    q_places, k_places = torch.tensor([[7, 9]]), torch.arange(5)[None]
    q1, k1 = rotary.rotate(q, k, q_places, k_places)
    torch.testing.assert_close(q1, rotary.rotate(q, q, q_places, q_places)[0])
    torch.testing.assert_close(k1, rotary.rotate(k, k, k_places, k_places)[0])


def frequencies(scaling: RotaryScaling | None, d_head: int = 8, theta: float = 10000.0) -> list[float]:
    vector = Rotary(d_head=d_head, theta=theta, scaling=scaling).frequencies.tensor
    assert torch.equal(vector[: d_head // 2], -vector[d_head // 2 :])
    return vector[d_head // 2 :].tolist()


def test_scaled_frequencies_are_those_of_the_papers() -> None:
    assert frequencies(None) == pytest.approx([1.0, 0.1, 0.01, 0.001])
    assert frequencies(LinearScaling(factor=4.0)) == pytest.approx([0.25, 0.025, 0.0025, 0.00025])
    base = 10000.0 * 4.0 ** (8 / 6)
    assert frequencies(NTKScaling(factor=4.0)) == pytest.approx([base ** (-2 * i / 8) for i in range(4)])
    assert frequencies(NTKScaling(factor=4.0))[0] == 1.0
    assert frequencies(NTKScaling(factor=4.0))[3] == pytest.approx(0.001 / 4)
    # about 100, 10, 1 and 0.1 turns in 628 tokens; 10 lies at (10 - 1) / (32 - 1) between interpolated and kept
    r = (628 * 0.1 / (2 * math.pi) - 1) / 31
    yarn = YaRNScaling(factor=4.0, trained_seq=628)
    expected = [1.0, 0.1 * (r + (1 - r) / 4), 0.01 / 4, 0.001 / 4]
    assert frequencies(yarn) == pytest.approx(expected)
    assert yarn.temperature == pytest.approx(0.1 * math.log(4) + 1)
    r = (628 * 0.01 / (2 * math.pi) - 0.5) / 3.5
    llama = Llama3Scaling(factor=4.0, trained_seq=628, slow=0.5, fast=4.0)
    assert frequencies(llama) == pytest.approx([1.0, 0.1, 0.01 * (r + (1 - r) / 4), 0.001 / 4])
    for scaling in (
        LinearScaling(factor=1.0),
        NTKScaling(factor=1.0),
        Llama3Scaling(factor=1.0, trained_seq=64),
        YaRNScaling(factor=1.0, trained_seq=64),
        YaRNScaling(factor=1.0, trained_seq=64, ramp="channels", mscale_all_dim=1.0),
    ):
        assert frequencies(scaling) == pytest.approx(frequencies(None))
        assert scaling.temperature == scaling.unrotated_temperature == 1.0


def test_yarns_ramp_over_channels_is_that_of_published_code() -> None:
    """Channel i turns 628 / (2 pi) / 10^i times: 32 times at 0.49, once at 2.0, which are rounded to 0 and to 2 or 3."""
    yarn = YaRNScaling(factor=4.0, trained_seq=620, ramp="channels")  # a little less than once at 2
    assert frequencies(yarn) == pytest.approx([1.0, 0.1 * (1 + 1 / 4) / 2, 0.01 / 4, 0.001 / 4])
    yarn = YaRNScaling(factor=4.0, trained_seq=640, ramp="channels")  # a little more
    assert frequencies(yarn) == pytest.approx([1.0, 0.1 * (2 + 1 / 4) / 3, 0.01 * (1 + 2 / 4) / 3, 0.001 / 4])
    cliff = YaRNScaling(factor=4.0, trained_seq=4, ramp="channels")  # no turn in such a text: only the first is kept
    assert frequencies(cliff) == pytest.approx([1.0, 0.1 / 4, 0.01 / 4, 0.001 / 4])
    assert Rotary(d_head=2, scaling=yarn).frequencies.tensor.tolist() == [-1.0, 1.0]


def test_channels_that_do_not_turn_have_a_temperature_of_their_own() -> None:
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    scaling = YaRNScaling(factor=16.0, trained_seq=64, mscale=0.5, mscale_all_dim=2.0)
    q0, k0 = rotated(Rotary(d_head=8, d_rotary=6, scaling=scaling), q, k, 0)
    by_rotation, rest = 0.1 * 0.5 * math.log(16) + 1, 0.1 * 2.0 * math.log(16) + 1
    torch.testing.assert_close(q0, q * torch.tensor([by_rotation] * 6 + [rest] * 2))
    torch.testing.assert_close(k0, k * torch.tensor([by_rotation] * 6 + [rest] * 2))
    assert YaRNScaling(factor=16.0, trained_seq=64, mscale=0.5, temperature=3.0).temperature == 3.0


def test_yarn_warms_the_scores_by_the_square_of_its_temperature() -> None:
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    q0, k0 = rotated(Rotary(d_head=8, scaling=YaRNScaling(factor=16.0, trained_seq=64)), q, k, 0)
    torch.testing.assert_close(q0 @ k0.mT, (q @ k.mT) * (0.1 * math.log(16) + 1) ** 2)


def test_alibi_slopes_are_those_of_the_paper() -> None:
    assert slopes(8) == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert slopes(16)[:3] == pytest.approx([2**-0.5, 2**-1, 2**-1.5])
    assert slopes(12) == pytest.approx([*slopes(8), 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])
    assert slopes(1) == [2**-8]


def test_alibi_bias_by_hand() -> None:
    bias = ALiBi(n_heads=2).bias(torch.tensor([[2, 3]]), torch.tensor([[0, 1, 2, 3]]))
    assert bias.tolist() == [[[[s * -2, s * -1, 0, s * -1], [s * -3, s * -2, s * -1, 0]] for s in (2**-4, 2**-8)]]


def test_relative_buckets_are_those_of_t5() -> None:
    """Worked out by hand for 32 buckets and 128 tokens: 16 + floor(ln(n / 16) / ln 8 * 16)."""
    causal = RelativeBias(n_heads=1).bucket
    assert [causal(n) for n in (-5, 0, 1, 15, 16, 17, 18, 19, 20, 32, 64, 127, 128, 5000)] == [
        0, 0, 1, 15, 16, 16, 16, 17, 17, 21, 26, 31, 31, 31,
    ]  # fmt: skip
    both = RelativeBias(n_heads=1, causal=False).bucket  # 16 each way, 8 of them exact; ahead comes second
    assert [both(n) for n in (0, 1, 7, 8, 16, 32, 64, 127, 500)] == [0, 1, 7, 8, 10, 12, 14, 15, 15]
    assert [both(n) for n in (-1, -7, -8, -500)] == [17, 23, 24, 31]


def test_relative_bias_looks_its_table_up_in_both_directions() -> None:
    position = RelativeBias(n_heads=2, n_buckets=8, max_distance=5, causal=False)
    places = torch.arange(30)[None]
    bias = position.bias(places, places)
    assert bias.shape == (1, 2, 30, 30)
    for i, j in ((0, 0), (29, 0), (0, 29), (12, 10), (10, 12)):
        assert torch.equal(bias[0, :, i, j], position.table[position.bucket(i - j)])


def test_sinusoids_are_those_of_the_formula() -> None:
    x = torch.zeros(1, 50, 6)
    y = Sinusoidal(d_model=6).embed(x, torch.arange(50)[None])
    for i in (0, 1, 7, 49):
        for j in range(3):
            assert y[0, i, 2 * j].item() == pytest.approx(math.sin(i / 10000 ** (2 * j / 6)), abs=1e-5)
            assert y[0, i, 2 * j + 1].item() == pytest.approx(math.cos(i / 10000 ** (2 * j / 6)), abs=1e-5)


@pytest.mark.parametrize("position", [Learned(d_model=6, max_seq=20), Sinusoidal(d_model=6)], ids=["learned", "sinusoidal"])
def test_embedded_places_start_anew_with_each_document(position: Position) -> None:
    x = torch.randn(1, 12, 6)
    packed = position.embed(x, torch.tensor([[*range(5), *range(7)]]))
    separate = [position.embed(part, torch.arange(part.shape[1])[None]) for part in x.split((5, 7), dim=1)]
    assert torch.equal(packed, torch.cat(separate, dim=1))


def test_a_learned_table_adds_its_rows() -> None:
    position = Learned(d_model=6, max_seq=20)
    x = torch.randn(2, 3, 6)
    assert torch.equal(position.embed(x, torch.tensor([[4, 5, 19]])), x + position.table.weight[[4, 5, 19]])
    assert position.cost(8).params == 20 * 6


def test_a_learned_table_refuses_positions_past_its_end_and_gives_padding_its_first_row() -> None:
    position, x = Learned(d_model=6, max_seq=20), torch.randn(1, 3, 6)
    with pytest.raises(ValueError, match="position 20 is past the end of the position table: max_seq is 20, not 21"):
        position.embed(x, torch.tensor([[18, 19, 20]]))
    assert torch.equal(position.embed(x, torch.tensor([[-1, -7, 0]])), x + position.table.weight[0])


def test_a_learned_table_compiles_to_one_graph() -> None:
    torch.compiler.reset()
    position, x, positions = Learned(d_model=6, max_seq=20), torch.randn(1, 3, 6), torch.tensor([[-1, 0, 19]])
    compiled = torch.compile(position.embed, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, positions), position.embed(x, positions))


@pytest.mark.parametrize(
    "position", [ALiBi(n_heads=2), RelativeBias(n_heads=2, max_distance=40), Rotary(d_head=6), Sinusoidal(d_model=6)]
)
def test_padding_has_a_position_too(position: Position) -> None:
    x, positions = torch.randn(1, 2, 4, 6), torch.tensor([[-1, -100, 0, 1]])
    bias = position.bias(positions, positions)
    outputs = (position.embed(x[:, 0], positions), *position.rotate(x, x, positions, positions), x if bias is None else bias)
    assert all(y.isfinite().all() for y in outputs)


def test_frequencies_survive_casting_copying_and_the_meta_device() -> None:
    with torch.device("meta"):
        unborn = Rotary(d_head=8)
    for rotary in (Rotary(d_head=8).to(torch.bfloat16), unborn.to_empty(device="cpu"), Rotary(d_head=8).double().half()):
        assert rotary.frequencies.tensor.dtype == torch.float32
        assert torch.equal(rotary.frequencies.tensor, Rotary(d_head=8).frequencies.tensor)
        assert not rotary.state_dict()
    assert RelativeBias(n_heads=2).bfloat16().buckets.tensor.dtype == torch.long


def test_latent_attention_stretches_its_channels_as_a_rotary_position_does() -> None:
    def scaling(*words: str) -> Any:
        return config("mixer=mla", *words).model["layers"][0]["mixer"]["position"]["scaling"]

    assert scaling() is None and scaling("position=rotary") is None
    assert scaling("position=rotary_linear") == {"_target_": "arch.LinearScaling", "factor": 4.0}
    with pytest.raises(ConfigError, match=r"it rotates channels of its own, so arch.ALiBi has no effect on it; take a rotary"):
        scaling("position=alibi")


def test_part_of_each_head_turns_where_the_size_says_so() -> None:
    for option in options("position"):
        if option.startswith("rotary"):
            position = tiny_model(f"position={option}", "size.d_rotary=4").layers[0].mixer.position
            assert len(position.frequencies.tensor) == 4, option


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Sinusoidal(d_model=5), "d_model is 5, 6 would do"),
        (lambda: Rotary(d_head=7), "7 of d_head 7 cannot be rotated"),
        (lambda: Rotary(d_head=8, d_rotary=10), "10 of d_head 8 cannot be rotated"),
        (lambda: Rotary(d_head=8, d_rotary=0), "0 of d_head 8 cannot be rotated"),
        (lambda: Llama3Scaling(factor=2.0, trained_seq=8, slow=4.0), "slow is 4.0 and fast is 4.0: 0 < slow < fast"),
        (lambda: YaRNScaling(factor=2.0, trained_seq=8, slow=0.0), "slow is 0.0 and fast is 32.0: 0 < slow < fast"),
        (lambda: RelativeBias(n_heads=2, n_buckets=0), "n_buckets is 0: a multiple of 2"),
        (lambda: RelativeBias(n_heads=2, n_buckets=6, causal=False), "n_buckets is 6: a multiple of 4"),
        (lambda: RelativeBias(n_heads=2, n_buckets=32, max_distance=16), "max_distance is 16: more than the 16 exact"),
        (
            lambda: Learned(d_model=6, max_seq=20).embed(torch.zeros(1, 21, 6), torch.arange(21)[None]),
            "a text of 21 tokens is longer than the position table: max_seq is 20",
        ),
    ],
)
def test_impossible_positions_are_refused(build: type[Position], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
