"""The protocols that every kind of block keeps, and the values that pass between blocks.

Letters: b batch, s seq, t tokens (b * s flattened), m d_model, h heads, g kv heads, d d_head, e experts, a assignments.

``positions`` is (batch, seq) integers; None means 0..seq-1; a 0 starts a new document. It is the only mask that callers pass:
what attention may see, where a recurrence resets and what counts as padding all follow from it.

A block that owns nn.Parameters itself draws them in ``reset_parameters()``: initial weights are drawn anew, per name and seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Cost:
    """What a block costs, told by its own formula; costs add up.

    params: parameters. active_params: those that one token meets (fewer than params in a MoE).
    flops: forward FLOPs per token in a text of a given length: matrix products only, a multiply-add is 2,
    and attention counts the pairs that its pattern allows. state_bytes: what decoding one sequence of that length keeps.
    """

    params: int = 0
    active_params: int = 0
    flops: float = 0.0
    state_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.params + other.params,
            self.active_params + other.active_params,
            self.flops + other.flops,
            self.state_bytes + other.state_bytes,
        )


class Routing(NamedTuple):
    """A router's decision for t tokens: a list of a assignments "this expert works on this token with this weight".

    logits: (t, e) the scores before any choice, fp32. token, expert: (a,) integers. gate: (a,) the weight on the
    expert's output. An assignment with expert == e was dropped (its expert was full): it has gate 0 and costs nothing.
    a is fixed by the shapes alone, so that a GPU never waits for the host.
    """

    logits: Tensor
    token: Tensor
    expert: Tensor
    gate: Tensor


class Cache:
    """What a mixer remembers between the steps of decoding: mutated in place, made by ``mixer.init_cache``."""


class SequenceMixer(nn.Module):
    """Mixes over the sequence: (batch, seq, d_model) -> (batch, seq, d_model)."""

    causal: bool = True  # whether no output depends on a later token; tested by perturbation
    reads_memory: bool = False  # whether it looks at another text: then its cache is what ``read`` makes of that

    def forward(self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        raise NotImplementedError

    def init_cache(self, batch: int, max_seq: int) -> Cache:
        """An empty cache for decoding up to max_seq tokens, on the device and in the dtype of the parameters."""
        raise NotImplementedError(f"{type(self).__name__} does not decode step by step")

    def read(self, memory: Cache | None) -> Cache:
        """The other text, a ``Memory``, as this mixer keeps it: made once, it serves every step of decoding."""
        raise NotImplementedError(f"{type(self).__name__} reads no other text")

    def cost(self, seq: int) -> Cost:
        raise NotImplementedError


class ChannelMixer(nn.Module):
    """Mixes over the channels of each token: (..., d_model) -> (..., d_model). An ffn, dense or routed."""

    causal: bool = True  # False where the router looks at other, later tokens

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def cost(self, seq: int) -> Cost:
        raise NotImplementedError


class Router(nn.Module):
    """Chooses which expert works on which token: (tokens, d_model) -> Routing.

    Its config names n_experts and top_k, since the experts' width follows from them.
    """

    causal: bool = True  # False where the choice for a token depends on later tokens
    balances_itself: bool = False  # True where no load-balance loss is wanted
    n_experts: int
    top_k: float  # experts that work on one token (the mean, where it varies)

    def forward(self, x: Tensor) -> Routing:
        raise NotImplementedError

    def after_step(self, load: Tensor) -> None:
        """Called once after each optimiser step with the (n_experts,) assignments of that step; most routers ignore it."""

    def cost(self, seq: int) -> Cost:
        raise NotImplementedError


class Position(nn.Module):
    """How a place is told. Three ways in, each an identity unless the kind uses it."""

    longest: int | None = None  # the longest text, in tokens, that it has places for; None = any

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: (batch, seq, d_model), positions: (batch or 1, seq) -> x with its place added."""
        return x

    def rotate(self, q: Tensor, k: Tensor, q_positions: Tensor, k_positions: Tensor) -> tuple[Tensor, Tensor]:
        """q: (..., h, q, d), k: (..., g, k, d), positions (..., q) and (..., k) -> both with their places turned in."""
        return q, k

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor | None:
        """positions (..., q) and (..., k) -> (..., h, q, k) to add to the scores, or None."""
        return None

    def cost(self, seq: int) -> Cost:
        return parameters_only(self)


class Pattern(nn.Module):
    """Which keys a query may see inside one document: a pure function of the two places, causality included."""

    causal: bool
    reach: int | None = None  # set where distance alone decides: no key further back than this is ever seen, itself included

    def allows(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        """positions (..., q) and (..., k) -> boolean (..., q, k)."""
        raise NotImplementedError

    def blocks(self, seq: int) -> tuple[int, Tensor] | None:
        """(size, index): cut the text into blocks of ``size``; row i of index lists the key blocks that hold every key that
        query block i may see, -1 for none. None: nothing worth skipping. This is all that the fast path needs to know."""
        return None

    def pairs(self, seq: int) -> int:
        """How many (query, key) pairs are allowed in one document of this length."""
        positions = torch.arange(seq)
        return int(self.allows(positions, positions).sum())


class Norm(nn.Module):
    """(..., d_model) -> (..., d_model)."""

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def cost(self, seq: int) -> Cost:
        return parameters_only(self)


class Block(nn.Module):
    """One layer: how norms, mixer, ffn and residual are wired. Norms and residuals live here and nowhere else."""

    mixer: SequenceMixer
    residual: bool = True  # whether what goes in is carried past the sublayers, so that the outputs of all layers add up

    def forward(self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        raise NotImplementedError

    def cost(self, seq: int) -> Cost:
        kinds = (SequenceMixer, ChannelMixer, Norm)
        parts = (part.cost(seq) if isinstance(part, kinds) else parameters_only(part) for part in self.children())
        return sum(parts, Cost())


def parameters_only(module: nn.Module) -> Cost:
    """The cost of a block whose arithmetic is element-wise: parameters, no matrix products, no state."""
    n = sum(p.numel() for p in module.parameters())
    return Cost(params=n, active_params=n)


def documents(positions: Tensor) -> Tensor:
    """The document of each token: the running count of zeros; -1 for padding, whose positions are negative. (batch, seq)."""
    return (positions == 0).cumsum(-1).masked_fill(positions < 0, -1)


def longest_document(positions: Tensor) -> Tensor:
    """The tokens of the document that reaches the largest place: the text of a row whose other tokens are padding.

    (batch, seq) -> (batch, seq) boolean. Padding is made of documents of one token, so where the text is one too, the first.
    """
    document = documents(positions)
    return document == document.gather(1, positions.argmax(-1, keepdim=True))
