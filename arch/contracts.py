"""The contract of every kind of block, and the values that pass between blocks.

Letters: b batch, s seq, t tokens (b * s flattened), m d_model, h heads, g kv heads, d d_head, e experts, a assignments.

``positions`` is (batch, seq) integers; None means 0..seq-1; a 0 starts a new document; a negative number is padding, which no
real token sees, which sees no real token, and which no expert, loss or statistic counts. It is the only mask that callers
pass: what attention may see, where a recurrence resets and which tokens are real all follow from it.

A block that owns nn.Parameters itself initialises them in ``reset_parameters()``: ``arch.init`` calls it with a random
stream for each name and seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Cost:
    """The cost of a block, by its own formula; costs add up.

    params: parameters. active_params: those that one token uses (fewer than params in a MoE).
    flops: forward FLOPs per token in a text of a given length: matrix products only, a multiply-add is 2,
    and attention counts the pairs that its pattern allows. state_bytes: the cache of one sequence of that length.
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
    expert's output. An assignment with expert == e was dropped (its expert was full, or its token is padding): it has gate 0
    and costs nothing. a is fixed by the shapes alone, so that a GPU never waits for the host.
    real: (t,) booleans, which tokens are no padding; None = all.
    """

    logits: Tensor
    token: Tensor
    expert: Tensor
    gate: Tensor
    real: Tensor | None = None


class Cache:
    """A mixer's state between the steps of decoding: mutated in place, made by ``mixer.init_cache``."""


class Memory(NamedTuple):
    """An encoder's output: x (batch, n, d_model), and the positions of the source tokens, (batch, n) or None."""

    x: Tensor
    positions: Tensor | None = None


class Sublayer(nn.Module):
    """A part of a layer: a mixer over the sequence or over the channels."""

    causal: bool = True  # whether no output depends on a later token; tested by perturbation
    outputs: tuple[str, ...]  # weights of its output projection, as ("o_proj.weight",): ``arch.init`` scales them

    @torch.no_grad()
    def scale_output(self, factor: float) -> None:
        """Multiply the output by the factor, by scaling the weights in place. A sublayer whose output is no matrix product
        overrides this instead of declaring ``outputs``."""
        for name in self.outputs:
            self.get_parameter(name).mul_(factor)

    def cost(self, seq: int) -> Cost:
        raise NotImplementedError


class SequenceMixer(Sublayer):
    """Mixes over the sequence: (batch, seq, d_model) -> (batch, seq, d_model).

    Where ``reads_memory``, forward also takes ``memory: Memory | None``, the encoder's output; with a cache, its keys and
    values are cached at the first call.
    """

    reads_memory: bool = False

    def forward(self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        raise NotImplementedError

    def init_cache(self, batch: int, max_seq: int) -> Cache:
        """An empty cache for decoding up to max_seq tokens, on the device and in the dtype of the parameters."""
        raise NotImplementedError(f"{type(self).__name__} does not decode step by step")


class ChannelMixer(Sublayer):
    """Mixes over the channels of each token: (..., d_model) -> (..., d_model). An ffn, dense or routed.

    positions: (...), for what depends on which tokens are real.
    """

    def forward(self, x: Tensor, *, positions: Tensor | None = None) -> Tensor:
        raise NotImplementedError


class Router(nn.Module):
    """Chooses which expert works on which token: (tokens, d_model) -> Routing.

    Its config names n_experts and top_k, since the experts' width follows from them.
    """

    causal: bool = True  # False where the choice for a token depends on later tokens
    losses: tuple[str, ...] = ("load_balance", "router_z")  # the auxiliary losses that it is trained with
    n_experts: int
    top_k: float  # experts that work on one token (the mean, where it varies)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Routing:
        """real: (tokens,) booleans; the others are padding, whose assignments are dropped. None = all."""
        raise NotImplementedError

    def after_step(self, load: Tensor) -> None:
        """Called once after each optimiser step with the (n_experts,) assignments of that step; most routers ignore it."""

    def cost(self, seq: int) -> Cost:
        raise NotImplementedError


class Position(nn.Module):
    """How positions are applied. Three methods, each an identity unless the kind uses it."""

    longest: int | None = None  # the longest text, in tokens, that it has positions for; None = any
    n_heads: int | None = None  # where it tells heads apart, how many there are

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: (batch, seq, d_model), positions: (batch or 1, seq) -> x with its positions added."""
        return x

    def rotate(self, q: Tensor, k: Tensor, q_positions: Tensor, k_positions: Tensor) -> tuple[Tensor, Tensor]:
        """q: (..., h, q, d), k: (..., g, k, d), positions (..., q) and (..., k) -> both rotated by their positions."""
        return q, k

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor | None:
        """positions (..., q) and (..., k) -> (..., h, q, k) to add to the scores, or None."""
        return None

    def cost(self, seq: int) -> Cost:
        return parameters_only(self)


class Part(NamedTuple):
    """A part of a pattern. The text, rearranged so that every stride-th token follows the other, is cut into blocks of ``size``
    tokens; the queries of block i may see the blocks key_blocks[i], -1 for none. key_blocks: (n, as many as one may see)"""

    size: int
    key_blocks: Tensor
    stride: int = 1


class Pattern(nn.Module):
    """Which keys a query may see inside one document: a pure function of the two positions, causality included."""

    causal: bool
    reach: int | None = None  # set where distance alone decides: no key further back than this is seen, itself included

    def allows(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        """positions (..., q) and (..., k) -> boolean (..., q, k)."""
        raise NotImplementedError

    def parts(self, seq: int) -> Sequence[Part]:
        """Parts which together list every key that a query may see; a pair that several list is the first one's. None of them:
        nothing worth skipping. The fast path needs no more than this."""
        return ()

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
    ffn: ChannelMixer | None
    outputs_add_up: bool  # whether sublayer outputs are summed over the depth, un-normalised: ``arch.init`` scales them then

    def forward(
        self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None, memory: Memory | None = None
    ) -> Tensor:
        raise NotImplementedError

    def mix(self, x: Tensor, positions: Tensor | None, cache: Cache | None, memory: Memory | None) -> Tensor:
        """The mixer's output; memory is passed only to mixers that read it."""
        if self.mixer.reads_memory:
            y: Tensor = self.mixer(x, positions=positions, cache=cache, memory=memory)
        else:
            y = self.mixer(x, positions=positions, cache=cache)
        return y

    @property
    def sublayers(self) -> list[Sublayer]:
        """The mixer and the ffn, if there is one."""
        return [self.mixer] if self.ffn is None else [self.mixer, self.ffn]

    @property
    def causal(self) -> bool:
        """Whether no output depends on a later token."""
        return all(sublayer.causal for sublayer in self.sublayers)

    def cost(self, seq: int) -> Cost:
        kinds = (Sublayer, Norm)
        parts = (part.cost(seq) if isinstance(part, kinds) else parameters_only(part) for part in self.children())
        return sum(parts, Cost())


class Model(nn.Module):
    """A whole model, from tokens to logits or to a vector for each of them."""

    @property
    def causal(self) -> bool:
        """Whether no output depends on a later token."""
        raise NotImplementedError

    def cost(self, seq: int) -> Cost:
        raise NotImplementedError


def parameters_only(module: nn.Module) -> Cost:
    """The cost of a block whose arithmetic is element-wise: parameters, no matrix products, no state."""
    n = sum(p.numel() for p in module.parameters())
    return Cost(params=n, active_params=n)


def documents(positions: Tensor) -> Tensor:
    """The number of the document that each token belongs to: the running count of zeros, -1 for padding.

    So all padding is a document of its own, wherever it stands: its tokens see each other, and no softmax is over nothing.
    (batch, seq) -> (batch, seq)
    """
    return (positions == 0).cumsum(-1).masked_fill(positions < 0, -1)


def real(positions: Tensor) -> Tensor:
    """Which tokens are no padding. (batch, seq) -> (batch, seq) boolean"""
    return positions >= 0
