"""Three training steps of every variant, against the losses that were written down: a change of numbers is never silent.

After a change that is meant: python -m tests.test_golden, and say in the commit why the numbers moved.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from arch import pop_routings
from arch.losses import load_balance_loss
from runs.build.objects import build
from runs.training.optim import Optimiser
from tests.lab import BLOCK_GROUPS, COMPANIONS, config, options, tiny_model, tokens

FILE = Path(__file__).with_name("golden.json")
GROUPS = (*BLOCK_GROUPS, "optim")


def losses(variant: str) -> list[float]:
    group = variant.split("=", maxsplit=1)[0]
    overrides = (variant, *COMPANIONS.get(group, ()))
    model = tiny_model(*overrides).train()
    optimiser = build(config(variant).optim if group == "optim" else config().optim, "optim", Optimiser, model=model)
    text, found = tokens(1, 121), []  # longer than the windows of the sparse patterns
    for step in range(3):
        torch.manual_seed(step)
        loss = torch.nn.functional.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        for routing in pop_routings(model).values():
            loss = loss + 0.01 * load_balance_loss(routing)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        found.append(round(loss.item(), 6))
    return found


@pytest.mark.parametrize("variant", json.loads(FILE.read_text()) if FILE.exists() else [])
def test_a_variant_still_trains_to_the_same_losses(variant: str) -> None:
    assert losses(variant) == pytest.approx(json.loads(FILE.read_text())[variant], rel=2e-4)


def test_no_two_variants_of_a_group_are_the_same() -> None:
    written = {variant: tuple(values) for variant, values in json.loads(FILE.read_text()).items()}
    for group in GROUPS:
        values = [v for variant, v in written.items() if variant.startswith(f"{group}=")]
        assert len(set(values)) == len(values), group


if __name__ == "__main__":
    torch.set_num_threads(1)
    variants = [f"{group}={option}" for group in GROUPS for option in options(group)]
    FILE.write_text(json.dumps({variant: losses(variant) for variant in variants}, indent=1) + "\n")
