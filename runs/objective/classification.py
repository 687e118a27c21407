"""Which class is a text of?"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from arch import Decoder, Encoder
from arch.contracts import real
from arch.model.readout import Readout

from ..data.contract import IGNORED, Batch, Data
from .contract import LossTerm, Objective, Task, first_batch, non_causal_mixers, refuse_leaks, refuse_other_models
from .pool import Pool, pooled
from .special_tokens import WithSpecialTokens


class Classification(Objective):
    """The class of each row, from one vector for its text; with lm_weight also the next tokens, as a language model.

    L = -mean over rows of log p(label | the row) + lm_weight * L_LM

    Paper: Radford 2018 (GPT, eqs. 3-5); Devlin 2018, arXiv:1810.04805 (section 4.1: [CLS] in front, [SEP] at the end).
        Differs: GPT's delimiters are left out.
    Args:   causal: whether the model is meant to see what is before a token only. pool: which vector: the last token's, the
            mean, or the first token's, for which [CLS] is put in front (through the pooler, where there is one);
            None = last for a causal model, else first. lm_weight: of the next tokens' loss; 0 = no such term.
    Raises: ValueError: data without labels; an encoder-decoder; the first token of a model whose mixers see no later ones;
            next tokens of a model that sees them.
    """

    def __init__(self, *, causal: bool = True, pool: Pool | None = None, lm_weight: float = 0.0) -> None:
        self.pool: Pool = ("last" if causal else "first") if pool is None else pool
        if lm_weight < 0:
            raise ValueError(f"lm_weight={lm_weight}: at least 0 is expected; 0 = no loss on the next tokens")
        self.lm_weight = lm_weight

    def data(self, data: Data, *, seq_len: int) -> Data:
        if first_batch(data, seq_len=seq_len).labels is None or not hasattr(data, "n_classes"):
            raise ValueError(
                f"objective=classification predicts the class of a row, but the rows of {type(data).__name__} have no labels: "
                "take data=packages"
            )
        if self.pool != "first":
            return data
        rows = SingleSegment(data)
        rows.check(seq_len=seq_len)
        return rows

    def task(self, model: nn.Module, data: Data) -> Task:
        kinds = (Decoder,) if self.lm_weight else (Decoder, Encoder)
        objective = "classification_lm" if self.lm_weight else "classification"
        refuse_other_models(model, objective, *kinds)
        if self.lm_weight:
            refuse_leaks(model, objective)
        if self.pool == "first" and not non_causal_mixers(model):
            raise ValueError(
                "pool=first: no mixer of this model sees later tokens, so its first token sees nothing of the text: "
                "take objective.pool=last, or a mixer that sees both sides, such as mha"
            )
        classifier = nn.Linear(cast(Any, model).embedding.embedding_dim, cast(Any, data).n_classes)
        terms = {"": LossTerm()} | ({"lm": LossTerm(self.lm_weight, text=True)} if self.lm_weight else {})
        return Classifier(model=model, heads={"classifier": classifier}, terms=terms, pool=self.pool)


class Classifier(Task):
    """A decoder or an encoder with a linear map from one vector for the row to the classes."""

    def __init__(self, *, model: nn.Module, heads: dict[str, nn.Module], terms: dict[str, LossTerm], pool: Pool) -> None:
        super().__init__(model=model, heads=heads, terms=terms)
        self.pool = pool

    def forward(self, batch: Batch) -> dict[str, Readout]:
        model, classifier = cast(Decoder, self.model), cast(nn.Linear, self.heads["classifier"])
        x = model.hidden(batch.tokens, positions=batch.positions)  # (b, s, m)
        classes = Readout(pooled(model, x, batch.positions, self.pool), classifier.weight, classifier.bias)
        return {"": classes} | ({"lm": model.readout(x)} if "lm" in self.terms else {})

    def head_flops(self, seq: int) -> float:
        """A decoder that is not asked for the next tokens computes no logits."""
        idle = 2 * self.model.embedding.weight.numel() if isinstance(self.model, Decoder) and "lm" not in self.terms else 0
        return super().head_flops(seq) - idle

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.labels is not None
        return {"": batch.labels} | ({"lm": batch.targets} if "lm" in self.terms else {})


class SingleSegment(WithSpecialTokens):
    """Rows with [CLS] in front and [SEP] at the end; padding, which the data may have on the right, comes after both."""

    def __init__(self, data: Data) -> None:
        super().__init__(data, n_special=2)
        self.n_classes = cast(Any, data).n_classes

    @property
    def chance(self) -> float | None:
        return self.inner.chance

    def insert(self, batch: Batch, rng: np.random.Generator, *, held_out: bool) -> Batch:
        first, last = (torch.full_like(batch.tokens[:, :1], self.specials[role]) for role in ("cls", "sep"))
        tokens, positions = torch.cat((first, batch.tokens, last), dim=1), None
        if batch.positions is not None:
            end = real(batch.positions).sum(1, keepdim=True) + 1  # (b, 1)
            position = torch.arange(tokens.shape[1])
            tokens = tokens.scatter(1, end, last).masked_fill(position > end, self.specials["pad"])
            positions = torch.where(position <= end, position, -1)
        return Batch(tokens, torch.full_like(tokens, IGNORED), positions, labels=batch.labels)
