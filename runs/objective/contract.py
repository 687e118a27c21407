"""What the training loop knows about objectives: a task is a model with the terms of its loss, each a cross-entropy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple, cast

from torch import Tensor, nn

from arch import Decoder, Encoder, EncoderDecoder
from arch.contracts import Cost, real
from arch.lora import adapter_cost, without_adapters
from arch.model.readout import Readout
from arch.model.stack import Stack

from ..data.contract import Batch, Data

FITTING = {
    Decoder: "causal_lm, classification or classification_lm",
    Encoder: "masked_lm or classification",
    EncoderDecoder: "seq2seq",
}


class LossTerm(NamedTuple):
    """A term of the loss. weight: of its mean cross-entropy. text: whether its targets are all the tokens of a text, so that
    it can be reported in bits per byte."""

    weight: float = 1.0
    text: bool = False


class Task(nn.Module):
    """A model with the terms of its loss: batch -> the logits of each term, not written out yet.

    loss = sum_i weight_i * mean over the targets of term i of the cross-entropy

    Args:   model: it is named ``model`` in a checkpoint. heads: further modules that learn with it, by name.
            terms: of the loss, by name. The first is what arms are compared by; its name is "": its metrics have no prefix.
    """

    def __init__(self, *, model: nn.Module, heads: Mapping[str, nn.Module], terms: Mapping[str, LossTerm]) -> None:
        super().__init__()
        self.model = model
        self.heads = nn.ModuleDict(heads)
        self.terms = dict(terms)

    def forward(self, batch: Batch) -> dict[str, Readout]:
        """Each term's logits: (b, s, classes), (b, k, classes) or (b, classes)."""
        raise NotImplementedError

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        """Each term's targets: (b, s), (b, k) or (b,), IGNORED where there is none; a function of the batch alone."""
        raise NotImplementedError

    def measured(self, batch: Batch, answers: dict[str, Readout]) -> dict[str, Tensor]:
        """Further metrics of a held-out batch, given what forward made of it: one number each, averaged over the batches."""
        return {}

    def tokens(self, batch: Batch) -> float:
        """How many tokens the model works on, padding left out; of a source and a target, the mean of both."""
        return n_real(batch.tokens, batch.positions)

    def cost(self, seq: int) -> Cost:
        """Per token of rows with seq tokens: of the model, its adapters, and the heads, which work on a row as a whole."""
        heads = sum(p.numel() for p in self.heads.parameters())
        return self._model_cost(seq) + adapter_cost(self.model) + Cost(heads, heads, self.head_flops(seq))

    def head_flops(self, seq: int) -> float:
        """Forward FLOPs of the heads per token of a row: each matrix is used once a row."""
        return 2 * sum(p.numel() for p in self.heads.parameters() if p.dim() > 1) / seq

    def train_flops(self, seq: int) -> float:
        """Per token, forward and backward: two products for one, and one only where the weights do not learn."""
        forward = self.cost(seq).flops
        if all(p.requires_grad for p in self.model.parameters()):
            return 3 * forward
        with without_adapters(self.model):
            vectors = sum(p.numel() for p in self.model.parameters() if p.dim() < 2)
        return 3 * forward - 2 * (self._model_cost(seq).active_params - vectors - lookups(self.model))

    def _model_cost(self, seq: int) -> Cost:
        with without_adapters(self.model):
            cost: Cost = self.model.cost(seq)  # type: ignore[operator]
        return cost


def n_real(tokens: Tensor, positions: Tensor | None) -> int:
    return tokens.numel() if positions is None else int(real(positions).sum())


def lookups(model: nn.Module) -> int:
    """Parameters of tables that are only looked up: no matrix product reads them."""
    tables = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    writer = getattr(model, "decoder", model)
    if isinstance(writer, Decoder) and writer.lm_head is None:
        tables.pop(id(writer.embedding.weight))  # tied: it gives the logits as well
    return sum(table.numel() for table in tables.values())


class Objective(ABC):
    """What a model is trained for; built from config, it holds settings and nothing else."""

    @abstractmethod
    def data(self, data: Data, *, seq_len: int) -> Data:
        """The data as the model reads it, checked for rows of seq_len tokens.

        Raises ValueError: the data lacks what the loss is computed from.
        """

    @abstractmethod
    def task(self, model: nn.Module, data: Data) -> Task:
        """The model with its heads, whose weights are still to be drawn. data: what ``data`` returned.

        Raises ValueError: a model of another kind.
        """


def first_batch(data: Data, *, seq_len: int) -> Batch:
    """One row, which shows what the data provides; the data is checked first."""
    data.check(seq_len=seq_len)
    return data.batch(seed=0, step=0, batch_size=1, seq_len=seq_len)


def non_causal_mixers(model: nn.Module) -> list[str]:
    """The kinds of mixers of a decoder or an encoder through which a token sees later ones. Routers are another matter: what
    one that is not causal gives away is flagged, not refused."""
    return sorted({type(layer.mixer).__name__ for layer in cast(Stack, model).blocks if not layer.mixer.causal})


def refuse_leaks(decoder: nn.Module, objective: str) -> None:
    if kinds := non_causal_mixers(decoder):
        raise ValueError(
            f"objective={objective} predicts the next token, but this decoder sees it ({', '.join(kinds)} is not causal): "
            "take causal=true and a causal pattern"
        )


def refuse_other_models(model: nn.Module, objective: str, *kinds: type[nn.Module]) -> None:
    if not isinstance(model, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        fitting = next((names for kind, names in FITTING.items() if isinstance(model, kind)), "another")
        raise ValueError(
            f"objective={objective} trains a model of the kind {wanted}, but this one is of the kind {type(model).__name__}: "
            f"take objective={fitting}, or another model"
        )
