"""The language model's objective, and how far what would be drawn from the model lies from the source."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch import Decoder
from arch.decode import probabilities
from arch.model.readout import Readout

from ..data import MarkovChain
from ..data.contract import Batch, Data
from .causal_lm import CausalLM, NextToken
from .contract import LossTerm


class CausalLMDrawn(CausalLM):
    """As CausalLM, and of the held-out rows the total variation distance between what the model draws and the source.

    tv = mean_t 1/2 sum_v |q(v | x_1 .. x_t) - p(v | x_t)|, q = softmax(top_p(top_k(logits / temperature)))

    Exact: nothing is drawn. The loss is that of the logits as they are, so that the settings change no training.

    Paper: Holtzman 2019, arXiv:1904.09751 (section 3); Fan 2018, arXiv:1805.04833 (section 5.1: top-k). Differs: held against
        a source that is known, not against text.
    Args:   temperature: of the softmax, above 0. top_k, top_p: what remains; None = all tokens. Greedy: top_k=1.
    Raises: ValueError: data whose next-token probabilities are not known; a setting out of range.
    """

    def __init__(self, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> None:
        self.settings = (float(temperature), top_k, top_p)
        probabilities(torch.zeros(1), *self.settings)  # a setting out of range is refused before there is a model

    def data(self, data: Data, *, seq_len: int) -> Data:
        if not isinstance(data, MarkovChain):
            raise ValueError(
                "objective=causal_lm_drawn is held against known next-token probabilities, and those of "
                f"{type(data).__name__} are not: take data=markov"
            )
        return super().data(data, seq_len=seq_len)

    def task(self, model: nn.Module, data: Data) -> Drawn:
        plain = super().task(model, data)
        assert isinstance(data, MarkovChain) and isinstance(model, Decoder)
        unused = model.embedding.num_embeddings - data.vocab_size  # tokens that the source never has
        source = F.pad(torch.from_numpy(data.transitions).float(), (0, unused))
        return Drawn(plain.model, source, self.settings)


class Drawn(NextToken):
    """A decoder's own logits, and what they come to.

    Args:   source: (tokens, vocab_size) the probabilities of what follows each token. settings: temperature, top_k, top_p.
    """

    source: Tensor

    def __init__(self, model: nn.Module, source: Tensor, settings: tuple[float, int | None, float | None]) -> None:
        super().__init__(model=model, heads={}, terms={"": LossTerm(text=True)})
        self.settings = settings
        self.register_buffer("source", source, persistent=False)  # no weight: the data knows it

    def measured(self, batch: Batch, answers: dict[str, Readout]) -> dict[str, Tensor]:
        drawn = probabilities(answers[""].logits().float(), *self.settings)
        return {"tv": (drawn - self.source[batch.tokens]).abs().sum(-1).mean() / 2}
