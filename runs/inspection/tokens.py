"""Tokens as people can read them."""

from __future__ import annotations

from runs.tokenizer import Bytes, Tokenizer

UNKNOWN = "\ufffd"


def readable(tokenizer: Tokenizer, token: int) -> str:
    """The token's text on one line: a line's end as \\n, a lone byte of a character as \\xe2; <7> where it has no text."""
    if token >= tokenizer.vocab_size:
        return f"<{token}>"
    text = tokenizer.decode([token])
    if UNKNOWN in text or not text:
        return f"\\x{token:02x}" if isinstance(tokenizer, Bytes) else f"<{token}>"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
