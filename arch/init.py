"""Initial weights: every tensor is drawn from its own stream, named by the module that owns it.

Two arms that share a module name and shape start from the same numbers, whatever stands between them; so a paired
comparison differs by the architecture alone.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import nn

from .model.stack import Stack

RESIDUAL_OUTPUTS = ("o_proj", "down_proj")  # the last projection of a sublayer: it writes to the residual stream


def initialise(model: nn.Module, *, seed: int) -> None:
    """Draw every weight of the model anew, in place.

    W ~ N(0, 1/d_in), b = 0, embeddings ~ N(0, 1/d_model); the outputs of the n sublayers that write to a residual stream are
    divided by sqrt(n), so that it keeps its scale with depth. Other blocks draw by their reset_parameters.

    Paper: Radford 2019 (GPT-2), section 2.3. Differs: the scale follows the width where GPT-2 has 0.02 throughout. That
    serves every width; and at d_model = 96 embeddings of 0.02 drown in what the first layer adds, which costs 0.5 bits
    per byte after 200 steps.
    Args:   seed: of the run.
    Raises: ValueError: a module owns weights and has no reset_parameters().
    """
    refuse_undrawable(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        tables: set[int] = set()
        for name, module in model.named_modules():
            torch.manual_seed(stream(seed, name))
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
            layers = [layer for layer in stack.blocks if layer.residual]
            n_sublayers = sum(1 if getattr(layer, "ffn", None) is None else 2 for layer in layers)
            for name, parameter in (named for layer in layers for named in layer.named_parameters()):
                if parameter.dim() > 1 and any(output in name.split(".") for output in RESIDUAL_OUTPUTS):
                    parameter.div_(math.sqrt(n_sublayers))


def refuse_undrawable(model: nn.Module) -> None:
    """Raises ValueError where a module owns weights and cannot draw them: all seeds would start from the same numbers."""
    for name, module in model.named_modules():
        if list(module.parameters(recurse=False)) and not callable(getattr(module, "reset_parameters", None)):
            raise ValueError(f"{type(module).__name__} ({name}) owns weights but has no reset_parameters() to draw them anew")


def stream(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on the run's seed and the names alone."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
