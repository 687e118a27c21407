"""What a module says of itself: the shapes of its weights, and what it was built with."""

from __future__ import annotations

import inspect
import types
from typing import Any

from torch import Tensor, nn

from arch.contracts import Position

PLAIN = ("weight", "bias")  # parameters that their module's name is enough for


def shape(tensor: Tensor) -> str:
    return " x ".join(f"{n:,}" for n in tensor.shape) or "1 number"


def settings(module: nn.Module) -> list[str]:
    """key=value of what the module was built with, as far as it keeps it and it is not what it would have been anyway."""
    if type(module).__module__.startswith("torch.") and next(module.parameters(recurse=False), None) is not None:
        return []  # the shapes say it all
    told = []
    for key, parameter in inspect.signature(type(module).__init__).parameters.items():
        value = getattr(module, key, None)
        if key == "d_ff" and value is None:
            value = _width(module)
        text = _told(value)
        usual = _told(parameter.default) if not callable(value) else ""  # an activation is always told
        if key != "d_model" and text and text != usual:
            told.append(f"{key}={text}")
    return told


def parts(module: nn.Module) -> list[nn.Module]:
    """The blocks that a module is made of: no bare projections, and nothing that does nothing."""
    return [part for part in module.children() if not type(part).__module__.startswith("torch.") and not idle(part)]


def idle(module: nn.Module) -> bool:
    """Whether the module hands on what it is given, whatever it is."""
    return type(module) in (Position, nn.Identity) or (isinstance(module, nn.Dropout) and module.p == 0)


def _width(module: nn.Module) -> int | None:
    """Hidden channels of an ffn, where only its weights know them."""
    weight = getattr(getattr(module, "up_proj", None), "weight", None)
    return weight.shape[0] if isinstance(weight, Tensor) else None


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
        return value.__name__
    return value if isinstance(value, str) else ""
