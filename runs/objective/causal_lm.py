"""The language model's objective: at every token, the next one."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from arch import Decoder
from arch.model.readout import Readout

from ..data.contract import Batch, Data
from .contract import LossTerm, Objective, Task, refuse_leaks, refuse_other_models


class CausalLM(Objective):
    """Every target of a batch is predicted at its own position: of a text, the next token.

    L = -mean_t log p(x_{t+1} | x_1 .. x_t)

    Paper: Radford 2018 (GPT, eq. 1). Differs: nothing.
    Raises: ValueError: a model that is no decoder, or one whose mixers see later tokens.
    """

    def data(self, data: Data, *, seq_len: int) -> Data:
        data.check(seq_len=seq_len)
        return data

    def task(self, model: nn.Module, data: Data) -> Task:
        refuse_other_models(model, "causal_lm", Decoder)
        refuse_leaks(model, "causal_lm")
        return NextToken(model=model, heads={}, terms={"": LossTerm(text=True)})


class NextToken(Task):
    """A decoder's own logits."""

    def forward(self, batch: Batch) -> dict[str, Readout]:
        decoder = cast(Decoder, self.model)
        return {"": decoder.readout(decoder.hidden(batch.tokens, positions=batch.positions))}

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        return {"": batch.targets}
