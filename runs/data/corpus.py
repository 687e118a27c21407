"""Text split into a training part and a held-out part, tokenised once and cached between runs."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..tokenizer.contract import Tokenizer
from . import cache
from .kept import STATE, Stored, take_over
from .stream import StreamData, TokenStream

FORMAT = "tokens 2"  # part of every cache key: change it with anything that decides what is stored
HELD_OUT = 0.1  # of the text


class Document(NamedTuple):
    """One text and its name, which alone decides the part that it belongs to."""

    name: str
    text: str


class Corpus(StreamData):
    """Documents, read when their tokens are first needed; a subclass says which documents.

    Cost per token: negligible; the first run tokenises, later ones map the result from disk (see cache.py).
    """

    def __init__(self, *, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """All documents, in an order that is the same everywhere."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Quick to compute, and different whenever documents() might yield something else."""

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @property
    def sha256(self) -> str:
        return self._tokens[1]["sha256"]

    @cached_property
    def token_bytes(self) -> Tensor | None:
        spelt = self._tokens[1]["spelt"]  # a tokenizer may have to be trained first
        return torch.from_numpy(self.tokenizer.token_bytes) if spelt == "yes" else None

    @cached_property
    def train(self) -> TokenStream:
        return TokenStream([self._tokens[0]["train"]])

    @cached_property
    def validation(self) -> TokenStream:
        return TokenStream([self._tokens[0]["validation"]])

    @cached_property
    def _tokens(self) -> Stored:
        name = cache.key(FORMAT, type(self).__name__, self.fingerprint(), self.tokenizer.settings)
        kept = take_over(name, self.tokenizer, tokens=("train", "validation"))
        if kept is not None:
            return kept
        train, validation = split(list(self.documents()))
        if not train:
            raise ValueError(f"{self.origin}: there is no text; give one that is not empty")
        self.tokenizer.fit([train])
        state = np.frombuffer(self.tokenizer.state(), dtype=np.uint8)
        arrays = {"train": self.tokenizer.encode(train), "validation": self.tokenizer.encode(validation), STATE: state}
        # 0xff never occurs in UTF-8, so the digest depends on where the text was split
        facts = {
            "sha256": hashlib.sha256(train.encode() + b"\xff" + validation.encode()).hexdigest(),
            "spelt": "yes" if self.tokenizer.is_lossless(train) and self.tokenizer.is_lossless(validation) else "no",
        }
        cache.store(name, arrays, facts)
        return arrays, facts


def split(documents: Sequence[Document]) -> tuple[str, str]:
    """The training text, and about a tenth to hold out: whole documents, chosen by name.

    Where that holds out less than 5 % or more than 20 % (few documents, or very unequal ones) it is the tail instead.
    """
    parts: tuple[list[str], list[str]] = ([], [])
    for name, text in documents:
        parts[held_out(name)].append(text)
    train, validation = (_joined(part) for part in parts)
    if 0.05 <= len(validation) / max(len(train) + len(validation), 1) <= 0.2:
        return train, validation
    text = _joined([text for _, text in documents])
    cut = len(text) - int(HELD_OUT * len(text))
    return text[:cut], text[cut:]


def held_out(name: str) -> bool:
    """Whether the document of this name is held out: a matter of its name alone, whatever else there is."""
    return (
        int.from_bytes(hashlib.sha256(f"val:{name}".encode("utf-8", "surrogateescape")).digest()[:8], "big") < HELD_OUT * 2**64
    )


def _joined(texts: Sequence[str]) -> str:
    """One text; where there are several, each ends its last line."""
    if len(texts) == 1:
        return texts[0]
    return "".join(text if text.endswith("\n") else f"{text}\n" for text in texts if text)
