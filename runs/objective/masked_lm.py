"""BERT's objective: masked tokens, and next sentence prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, cast

from torch import Tensor, nn

from arch import Encoder, LayerNorm, MaskedLMHead
from arch.model.readout import Readout

from ..data.contract import IGNORED, Batch, Data
from .contract import LossTerm, Objective, Task, first_batch, non_causal_mixers, refuse_other_models
from .masked_text import MaskedText
from .pool import first_token


class MaskedLM(Objective):
    """Masked tokens, from both sides; and of two segments, whether the second continues the first.

    L = -mean over masked t of log p(x_t | the row) - nsp_weight * mean over rows of log p(label | the row)

    Paper: Devlin 2018, arXiv:1810.04805 (section 3.1). Differs: see MaskedText.
    Args:   mask_rate: share of the tokens that are predicted; held_out_rate: of those of the held-out rows, so that models
            trained at several rates are asked the same; None = as in training. nsp_weight: of the second term; 0 = no pairs,
            rows are one segment. eps: of the head's norm, the model's own. logit_scale: factor on the masked tokens' logits.
    Raises: ValueError: a model that is no encoder; pairs where no mixer sees both sides; rows that are no running text;
            a rate that is no share.
    """

    implied: ClassVar[Mapping[str, str]] = {"held_out_rate": "mask_rate"}  # None stands for the value of the other

    def __init__(
        self,
        *,
        mask_rate: float = 0.15,
        held_out_rate: float | None = None,
        nsp_weight: float = 1.0,
        eps: float = 1e-5,
        logit_scale: float = 1.0,
    ) -> None:
        for name, rate in (("mask_rate", mask_rate), ("held_out_rate", held_out_rate)):
            if rate is not None and not 0 < rate < 1:
                raise ValueError(f"{name}={rate}: a share above 0 and below 1 is expected")
        if nsp_weight < 0:
            raise ValueError(f"nsp_weight={nsp_weight}: at least 0 is expected; 0 = no pairs of segments")
        self.mask_rate, self.held_out_rate, self.nsp_weight, self.eps = mask_rate, held_out_rate, nsp_weight, eps
        self.logit_scale = logit_scale

    def data(self, data: Data, *, seq_len: int) -> Data:
        masked = MaskedText(data, rate=self.mask_rate, held_out_rate=self.held_out_rate, pairs=self.nsp_weight > 0)
        masked.check(seq_len=seq_len)
        if first_batch(data, seq_len=seq_len - masked.n_special).positions is not None:
            raise ValueError(
                f"objective=masked_lm masks tokens of a running text, but the rows of {type(data).__name__} are examples: "
                "take data=python_source, or data=text data.path=FILE"
            )
        return masked

    def task(self, model: nn.Module, data: Data) -> Task:
        refuse_other_models(model, "masked_lm", Encoder)
        vocab_size, d_model = cast(Encoder, model).embedding.weight.shape
        norm = LayerNorm(d_model=d_model, eps=self.eps)
        head = MaskedLMHead(d_model=d_model, vocab_size=vocab_size, norm=norm, logit_scale=self.logit_scale)
        heads: dict[str, nn.Module] = {"mlm": head}
        terms = {"": LossTerm()}
        if self.nsp_weight > 0:
            if not non_causal_mixers(model):
                raise ValueError(
                    f"nsp_weight={self.nsp_weight}: the first token predicts whether B follows A, but no mixer of this model "
                    "sees later tokens: take objective.nsp_weight=0, or a mixer that sees both sides, such as mha"
                )
            heads["nsp"] = nn.Linear(d_model, 2)
            terms["nsp"] = LossTerm(self.nsp_weight)
        return Cloze(model=model, heads=heads, terms=terms, count=cast(MaskedText, data).count)


class Cloze(Task):
    """An encoder with a head for masked tokens and one for pairs.

    Args:   count: row length, and whether the row is held out -> tokens that are predicted in it: only these get logits.
            A row is taken for held out while the task is evaluated.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        heads: dict[str, nn.Module],
        terms: dict[str, LossTerm],
        count: Callable[[int, bool], int],
    ) -> None:
        super().__init__(model=model, heads=heads, terms=terms)
        self.count = count

    def masked(self, batch: Batch) -> Tensor:
        """Where the tokens stand that are predicted, as many in each row, so that the host need not know them. (b, k)"""
        first = (batch.targets == IGNORED).int().argsort(dim=1, stable=True)
        return first[:, : self.count(batch.targets.shape[1], not self.training)]

    def forward(self, batch: Batch) -> dict[str, Readout]:
        encoder = cast(Encoder, self.model)
        types = None if encoder.embedding.types is None else batch.types  # [SEP] divides the segments as well
        x = encoder(batch.tokens, positions=batch.positions, types=types)  # (b, s, m)
        hidden = x.gather(1, self.masked(batch)[..., None].expand(-1, -1, x.shape[-1]))  # (b, k, m)
        answers = {"": cast(MaskedLMHead, self.heads["mlm"]).readout(hidden, encoder.embedding.weight)}
        if "nsp" in self.terms:
            nsp = cast(nn.Linear, self.heads["nsp"])
            answers["nsp"] = Readout(first_token(encoder, x), nsp.weight, nsp.bias)
        return answers

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        targets = {"": batch.targets.gather(1, self.masked(batch))}
        if "nsp" in self.terms:
            assert batch.labels is not None
            targets["nsp"] = batch.labels
        return targets

    def head_flops(self, seq: int) -> float:
        """The head for hidden tokens works on those alone, and its logits come from the encoder's table."""
        hidden = self.count(seq, False) / seq
        table = cast(Encoder, self.model).embedding.weight.numel()
        mlm = sum(p.numel() for p in self.heads["mlm"].parameters() if p.dim() > 1)
        return super().head_flops(seq) + 2 * (hidden * (mlm + table) - mlm / seq)
