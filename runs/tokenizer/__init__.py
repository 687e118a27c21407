"""What turns text into tokens."""

from .bpe import BPE
from .byte import Bytes
from .contract import Tokenizer
from .file import File
from .wordpiece import WordPiece

__all__ = ["BPE", "Bytes", "File", "Tokenizer", "WordPiece"]
