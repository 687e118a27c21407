"""What a model is trained for: the losses, and the rows that they are computed on."""

from .causal_lm import CausalLM
from .causal_lm_drawn import CausalLMDrawn
from .classification import Classification
from .contract import LossTerm, Objective, Task
from .masked_lm import MaskedLM
from .seq2seq import Seq2Seq

__all__ = ["CausalLM", "CausalLMDrawn", "Classification", "LossTerm", "MaskedLM", "Objective", "Seq2Seq", "Task"]
