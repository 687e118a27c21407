"""The routed ffn: equal to its plain twin with every router, on every path, and exactly as much work as it tells."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from arch.contracts import ChannelMixer, Router
from arch.ffn import GLU, MLP, Experts, MoE
from arch.losses import load_balance_loss, router_z_loss
from arch.ops import bank as ops
from arch.ops.activation import ACTIVATIONS, GRADIENTS
from arch.ops.bank import in_steps
from arch.ops.grouped import blocked, native
from arch.router import Balanced, ExpertChoice, Hash, NoisyTopK, Switch, TopK
from arch.routing import dropped, load, pop_routings
from tests.reference import moe as plain

SIZES = [1, 63, 100]
ROUTERS: dict[str, Callable[..., Router]] = {
    "topk": TopK,
    "topk_after": lambda **sizes: TopK(**sizes, softmax="after"),
    "noisy": NoisyTopK,
    "switch": lambda **sizes: Switch(**sizes, capacity_factor=0.8),
    "expert_choice": ExpertChoice,
    "balanced": Balanced,
    "hash": Hash,
}
every_router = pytest.mark.parametrize("router", ROUTERS)


def make(
    router: str, d_model: int = 10, d_ff: int = 7, n_experts: int = 5, top_k: int = 2, *, gated: bool = False, shared: int = 0
) -> MoE:
    torch.manual_seed(0)
    return MoE(
        d_model=d_model,
        router=ROUTERS[router](d_model=d_model, n_experts=n_experts, top_k=top_k),
        experts=Experts(d_model=d_model, d_ff=d_ff, n_experts=n_experts, activation="silu" if gated else "gelu", gated=gated),
        shared=MLP(d_model=d_model, d_ff=shared) if shared else None,
    )


def text(seq: int, d_model: int = 10, batch: int = 1) -> Tensor:
    return torch.randn(batch, seq, d_model, generator=torch.Generator().manual_seed(1))


def gradients(module: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Tensor]:
    """The output and every gradient of a weighted sum of it, by name."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    torch.manual_seed(7)
    y = run(x)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y)
    y.backward(weight)
    return {"y": y.detach(), "x": x.grad} | {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda m, name=name: f"{name}: {m}", **tolerance)


# Against the plain twins


@every_router
@pytest.mark.parametrize("seq", SIZES)
@pytest.mark.parametrize("kind", [{}, {"gated": True, "shared": 6}], ids=["mlp", "gated_shared"])
def test_outputs_and_all_gradients_equal_the_twin(router: str, seq: int, kind: dict[str, Any]) -> None:
    moe, x = make(router, **kind), text(seq, batch=2)
    assert_equal(gradients(moe, moe, x), gradients(moe, lambda x: plain.moe(moe, x), x), atol=1e-5, rtol=1e-4)


def matmul_case(counts: list[int], rows: int, d_in: int = 9, d_out: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x, weight = torch.randn(rows, d_in), torch.randn(len(counts), d_out, d_in)
    return x, weight, torch.tensor(counts), torch.randn(rows, d_out)


COUNTS = {
    "one_row": ([0, 1, 0], 1),
    "odd": ([17, 0, 45, 1], 63),
    "dropped_tail": ([30, 0, 41, 2], 100),
    "one_expert": ([100], 100),
    "one_takes_all": ([0, 0, 300, 0], 300),
    "nobody_served": ([0, 0], 5),
    "whole_blocks": ([128, 256, 0, 128], 512),
}
PATHS: dict[str, Callable[..., Tensor]] = {
    "native": native,
    "blocks_of_128": blocked,
    "blocks_of_4": lambda *a: blocked(*a, size=4),
}


def of_matmul(run: Callable[..., Tensor], x: Tensor, weight: Tensor, counts: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = run(x, weight, counts)
    return (y, *torch.autograd.grad(y, (x, weight), grad))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", COUNTS)
def test_every_path_of_the_grouped_product_equals_the_twin(path: str, case: str) -> None:
    widths = {"d_in": 12, "d_out": 8} if path == "native" else {}  # whole 16 bytes, which has_native sees to
    inputs = matmul_case(*COUNTS[case], **widths)
    for found, expected in zip(of_matmul(PATHS[path], *inputs), of_matmul(plain.grouped_matmul, *inputs), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_rows_past_the_last_group_are_exact_zeros_and_so_are_their_gradients(path: str) -> None:
    x, weight, counts, grad = matmul_case([3, 0, 4], 20, d_in=12, d_out=8)
    y, to_x, to_weight = of_matmul(PATHS[path], x, weight, counts, grad)
    assert not y[7:].any() and not to_x[7:].any()
    assert not to_weight[1].any()  # an expert without rows
    assert y[:7].all() and to_x[:7].all() and to_weight[[0, 2]].all()


@pytest.mark.parametrize("path", PATHS)
def test_an_expanded_gradient_is_taken_like_any_other(path: str) -> None:
    x, weight, counts, _ = matmul_case([3, 0, 4], 7, d_in=12, d_out=8)
    expected = of_matmul(plain.grouped_matmul, x, weight, counts, torch.ones(7, 8))
    found = of_matmul(PATHS[path], x, weight, counts, torch.ones(()).expand(7, 8))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_gradients_of_the_grouped_product_are_those_of_finite_differences() -> None:
    x, weight, counts, _ = matmul_case([2, 0, 3], 6, d_in=3, d_out=2)
    assert torch.autograd.gradcheck(blocked, (x.double().requires_grad_(), weight.double().requires_grad_(), counts))


# The bank: expert by expert, the same as torch.compile sees it, and as where nobody may wait for the counts

N_TOKENS = 7  # few: every expert with many rows meets a token more than once
Factors = list[Tensor]  # x, gate, outward and one or two inward banks
every_kind = pytest.mark.parametrize("matrices", [1, 2], ids=["mlps", "glus"])


@pytest.fixture(params=["eager", "in_steps", "operators", "blocked", "native"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "in_steps":
        monkeypatch.setattr(ops, "pays", lambda x, weight: True)
    if name == "operators":
        monkeypatch.setattr(ops, "is_compiling", lambda: True)
    if name in ("blocked", "native"):
        monkeypatch.setattr(ops, "expert_bank", ops.by_groups)
        monkeypatch.setattr(ops, "grouped_matmul", {"blocked": blocked, "native": native}[name])
    return name


def bank_case(matrices: int, counts: list[int], rows: int) -> tuple[Callable[..., Callable[..., Tensor]], Factors]:
    """The bank of a module (this one or the twins') as a function of the factors that have gradients, and these factors."""
    torch.manual_seed(0)
    token, sizes = torch.randint(N_TOKENS, (rows,)), torch.tensor(counts)

    def of(module: ModuleType) -> Callable[..., Tensor]:
        def run(x: Tensor, gate: Tensor, outward: Tensor, *inward: Tensor) -> Tensor:
            y: Tensor = module.expert_bank(x, token, gate, sizes, list(inward), outward, "silu")
            return y

        return run

    n = len(counts)
    return of, [
        torch.randn(N_TOKENS, 12),
        torch.rand(rows),
        torch.randn(n, 12, 8) / 8**0.5,
        *(torch.randn(n, 8, 12) / 12**0.5 for _ in range(matrices)),
    ]


def of_bank(run: Callable[..., Tensor], factors: Factors, *, frozen: tuple[int, ...] = ()) -> list[Tensor | None]:
    """The output and the gradients of a weighted sum of it; None for the factors that are frozen."""
    leaves = [t.clone().requires_grad_(i not in frozen) for i, t in enumerate(factors)]
    y = run(*leaves)
    if y.requires_grad:  # the twin's does not where nobody is served
        (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    return [y, *(leaf.grad for leaf in leaves)]


@every_kind
@pytest.mark.parametrize("case", COUNTS)
def test_every_way_of_a_bank_equals_the_twin(way: str, matrices: int, case: str) -> None:
    of, factors = bank_case(matrices, *COUNTS[case])
    for found, expected in zip(of_bank(of(ops), factors), of_bank(of(plain), factors), strict=True):
        twins = torch.zeros_like(found) if expected is None else expected
        torch.testing.assert_close(found, twins, atol=1e-4, rtol=1e-5)  # a gradient sums up to 300 rows of a token


def test_rows_past_the_last_group_meet_no_expert(way: str) -> None:
    token, counts = torch.tensor([0, 1, 2, 3, 3, 5, 6, *[4] * 13]), torch.tensor([3, 0, 4])
    x, gate, up, down = torch.randn(7, 12), torch.rand(20), torch.randn(3, 8, 12), torch.randn(3, 12, 8)
    leaves = [t.requires_grad_() for t in (x, gate, up, down)]
    y = ops.expert_bank(x, token, gate, counts, [up], down, "gelu")
    y.square().sum().backward()
    met = torch.tensor([0, 1, 2, 3, 5, 6])  # token 4 comes only after the last group
    for served, unserved in ((y[met], y[4]), (x.grad[met], x.grad[4]), (gate.grad[:7], gate.grad[7:])):
        assert served.all() and not unserved.any()
    for bank in leaves[2:]:
        assert bank.grad[[0, 2]].all() and not bank.grad[1].any()  # an expert without rows


def test_rows_in_steps_are_the_same_rows() -> None:
    token, gate, counts = torch.arange(1, 101), torch.arange(1.0, 101), torch.tensor([33, 0, 64, 1])  # two have no expert
    tokens, gates, filled = in_steps(token, gate, counts)
    assert filled.tolist() == [64, 0, 64, 32] and tokens.shape == gates.shape == (100 + 4 * 31,)
    for found in (tokens, gates):
        assert found[:33].tolist() == list(range(1, 34)) and not found[33:64].any()
        assert found[64:128].tolist() == list(range(34, 98)) and found[128] == 98 and not found[129:160].any()
        assert found[160:162].tolist() == [99, 100] and not found[162:].any()


def test_a_bank_takes_an_expanded_gradient_like_any_other(way: str) -> None:
    of, factors = bank_case(2, [3, 0, 4], 7)

    def summed(module: ModuleType) -> Callable[..., Tensor]:
        return lambda *factors: of(module)(*factors).sum().expand(1)

    for found, expected in zip(of_bank(summed(ops), factors), of_bank(summed(plain), factors), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@every_kind
@pytest.mark.parametrize("way", ["eager", "in_steps", "operators", "blocked"], indirect=True)  # grouped_mm has no fp64
def test_the_gradients_of_a_bank_are_those_of_finite_differences(way: str, matrices: int) -> None:
    of, factors = bank_case(matrices, [2, 0, 3], 6)
    assert torch.autograd.gradcheck(of(ops), [t.double().requires_grad_() for t in factors], fast_mode=True)


@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (3,), (4,), (2, 3, 4)])
def test_what_is_frozen_changes_no_other_gradient(way: str, frozen: tuple[int, ...]) -> None:
    of, factors = bank_case(2, [3, 0, 4], 9)
    found = of_bank(of(ops), factors, frozen=frozen)
    expected = of_bank(of(plain), factors, frozen=frozen)
    assert [t is None for t in found] == [t is None for t in expected] and None in found
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_of_an_activation_is_what_torch_finds(activation: str) -> None:
    x, grad = torch.linspace(-3, 3, 101, requires_grad=True), torch.linspace(1, 2, 101)
    (expected,) = torch.autograd.grad(ACTIVATIONS[activation](x), x, grad)
    torch.testing.assert_close(GRADIENTS[activation](grad, x.detach()), expected)


def test_the_rows_of_a_token_are_summed_in_fp32_in_both_directions(way: str) -> None:
    rows = 300  # of one token, an expert each: in bf16 a sum of equal numbers stops growing at 256 of them
    token, gate, ones = torch.zeros(rows, dtype=torch.int64), torch.ones(rows), torch.ones(rows, 8, 8)
    counts = torch.ones(rows, dtype=torch.int64)
    x = torch.ones(1, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = ops.expert_bank(x, token, gate, counts, [ones], ones, "relu")
    y.sum().backward()
    assert y.dtype == torch.float32
    assert torch.equal(y, torch.full((1, 8), 300 * 64.0))
    torch.testing.assert_close(x.grad, torch.full((1, 8), 300 * 64.0), atol=0, rtol=2**-8)  # rounded to bf16 once


@every_kind
def test_a_bank_compiles_in_one_graph(matrices: int) -> None:
    of, factors = bank_case(matrices, [30, 0, 41, 2], 100)
    torch.compiler.reset()
    compiled = torch.compile(of(ops), backend="aot_eager", fullgraph=True)
    for found, expected in zip(of_bank(compiled, factors), of_bank(of(ops), factors), strict=True):
        torch.testing.assert_close(found, expected)


def test_shapes_are_known_without_data() -> None:
    for router in ROUTERS:
        moe = make(router).to("meta")
        assert moe(torch.empty(2, 9, 10, device="meta")).shape == (2, 9, 10)


# Equalities with dense ffns


@every_router
@pytest.mark.parametrize("gated", [False, True])
def test_one_expert_is_the_dense_ffn(router: str, gated: bool) -> None:
    moe, x = make(router, n_experts=1, top_k=1, gated=gated), text(63)
    if isinstance(moe.router, Switch):
        moe.router.capacity_factor = 1.0
    dense: ChannelMixer = GLU(d_model=10, d_ff=7) if gated else MLP(d_model=10, d_ff=7)
    for name, linear in dense.named_children():
        linear.weight.data = getattr(moe.experts, name)[0].detach().clone()
    found, expected = gradients(moe, moe, x), gradients(dense, dense, x)
    for name, value in expected.items():
        mine = found[name if name in ("x", "y") else f"experts.{name.removesuffix('.weight')}"]
        torch.testing.assert_close(mine.view_as(value), value, atol=1e-5, rtol=1e-5)


def test_all_experts_with_gates_of_one_are_one_wide_dense_ffn() -> None:
    moe, x = make("hash", n_experts=3, top_k=3), text(63)
    wide = MLP(d_model=10, d_ff=21)
    wide.up_proj.weight.data = moe.experts.up_proj.detach().flatten(0, 1)
    wide.down_proj.weight.data = moe.experts.down_proj.detach().permute(1, 0, 2).flatten(1)
    torch.testing.assert_close(moe(x), wide(x), atol=1e-5, rtol=1e-5)


def test_the_shared_ffn_works_on_every_token_also_on_those_dropped() -> None:
    moe, x = make("switch", shared=6, top_k=1), text(100)
    y = moe(x)
    lost = moe.routing.token[moe.routing.expert == 5]
    assert 0 < len(lost) < 100
    assert torch.equal(y[0, lost], moe.shared(x)[0, lost])


# Exactly k experts


@pytest.mark.parametrize("router", ["topk", "topk_after", "noisy", "switch", "balanced", "hash"])
def test_only_the_k_chosen_experts_are_met(router: str) -> None:
    moe, x = make(router, n_experts=6, top_k=2).eval(), text(1)
    before = moe(x)
    chosen = set(moe.routing.expert.tolist())
    assert len(chosen) == 2
    for expert in range(6):
        poisoned = copy.deepcopy(moe)
        poisoned.experts.up_proj.data[expert] = float("nan")
        assert torch.equal(poisoned(x), before) == (expert not in chosen)


@every_router
@pytest.mark.parametrize("shared", [0, 6])
def test_the_told_cost_is_the_built_and_the_counted_one(router: str, shared: int) -> None:
    moe = make(router, shared=shared, d_model=8, d_ff=12, n_experts=4, gated=True)  # 50 tokens make 100 assignments
    cost, x = moe.cost(seq=50), text(50, d_model=8)
    with FlopCounterMode(display=False) as counter:
        y = moe(x.requires_grad_())
        forward = counter.get_total_flops()
        y.sum().backward()
    expert = 3 * 8 * 12
    others = cost.params - 4 * expert
    assert cost.params == sum(p.numel() for p in moe.parameters())
    assert cost.active_params == others + 2 * expert
    unserved = 2 * expert * round(dropped(moe.routing).item() * 100)  # what a full expert turned away costs nothing
    assert 50 * cost.flops - unserved == forward
    assert (unserved > 0) == (router == "switch")
    routing = 2 * sum(w.numel() for w in [*moe.router.parameters(), *moe.router.buffers()] if w.dim() == 2)
    unlearned = 50 * routing if router == "hash" else 0  # no gradient
    assert counter.get_total_flops() == 3 * forward - 2 * unlearned
    assert cost.state_bytes == 0


# Gradients


@every_router
def test_no_gradient_is_dropped(router: str) -> None:
    moe, x = make(router, n_experts=4, gated=True, shared=6), text(100).requires_grad_()
    moe(x).square().sum().backward()
    assert load(moe.routing).all()
    for name, parameter in moe.named_parameters():
        assert parameter.grad.flatten(1).any(dim=1).all(), name
    assert x.grad.any(dim=-1).all()


def test_an_expert_that_nobody_meets_has_a_zero_gradient() -> None:
    moe, x = make("balanced"), text(63)
    moe.router.bias[2] = -10
    found = gradients(moe, moe, x)
    assert load(moe.routing)[2] == 0
    for name in ("experts.up_proj", "experts.down_proj"):
        assert not found[name][2].any() and found[name][3].any()


def test_frozen_experts_and_a_frozen_input_cost_the_others_nothing() -> None:
    moe, x = make("topk"), text(63)
    with FlopCounterMode(display=False) as learning:
        expected = gradients(moe, moe, x)
    moe.experts.requires_grad_(False)
    with FlopCounterMode(display=False) as frozen:
        found = gradients(moe, moe, x)
    assert learning.get_total_flops() - frozen.get_total_flops() == 63 * 2 * moe.experts.cost(63).flops
    assert_equal(found, {name: expected[name] for name in found})
    assert "router.weight" in found and "experts.up_proj" not in found


@pytest.mark.parametrize("router", ["topk", "noisy", "switch"])
def test_checkpointing_keeps_the_gradients_of_the_losses_on_the_routing(router: str) -> None:
    moe, x = make(router), text(63)

    def run(x: Tensor, recompute: bool) -> Tensor:
        y = checkpoint(moe, x, use_reentrant=False) if recompute else moe(x)
        (routing,) = pop_routings(moe).values()
        return y.sum() + load_balance_loss(routing) + router_z_loss(routing)

    assert_equal(gradients(moe, lambda x: run(x, True), x), gradients(moe, lambda x: run(x, False), x))


# As a module among others


@pytest.mark.parametrize("router", ["topk", "switch", "expert_choice"])
def test_compiled_equals_eager_in_one_graph(router: str) -> None:
    moe, x = make(router, gated=True), text(63)
    torch.compiler.reset()
    compiled = torch.compile(moe, backend="aot_eager", fullgraph=True)

    def run(ffn: nn.Module) -> Callable[[Tensor], Tensor]:
        def losses(x: Tensor) -> Tensor:
            y = ffn(x)
            (routing,) = pop_routings(moe).values()
            return torch.cat([y.flatten(), load_balance_loss(routing)[None], router_z_loss(routing)[None]])

        return losses

    assert_equal(gradients(moe, run(compiled), x), gradients(moe, run(moe), x))


@pytest.mark.parametrize("path", ["native", "blocks_of_128"])
def test_the_paths_without_waiting_compile_in_one_graph(path: str) -> None:
    x, weight, counts, grad = matmul_case([30, 0, 41, 2], 100, d_in=16, d_out=8)
    inputs = (x.bfloat16(), weight.bfloat16(), counts, grad.bfloat16())
    torch.compiler.reset()
    compiled = torch.compile(PATHS[path], backend="aot_eager", fullgraph=True)
    for found, expected in zip(of_matmul(compiled, *inputs), of_matmul(PATHS[path], *inputs), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_model_with_a_routing_on_it_can_be_copied_and_pickled() -> None:
    moe, x = make("topk", gated=True), text(9)
    y = moe(x)
    for twin in (copy.deepcopy(moe), pickle.loads(pickle.dumps(moe))):
        assert twin.routing is None
        assert torch.equal(twin(x), y)
    assert moe.routing is not None and "routing" not in "".join(moe.state_dict())


def test_the_shape_of_the_input_does_not_matter() -> None:
    moe, x = make("topk"), text(12)
    y = moe(x)
    for shape in ((12, 10), (3, 4, 10), (2, 3, 2, 10)):
        torch.testing.assert_close(moe(x.view(shape)), y.view(shape))
    strided = x.mT.contiguous().mT  # not contiguous
    torch.testing.assert_close(moe(strided), y)


@pytest.mark.parametrize("router", ["topk", "switch", "expert_choice"])
def test_bf16_weights_and_autocast_stay_near_fp32(router: str) -> None:
    moe, x = make(router), text(63)
    exact = moe(x)
    with torch.autocast("cpu", torch.bfloat16):
        auto = moe(x)
        dense = MLP(d_model=10, d_ff=7)(x)
    assert auto.dtype == dense.dtype == torch.bfloat16
    torch.testing.assert_close(auto.float(), exact, atol=2e-2, rtol=2e-2)
    auto.sum().backward()
    assert moe.experts.up_proj.grad.dtype == torch.float32 and moe.experts.up_proj.grad.any()
    half = copy.deepcopy(moe).bfloat16()
    assert half(x.bfloat16()).dtype == torch.bfloat16
    assert half.routing.logits.dtype == half.routing.gate.dtype == torch.float32


def test_causality_is_the_routers_and_the_shared_ffns() -> None:
    assert make("topk").causal and make("switch", shared=4).causal and not make("expert_choice").causal


def test_experts_that_do_not_fit_are_errors_with_both_numbers() -> None:
    router = TopK(d_model=8, n_experts=4, top_k=2)
    with pytest.raises(ValueError, match="among 4 experts but the bank has 6"):
        MoE(d_model=8, router=router, experts=Experts(d_model=8, d_ff=4, n_experts=6))
    with pytest.raises(ValueError, match="d_model=10, the MoE for d_model=8"):
        MoE(d_model=8, router=router, experts=Experts(d_model=10, d_ff=4, n_experts=4))
    with pytest.raises(ValueError, match="n_experts=0"):
        Experts(d_model=8, d_ff=4, n_experts=0)
    with pytest.raises(ValueError, match="did you mean 'gelu'"):
        Experts(d_model=8, d_ff=4, n_experts=4, activation="gleu")


# On a GPU


def on_gpu(test: Callable[..., None]) -> Callable[..., None]:
    marks = [
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        pytest.mark.filterwarnings("ignore:Synchronization debug mode", "ignore:TensorFloat32"),
    ]
    for mark in marks:
        test = mark(test)
    return test


@on_gpu
@pytest.mark.parametrize("path", ["native", "blocks_of_128"])
@pytest.mark.parametrize("case", COUNTS)
def test_gpu_paths_equal_the_twin_eager_and_compiled(path: str, case: str) -> None:
    if path == "native" and torch.cuda.get_device_properties(0).major < 9:
        pytest.skip("grouped_mm waits for the host before Hopper")
    dtype = torch.bfloat16 if path == "native" else torch.float32
    x, weight, counts, grad = (t.cuda() for t in matmul_case(*COUNTS[case], d_in=64, d_out=48))
    inputs = (x.to(dtype), weight.to(dtype), counts, grad.to(dtype))
    expected = of_matmul(plain.grouped_matmul, *inputs)
    torch.compiler.reset()
    for run in (PATHS[path], torch.compile(PATHS[path], fullgraph=True)):
        for found, value in zip(of_matmul(run, *inputs), expected, strict=True):
            torch.testing.assert_close(found, value)


@on_gpu
@every_router
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("widths", [(64, 48), (63, 41)], ids=["aligned", "odd"])
@pytest.mark.parametrize("compiled", [False, True])
def test_gpu_equals_cpu_and_never_waits(router: str, bf16: bool, widths: tuple[int, int], compiled: bool) -> None:
    moe = make(router, d_model=widths[0], d_ff=widths[1], gated=True).eval()  # the noise of training differs by device
    x = text(100, d_model=widths[0])
    expected = gradients(moe, moe, x)
    moe = moe.cuda()
    torch.compiler.reset()
    ffn = torch.compile(moe, fullgraph=True) if compiled else moe

    def run(x: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            return ffn(x)

    gradients(moe, run, x.cuda())  # what is set up once may wait
    leaf = x.cuda().requires_grad_()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).cuda()
    moe.zero_grad()
    torch.cuda.set_sync_debug_mode("error")
    try:
        y = run(leaf)
        y.backward(direction.to(y.dtype))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found = {"y": y.detach(), "x": leaf.grad} | {name: p.grad for name, p in moe.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = (found[name].float().cpu() - value).norm() / (value.norm() + 1e-3)
        assert error < (3e-2 if bf16 else 1e-4), f"{name} is off by {error:.4f}"


@on_gpu
def test_gpu_capacity_drops_without_waiting() -> None:
    moe, x = make("switch", d_model=64, d_ff=48), text(100, d_model=64)
    expected = gradients(moe, moe, x)
    share = dropped(moe.routing)
    moe = moe.cuda()
    found = gradients(moe, moe, x.cuda())
    assert 0 < dropped(moe.routing).cpu() == share
    assert_equal({name: value.cpu() for name, value in found.items()}, expected, atol=1e-4, rtol=1e-4)
