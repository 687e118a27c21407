"""What a config can do wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A config that cannot become a run: one line that names the key, the value and what would be right."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A closing remark: the known word that was probably meant, or all of them."""
    known = sorted(set(known) - {word})
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
