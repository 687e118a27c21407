"""The routers' losses and statistics, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from arch.contracts import Routing
from arch.ffn import Experts, MoE
from arch.losses import load_balance_loss, router_z_loss
from arch.router import TopK
from arch.routing import dropped, entropy, load, pop_routings


def routing(logits: list[list[float]], expert: list[int]) -> Routing:
    """Each token meets equally many experts, listed token by token; gates play no part here."""
    index = torch.tensor(expert)
    token = torch.arange(len(expert)) * len(logits) // len(expert)
    return Routing(torch.tensor(logits, requires_grad=True), token, index, torch.ones(len(expert)))


SURE = math.log(3)  # softmax([log 3, 0]) = (3/4, 1/4)


def test_the_balance_loss_of_a_skewed_choice() -> None:
    # f = (3/4, 1/4); P = (3 * 3/4 + 1/4, 3 * 1/4 + 3/4) / 4 = (5/8, 3/8); 2 * (15/32 + 3/32) = 9/8
    skewed = routing([[SURE, 0], [SURE, 0], [SURE, 0], [0, SURE]], [0, 0, 0, 1])
    assert load_balance_loss(skewed).item() == pytest.approx(9 / 8)


def test_the_balance_loss_of_two_experts_per_token() -> None:
    # Three experts, P = (3, 1, 1) / 5. The choices {0, 1} and {0, 2}: f = (2, 1, 1) / 4; 3 * (6 + 1 + 1) / 20 = 6/5
    chosen = routing([[SURE, 0, 0], [SURE, 0, 0]], [0, 1, 0, 2])
    assert load_balance_loss(chosen).item() == pytest.approx(6 / 5)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_balance_loss_is_one_where_all_experts_work_equally(k: int) -> None:
    even = routing([[0.0] * 4] * 8, [i % 4 for i in range(8 * k)])
    assert load_balance_loss(even).item() == pytest.approx(1)


def test_the_balance_loss_of_a_collapse_is_the_number_of_experts() -> None:
    collapsed = routing([[100.0, 0, 0, 0]] * 5, [0] * 5)
    assert load_balance_loss(collapsed).item() == pytest.approx(4)


def test_the_balance_loss_counts_what_was_served() -> None:
    # The last token was dropped: f = (1/2, 1/2) of the two served; 2 * (1/2 * 3/4 + 1/2 * 1/4) = 1
    full = routing([[SURE, 0]] * 3, [0, 1, 2])
    assert load_balance_loss(full).item() == pytest.approx(1)
    assert load_balance_loss(routing([[SURE, 0]], [2])).item() == 0  # nothing served


def test_a_step_down_the_balance_loss_evens_the_probabilities() -> None:
    skewed = routing([[SURE, 0], [SURE, 0], [SURE, 0], [0, SURE]], [0, 0, 0, 1])
    load_balance_loss(skewed).backward()
    # d/dz_0 = 2 * (f_0 - f_1) * p_0 p_1 / 4 = 2 * 1/2 * 3/16 / 4 = 3/64 for every token, and the opposite for z_1
    torch.testing.assert_close(skewed.logits.grad, torch.tensor([[3 / 64, -3 / 64]] * 4))


def test_the_z_loss_is_the_mean_square_of_the_log_partition() -> None:
    # logsumexp: log(3 + 1) and log(1 + 1)
    loss = router_z_loss(routing([[SURE, 0], [0, 0]], [0, 1]))
    assert loss.item() == pytest.approx((math.log(4) ** 2 + math.log(2) ** 2) / 2)


def test_statistics_by_hand() -> None:
    seen = routing([[0.0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]], [0, 3, 0, 1])
    assert load(seen).tolist() == [2, 1, 0]
    assert dropped(seen).item() == 1 / 4
    assert entropy(seen).item() == pytest.approx(math.log(3))
    assert entropy(routing([[SURE, 0]], [0])).item() == pytest.approx(math.log(4) - 3 / 4 * math.log(3))
    assert entropy(routing([[1000.0, 0]], [0])).item() == 0
    assert not entropy(seen).requires_grad


def test_popping_names_each_routing_and_gives_it_out_once() -> None:
    def moe() -> MoE:
        return MoE(
            d_model=4,
            router=TopK(d_model=4, n_experts=3, top_k=2),
            experts=Experts(d_model=4, d_ff=4, n_experts=3),
        )

    model = nn.ModuleDict({"first": moe(), "dense": nn.Linear(4, 4), "deep": nn.Sequential(moe())})
    assert pop_routings(model) == {}
    model["deep"](model["first"](torch.randn(5, 4)))
    routings = pop_routings(model)
    assert list(routings) == ["first", "deep.0"]
    assert all(load(routing).sum() == 10 for routing in routings.values())
    assert pop_routings(model) == {}
    lone = moe()
    lone(torch.randn(5, 4))
    assert list(pop_routings(lone)) == [""]
