"""The loss of many logits, which are never all there, equals that of logits written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from arch.model.readout import Readout
from arch.ops import cross_entropy

ROWS, WIDTH, CLASSES = 100, 24, 61


def drawn() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(0)
    targets = torch.randint(CLASSES, (4, 25), generator=made)
    targets[:, ::6] = -100
    shapes = ((4, 25, WIDTH), (CLASSES, WIDTH), (CLASSES,))
    return *(torch.randn(shape, generator=made) for shape in shapes), targets  # type: ignore[return-value]


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    logits = F.linear(x, weight, bias).flatten(0, -2).float()
    return F.cross_entropy(logits, targets.flatten(), ignore_index=-100, reduction="sum")


def in_pieces(x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    return Readout(x, weight, bias).loss(targets, ignore_index=-100)


def loss_and_gradients(how: Any, biased: bool, frozen: bool) -> list[Tensor | None]:
    x, weight, bias, targets = drawn()
    x, bias = x.requires_grad_(), bias.requires_grad_() if biased else None  # type: ignore[assignment]
    weight.requires_grad_(not frozen)
    loss = how(x, weight, bias, targets)
    (0.3 * loss).backward()
    return [loss.detach(), x.grad, weight.grad, None if bias is None else bias.grad]


@pytest.mark.parametrize("rows", [1, 7, 99, 100], ids="{} rows at a time".format)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_pieces_change_nothing(rows: int, biased: bool, frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "PIECE", rows * CLASSES)
    torch.testing.assert_close(loss_and_gradients(in_pieces, biased, frozen), loss_and_gradients(plain, biased, frozen))


def test_in_bf16_pieces_are_as_near_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = loss_and_gradients(plain, True, False)
    with torch.autocast("cpu", torch.bfloat16):
        whole = loss_and_gradients(plain, True, False)
        monkeypatch.setattr(cross_entropy, "PIECE", 7 * CLASSES)
        parts = loss_and_gradients(in_pieces, True, False)
    for one, part, other in zip(exact, parts, whole, strict=True):
        assert (part - one).norm() <= 1.2 * (other - one).norm() + 1e-6  # type: ignore[operator]


class Largest(TorchDispatchMode):
    """The most numbers that one new tensor has."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.most = max(self.most, *(leaf.numel() for leaf in tree_leaves(found) if isinstance(leaf, Tensor)), 0)
        return found


def test_the_logits_are_never_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "PIECE", 30 * CLASSES)
    with Largest() as held:
        loss_and_gradients(in_pieces, True, False)
    assert held.most < ROWS * CLASSES
    with Largest() as held:
        x, weight, bias, targets = drawn()
        pieces = list(Readout(x, weight, bias).pieces(targets))
    assert [len(logits) for logits, _ in pieces] == [30, 30, 30, 10]
    torch.testing.assert_close(torch.cat([logits for logits, _ in pieces]), Readout(x, weight, bias).logits().flatten(0, 1))
    assert held.most < ROWS * CLASSES
