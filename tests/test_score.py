"""Scores: every kind against its formula, and what the scale is for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode

from arch.mixer import Attention
from arch.pattern import Full
from arch.score import DotProduct, FullWidthQKNorm, Gaussian, QKNorm, Score, Sink, SoftCap
from tests.reference.attention import (
    PATTERNS,
    SCORES,
    Weigh,
    one_thread,  # noqa: F401
    outputs_and_gradients,
    plain_attention,
    scaled,
    small_attention,
    softmax_of,
    text,
)

Normalise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def root_mean_square_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def plain_weights(score: Score) -> Weigh:
    """The weights that a query gives to keys, as the score's paper has them."""
    if isinstance(score, SoftCap):
        return softmax_of(lambda q, k, head: score.cap * torch.tanh(scaled(q, k, head) / score.cap))
    if isinstance(score, Sink):

        def with_sink(q: Tensor, k: Tensor, added: Tensor, head: int) -> Tensor:
            weights = (scaled(q, k, head) + added).exp()
            return weights / (weights.sum(-1, keepdim=True) + score.sink[head].exp())

        return with_sink
    if isinstance(score, Gaussian):

        def kernel(q: Tensor, k: Tensor, added: Tensor, head: int) -> Tensor:
            stretch = q.new_zeros(()) if score.log_stretch is None else score.log_stretch[head]
            variance = (score.sigma * stretch.exp()) ** 2
            weights = (-(q[:, None] - k[None]).square().sum(-1) / (2 * variance)).exp() * added.exp()
            return weights / weights.sum(-1, keepdim=True)

        return kernel
    assert isinstance(score, DotProduct)
    return softmax_of(lambda q, k, head: q @ k.T * (1 / math.sqrt(8) if score.scale is None else score.scale))


def plain_norm(score: Score) -> Normalise:
    """What happens to all heads' queries and keys, side by side, before the rotation."""
    if not isinstance(score, (QKNorm, FullWidthQKNorm)):
        return lambda q, k: (q, k)
    whole = isinstance(score, FullWidthQKNorm)

    def normed(x: Tensor, norm: torch.nn.Module) -> Tensor:
        heads = x if whole else x.unflatten(-1, (-1, 8))
        return root_mean_square_norm(heads, norm.weight, norm.eps).reshape(x.shape)

    return lambda q, k: (normed(q, score.q_norm), normed(k, score.k_norm))


@pytest.mark.parametrize("lengths", [(1,), (63,), (100,), (20, 1, 14)], ids=str)
@pytest.mark.parametrize("name", SCORES)
def test_every_score_equals_its_plain_twin(name: str, lengths: tuple[int, ...]) -> None:
    for pattern in ("full", "full, both sides", "strided"):
        layer, (x, positions) = small_attention(pattern, score=name), text(*lengths)
        plain = partial(plain_attention, layer, weigh=plain_weights(layer.score), normalise=plain_norm(layer.score))
        given = None if len(lengths) == 1 else positions
        torch.testing.assert_close(
            outputs_and_gradients(partial(layer, positions=given), x, layer),
            outputs_and_gradients(partial(plain, positions=positions, sees=PATTERNS[pattern][1]), x, layer),
        )


@pytest.mark.parametrize("name", SCORES)
def test_every_score_serves_grouped_heads(name: str) -> None:
    """6 query heads over 2 key heads equal 6 over 6 that are copies: without a mask, causal, hidden and biased pairs."""
    torch.manual_seed(0)
    score = {"sink": Sink(n_heads=6), "gaussian": Gaussian(d_head=8, n_heads=6)}.get(name) or SCORES[name]()
    with torch.no_grad():
        for parameter in score.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    q, k, v = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    copies = [t.repeat_interleave(3, dim=1) for t in (k, v)]
    hidden = torch.rand(2, 1, 5, 5) < 0.5
    hidden |= torch.eye(5, dtype=torch.bool)
    biased = torch.randn(2, 6, 5, 5).masked_fill(~hidden, -math.inf)
    for mask, causal in ((None, False), (None, True), (hidden, False), (biased, False)):
        y = score.attend(q, k, v, mask=mask, causal=causal)
        assert y.shape == (2, 6, 5, 8)
        torch.testing.assert_close(y, score.attend(q, *copies, mask=mask, causal=causal))
    lower = torch.ones(5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(score.attend(q, k, v, causal=True), score.attend(q, k, v, mask=lower[None, None]))


@pytest.mark.parametrize("name", SCORES)
def test_what_a_position_adds_is_added_to_the_score(name: str) -> None:
    score = small_attention(score=name).score
    q, k, v = torch.randn(2, 3, 5, 8).double(), torch.randn(2, 3, 7, 8).double(), torch.randn(2, 3, 7, 4).double()
    hidden = torch.rand(2, 3, 5, 7) < 0.3
    hidden[..., 0] = False
    added = torch.randn(2, 3, 5, 7).double().masked_fill(hidden, -math.inf)
    weigh = plain_weights(score)
    by_hand = torch.stack(
        [torch.stack([weigh(q[b, h], k[b, h], added[b, h], h) @ v[b, h] for h in range(3)]) for b in range(2)]
    )
    torch.testing.assert_close(score.attend(q, k, v, mask=added), by_hand)


def test_gaussian_attention_is_kernel_regression() -> None:
    """Nadaraya-Watson on a line: y(x) = sum_i K(x - x_i) y_i / sum_i K(x - x_i)."""
    x_known, y_known = torch.linspace(0, 5, 30), torch.linspace(0, 5, 30).sin()
    x_new = torch.tensor([0.3, 1.7, 4.0])
    kernel = (-((x_new[:, None] - x_known) ** 2) / (2 * 0.4**2)).exp()
    by_hand = (kernel * y_known).sum(1) / kernel.sum(1)
    score = Gaussian(d_head=1, n_heads=1, sigma=0.4, learned=False)
    q, k, v = (t.view(1, 1, -1, 1) for t in (x_new, x_known, y_known))
    torch.testing.assert_close(score.attend(q, k, v).flatten(), by_hand)


def test_a_gaussian_starts_as_the_scaled_dot_product_where_all_keys_are_equally_long() -> None:
    q, k, v = torch.randn(1, 2, 5, 8), torch.nn.functional.normalize(torch.randn(1, 2, 7, 8), dim=-1), torch.randn(1, 2, 7, 8)
    torch.testing.assert_close(Gaussian(d_head=8, n_heads=2).attend(q, k, v), DotProduct().attend(q, k, v))


def test_a_low_sink_changes_nothing_and_a_high_one_silences_the_head() -> None:
    q, k, v = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    sink = Sink(n_heads=2)
    with torch.no_grad():
        sink.sink.copy_(torch.tensor([-50.0, 50.0]))
    y = sink.attend(q, k, v, causal=True)
    torch.testing.assert_close(y[:, 0], DotProduct().attend(q, k, v, causal=True)[:, 0])
    assert y[:, 1].abs().max() < 1e-6


def test_a_high_cap_changes_nothing_and_a_low_one_bounds_every_weight() -> None:
    q, k = torch.randn(1, 2, 50, 8) * 3, torch.randn(1, 2, 50, 8) * 3
    v = torch.eye(50).expand(1, 2, 50, 50)  # the outputs are the weights
    torch.testing.assert_close(SoftCap(cap=1e5).attend(q, k, v), DotProduct().attend(q, k, v), atol=1e-5, rtol=1e-4)
    weights = SoftCap(cap=0.1).attend(q, k, v)
    assert (weights.amax(-1) / weights.amin(-1)).max() <= math.exp(0.2) * 1.0001
    assert DotProduct().attend(q, k, v).max() > 0.2


def test_qk_norm_is_blind_to_the_scale_of_its_inputs() -> None:
    x = torch.randn(2, 9, 24)
    for score in (QKNorm(d_head=8), FullWidthQKNorm(d_head=8, n_heads=3, n_kv_heads=1)):
        layer = Attention(d_model=24, n_heads=3, n_kv_heads=1, score=score)
        before = layer(x)
        with torch.no_grad():
            layer.q_proj.weight.mul_(50.0)
            layer.k_proj.weight.mul_(50.0)
        torch.testing.assert_close(layer(x), before, atol=1e-4, rtol=1e-3)


def test_unit_variance_makes_the_product_as_wide_as_the_head_and_the_scale_undoes_it() -> None:
    """Var(q . k) = d_head; without the scale the softmax of a wide head hardly looks at more than one key."""
    torch.manual_seed(0)
    entropies = {}
    for d in (16, 64, 256, 1024):
        q, k = torch.randn(1, 1, 400, d), torch.randn(1, 1, 200, d)
        products = q @ k.mT
        assert products.var().item() == pytest.approx(d, rel=0.1)
        v = torch.eye(200).expand(1, 1, 200, 200)  # the outputs are the weights
        for name, score in (("scaled", DotProduct()), ("unscaled", DotProduct(scale=1.0))):
            weights = score.attend(q, k, v)
            entropies[name, d] = -torch.special.xlogy(weights, weights).sum(-1).mean().item()
    assert all(entropies["scaled", d] > math.log(200) - 0.6 for d in (16, 64, 256, 1024))
    assert entropies["unscaled", 16] > entropies["unscaled", 64] > entropies["unscaled", 256] > entropies["unscaled", 1024]
    assert entropies["unscaled", 1024] < 0.3


def test_scores_report_their_parameters_through_the_layer() -> None:
    def own(score: Score) -> int:
        layer = Attention(d_model=24, n_heads=3, n_kv_heads=1, pattern=Full(), score=score)
        return layer.cost(8).params - (2 * 24 * 24 + 2 * 24 * 8)

    assert own(DotProduct()) == own(SoftCap(cap=1.0)) == own(Gaussian(d_head=8, n_heads=3, learned=False)) == 0
    assert own(Sink(n_heads=3)) == own(Gaussian(d_head=8, n_heads=3)) == 3
    assert own(QKNorm(d_head=8)) == 16
    assert own(FullWidthQKNorm(d_head=8, n_heads=3, n_kv_heads=1)) == 32


def test_impossible_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="cap=0: more than 0 is needed"):
        SoftCap(cap=0)
    with pytest.raises(ValueError, match=r"sigma=-1.0: more than 0 is needed"):
        Gaussian(d_head=8, n_heads=3, sigma=-1.0)


class Asked(TorchFunctionMode):
    """What torch's own attention is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, bool]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.nn.functional.scaled_dot_product_attention:
            self.calls.append((args[1].shape[1], kwargs["enable_gqa"]))
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("dtype", "bf16", "heads", "grouped"),
    [(torch.float32, False, 8, False), (torch.float32, True, 2, True), (torch.bfloat16, False, 2, True)],
)
def test_groups_are_written_out_in_fp32_on_a_gpu_whose_kernel_knows_none(
    dtype: torch.dtype, bf16: bool, heads: int, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: bf16)  # without a GPU autocast stays off
    with FakeTensorMode(), Asked() as asked:
        q, k, v = (torch.empty(1, n, 16, 32, dtype=dtype, device="cuda") for n in (8, 2, 2))
        assert DotProduct().attend(q, k, v, causal=True).shape == q.shape
    assert asked.calls == [(heads, grouped)]
