"""A module as text: the shapes of its weights, and the arguments that it was built with."""

from __future__ import annotations

import inspect
import types
from typing import Any

from torch import Tensor, nn

from arch.contracts import Position

PLAIN = ("weight", "bias")  # parameters that need no name beside their module's


def shape(tensor: Tensor) -> str:
    return " x ".join(f"{n:,}" for n in tensor.shape) or "1 number"


def settings(module: nn.Module) -> list[str]:
    """key=value of each argument that the module has as an attribute and whose value is not the default."""
    if type(module).__module__.startswith("torch.") and next(module.parameters(recurse=False), None) is not None:
        return []  # the shapes are enough
    found = []
    for key, parameter in inspect.signature(type(module).__init__).parameters.items():
        value = getattr(module, key, None)
        if key == "d_ff" and value is None:
            value = _width(module)
        text = _as_text(value)
        default = _as_text(parameter.default) if not callable(value) else ""  # an activation is always shown
        if key != "d_model" and text and text != default:
            found.append(f"{key}={text}")
    return found


def sub_blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks that a module is built from, without bare projections and identities."""
    return [part for part in module.children() if not type(part).__module__.startswith("torch.") and not is_identity(part)]


def is_identity(module: nn.Module) -> bool:
    """Whether the module returns its input unchanged."""
    return type(module) in (Position, nn.Identity) or (isinstance(module, nn.Dropout) and module.p == 0)


def _width(module: nn.Module) -> int | None:
    """Hidden channels of an ffn, from the shape of its weights."""
    weight = getattr(getattr(module, "up_proj", None), "weight", None)
    return weight.shape[0] if isinstance(weight, Tensor) else None


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
        return value.__name__
    return value if isinstance(value, str) else ""
