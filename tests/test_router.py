"""Routers: each against a plain twin, and what each promises about gates, capacity, noise and balance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from arch.contracts import Router, Routing
from arch.router import Balanced, ExpertChoice, Hash, NoisyTopK, Switch, TopK
from arch.routing import dropped, load
from tests.reference import moe as plain

D_MODEL, N_EXPERTS, TOP_K = 12, 5, 3
SIZES = [1, 63, 100]

MAKE: dict[str, Callable[[], Router]] = {
    "topk": lambda: TopK(d_model=D_MODEL, n_experts=N_EXPERTS, top_k=TOP_K),
    "topk_after": lambda: TopK(d_model=D_MODEL, n_experts=N_EXPERTS, top_k=TOP_K, softmax="after"),
    "noisy": lambda: NoisyTopK(d_model=D_MODEL, n_experts=N_EXPERTS, top_k=TOP_K),
    "switch": lambda: Switch(d_model=D_MODEL, n_experts=N_EXPERTS),
    "expert_choice": lambda: ExpertChoice(d_model=D_MODEL, n_experts=N_EXPERTS, top_k=TOP_K),
    "balanced": lambda: Balanced(d_model=D_MODEL, n_experts=N_EXPERTS, top_k=TOP_K),
    "hash": lambda: Hash(d_model=D_MODEL, n_experts=N_EXPERTS, top_k=TOP_K),
}
LEARNED = [name for name in MAKE if name != "hash"]
TOKEN_CHOICE = ["topk", "topk_after", "noisy", "balanced", "hash"]
every_router = pytest.mark.parametrize("name", MAKE)


def router(name: str, seed: int = 0) -> Router:
    torch.manual_seed(seed)
    return MAKE[name]()


def tokens(t: int, seed: int = 1) -> Tensor:
    return torch.randn(t, D_MODEL, generator=torch.Generator().manual_seed(seed))


def assert_same_choices(routing: Routing, expected: list[tuple[int, int, float]]) -> None:
    found = plain.choices(routing)
    assert [choice[:2] for choice in found] == [choice[:2] for choice in expected]
    assert [choice[2] for choice in found] == pytest.approx([choice[2] for choice in expected], rel=1e-5, abs=1e-7)


# Against the plain twins


@pytest.mark.parametrize("t", SIZES)
@pytest.mark.parametrize("softmax", ["before", "after"])
def test_topk_equals_its_twin(t: int, softmax: str) -> None:
    made = router("topk" if softmax == "before" else "topk_after")
    routing = made(tokens(t))
    torch.testing.assert_close(routing.logits, tokens(t) @ made.weight.T)
    assert_same_choices(routing, plain.topk(routing.logits, TOP_K, softmax == "before"))


@pytest.mark.parametrize("t", SIZES)
@pytest.mark.parametrize("training", [False, True])
def test_noisy_topk_equals_its_twin(t: int, training: bool) -> None:
    made = router("noisy").train(training)
    torch.manual_seed(3)
    routing = made(tokens(t))
    torch.manual_seed(3)
    noise = torch.randn(t, N_EXPERTS) * torch.log1p(torch.exp(tokens(t) @ made.noise_weight.T))
    torch.testing.assert_close(routing.logits, tokens(t) @ made.weight.T + training * noise)
    assert_same_choices(routing, plain.topk(routing.logits, TOP_K, softmax_before=False))


@pytest.mark.parametrize("t", SIZES)
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_switch_equals_its_twin(t: int, top_k: int) -> None:
    torch.manual_seed(0)
    made = Switch(d_model=D_MODEL, n_experts=N_EXPERTS, top_k=top_k, capacity_factor=0.9)
    routing = made(tokens(t))
    assert_same_choices(routing, plain.switch(routing.logits, top_k, capacity=math.ceil(0.9 * t * top_k / N_EXPERTS)))
    assert dropped(routing) > 0 or t == 1
    routing = made.eval()(tokens(t))
    assert_same_choices(routing, plain.switch(routing.logits, top_k, capacity=t * top_k))


@pytest.mark.parametrize("t", SIZES)
@pytest.mark.parametrize("top_k", [1, 1.5, 3, 5])
def test_expert_choice_equals_its_twin_and_is_balanced_by_construction(t: int, top_k: float) -> None:
    torch.manual_seed(0)
    routing = ExpertChoice(d_model=D_MODEL, n_experts=N_EXPERTS, top_k=top_k)(tokens(t))
    capacity = math.ceil(top_k * t / N_EXPERTS)
    assert_same_choices(routing, plain.expert_choice(routing.logits, capacity))
    assert load(routing).tolist() == [capacity] * N_EXPERTS


@pytest.mark.parametrize("t", SIZES)
def test_balanced_equals_its_twin_and_its_bias_chooses_without_weighing(t: int) -> None:
    made = router("balanced")
    made.bias.copy_(torch.tensor([0.0, 0.3, -0.3, 0.1, 0.0]))
    routing = made(tokens(t))
    assert_same_choices(routing, plain.balanced(routing.logits, made.bias, TOP_K))


@pytest.mark.parametrize("t", SIZES)
def test_hash_takes_the_nearest_directions_and_learns_nothing(t: int) -> None:
    made, x = router("hash"), tokens(t).requires_grad_()
    routing = made(x)
    expected = [(i, e, 1.0) for i, row in enumerate((x @ made.directions.T).tolist()) for e in plain.best(row, TOP_K)]
    assert_same_choices(routing, sorted(expected))
    assert not list(made.parameters()) and not routing.logits.requires_grad
    torch.testing.assert_close(made(5 * x).expert, routing.expert)  # the direction decides, not the length


# What every router promises


@every_router
@pytest.mark.parametrize("t", SIZES)
def test_a_routing_has_the_layout_of_the_contract(name: str, t: int) -> None:
    routing = router(name)(tokens(t))
    assert routing.logits.shape == (t, N_EXPERTS) and routing.logits.dtype == torch.float32
    assert routing.token.shape == routing.expert.shape == routing.gate.shape
    assert routing.token.min() >= 0 and routing.token.max() < t
    assert routing.expert.min() >= 0 and routing.expert.max() <= N_EXPERTS
    assert (routing.gate[routing.expert == N_EXPERTS] == 0).all()
    assert load(routing).sum() == (routing.expert < N_EXPERTS).sum()


@pytest.mark.parametrize("name", TOKEN_CHOICE)
def test_exactly_k_different_experts_work_on_each_token(name: str) -> None:
    routing = router(name)(tokens(63))
    pairs = set(zip(routing.token.tolist(), routing.expert.tolist(), strict=True))
    assert len(pairs) == 63 * TOP_K
    assert set(Counter(token for token, _ in pairs).values()) == {TOP_K}
    assert (routing.gate > 0).all() and dropped(routing) == 0


@pytest.mark.parametrize("name", ["topk_after", "noisy", "balanced"])
def test_the_gates_of_a_token_sum_to_one(name: str) -> None:
    gate = router(name)(tokens(63)).gate.view(63, TOP_K)
    torch.testing.assert_close(gate.sum(-1), torch.ones(63))


def test_softmax_before_the_choice_and_renormalised_is_softmax_after_it() -> None:
    before, after = (router(name)(tokens(63)) for name in ("topk", "topk_after"))
    gate = before.gate.view(63, TOP_K)
    assert torch.equal(before.expert, after.expert)
    torch.testing.assert_close((gate / gate.sum(-1, keepdim=True)).flatten(), after.gate)


@pytest.mark.parametrize("name", LEARNED)
def test_the_gates_alone_give_every_learned_router_a_gradient(name: str) -> None:
    made = router(name)
    routing = made(tokens(63))
    (routing.gate * torch.randn(routing.gate.shape)).sum().backward()
    for parameter in made.parameters():
        assert (parameter.grad != 0).any(dim=1).all()  # every expert's row


@every_router
def test_logits_and_choice_are_the_same_under_autocast_and_with_a_bf16_input(name: str) -> None:
    made, x = router(name).eval(), tokens(63).bfloat16()
    exact = made(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        routing = made(x)
    assert routing.real is exact.real is None
    for found, expected in zip(routing[:-1], exact[:-1], strict=True):
        assert torch.equal(found, expected) and found.dtype == expected.dtype


@every_router
def test_the_told_cost_is_that_of_the_weights(name: str) -> None:
    made = router(name)
    cost = made.cost(seq=64)
    maps = {"noisy": 2}.get(name, 1)
    assert cost.params == cost.active_params == sum(p.numel() for p in made.parameters())
    assert cost.flops == 2 * maps * D_MODEL * N_EXPERTS
    assert cost.state_bytes == 0


@every_router
def test_drawing_anew_is_a_function_of_the_seed(name: str) -> None:
    one, two = router(name), router(name, seed=5)
    assert not torch.equal(one(tokens(9)).logits, two(tokens(9)).logits)
    torch.manual_seed(9)
    one.reset_parameters()
    torch.manual_seed(9)
    two.reset_parameters()
    assert torch.equal(one.eval()(tokens(9)).logits, two.eval()(tokens(9)).logits)


@every_router
def test_only_expert_choice_looks_at_later_tokens(name: str) -> None:
    made, x = router(name).eval(), tokens(40)
    changed = torch.cat([x[:20], tokens(20, seed=2)])
    before, after = ([c for c in plain.choices(made(text)) if c[0] < 20] for text in (x, changed))
    assert (before == after) == made.causal == (name != "expert_choice")


# Capacity, noise, balance


def routed_to(experts: list[int], made: Switch) -> Tensor:
    """Tokens that a Switch with the identity as its weight sends to these experts."""
    torch.nn.init.eye_(made.weight)
    return 4.0 * torch.nn.functional.one_hot(torch.tensor(experts), D_MODEL).float()


def test_what_overflows_is_dropped_in_the_order_of_the_tokens_counted_by_hand() -> None:
    made = Switch(d_model=D_MODEL, n_experts=4, capacity_factor=1.0)  # 8 tokens, 4 experts: room for 2 each
    routing = made(routed_to([0, 0, 1, 0, 2, 0, 1, 1], made))
    assert routing.expert.tolist() == [0, 0, 1, 4, 2, 4, 1, 4]
    assert load(routing).tolist() == [2, 2, 1, 0]
    assert dropped(routing).item() == 3 / 8
    assert routing.gate[[3, 5, 7]].tolist() == [0, 0, 0]
    assert routing.gate[0].item() == pytest.approx(math.exp(4) / (math.exp(4) + 3))


def test_a_later_token_never_takes_the_place_of_an_earlier_one() -> None:
    made = Switch(d_model=D_MODEL, n_experts=4, capacity_factor=1.0)
    early = made(routed_to([0, 0, 1, 0, 2, 0, 1, 1], made)).expert[:4]
    late = made(routed_to([0, 0, 1, 0, 0, 0, 0, 0], made)).expert[:4]
    assert torch.equal(early, late)


def test_all_first_choices_are_served_before_any_second_counted_by_hand() -> None:
    made = Switch(d_model=D_MODEL, n_experts=4, top_k=2, capacity_factor=0.5)  # 4 tokens, 4 experts: room for 1 each
    with torch.no_grad():
        made.weight.zero_()
        made.weight[:, :4] = torch.eye(4)
    choices = [(0, 1), (1, 0), (2, 3), (2, 1)]  # of each token, best first
    x = torch.zeros(4, D_MODEL)
    for row, (first, second) in zip(x, choices, strict=True):
        row[first], row[second] = 4.0, 3.0
    routing = made(x)
    # First choices in the order of the tokens: 0 -> 0, 1 -> 1, 2 -> 2, and 2 is full for token 3. Then the second ones: 1 and 0
    # are full for tokens 0 and 1 (token by token, token 0 would have taken expert 1 from token 1), 3 is free for token 2.
    assert routing.expert.tolist() == [0, 4, 1, 4, 2, 3, 4, 4]
    share = 1 / (1 + math.exp(-1))
    assert routing.gate.tolist() == pytest.approx([share, 0, share, 0, share, 1 - share, 0, 0])


def test_a_larger_capacity_drops_less_and_a_sufficient_one_nothing() -> None:
    shares = []
    for factor in (0.5, 1.0, 1.5, N_EXPERTS):
        torch.manual_seed(0)
        shares.append(dropped(Switch(d_model=D_MODEL, n_experts=N_EXPERTS, capacity_factor=factor)(tokens(100))).item())
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[2] and shares[-1] == 0


def test_noise_is_drawn_from_the_seed_in_training_and_absent_in_evaluation() -> None:
    made, x = router("noisy"), tokens(63)
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(made(x).logits)
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    made.eval()
    assert torch.equal(made(x).logits, made(x).logits)


def test_biases_drive_a_skewed_load_towards_an_even_one() -> None:
    torch.manual_seed(0)
    made, x = Balanced(d_model=D_MODEL, n_experts=8, top_k=2, bias_rate=1e-2), tokens(512)
    x = x + 3 * made.weight[0].detach() / made.weight[0].norm()  # a common direction: everybody likes expert 0

    def excess() -> float:
        counts = load(made(x)).float()
        return (counts.max() / counts.mean()).item()

    start = excess()
    for _ in range(150):
        made.after_step(load(made(x)))
    assert start > 2 and excess() < 1.15
    assert made.bias[0] == made.bias.min() < 0


def test_biases_move_by_the_sign_of_what_is_missing_and_are_saved_not_trained() -> None:
    made = Balanced(d_model=D_MODEL, n_experts=4, top_k=2, bias_rate=0.25)
    made.after_step(torch.tensor([10, 2, 6, 6]))
    assert made.bias.tolist() == [-0.25, 0.25, 0, 0]
    assert "bias" in made.state_dict() and "bias" not in dict(made.named_parameters())


# What cannot be


@pytest.mark.parametrize("kind", [TopK, NoisyTopK, Switch, ExpertChoice, Balanced, Hash])
@pytest.mark.parametrize("top_k", [0, 9])
def test_more_experts_per_token_than_there_are_is_an_error_with_both_numbers(kind: Callable[..., Router], top_k: int) -> None:
    with pytest.raises(ValueError, match=f"top_k={top_k} of n_experts=8: choose from 1 to 8"):
        kind(d_model=D_MODEL, n_experts=8, top_k=top_k)


@pytest.mark.parametrize("kind", [lambda **sizes: TopK(**sizes, softmax="after"), NoisyTopK, Balanced])
def test_a_router_that_could_not_learn_is_an_error(kind: Callable[..., Router]) -> None:
    with pytest.raises(ValueError, match=r"top_k=1 of n_experts=8 .* no gradient"):
        kind(d_model=D_MODEL, n_experts=8, top_k=1)
    assert kind(d_model=D_MODEL, n_experts=1, top_k=1)(tokens(3)).gate.tolist() == [1, 1, 1]


def test_other_impossible_settings_are_errors() -> None:
    with pytest.raises(ValueError, match="softmax='during': choose before or after"):
        TopK(d_model=D_MODEL, n_experts=4, top_k=2, softmax="during")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="capacity_factor=0: choose a positive number"):
        Switch(d_model=D_MODEL, n_experts=4, capacity_factor=0)
