"""Tokens that an earlier run has stored, taken over with the tokenizer that made them."""

from __future__ import annotations

import copy
from collections.abc import Collection

import numpy as np

from ..tokenizer.contract import Tokenizer
from . import cache

Stored = tuple[dict[str, np.ndarray], dict[str, str]]

STATE = "tokenizer"  # the label of what the tokenizer has learnt
FACTS = ("sha256", "spelt")


def take_over(name: str, tokenizer: Tokenizer, *, tokens: Collection[str], ends: Collection[str] = ()) -> Stored | None:
    """The arrays of these labels, and facts; the tokenizer is as it was then. None: not there, or none that it has made.

    A file that somebody else has put there costs time, as one that is damaged does.
    """
    found = cache.load(name)
    if found is None or not {STATE, *tokens, *ends} <= found[0].keys() or not set(FACTS) <= found[1].keys():
        return None
    arrays, state = found[0], found[0][STATE].tobytes()
    trial = copy.copy(tokenizer)
    try:
        trial.restore(state)
    except ValueError:
        return None
    known = all(int(arrays[label].max(initial=0)) < trial.vocab_size for label in tokens)
    if not known or trial.settings != tokenizer.settings:
        return None
    tokenizer.restore(state)
    return found
