"""A tokenizer from a file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .contract import Tokenizer
from .library import PIECE, decoded, encoded, joined, library, pieces

SPACES = ("Ġ", "▁")  # how vocabularies write a space
BETWEEN_WORDS = re.compile(r"(?<=\S) (?=\S)")
BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a byte for which there is no other token
NAMES = {  # of special tokens, the likeliest first
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
    "bos": ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>", "<｜begin▁of▁sentence｜>"),  # noqa: RUF001
    "eos": ("</s>", "<eos>", "[EOS]", "<|end_of_text|>", "<|endoftext|>", "<｜end▁of▁sentence｜>"),  # noqa: RUF001
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
    "unk": ("<unk>", "[UNK]", "<|unk|>"),
}


class File(Tokenizer):
    """Any tokenizer.json (Hugging Face), as it is: added tokens are recognised where they occur in the text, none is put in.

    Not every file is lossless on every text (many lower the case, compose accents or drop spaces), and bits per byte are
    reported only where it is. Where a file puts a space before each text, long texts are cut at spaces, so that only the very
    first token has one byte more than the text; it is never a target.

    Args:   path: the file. Its content alone identifies the tokenizer, not the path.
    Raises: FileNotFoundError, ValueError: no such file, not a tokenizer, or the package tokenizers is missing.
    """

    path_arguments = ("path",)

    def __init__(self, *, path: str | None) -> None:
        if path is None:
            raise ValueError("tokenizer=file needs a tokenizer.json: tokenizer.path=FILE")
        file = Path(path).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"tokenizer.path={path}: there is no such file; give a tokenizer.json")
        try:
            self.restore(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"tokenizer.path={path}: {error}") from error

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def settings(self) -> str:
        return f"file {hashlib.sha256(self._content).hexdigest()}"

    @cached_property
    def specials(self) -> dict[str, int]:
        ids = {token.content: i for i, token in self._added.items() if token.special}
        found = {role: next((ids[name] for name in names if name in ids), None) for role, names in NAMES.items()}
        return {role: i for role, i in found.items() if i is not None}

    @cached_property
    def token_bytes(self) -> np.ndarray:
        form = json.loads(self._tokenizer.to_str())
        prefix = form["model"].get("continuing_subword_prefix") or ""
        decoder = json.dumps(form["decoder"], ensure_ascii=False)
        byte_level, marks, fallback = ('"ByteLevel"' in decoder, '"▁"' in decoder, '"ByteFallback"' in decoder)

        def n_bytes(token: str) -> int:
            if byte_level:  # its alphabet writes each byte as one character
                return len(token.removeprefix(prefix))
            if fallback and BYTE.fullmatch(token):
                return 1
            return len((token.replace("▁", " ") if marks else token.removeprefix(prefix)).encode())

        sizes = np.zeros(self.vocab_size, dtype=np.int64)  # 0 for a number without a token
        for token, i in self._vocab.items():
            sizes[i] = len(token.encode()) if i in self._added else n_bytes(token)
        return sizes

    def fit(self, texts: Iterable[str]) -> None:
        """It is trained already."""

    def state(self) -> bytes:
        return self._content

    def restore(self, state: bytes) -> None:
        tokenizers = library()
        try:
            tokenizer = tokenizers.Tokenizer.from_str(state.decode())
        except Exception as error:  # the package raises nothing more special
            raise ValueError(f"not a tokenizer.json ({str(error).splitlines()[0]})") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._content, self._tokenizer = state, tokenizer
        self._vocab: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
        self._added: dict[int, Any] = tokenizer.get_added_tokens_decoder()
        if not self._vocab:
            raise ValueError("its vocabulary is empty")
        self._vocab_size = max(self._vocab.values()) + 1  # numbers that no token has included
        first = "".join(tokenizer.encode("a", add_special_tokens=False).tokens)
        self._puts_a_space = first.startswith(SPACES)
        for cached in ("token_bytes", "specials"):
            self.__dict__.pop(cached, None)

    def is_lossless(self, text: str) -> bool:
        surplus = -len(text.encode())
        for piece, tokens in self._encoded(text):
            surplus += int(self.token_bytes[tokens].sum())
            back = decoded(self._tokenizer, tokens)
            if back != piece and not (self._puts_a_space and back == f" {piece}"):
                return False
        return surplus == 0 or (self._puts_a_space and surplus == 1)

    def encode(self, text: str) -> np.ndarray:
        return joined(self._encoded(text), self.vocab_size)

    def encode_with_specials(self, text: str) -> list[int]:
        """The tokens of one text with the special ones of the file's own template."""
        tokens: list[int] = self._tokenizer.encode(text).ids
        return tokens

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return decoded(self._tokenizer, tokens)

    def _encoded(self, text: str) -> Iterator[tuple[str, np.ndarray]]:
        cut = pieces_between_words(text) if self._puts_a_space else pieces(text)
        return encoded(self._tokenizer, cut, self.vocab_size)


def pieces_between_words(text: str) -> Iterator[str]:
    """Cut a text at spaces between words and leave them out: the tokenizer puts one before each piece."""
    start = 0
    while gap := BETWEEN_WORDS.search(text, start + PIECE):
        yield text[start : gap.start()]
        start = gap.end()
    yield text[start:]
