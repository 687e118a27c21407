"""Low-rank adapters: nothing changes at the start, nothing else learns, and what was merged comes back to the bit."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from arch.contracts import Cost
from arch.init import initialise
from arch.lora import LoRA, adapter_cost, add_lora, merge, unmerge
from tests.lab import tiny_model, tokens

NAMES = ("q_proj", "v_proj")
MODELS = [
    ("mixer=mha", "ffn=dense"),
    ("mixer=gqa", "ffn=moe_shared", "position=rotary"),
    ("mixer=mamba", "ffn=swiglu", "norm=rmsnorm"),
]


def projections(model: nn.Module) -> list[str]:
    return sorted({name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)})


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' own weights."""
    return {name: p.detach() for name, p in model.named_parameters() if name.endswith(("lora_a", "lora_b"))}


def adapted(*overrides: str, names: tuple[str, ...] = NAMES, seed: int = 0) -> nn.Module:
    """A tiny model with adapters of rank 3, still without effect."""
    model = tiny_model(*overrides)
    add_lora(model, names, rank=3, alpha=6.0, seed=seed)
    return model


def learnt(*overrides: str, names: tuple[str, ...] = NAMES) -> nn.Module:
    """The same with adapters that do something."""
    model = adapted(*overrides, names=names)
    torch.manual_seed(1)
    for name, t in adapter_state(model).items():
        if name.endswith("lora_b"):
            t.normal_(std=0.1)
    return model


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("d_in", "d_out"), [(1, 1), (7, 3), (5, 12)])
def test_the_output_is_that_of_the_formula(d_in: int, d_out: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(d_in, d_out, bias=bias).double()
    lora = LoRA(linear, rank=1, alpha=3.0)
    nn.init.normal_(lora.lora_b)
    x = torch.randn(2, 4, d_in, dtype=torch.float64, requires_grad=True)
    weight, a, b = (t.detach().clone().requires_grad_() for t in (linear.weight, lora.lora_a, lora.lora_b))
    expected = x @ (weight + 3.0 * torch.outer(b[:, 0], a[0])).T + (linear.bias if bias else 0)
    got = lora(x)
    torch.testing.assert_close(got, expected)
    up = torch.randn_like(got)
    ours = torch.autograd.grad(got, (x, lora.lora_a, lora.lora_b), up)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, (x, a, b), up))


@pytest.mark.parametrize("overrides", MODELS)
def test_the_start_is_the_base_to_the_bit(overrides: tuple[str, ...]) -> None:
    base, model = tiny_model(*overrides), tiny_model(*overrides)
    names = projections(model)
    add_lora(model, names, rank=2, alpha=4.0)
    assert projections(model) == []
    assert torch.equal(model(tokens(2, 40)), base(tokens(2, 40)))
    weights = model.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in base.state_dict().items())


@pytest.mark.parametrize("overrides", MODELS)
def test_only_adapters_get_gradients(overrides: tuple[str, ...]) -> None:
    model = learnt(*overrides, names=tuple(projections(tiny_model(*overrides))))
    model(tokens(2, 40)).square().sum().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == set(adapter_state(model))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(adapter_state(model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("overrides", MODELS)
def test_a_merged_model_is_plain_and_says_the_same(overrides: tuple[str, ...], dtype: torch.dtype) -> None:
    base = tiny_model(*overrides).to(dtype)
    model = learnt(*overrides, names=tuple(projections(base))).to(dtype)
    before = model(tokens(2, 40))
    merge(model)
    assert [(name, type(m)) for name, m in model.named_modules()] == [(name, type(m)) for name, m in base.named_modules()]
    assert {n: t.shape for n, t in model.state_dict().items()} == {n: t.shape for n, t in base.state_dict().items()}
    torch.testing.assert_close(model(tokens(2, 40)), before)
    assert not torch.allclose(base(tokens(2, 40)), before)
    base.load_state_dict(model.state_dict())
    base.requires_grad_(False)  # torch picks another kernel in fp64 where weights learn, which rounds otherwise
    assert torch.equal(base(tokens(2, 40)), model(tokens(2, 40)))


def test_what_was_merged_comes_back_to_the_bit() -> None:
    model = learnt("mixer=gqa", "mixer.bias=true")
    weights, before = copy.deepcopy(model.state_dict()), model(tokens(2, 40))
    for _ in range(3):
        unmerge(model, merge(model))
    assert list(model.state_dict()) == list(weights)
    assert all(torch.equal(t, weights[name]) for name, t in model.state_dict().items())
    assert torch.equal(model(tokens(2, 40)), before)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(adapter_state(model))


def test_dropout_works_on_the_adapter_alone_and_in_training_alone() -> None:
    model = tiny_model()
    add_lora(model, NAMES, rank=2, alpha=2.0, dropout=0.5)
    x = tokens(2, 40)
    assert torch.equal(model.train()(x), tiny_model()(x))  # an adapter that does nothing drops nothing
    for name, t in adapter_state(model).items():
        if name.endswith("lora_b"):
            t.fill_(1.0)
    assert not torch.equal(model(x), model(x))
    taken = merge(model)
    unmerge(model.eval(), taken)
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("overrides", MODELS)
def test_told_cost_is_the_counted_one(overrides: tuple[str, ...]) -> None:
    model = tiny_model(*overrides)

    def counted() -> int:
        with FlopCounterMode(display=False) as counter:
            model(tokens(2, 40))
        return counter.get_total_flops()

    flops, cost = counted(), model.cost(40)
    assert adapter_cost(model) == Cost()
    add_lora(model, projections(model), rank=2, alpha=2.0)
    assert cost.params + adapter_cost(model).params == sum(p.numel() for p in model.parameters())
    assert flops + 2 * 40 * adapter_cost(model).flops == counted()
    assert model.cost(40).flops == cost.flops
    assert model.cost(40).state_bytes == cost.state_bytes
    merge(model)
    assert (model.cost(40), adapter_cost(model), counted()) == (cost, Cost(), flops)


def test_decoding_goes_on_with_adapters() -> None:
    model, text = learnt("mixer=gqa"), tokens(1, 12)
    cache = model.init_cache(1, 12)
    steps = [model(text[:, i : i + 1], cache=cache) for i in range(12)]
    torch.testing.assert_close(torch.cat(steps, 1), model(text))


def test_adapters_start_by_seed_and_name_and_leave_the_generator_alone() -> None:
    model = tiny_model()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    add_lora(model, NAMES, rank=2, alpha=1.0)
    assert torch.equal(torch.rand(2), expected)
    zero, again, one = (adapter_state(adapted(seed=seed)) for seed in (0, 0, 1))
    name, other = "layers.0.mixer.q_proj.lora_a", "layers.1.mixer.q_proj.lora_a"
    assert torch.equal(zero[name], again[name])
    assert not torch.equal(zero[name], one[name])
    assert not torch.equal(zero[name], zero[other])
    wide = LoRA(nn.Linear(400, 300), rank=100, alpha=1.0)
    assert abs(wide.lora_a.std().item() * math.sqrt(400) - 1) < 0.05
    assert not wide.lora_b.any()


def test_adapters_are_drawn_apart_from_the_weights_that_they_adapt() -> None:
    model = tiny_model()
    initialise(model, seed=0)
    weight = model.get_submodule("layers.0.mixer.q_proj").weight.detach().clone()
    add_lora(model, NAMES, rank=3, alpha=1.0, seed=0)
    lora_a = model.get_submodule("layers.0.mixer.q_proj").lora_a
    assert lora_a.shape == weight[:3].shape and weight.std() > 0.1
    assert abs(torch.corrcoef(torch.stack([lora_a.detach().flatten(), weight[:3].flatten()]))[0, 1]) < 0.5


def test_initial_weights_are_never_drawn_over_those_that_are_adapted() -> None:
    model = learnt()
    weight = model.get_submodule("layers.0.mixer.q_proj").weight.detach().clone()
    adapters = {name: t.clone() for name, t in adapter_state(model).items()}
    initialise(model, seed=5)
    assert torch.equal(model.get_submodule("layers.0.mixer.q_proj").weight, weight)
    for name, t in adapter_state(model).items():
        assert not torch.equal(t, adapters[name])
        assert t.any() == name.endswith("lora_a")


def test_a_new_head_can_be_freed_and_learns_beside_the_adapters() -> None:
    model = nn.ModuleDict({"body": adapted(), "head": nn.Linear(61, 2)})
    model["head"](model["body"](tokens(1, 8))).sum().backward()
    assert model["head"].weight.grad is not None


@pytest.mark.parametrize(
    ("names", "rank", "message"),
    [
        (["q_proj"], 0, r"rank=0: from 1 to 24 for a projection of 24 to 24"),
        (["k_proj"], 13, r"rank=13: from 1 to 12 for a projection of 24 to 12"),
        (["q_proj", "w_q"], 2, r"names=\['q_proj', 'w_q'\]: this model's projections are k_proj, o_proj, q_proj, v_proj$"),
        (["up_proj"], 2, r"names=\['up_proj'\]: this model's projections are k_proj"),  # a bank of experts
        ([], 2, r"names=\[\]: this model's projections are k_proj"),
    ],
)
def test_what_cannot_be_adapted_is_refused_and_nothing_changes(names: list[str], rank: int, message: str) -> None:
    model = tiny_model("mixer=gqa", "ffn=moe", "router=topk")
    with pytest.raises(ValueError, match=message):
        add_lora(model, names, rank=rank, alpha=1.0)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(isinstance(module, LoRA) for module in model.modules())


def test_a_second_set_of_adapters_is_refused() -> None:
    model = adapted()
    with pytest.raises(ValueError, match=r"this model has 4 adapters already: merge them before you add others"):
        add_lora(model, ["k_proj"], rank=1, alpha=1.0)
