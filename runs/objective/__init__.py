"""What is asked of a model in training."""

from .causal_lm import CausalLM
from .classification import Classification
from .contract import Objective, Question, Task
from .masked_lm import MaskedLM
from .seq2seq import Seq2Seq

__all__ = ["CausalLM", "Classification", "MaskedLM", "Objective", "Question", "Seq2Seq", "Task"]
