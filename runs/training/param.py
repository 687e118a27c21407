"""How initial scales and learning rates follow the size of a model, so that one rate may serve many sizes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import AdamW

from arch.contracts import Router
from arch.limits import at_least_one
from arch.model.stack import Stack

from .optim import ANSWERS, Muon, Optimiser, hidden_matrices, parts

HEADS = ("d_head", "d_nope")  # what mixers call the channels that a query and a key of one head multiply
POWERS = {
    AdamW: 1.0,
    Muon: 0.5,
}  # of the width, by which hidden matrices learn more slowly: entries, or singular values, are even


class Param(ABC):
    """Two changes to what is built without it: to the weights once they are drawn, to the rates before the first step."""

    @abstractmethod
    def scale_weights(self, task: nn.Module) -> None:
        """In place. Raises ValueError: a model that it does not know how to scale."""

    @abstractmethod
    def scale_rates(self, optimiser: Optimiser, task: nn.Module) -> None:
        """In place. Raises ValueError: an optimiser that it does not know."""


class Standard(Param):
    """Weights as ``arch.init`` draws them, and one rate."""

    def scale_weights(self, task: nn.Module) -> None:
        """They are as they should be."""

    def scale_rates(self, optimiser: Optimiser, task: nn.Module) -> None:
        """They are as they should be."""


class MuP(Param):
    """The maximal update parametrisation: activations and their changes keep their size as a model widens or deepens.

    With m = d_model / base_d_model, n = n_layers / base_n_layers, against what is drawn and learnt without it:

    hidden matrices, banks of experts   as drawn, N(0, 1/d_in)    rate / m (Muon: / sqrt(m))
    routers, heads of an objective      weight / sqrt(m)          rate / m
    tables: of tokens, places; lm_head  weight * sqrt(m)          rate            (so N(0, 1/base_d_model) at every width)
    norms, biases, convolutions, rates  as drawn                  rate
    outputs that add up over the depth  weight * sqrt(n)          (so that they are as large as in the base)

    The rest stands in the model: logits are multiplied by 1/m, what a sublayer adds by 1/n (conf/param/mup.yaml). Weight decay
    is divided by what its rate is multiplied by, so that both together, the share that a step takes away, stay.
    A router is a readout of few outputs: with N(0, 1/d_in) its gradient would outgrow all others in the residual stream.

    Paper: Yang 2022, arXiv:2203.03466 (table 8); Dey 2025, arXiv:2505.01618 (CompleteP, table 1, alpha = 1); with experts
    Malasnicki 2025, arXiv:2508.09752. Differs: Adam's eps stays; scores are divided by sqrt(d_head), so heads keep their width.
    Args:   d_model, n_layers: of the model. base_d_model, base_n_layers, base_d_head: of the one whose rate was tuned.
    Raises: ValueError: a size below 1.
    """

    def __init__(self, *, d_model: int, n_layers: int, base_d_model: int, base_n_layers: int, base_d_head: int) -> None:
        at_least_one(d_model=d_model, n_layers=n_layers)
        at_least_one(base_d_model=base_d_model, base_n_layers=base_n_layers, base_d_head=base_d_head)
        self.width, self.depth = d_model / base_d_model, n_layers / base_n_layers
        self.base_d_head = base_d_head

    @torch.no_grad()
    def scale_weights(self, task: nn.Module) -> None:
        self._refuse_other_heads(task)
        if next(task.parameters()).is_meta:
            return  # nothing was drawn
        for table in tables(task):
            table.mul_(math.sqrt(self.width))
        for readout in readouts(task):
            readout.div_(math.sqrt(self.width))
        for block in (block for stack in task.modules() if isinstance(stack, Stack) for block in stack.blocks):
            for sublayer in block.sublayers if block.outputs_add_up else ():
                sublayer.scale_output(math.sqrt(self.depth))

    def scale_rates(self, optimiser: Optimiser, task: nn.Module) -> None:
        for part in parts(optimiser):
            if type(part) not in POWERS:
                known = ", ".join(kind.__name__ for kind in POWERS)
                raise ValueError(
                    f"param=mup knows the rates of {known}, not those of {type(part).__name__}: take param=standard"
                )
            slower = dict.fromkeys(map(id, hidden_matrices(task)), self.width ** POWERS[type(part)])
            slower |= dict.fromkeys(map(id, readouts(task)), self.width)
            slower |= dict.fromkeys(map(id, fixed_inputs(task)), 1.0)
            groups = []
            for group in part.param_groups:
                by_factor: dict[float, list[nn.Parameter]] = {}
                for p in group["params"]:
                    by_factor.setdefault(slower.get(id(p), 1.0), []).append(p)
                for by, own in by_factor.items():
                    rates = {"lr": group["lr"] / by, "weight_decay": group["weight_decay"] * by}
                    groups.append({**group, "params": own, **rates})
            part.param_groups = groups

    def _refuse_other_heads(self, task: nn.Module) -> None:
        for module in task.modules():
            for width in (getattr(module, name) for name in HEADS if hasattr(module, name)):
                if width != self.base_d_head:
                    raise ValueError(
                        f"param.base_d_head={self.base_d_head}: {type(module).__name__} has heads of {width} channels; keep "
                        f"their width and let their number grow (size.n_heads), or tune a base with heads of {width}"
                    )


def tables(task: nn.Module) -> Iterator[nn.Parameter]:
    """One row a token, a place or a segment: those that are looked up, and those that give the logits of tokens."""
    looked_up = {id(m.weight) for m in task.modules() if isinstance(m, nn.Embedding)}
    yield from (p for name, p in task.named_parameters() if id(p) in looked_up or name.endswith("lm_head.weight"))


def readouts(task: nn.Module) -> Iterator[nn.Parameter]:
    """Matrices from all channels to as many numbers at every width: scores of experts, logits of classes."""
    for name, p in task.named_parameters():
        if ANSWERS.search(name) and not name.endswith("lm_head.weight"):
            yield p
    yield from (p for m in task.modules() if isinstance(m, Router) for p in m.parameters(recurse=False) if p.dim() >= 2)


def fixed_inputs(task: nn.Module) -> Iterator[nn.Parameter]:
    """Matrices from as many channels at every width, as their modules declare."""
    for module in task.modules():
        yield from (module.get_parameter(name) for name in getattr(module, "fixed_inputs", ()))
