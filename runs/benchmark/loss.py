"""The loss of a large vocabulary, from the vectors to the gradients of vectors and table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from arch.model.readout import Readout

from .case import Bar, Case, Turn, memory, times
from .steps import drawn


def cases() -> Iterator[Case]:
    yield case(tokens=2048, width=256, vocab=50_257)


def case(*, tokens: int, width: int, vocab: int) -> Case:
    x, table = torch.randn(tokens, width, generator=drawn(0)), torch.randn(vocab, width, generator=drawn(1)) * width**-0.5
    targets = torch.randint(vocab, (tokens,), generator=drawn(2))

    def turn(*, written_out: bool) -> Turn:
        def loss(x: Tensor, table: Tensor) -> Tensor:
            if written_out:
                return F.cross_entropy(F.linear(x, table).float(), targets, reduction="sum")
            return Readout(x, table).loss(targets, ignore_index=-100)

        def there_and_back() -> Sequence[Tensor]:
            given = [t.detach().requires_grad_() for t in (x, table)]
            found = loss(*given)
            found.backward()
            return [found, *(t.grad for t in given if t.grad is not None)]

        return there_and_back

    bars = [
        Bar("its time over that of logits written out", times("the lab's", "written out"), at_most=1.1),
        Bar("its memory over theirs", memory("the lab's", "written out"), at_most=0.25),
    ]
    contenders = {"written out": turn(written_out=True), "the lab's": turn(written_out=False)}
    name = f"loss of {tokens:,} tokens of {width} over a vocabulary of {vocab:,}"
    return Case(name, contenders, bars, {"the lab's": "written out"}, weighed=True)
