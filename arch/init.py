"""Initial weights: every tensor is drawn from its own stream, named by the module that owns it.

Two arms that share a module name and shape start from the same numbers, whatever stands between them; so a paired
comparison differs by the architecture alone.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import nn

from .contracts import Sublayer
from .model.stack import Stack


def initialise(model: nn.Module, *, seed: int) -> None:
    """Draw every weight of the model anew, in place.

    W ~ N(0, 1/d_in), b = 0, embeddings ~ N(0, 1/d_model); where the outputs of n sublayers add up over the depth, as the blocks
    declare, they are divided by sqrt(n), so that the sum has the same scale at every depth. Other blocks draw by their
    reset_parameters.

    Paper: Radford 2019 (GPT-2), section 2.3. Differs: the scale follows the width where GPT-2 has 0.02 throughout. That
    serves every width; and at d_model = 96 embeddings of 0.02 drown in what the first layer adds, which costs 0.5 bits
    per byte after 200 steps.
    Args:   seed: of the run.
    Raises: ValueError: a module owns weights and has no reset_parameters(); a sublayer that declares no outputs.
    """
    refuse_undrawable(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        tables: set[int] = set()
        for name, module in model.named_modules():
            torch.manual_seed(stream(seed, name.replace("_orig_mod.", "")))  # a compiled layer draws what it would uncompiled
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                if id(module.weight) in tables:  # drawn already, under the name that it had first
                    continue
                tables.add(id(module.weight))
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.embedding_dim))
            elif callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        for stack in (module for module in model.modules() if isinstance(module, Stack)):
            sublayers = [sublayer for block in stack.blocks if block.outputs_add_up for sublayer in block.sublayers]
            for sublayer in sublayers:
                sublayer.scale_output(1 / math.sqrt(len(sublayers)))


def refuse_undrawable(model: nn.Module) -> None:
    """Raises ValueError where a module owns weights and cannot draw them: all seeds would start from the same numbers; or where
    it adds to a residual stream and does not say by which weights."""
    for name, module in model.named_modules():
        kind = type(module)
        if list(module.parameters(recurse=False)) and not callable(getattr(module, "reset_parameters", None)):
            raise ValueError(f"{kind.__name__} ({name}) owns weights but has no reset_parameters() to draw them anew")
        if isinstance(module, Sublayer) and kind.scale_output is Sublayer.scale_output and not hasattr(module, "outputs"):
            raise ValueError(
                f"{kind.__name__} ({name}) does not say which weights its outputs come from, so that they could be scaled: "
                'declare outputs = ("o_proj.weight",), or () where nothing is to be scaled'
            )


def stream(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on the run's seed and the names alone."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
