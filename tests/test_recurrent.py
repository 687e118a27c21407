"""Recurrent mixers: the fast ways against the plain recurrences, documents, caches, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from arch.contracts import SequenceMixer
from arch.init import initialise
from arch.mixer import GRU, LSTM, Mamba
from arch.mixer.mamba import MambaCache
from arch.norm import RMSNorm
from arch.ops.scan import linear_scan, scan_operator
from tests.reference.scan import plain_mamba, plain_rnn, plain_scan

MIXERS = (GRU, LSTM, Mamba)
PLAIN: dict[type[SequenceMixer], Callable[..., Tensor]] = {GRU: plain_rnn, LSTM: plain_rnn, Mamba: plain_mamba}
every_mixer = pytest.mark.parametrize("kind", MIXERS)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads only get in each other's way at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mixer(kind: type[SequenceMixer], d_model: int = 6) -> SequenceMixer:
    torch.manual_seed(0)
    return kind(d_model=d_model).double()


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
def test_the_state_has_the_told_bytes_at_every_length(kind: type[SequenceMixer]) -> None:
    layer = mixer(kind)
    for length in (1, 50):
        cache = layer.init_cache(1, length)
        layer(text(1, length), cache=cache)
        kept = (cache.window, cache.state) if isinstance(cache, MambaCache) else cache.state  # type: ignore[attr-defined]
        assert sum(part.untyped_storage().nbytes() for part in kept) == layer.cost(length).state_bytes


@every_mixer
def test_told_flops_are_the_counted_ones(kind: type[SequenceMixer]) -> None:
    layer = mixer(kind)
    with FlopCounterMode(display=False) as counter:
        layer(text(2, 50))
    assert counter.get_total_flops() == 2 * 50 * layer.cost(50).flops


def test_parameters_follow_the_classical_formulas() -> None:
    assert GRU(d_model=24).cost(1).params == 6 * 24**2 + 6 * 24
    assert LSTM(d_model=24).cost(1).params == 8 * 24**2 + 8 * 24


def test_a_mamba_130m_layer_has_its_published_parameters() -> None:
    with torch.device("meta"):
        layer, norm = Mamba(d_model=768), RMSNorm(d_model=768)
    assert layer.cost(1024).params + norm.cost(1024).params == 3_771_648
    d_inner, d_state, d_conv, dt_rank = 1536, 16, 4, 48
    assert layer.cost(1).params == d_inner * (3 * 768 + 2 * dt_rank + 3 * d_state + d_conv + 3)


def test_a_mamba_starts_with_its_own_steps_and_decays_after_the_models_initialiser() -> None:
    layer = Mamba(d_model=64)
    initialise(layer, seed=0, n_layers=2)
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
