"""Recurrent mixers: the fast ways against the plain recurrences, documents, caches, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from arch.contracts import SequenceMixer
from arch.init import initialise
from arch.mixer import GRU, LSTM, GatedDeltaNet, GatedLinearAttention, Mamba, Mamba2
from arch.mixer.state import StateCache
from arch.norm import RMSNorm
from arch.ops import chunked, selective
from arch.ops.chunked import decayed_attention, delta_rule
from arch.ops.gru import gru
from arch.ops.scan import linear_scan, scan_operator
from arch.ops.selective import selective_scan
from tests.reference.linear_attention import plain_attention, plain_gated_delta_net, plain_gla, plain_mamba2
from tests.reference.scan import plain_mamba, plain_rnn, plain_scan, plain_selective_scan

PLAIN: dict[type[SequenceMixer], Callable[..., Tensor]] = {
    GRU: plain_rnn,
    LSTM: plain_rnn,
    Mamba: plain_mamba,
    Mamba2: plain_mamba2,
    GatedLinearAttention: plain_gla,
    GatedDeltaNet: plain_gated_delta_net,
}
SIZES: dict[type[SequenceMixer], dict[str, int]] = {  # odd ones: 2 heads in each of 3 groups, 3 heads
    Mamba2: {"d_state": 5, "d_head": 2, "n_groups": 3, "chunk": 16},
    GatedLinearAttention: {"n_heads": 3, "d_key": 6, "d_value": 12, "rank": 4},
    GatedDeltaNet: {"n_heads": 3, "chunk": 16},
}
every_mixer = pytest.mark.parametrize("kind", PLAIN)
every_matrix_state = pytest.mark.parametrize("kind", [Mamba, Mamba2, GatedLinearAttention, GatedDeltaNet])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads only get in each other's way at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mixer(kind: type[SequenceMixer], d_model: int = 6) -> SequenceMixer:
    torch.manual_seed(0)
    layer = kind(d_model=d_model, **SIZES.get(kind, {})).double()
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            if "norm" in name or name == "D":  # all ones, they could stand in each other's place
                weight.normal_()
    return layer


def text(batch: int, seq: int, d_model: int = 6) -> Tensor:
    return torch.randn(batch, seq, d_model, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def packed(*lengths: int) -> Tensor:
    return torch.cat([torch.arange(length) for length in lengths])


def gradients(y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    weight = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
    return torch.autograd.grad((y * weight).sum(), inputs)


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("seq", [1, 63, 100])
@every_mixer
def test_outputs_and_gradients_are_those_of_the_plain_recurrence(kind: type[SequenceMixer], seq: int, documents: bool) -> None:
    layer, x = mixer(kind), text(2, seq).requires_grad_()
    # The first row goes on in a document that began before, as a cut-out of a text does.
    rows = [torch.arange(5, 5 + seq), packed(1, 2, 20, 3, 100)[:seq]]
    positions = torch.stack(rows) if documents else None
    y, plain = layer(x, positions=positions), PLAIN[kind](layer, x, positions)
    torch.testing.assert_close(y, plain)
    inputs = (x, *layer.parameters())
    for got, wanted in zip(gradients(y, *inputs), gradients(plain, *inputs), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("scan", [linear_scan, scan_operator])
@pytest.mark.parametrize("seq", [1, 2, 3, 5, 8, 63, 100])
def test_the_scan_equals_a_loop_in_outputs_and_gradients(seq: int, scan: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    a = torch.rand(2, seq, 3, 4, dtype=torch.double)
    a[0, seq // 2] = 0  # a new document
    a[1, seq // 3] = 1  # nothing is forgotten
    b, first = torch.randn_like(a), torch.randn(2, 3, 4, dtype=torch.double)
    inputs = [x.requires_grad_() for x in (a, b, first)]
    h, plain = scan(*inputs), plain_scan(*inputs)
    torch.testing.assert_close(h, plain)
    for got, wanted in zip(gradients(h, *inputs), gradients(plain, *inputs), strict=True):
        torch.testing.assert_close(got, wanted)


def test_the_scan_is_an_operator_that_a_compiler_can_trace() -> None:
    a, b, first = (torch.rand(shape, requires_grad=True) for shape in ((2, 11, 3, 4), (2, 11, 3, 4), (2, 3, 4)))
    torch.library.opcheck(scan_operator, (a, b, first))


def test_the_scan_stands_decays_that_underflow_within_a_few_tokens() -> None:
    a = torch.full((1, 400, 1), 1e-30, requires_grad=True)
    b, first = torch.ones(1, 400, 1), torch.ones(1, 1)
    h = linear_scan(a, b, first)
    torch.testing.assert_close(h, torch.ones_like(h))
    (grad,) = gradients(h, a)
    assert grad.isfinite().all()
    assert grad.abs().min() > 0


@pytest.mark.parametrize("seq", [1, 63, 100])
def test_the_gru_equals_that_of_torch_from_a_first_state_that_wants_a_gradient(seq: int) -> None:
    torch.manual_seed(0)
    reference = torch.nn.GRU(5, 5, batch_first=True).double()
    x, first = text(3, seq, 5).requires_grad_(), text(3, 1, 5)[:, 0].requires_grad_()
    inputs = [x, first, *reference.all_weights[0]]
    y, (wanted, _) = gru(x, *reference.all_weights[0], first), reference(x, first[None])
    torch.testing.assert_close(y, wanted)
    for one, other in zip(gradients(y, *inputs), gradients(wanted, *inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_documents_restart_a_gru_in_the_middle_of_a_row_in_gradients_too() -> None:
    torch.manual_seed(0)
    weights = [w.detach().requires_grad_() for w in torch.nn.GRU(5, 5).double().all_weights[0]]
    x, first = text(2, 9, 5).requires_grad_(), text(2, 1, 5)[:, 0].requires_grad_()
    y = gru(x, *weights, first, torch.tensor([[0, 0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0]]).bool())
    zeros = torch.zeros_like(first[:1])
    cuts = ((x[:1, :3], first[:1]), (x[:1, 3:4], zeros), (x[:1, 4:], zeros))
    wanted = torch.stack(
        (torch.cat([gru(part, *weights, h) for part, h in cuts], dim=1)[0], gru(x[1:], *weights, first[1:])[0])
    )
    torch.testing.assert_close(y, wanted)
    inputs = [x, first, *weights]
    for one, other in zip(gradients(y, *inputs), gradients(wanted, *inputs), strict=True):
        torch.testing.assert_close(one, other)


def selective_inputs(batch: int, seq: int, d: int = 3, d_state: int = 4, dtype: torch.dtype = torch.double) -> list[Tensor]:
    """dt, A, B, C, u and a first state, which all want gradients, and starts."""
    torch.manual_seed(0)
    dt, u = torch.rand(batch, seq, d, dtype=dtype), torch.randn(batch, seq, d, dtype=dtype)
    A, first = -torch.rand(d, d_state, dtype=dtype), torch.randn(batch, d, d_state, dtype=dtype)
    B, C = torch.randn(2, batch, seq, d_state, dtype=dtype)
    starts = torch.rand(batch, seq) < 0.1
    return [*(x.requires_grad_() for x in (dt, A, B, C, u, first)), starts]


@pytest.mark.parametrize("by", ["token", "piece"])
@pytest.mark.parametrize("numbers", [selective.NUMBERS, 300])
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("seq", [1, 63, 100])
def test_the_selective_scan_equals_a_loop_whole_and_in_pieces_of_rows_and_tokens(
    seq: int, documents: bool, numbers: int, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selective, "NUMBERS", numbers)  # 300: at most 3 of the 5 rows and 8 tokens at once
    if by == "piece":  # as on a GPU
        monkeypatch.setattr(selective, "walk", selective.leap)
        monkeypatch.setattr(selective, "walk_back", selective.leap_back)
    *inputs, starts = selective_inputs(5, seq)
    torch._dynamo.reset()
    for scan in (selective_scan, torch.compile(selective_scan, backend="aot_eager", fullgraph=True)):
        got = scan(*inputs, starts if documents else None)
        close(got, plain_selective_scan(*inputs, starts & documents), inputs)


def test_the_selective_scan_is_an_operator_that_a_compiler_can_trace() -> None:
    dt, A, B, C, u, first, starts = selective_inputs(5, 11)
    A, first = (x.detach().clone().requires_grad_() for x in (A.mT.expand(5, -1, -1), first.mT))
    torch.library.opcheck(selective.scan_operator, (dt, A, B, C, u, first, starts))


@pytest.mark.parametrize("rate", [-1e30, 0.0])
def test_the_selective_scan_stands_rates_that_forget_at_once_and_that_never_forget(rate: float) -> None:
    dt, A, *others, starts = selective_inputs(2, 40, dtype=torch.float32)
    inputs = [dt, torch.full_like(A, rate, requires_grad=True), *others]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    (got, _), (wanted, _) = selective_scan(*inputs, starts), plain_selective_scan(*exact, starts)
    torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=1e-5)
    for one, other in zip(gradients(got, *inputs), gradients(wanted.float(), *exact), strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-4, rtol=1e-4)


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, *(x.numel() for x in tree_leaves(made) if isinstance(x, Tensor)), 0)
        return made


def test_both_ways_through_a_piece_change_the_same_tensors_in_place() -> None:
    torch.manual_seed(0)
    decays, h, to_h = torch.rand(3, 37, 2, 3, 4, dtype=torch.double)
    first, carried = torch.randn(2, 2, 3, 4, dtype=torch.double)
    for walk, leap, start, other in (
        (selective.walk, selective.leap, first, h),
        (selective.walk_back, selective.leap_back, carried, to_h),
    ):
        one, two = ([decays.clone(), other.clone()] for _ in range(2))
        walk(*one, start)
        leap(*two, start)
        torch.testing.assert_close(two, one)


def test_on_a_gpu_a_piece_is_large_and_never_the_states_of_all_tokens() -> None:
    with FakeTensorMode():
        u, first = torch.empty(32, 1024, 1536, device="cuda"), torch.empty(32, 16, 1536, device="cuda")
        rows, tokens = selective.piece(u, first)
    assert rows == 32 and tokens > 32 and tokens * first.numel() <= selective.NUMBERS_ON_GPU < u.numel() * 16 / 8


@pytest.mark.parametrize(("batch", "seq", "d"), [(1, 4000, 128), (40, 64, 256)])
def test_the_selective_scan_never_makes_a_tensor_of_the_states_of_all_tokens(batch: int, seq: int, d: int) -> None:
    *inputs, starts = selective_inputs(batch, seq, d, 16, torch.float32)
    with Largest() as largest:
        y, last = selective_scan(*inputs, starts)
        (y.sum() + last.sum()).backward()
    assert 0 < largest.numbers < batch * seq * d * 16 / 6


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("compiled", [False, True])
def test_without_room_pair_decays_are_made_anew_and_the_numbers_are_the_same(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    q, k, v, decay = (torch.randn(2, 64, 3, 8) for _ in range(4))
    inputs = [x.requires_grad_() for x in (q, k, v, torch.nn.functional.logsigmoid(decay).detach(), torch.randn(2, 3, 8, 8))]
    pairs = 2 * 64 * 3 * 8 * 16  # numbers of the decays between all pairs of a chunk of 16

    def run() -> tuple[tuple[Tensor, Tensor], int]:
        kept: list[int] = []
        attend = decayed_attention
        if compiled:
            torch.compiler.reset()
            attend = torch.compile(attend, backend="aot_eager", fullgraph=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
            found = attend(*inputs, chunk=16)
        return found, max(kept)

    wanted, most = run()
    monkeypatch.setattr(chunked, "has_room", lambda x: False)
    found, least = run()
    assert least < pairs and (compiled or most >= pairs)
    close(found, wanted, inputs)


@every_mixer
def test_a_cache_goes_on_in_pieces_across_documents(kind: type[SequenceMixer]) -> None:
    layer, x = mixer(kind), text(2, 40)
    positions = torch.stack([packed(10, 2, 1, 27), packed(13, 27)])  # starts inside, at the end and just after a piece
    full = layer(x, positions=positions)
    cache, pieces = layer.init_cache(2, 40), (11, 1, 1, 2, 5, 20)
    parts = zip(x.split(pieces, dim=1), positions.split(pieces, dim=1), strict=True)
    torch.testing.assert_close(torch.cat([layer(part, positions=p, cache=cache) for part, p in parts], dim=1), full)


@every_mixer
def test_a_cache_may_be_given_positions_for_the_prompt_alone(kind: type[SequenceMixer]) -> None:
    layer, x = mixer(kind), text(1, 30)
    positions = packed(9, 21)[None]
    cache = layer.init_cache(1, 30)
    y = torch.cat([layer(x[:, :10], positions=positions[:, :10], cache=cache), layer(x[:, 10:], cache=cache)], dim=1)
    torch.testing.assert_close(y, layer(x, positions=positions))


@every_mixer
def test_padding_is_invisible(kind: type[SequenceMixer]) -> None:
    layer, x, inside = mixer(kind), text(2, 60).requires_grad_(), slice(7, 40)
    positions = torch.cat((torch.full((7,), -1), torch.arange(33), torch.full((20,), -1))).expand(2, -1)
    y, alone = layer(x, positions=positions)[:, inside], layer(x[:, inside])
    torch.testing.assert_close(y, alone)
    inputs = (x, *layer.parameters())
    torch.testing.assert_close(gradients(y, *inputs), gradients(alone, *inputs))
    cache, pieces = layer.init_cache(2, 60), (5, 1, 10, 1, 43)
    parts = zip(x.split(pieces, dim=1), positions.split(pieces, dim=1), strict=True)
    decoded = torch.cat([layer(part, positions=p, cache=cache) for part, p in parts], dim=1)
    torch.testing.assert_close(decoded[:, inside], alone)


@every_mixer
def test_the_state_has_the_reported_bytes_at_every_length(kind: type[SequenceMixer]) -> None:
    layer = mixer(kind)
    for length in (1, 50):
        cache = layer.init_cache(1, length)
        layer(text(1, length), cache=cache)
        held = (cache.window, cache.state) if isinstance(cache, StateCache) else cache.state  # type: ignore[attr-defined]
        assert sum(part.untyped_storage().nbytes() for part in held) == layer.cost(length).state_bytes


@every_mixer
def test_reported_flops_are_the_counted_ones(kind: type[SequenceMixer]) -> None:
    layer = mixer(kind)
    for seq in (1, 50):
        with FlopCounterMode(display=False) as counter:
            layer(text(2, seq))
        assert counter.get_total_flops() == pytest.approx(2 * seq * layer.cost(seq).flops, rel=1e-12)


def test_parameters_follow_the_classical_formulas() -> None:
    assert GRU(d_model=24).cost(1).params == 6 * 24**2 + 6 * 24
    assert LSTM(d_model=24).cost(1).params == 8 * 24**2 + 8 * 24


@pytest.mark.parametrize("factor", [0.5, 0.2])
@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_the_output_of_a_layer_without_a_projection_is_scaled_through_its_candidate(
    kind: type[SequenceMixer], factor: float
) -> None:
    x = torch.randn(4, 100, 48, generator=torch.Generator().manual_seed(1))
    for size, least, most in (
        (0.3, 0.9, 1.1),
        (1.0, 1.0, 1.4),
    ):  # nearly linear; bent by the tanh, which the factor straightens
        layer = kind(d_model=48)
        initialise(layer, seed=0)
        before = layer(size * x).square().mean().sqrt()
        layer.scale_output(factor)
        assert least < layer(size * x).square().mean().sqrt() / before / factor < most


def test_a_mamba_130m_layer_has_its_published_parameters() -> None:
    with torch.device("meta"):
        layer, norm = Mamba(d_model=768), RMSNorm(d_model=768)
    assert layer.cost(1024).params + norm.cost(1024).params == 3_771_648
    d_inner, d_state, d_conv, dt_rank = 1536, 16, 4, 48
    assert layer.cost(1).params == d_inner * (3 * 768 + 2 * dt_rank + 3 * d_state + d_conv + 3)


def test_a_mamba2_130m_has_its_published_parameters() -> None:
    with torch.device("meta"):
        layer, norm = Mamba2(d_model=768), RMSNorm(d_model=768)
    per_layer, norms = layer.cost(1024).params, norm.cost(1024).params
    assert 50288 * 768 + 24 * (per_layer + norms) + norms == 128_989_632
    i, h, w = 1536, 24, 1536 + 2 * 128
    assert per_layer == 768 * (2 * i + w + h) + w * (4 + 1) + i + 3 * h


def test_linear_attentions_follow_their_formulas() -> None:
    with torch.device("meta"):
        gla, delta = GatedLinearAttention(d_model=768, n_heads=4), GatedDeltaNet(d_model=768, n_heads=6)
    assert gla.cost(1).params == 4 * 768**2 + 768 * 16 + 16 * 384 + 384 + 192
    assert delta.cost(1).params == 6 * 768**2 + 768 * 12 + (2 * 576 + 1152) * 4 + 192 + 12


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"d_head=5 does not divide the 2 \* 6 = 12 inner channels"):
        Mamba2(d_model=6, d_head=5)
    with pytest.raises(ValueError, match="n_groups=2 does not divide the 12 / 4 = 3 heads"):
        Mamba2(d_model=6, d_head=4, n_groups=2)
    for kind in (GatedLinearAttention, GatedDeltaNet):
        with pytest.raises(ValueError, match="n_heads=3 does not divide d_key=6 or d_value=8"):
            kind(d_model=6, n_heads=3, d_key=6, d_value=8)


def chunk_inputs(seq: int, groups: int, d_decay: int, dtype: torch.dtype = torch.double) -> list[Tensor]:
    """q, k, v, decay, state: 2 texts, 6 heads, keys of 3 and values of 2 channels."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, seq, groups, 3, dtype=dtype)
    v, state = torch.randn(2, seq, 6, 2, dtype=dtype), torch.randn(2, 6, 3, 2, dtype=dtype)
    decay = -torch.rand(2, seq, 6, d_decay, dtype=dtype) * 3
    decay[0, seq // 2] = -math.inf  # a new document
    decay[1, seq // 3] = 0  # nothing is forgotten
    return [q, k, v, decay, state]


@pytest.mark.parametrize("chunk", [1, 7, 16, 64])
@pytest.mark.parametrize("seq", [1, 63, 100])
@pytest.mark.parametrize(("groups", "d_decay"), [(2, 1), (6, 1), (2, 3), (6, 3)])
def test_decayed_attention_in_chunks_equals_a_loop(seq: int, chunk: int, groups: int, d_decay: int) -> None:
    inputs = [x.requires_grad_() for x in chunk_inputs(seq, groups, d_decay)]
    close(decayed_attention(*inputs, chunk=chunk), plain_attention(*inputs), inputs)


@pytest.mark.parametrize("chunk", [1, 7, 16, 64])
@pytest.mark.parametrize("seq", [1, 63, 100])
def test_the_delta_rule_in_chunks_equals_a_loop(seq: int, chunk: int) -> None:
    q, k, v, decay, state = chunk_inputs(seq, 6, 1)
    k = k / k.norm(dim=-1, keepdim=True)
    beta = torch.rand(2, seq, 6, 1, dtype=torch.double)
    inputs = [x.requires_grad_() for x in (q, k, v, decay, beta, state)]
    close(delta_rule(*inputs, chunk=chunk), plain_attention(q, k, v, decay, state, beta), inputs)


def close(got: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], inputs: list[Tensor]) -> None:
    """In outputs, last states, and the gradients of both together."""
    torch.testing.assert_close(got, wanted)
    together = [torch.cat([part.flatten() for part in pair]) for pair in (got, wanted)]
    for one, other in zip(*(gradients(y, *inputs) for y in together), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("d_decay", [1, 3])
def test_chunks_stand_decays_that_underflow_beside_weak_ones(d_decay: int) -> None:
    """In fp32 a running sum of these logarithms has lost the weak ones after a few tokens."""
    q, k, v, decay, state = chunk_inputs(100, 6, d_decay, torch.float32)
    decay = torch.where(torch.rand(decay.shape) < 0.3, -1e6, -0.01 * torch.rand(decay.shape))
    k, beta = k / k.norm(dim=-1, keepdim=True), torch.rand(2, 100, 6, 1)
    inputs = [x.requires_grad_() for x in (q, k, v, decay)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    pairs = [(decayed_attention(*inputs, state, chunk=64), plain_attention(*exact, state.double()))]
    if d_decay == 1:
        pairs.append((delta_rule(*inputs, beta, state, chunk=64), plain_attention(*exact, state.double(), beta.double())))
    for (got, _), (wanted, _) in pairs:
        torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=1e-5)
        for one, other in zip(gradients(got, *inputs), gradients(wanted.float(), *exact), strict=True):
            torch.testing.assert_close(one.double(), other, atol=1e-4, rtol=1e-4)


def test_a_group_of_heads_shares_its_queries_and_keys() -> None:
    q, k, *others = chunk_inputs(20, 2, 1)
    apart = (x.repeat_interleave(3, dim=2) for x in (q, k))
    torch.testing.assert_close(decayed_attention(q, k, *others, chunk=7), decayed_attention(*apart, *others, chunk=7))


@pytest.mark.parametrize("documents", [False, True])
@every_matrix_state
def test_a_compiler_sees_one_graph_with_the_same_gradients(kind: type[SequenceMixer], documents: bool) -> None:
    layer, x = mixer(kind), text(2, 20).requires_grad_()
    positions = packed(7, 13).expand(2, -1) if documents else None
    torch._dynamo.reset()
    y = torch.compile(layer, backend="aot_eager", fullgraph=True)(x, positions=positions)
    expected = layer(x, positions=positions)
    torch.testing.assert_close(y, expected)
    inputs = (x, *layer.parameters())
    for got, wanted in zip(gradients(y, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("kind", [Mamba2, GatedDeltaNet])
def test_decays_start_as_their_papers_have_them_after_the_models_initialiser(kind: type[SequenceMixer]) -> None:
    layer = Mamba2(d_model=512, d_head=8) if kind is Mamba2 else GatedDeltaNet(d_model=512, n_heads=128)
    initialise(layer, seed=0)
    dt, rate = torch.nn.functional.softplus(layer.dt_bias.detach()), layer.A_log.detach().exp()
    assert 0.00099 <= dt.min() < 0.003
    assert 0.04 < dt.max() <= 0.101
    assert rate.min() >= (1 if kind is Mamba2 else 0)
    assert rate.max() <= 16.001
    assert rate.mean() == pytest.approx(8.5 if kind is Mamba2 else 8, abs=1.5)


def test_a_mamba_starts_with_its_own_steps_and_decays_after_the_models_initialiser() -> None:
    layer = Mamba(d_model=64)
    initialise(layer, seed=0)
    dt = torch.nn.functional.softplus(layer.dt_bias.detach())
    assert dt.min() >= 0.00099
    assert dt.max() <= 0.101
    assert dt.log().mean() == pytest.approx(math.log(0.01), abs=0.4)  # log-uniform: the geometric mean of the two ends
    torch.testing.assert_close(-layer.A_log.exp()[5].detach(), -torch.arange(1.0, 17.0))
    assert (layer.D == 1).all()
    assert 0.9 * 0.5 < layer.dt_proj.abs().max() <= 4**-0.5


@pytest.mark.parametrize("documents", [False, True])
@every_mixer
def test_bf16_autocast_stays_near_fp32(kind: type[SequenceMixer], documents: bool) -> None:
    layer, x = mixer(kind, 24).float(), text(2, 33, 24).float()
    positions = packed(10, 23).expand(2, -1) if documents else None
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.bfloat16(), positions=positions)
    torch.testing.assert_close(y.float(), layer(x, positions=positions), atol=0.03, rtol=0.03)


@every_matrix_state
def test_a_state_is_kept_in_fp32_where_the_weights_are_not(kind: type[SequenceMixer]) -> None:
    layer = mixer(kind).bfloat16()
    cache = layer.init_cache(2, 8)
    for part in text(2, 8).bfloat16().split((5, 1, 2), dim=1):
        assert layer(part, cache=cache).dtype == torch.bfloat16
    assert isinstance(cache, StateCache)
    assert cache.state.dtype == torch.float32
    assert cache.window.dtype == torch.bfloat16
