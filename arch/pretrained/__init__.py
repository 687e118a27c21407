"""One module per published family, with its name map: their tensors under our names, and back.

from arch.pretrained import gpt2
state = gpt2.names(n_layers=12).to_ours(their_state)
"""

from .mapping import NameMap

__all__ = ["NameMap"]
