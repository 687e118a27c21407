"""Tasks made out of the standard library's sources: texts taken out of them, tokenised once and cached between runs."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..tokenizer.contract import Tokenizer
from . import cache
from .python_source import PythonSource

FORMAT = "library task 1"  # part of every cache key: change it with anything that decides what is stored


class LibraryTask(ABC):
    """Lists of texts under names; a subclass says which texts, and lays their tokens out in rows."""

    def __init__(self, *, tokenizer: Tokenizer, roots: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.library = PythonSource(tokenizer=tokenizer, roots=roots)

    @property
    @abstractmethod
    def settings(self) -> str:
        """All that decides texts(), apart from the sources."""

    @abstractmethod
    def texts(self) -> dict[str, list[str]]:
        """The texts, in an order that is the same everywhere. The tokenizer learns from the lists called train..."""

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @cached_property
    def token_bytes(self) -> Tensor | None:
        """None where the tokenizer does not give every text back."""
        if self._cached[1]["spelt"] == "no":  # a tokenizer may have to learn first
            return None
        known = torch.from_numpy(self.tokenizer.token_bytes)
        return torch.cat([known, known.new_zeros(self.vocab_size - len(known))])

    @property
    def sha256(self) -> str:
        return self._cached[1]["sha256"]

    @cached_property
    def rows(self) -> dict[str, list[np.ndarray]]:
        """The tokens of every text."""
        arrays = self._cached[0]
        names = [name for name in arrays if f"{name} ends" in arrays]
        return {name: np.split(arrays[name], arrays[f"{name} ends"])[:-1] for name in names}

    @cached_property
    def _cached(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        parts = (type(self).__name__, self.settings, self.library.fingerprint(), self.tokenizer.settings)
        name = cache.key(FORMAT, *parts)
        cached = cache.load(name)
        if cached is not None:
            self.tokenizer.restore(cached[0]["tokenizer"].tobytes())
            return cached
        texts = self.texts()
        self.tokenizer.fit(text for part, some in texts.items() if part.startswith("train") for text in some)
        spelt = True
        arrays = {"tokenizer": np.frombuffer(self.tokenizer.state(), dtype=np.uint8)}
        for part, some in texts.items():
            encoded = [self.tokenizer.encode(text) for text in some]
            arrays[part] = np.concatenate([self.tokenizer.encode(""), *encoded])
            arrays[f"{part} ends"] = np.cumsum([len(tokens) for tokens in encoded], dtype=np.int64)
            spelt &= all(self._spelt(text, tokens) for text, tokens in zip(some, encoded, strict=True))
        facts = {
            "sha256": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
            "spelt": "yes" if spelt else "no",
        }
        cache.store(name, arrays, facts)
        return arrays, facts

    def _spelt(self, text: str, tokens: np.ndarray) -> bool:
        """Whether the tokens' bytes are the text's, each text standing for itself: no space put before it."""
        return self.tokenizer.spells(text) and int(self.tokenizer.token_bytes[tokens].sum()) == len(text.encode())
