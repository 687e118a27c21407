"""Padding: negative positions, which no real token sees, no expert works on, and no loss or statistic counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from arch import EncoderDecoder, pop_routings
from arch.contracts import Routing
from arch.losses import load_balance_loss, router_z_loss
from arch.router import ExpertChoice, Switch
from arch.routing import dropped, entropy, load
from tests.lab import options, tiny_model, tokens
from tests.test_moe import ROUTERS, gradients, make

every_router = pytest.mark.parametrize("router", ROUTERS)
LENGTHS = (7, 15, 2, 11)
STATISTICS: dict[str, Callable[[Routing], Tensor]] = {
    "load": load,
    "load_balance": load_balance_loss,
    "router_z": router_z_loss,
    "entropy": entropy,
    "dropped": dropped,
}


def padded(side: str) -> tuple[Tensor, Tensor]:
    """Positions of texts of LENGTHS in one batch, and which of its tokens are real."""
    place, length = torch.arange(max(LENGTHS)), torch.tensor(LENGTHS)[:, None]
    positions = place - max(LENGTHS) + length if side == "left" else torch.where(place < length, place, -1)
    return positions, positions >= 0


def decisions(routing: Routing) -> Tensor:
    """(real tokens, experts): the gate of each expert on each of them."""
    t, e = routing.logits.shape
    table = routing.logits.new_zeros(t, e + 1).index_put((routing.token, routing.expert), routing.gate, accumulate=True)
    return table[:, :e] if routing.real is None else table[routing.real, :e]


@every_router
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shared", [0, 6])
def test_a_padded_batch_is_routed_as_the_same_texts_without_padding(router: str, side: str, shared: int) -> None:
    moe = make(router, shared=shared).train(router != "noisy")  # its noise in training is drawn for padding too
    positions, real = padded(side)
    x = torch.randn(*positions.shape, 10, generator=torch.Generator().manual_seed(1))
    y = moe(x, positions=positions)
    (routing,) = pop_routings(moe).values()
    plain = moe(x[real])
    (expected,) = pop_routings(moe).values()
    torch.testing.assert_close(y[real], plain)
    torch.testing.assert_close(decisions(routing), decisions(expected))
    for name, statistic in STATISTICS.items():
        torch.testing.assert_close(statistic(routing), statistic(expected), msg=lambda m, name=name: f"{name}: {m}")
    if router == "switch":
        assert 0 < dropped(routing) < 1  # else its capacity would not have been tried
    if not shared:
        assert not y[~real].any()


@every_router
def test_what_stands_in_the_padding_changes_nothing_and_gets_no_gradient(router: str) -> None:
    moe = make(router).eval()
    positions, real = padded("right")
    x = torch.randn(*positions.shape, 10)
    other = torch.where(real[..., None], x, 100 * torch.randn_like(x))
    one, two = (gradients(moe, lambda x: moe(x, positions=positions), text) for text in (x, other))
    assert not one["x"][~real].any()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, msg=lambda m, name=name: f"{name}: {m}")


@every_router
def test_positions_without_padding_change_nothing(router: str) -> None:
    moe = make(router).eval()
    x, positions = torch.randn(2, 9, 10), torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])  # one row for all rows
    assert torch.equal(moe(x, positions=positions), moe(x))


@every_router
def test_a_batch_that_is_all_padding_has_finite_statistics(router: str) -> None:
    moe = make(router)
    y = moe(torch.randn(1, 6, 10), positions=torch.full((1, 6), -1))
    (routing,) = pop_routings(moe).values()
    assert not y.any()
    assert all(statistic(routing).isfinite().all() for statistic in STATISTICS.values())


@pytest.mark.parametrize("router", ["topk", "switch", "expert_choice"])
def test_shapes_are_fixed_with_padding_too(router: str) -> None:
    """On the meta device, and in one compiled graph: neither would stand a number that the host has to wait for."""
    positions, _ = padded("right")
    moe, x = make(router), torch.randn(*positions.shape, 10)
    assert make(router).to("meta")(x.to("meta"), positions=positions.to("meta")).shape == x.shape
    torch.compiler.reset()
    compiled = torch.compile(moe, backend="aot_eager", fullgraph=True)

    def run(ffn: nn.Module) -> Callable[[Tensor], Tensor]:
        def losses(x: Tensor) -> Tensor:
            y = ffn(x, positions=positions)
            (routing,) = pop_routings(moe).values()
            return torch.cat([y.flatten(), load_balance_loss(routing)[None], router_z_loss(routing)[None]])

        return losses

    found, expected = gradients(moe, run(compiled), x), gradients(moe, run(moe), x)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


def test_a_switch_counts_its_room_by_the_real_tokens_by_hand() -> None:
    made = Switch(d_model=4, n_experts=4, capacity_factor=1.0).train()
    nn.init.eye_(made.weight)
    x = 4.0 * torch.eye(4)[[0, 0, 0, 0, 1, 0, 2, 0]]
    real = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1], dtype=torch.bool)  # 4 of 8: room for 1 each
    routing = made(x, real)
    assert routing.expert.tolist() == [4, 0, 4, 4, 1, 4, 4, 4]
    assert load(routing).tolist() == [1, 1, 0, 0]
    assert dropped(routing).item() == 2 / 4


def test_experts_choose_among_the_real_tokens_by_hand() -> None:
    made = ExpertChoice(d_model=2, n_experts=2, top_k=1)
    nn.init.eye_(made.weight)
    x = torch.tensor([[9.0, 0], [1, 0], [0, 1], [2, 0], [0, 9]])
    routing = made(x, torch.tensor([False, True, True, True, False]))  # ceil(1 * 3 / 2) = 2 of room for 3
    chosen = {(t, e) for t, e in zip(routing.token.tolist(), routing.expert.tolist(), strict=True) if e < 2}
    assert chosen == {(3, 0), (1, 0), (2, 1), (1, 1)}
    assert load(routing).tolist() == [2, 2] and len(routing.expert) == 6
    assert dropped(routing) == 0 and routing.gate[routing.expert == 2].eq(0).all()


@pytest.mark.parametrize("option", options("router"))
def test_every_router_of_conf_gives_padding_to_no_expert(option: str) -> None:
    model = tiny_model("ffn=moe", f"router={option}", "position=rotary").train()
    positions, real = padded("right")
    model(tokens(*real.shape), positions=positions)
    routings = pop_routings(model)
    assert len(routings) == 2
    for routing in routings.values():
        assert torch.equal(routing.real, real.flatten())
        assert not decisions(routing._replace(real=~real.flatten())).any()
        assert 0 < load(routing).sum() <= 2 * sum(LENGTHS) + 4  # expert choice rounds up


@pytest.mark.parametrize(
    "words", [("ffn=moe", f"router={name}") for name in options("router")] + [("ffn=moe_shared",)], ids=",".join
)
def test_a_model_of_experts_gives_a_padded_text_what_it_gives_the_text_alone(words: tuple[str, ...]) -> None:
    """Also where experts choose: with one text in the batch, it is all that they choose from."""
    model, text, fill = tiny_model(*words, "position=rotary"), tokens(1, 17), tokens(1, 60, seed=5)
    positions = torch.cat([torch.arange(-40, 17), torch.full((20,), -1)])[None]
    padded = model(torch.cat([fill[:, :40], text, fill[:, 40:]], dim=1), positions=positions)
    torch.testing.assert_close(padded[:, 40:57], model(text), atol=2e-5, rtol=1e-4)


def test_source_and_target_of_a_padded_batch_are_routed_without_it() -> None:
    """One text of 7 tokens with and without 40 tokens of padding beside it, through an encoder and a decoder."""
    model = tiny_model("model=encoder_decoder", "ffn=moe", "router=switch", "position=rotary").train()
    assert isinstance(model, EncoderDecoder)
    text, fill = tokens(1, 7), tokens(1, 40, seed=3)
    positions = torch.cat([torch.arange(7), torch.full((40,), -1)])[None]
    long = torch.cat([text, fill], dim=1)
    y = model(long, long, source_positions=positions, positions=positions)[:, :7]
    routings = pop_routings(model)
    torch.testing.assert_close(y, model(text, text), atol=2e-5, rtol=1e-4)
    expected = pop_routings(model)
    for name, routing in routings.items():
        for statistic in STATISTICS.values():
            torch.testing.assert_close(statistic(routing), statistic(expected[name]))


@pytest.mark.parametrize("words", [("causal=true",), ("causal=false",), ("mixer=gqa", "pattern=sliding_window")], ids=",".join)
@pytest.mark.parametrize("position", ["rotary", "alibi", "none"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_attention_over_a_padded_batch_gives_what_each_text_gives_alone(
    words: tuple[str, ...], position: str, side: str
) -> None:
    model = tiny_model(*words, f"position={position}")
    positions, real = padded(side)
    text = tokens(*real.shape)
    y = model(text, positions=positions)
    assert y.isfinite().all()
    for row, one in enumerate(real):
        torch.testing.assert_close(y[row, one], model(text[row, one][None])[0], atol=2e-5, rtol=1e-4)
