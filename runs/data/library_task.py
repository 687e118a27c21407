"""Tasks built from the standard library's sources: texts extracted from them, tokenised once and cached between runs."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..tokenizer.contract import Tokenizer
from . import cache
from .contract import Data
from .python_source import PythonSource

FORMAT = "library task 1"  # part of every cache key: change it with anything that decides what is stored


class LibraryTask(Data):
    """Lists of texts under names; a subclass says which texts, and arranges their tokens in rows."""

    def __init__(self, *, tokenizer: Tokenizer, roots: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.library = PythonSource(tokenizer=tokenizer, roots=roots)

    @property
    @abstractmethod
    def settings(self) -> str:
        """All that decides texts(), apart from the sources."""

    @abstractmethod
    def texts(self) -> dict[str, list[str]]:
        """The texts, in an order that is the same everywhere. The tokenizer is trained on the lists called train..."""

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @cached_property
    def token_bytes(self) -> Tensor | None:
        """None where the tokenizer is not lossless on every text."""
        if self._cached[1]["spelt"] == "no":  # a tokenizer may have to be trained first
            return None
        sizes = torch.from_numpy(self.tokenizer.token_bytes)
        return torch.cat([sizes, sizes.new_zeros(self.vocab_size - len(sizes))])

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
        lossless = True
        arrays = {"tokenizer": np.frombuffer(self.tokenizer.state(), dtype=np.uint8)}
        for part, some in texts.items():
            encoded = [self.tokenizer.encode(text) for text in some]
            arrays[part] = np.concatenate([self.tokenizer.encode(""), *encoded])
            arrays[f"{part} ends"] = np.cumsum([len(tokens) for tokens in encoded], dtype=np.int64)
            lossless &= all(self._is_lossless(text, tokens) for text, tokens in zip(some, encoded, strict=True))
        facts = {
            "sha256": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
            "spelt": "yes" if lossless else "no",
        }
        cache.store(name, arrays, facts)
        return arrays, facts

    def _is_lossless(self, text: str, tokens: np.ndarray) -> bool:
        """Whether the tokens' bytes are exactly the text's: no space put before it."""
        return self.tokenizer.is_lossless(text) and int(self.tokenizer.token_bytes[tokens].sum()) == len(text.encode())
