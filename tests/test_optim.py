"""Optimisers: which parameter goes where, and Muon against the well-kept one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from runs.training.optim import Muon, adamw, hidden_matrices, muon, orthogonalise
from tests.lab import tiny_model


def test_embeddings_norms_and_biases_do_not_decay() -> None:
    model = tiny_model("ffn=moe")
    names = {id(p): name for name, p in model.named_parameters()}
    decayed = {names[id(p)] for p in hidden_matrices(model)}
    assert not any("norm" in name or "embedding" in name or "position" in name for name in decayed)
    assert {name for name in names.values() if "experts" in name or "_proj" in name} <= decayed
    groups = adamw(model, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_muon_equals_torchs_on_a_matrix() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.randn(24, 40)), None
    theirs = nn.Parameter(ours.detach().clone())
    mine = Muon([ours], lr=0.02, momentum=0.95, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        g = torch.randn(24, 40, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = g.clone(), g.clone()
        mine.step()
        other.step()
    # theirs iterates in bf16, ours in fp32 on a CPU: 8 bits of mantissa over five products
    torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=0)


def test_muon_treats_a_bank_as_its_matrices_one_by_one() -> None:
    torch.manual_seed(0)
    bank = torch.randn(3, 8, 5)
    torch.testing.assert_close(orthogonalise(bank), torch.stack([orthogonalise(matrix) for matrix in bank]))


def test_orthogonalised_updates_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((16, 16), (8, 30), (30, 8)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.5 and values.max() < 1.3


@pytest.mark.parametrize("make", [adamw, muon])
def test_both_step_every_parameter(make: object) -> None:
    model = tiny_model("ffn=moe")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    extra = {"momentum": 0.95} if make is muon else {}
    optimiser = make(model, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1, **extra)  # type: ignore[operator]
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimiser.step()
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
