"""The battery that every block of conf/ must pass: found by globbing, so a new yaml is covered by being there."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from arch import pop_routings
from arch.losses import load_balance_loss
from tests.lab import BLOCK_GROUPS, COMPANIONS, VOCAB, config, options, tiny_model, tokens

CHOICES = [(group, option) for group in BLOCK_GROUPS for option in options(group)]
every_choice = pytest.mark.parametrize(("group", "option"), CHOICES, ids=[f"{g}={o}" for g, o in CHOICES])


def model_of(group: str, option: str) -> nn.Module:
    return tiny_model(f"{group}={option}", *COMPANIONS.get(group, ()))


@every_choice
def test_every_parameter_gets_a_finite_gradient(group: str, option: str) -> None:
    model = model_of(group, option).train()
    torch.manual_seed(0)
    logits = model(tokens(2, 33))
    assert logits.shape == (2, 33, VOCAB)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens(2, 33, seed=1).flatten())
    for routing in pop_routings(model).values():
        loss = loss + 0.01 * load_balance_loss(routing)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@every_choice
def test_a_later_token_changes_nothing_before_it_where_the_model_says_it_is_causal(group: str, option: str) -> None:
    model = model_of(group, option)
    text = tokens(2, 41)
    changed = text.clone()
    changed[:, 30:] = (changed[:, 30:] + 7) % VOCAB
    before, after = model(text), model(changed)
    assert not torch.allclose(before[:, 30:], after[:, 30:], atol=1e-4)
    if model.causal:
        torch.testing.assert_close(before[:, :30], after[:, :30], atol=1e-5, rtol=1e-5)
    else:
        assert not torch.allclose(before[:, :30], after[:, :30], atol=1e-5)


@every_choice
def test_cached_decoding_equals_the_full_forward(group: str, option: str) -> None:
    model = model_of(group, option)
    if not model.causal:
        pytest.skip("only a causal model decodes step by step")
    text = tokens(2, 19)
    full = model(text)
    cache = model.init_cache(2, 19)
    steps = [model(part, cache=cache) for part in (text[:, :8], *text[:, 8:].split(1, dim=1))]
    torch.testing.assert_close(torch.cat(steps, dim=1), full, atol=2e-5, rtol=1e-4)


@every_choice
def test_packed_documents_equal_separate_runs(group: str, option: str) -> None:
    model = model_of(group, option)
    if not model.causal:
        pytest.skip("a router that looks at the whole batch sees what is packed beside")
    one, two, three = tokens(1, 40).split((1, 16, 23), dim=1)
    positions = torch.cat([torch.arange(part.shape[1]) for part in (one, two, three)])[None]
    packed = model(torch.cat([one, two, three], dim=1), positions=positions)
    separate = torch.cat([model(part) for part in (one, two, three)], dim=1)
    torch.testing.assert_close(packed, separate, atol=2e-5, rtol=1e-4)


@every_choice
def test_padding_around_a_text_changes_neither_outputs_nor_gradients(group: str, option: str) -> None:
    model = model_of(group, option)
    if not model.causal:
        pytest.skip("a router that looks at the whole batch sees what is packed beside")
    before, text, after = tokens(2, 50).split((7, 34, 9), dim=1)
    positions = torch.cat([torch.full((7,), -1), torch.arange(34), torch.full((9,), -1)]).expand(2, -1)
    direction = torch.randn(2, 34, VOCAB, generator=torch.Generator().manual_seed(0))
    alone = model(text)
    padded = model(torch.cat([before, text, after], dim=1), positions=positions)[:, 7:41]
    torch.testing.assert_close(padded, alone, atol=2e-5, rtol=1e-4)
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = [torch.autograd.grad((y * direction).sum(), parameters, materialize_grads=True) for y in (padded, alone)]
    for name, ours, wanted in zip(names, *gradients, strict=True):
        torch.testing.assert_close(ours, wanted, atol=2e-4, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}")


@every_choice
def test_rows_padded_on_their_left_decode_as_they_do_alone(group: str, option: str) -> None:
    model = model_of(group, option)
    if not model.causal:
        pytest.skip("only a causal model decodes step by step")
    text, n_padding = tokens(2, 19), 5
    positions = torch.stack([torch.arange(19), torch.arange(19) - n_padding]).clamp(min=-1)
    cache = model.init_cache(2, 19)
    pieces = (3, 6, *[1] * 10)  # the first holds nothing but padding in one row
    parts = zip(text.split(pieces, dim=1), positions.split(pieces, dim=1), strict=True)
    decoded = torch.cat([model(part, positions=p, cache=cache) for part, p in parts], dim=1)
    torch.testing.assert_close(decoded[:1], model(text[:1]), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(decoded[1:, n_padding:], model(text[1:, n_padding:]), atol=2e-5, rtol=1e-4)


@every_choice
def test_reported_parameters_are_the_built_ones(group: str, option: str) -> None:
    model = model_of(group, option)
    cost = model.cost(64)
    assert cost.params == sum(p.numel() for p in model.parameters())
    assert 0 < cost.active_params <= cost.params
    assert cost.flops > 0


@every_choice
def test_the_option_makes_another_run(group: str, option: str) -> None:
    plain, chosen = (config(*words, *COMPANIONS.get(group, ())) for words in ((), (f"{group}={option}",)))
    assert (plain.identity == chosen.identity) == (plain.choices[group] == option)
    assert chosen.choices[group] == option


@every_choice
def test_layers_share_nothing_and_the_model_can_be_copied(group: str, option: str) -> None:
    model = model_of(group, option)
    model(tokens(1, 9))
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert len(names) == len(dict(model.named_parameters()))
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(tokens(1, 9)), model(tokens(1, 9)))


@every_choice
def test_a_few_steps_fit_a_fixed_batch(group: str, option: str) -> None:
    model = model_of(group, option).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    text = tokens(4, 17)
    losses = []
    for step in range(12):
        torch.manual_seed(step)
        loss = torch.nn.functional.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    pop_routings(model)
    assert losses[-1] < 0.9 * losses[0], losses
