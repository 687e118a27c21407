"""One name map per published family: their tensors under our names, and back.

state = gpt2.names(n_layers=12).to_ours(their_state)
"""

from . import bert, deepseek_v2, gpt2, llama, mamba, marian, mixtral, olmoe, phi3, qwen2
from .mapping import NameMap

__all__ = [
    "NameMap",
    "bert",
    "deepseek_v2",
    "gpt2",
    "llama",
    "mamba",
    "marian",
    "mixtral",
    "olmoe",
    "phi3",
    "qwen2",
]
