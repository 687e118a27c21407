"""Positions: how they are applied, by an embedding, a rotation or a bias on the scores."""

from .alibi import ALiBi
from .learned import Learned
from .relative_bias import RelativeBias
from .rotary import Rotary
from .scaling import LinearScaling, Llama3Scaling, NTKScaling, RotaryScaling, YaRNScaling
from .sinusoidal import Sinusoidal

__all__ = [
    "ALiBi",
    "Learned",
    "LinearScaling",
    "Llama3Scaling",
    "NTKScaling",
    "RelativeBias",
    "Rotary",
    "RotaryScaling",
    "Sinusoidal",
    "YaRNScaling",
]
