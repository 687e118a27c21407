"""Sequence to sequence: one text read, another written."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from arch import EncoderDecoder
from arch.model.readout import Readout

from ..data.contract import Batch, Data
from .contract import LossTerm, Objective, Task, first_batch, n_real, refuse_leaks, refuse_other_models


class Seq2Seq(Objective):
    """The tokens of the target text, given those before and all of the source.

    L = -mean_t log p(y_{t+1} | y_1 .. y_t, source)

    Paper: Sutskever 2014, arXiv:1409.3215 (section 2). Differs: nothing.
    Raises: ValueError: data without a source; a model that is no encoder-decoder, or whose decoder sees later tokens.
    """

    def data(self, data: Data, *, seq_len: int) -> Data:
        if first_batch(data, seq_len=seq_len).source is None:
            raise ValueError(
                f"objective=seq2seq reads a source and writes a target, but the rows of {type(data).__name__} have no source: "
                "take data=docstrings"
            )
        return data

    def task(self, model: nn.Module, data: Data) -> Task:
        refuse_other_models(model, "seq2seq", EncoderDecoder)
        refuse_leaks(cast(EncoderDecoder, model).decoder, "seq2seq")
        return Translation(model=model, heads={}, terms={"": LossTerm(text=True)})


class Translation(Task):
    """An encoder-decoder's own logits."""

    def forward(self, batch: Batch) -> dict[str, Readout]:
        assert batch.source is not None
        model = cast(EncoderDecoder, self.model)
        memory = model.encode(batch.source, batch.source_positions)
        x = model.decoder.hidden(batch.tokens, positions=batch.positions, memory=memory)
        return {"": model.decoder.readout(x)}

    def tokens(self, batch: Batch) -> float:
        assert batch.source is not None
        return (n_real(batch.source, batch.source_positions) + n_real(batch.tokens, batch.positions)) / 2

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        return {"": batch.targets}
