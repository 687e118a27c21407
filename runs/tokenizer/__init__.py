"""What turns text into tokens."""

from .bpe import BPE
from .byte import Bytes
from .contract import Tokenizer

__all__ = ["BPE", "Bytes", "Tokenizer"]
