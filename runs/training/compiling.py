"""torch.compile, and that it is not given up without a word."""

from __future__ import annotations

from torch import nn

from arch.contracts import Block

KINDS = 128  # of layers, x training and evaluation, x the lengths that are met before a graph is made for any length


def compile_layers(model: nn.Module, backend: str = "inductor") -> None:
    """A layer at a time, in place: equal layers share their code, so a deep model compiles as fast as a shallow one.

    All layers of one class share a cache too. Its usual 8 entries are fewer than a stack of six kinds needs, and what does not
    fit would run uncompiled without a word: here there is room, and going beyond it is an error.
    backend: as torch.compile knows them.
    """
    import torch._dynamo as dynamo  # a second that an uncompiled run does not need

    dynamo.config.recompile_limit = KINDS
    dynamo.config.fail_on_recompile_limit_hit = True
    for module in model.modules():
        if isinstance(module, Block):
            module.compile(backend=backend)


def compilations() -> int:
    """How many graphs this process has compiled."""
    import torch._dynamo as dynamo

    return int(dynamo.utils.counters["stats"]["unique_graphs"])
