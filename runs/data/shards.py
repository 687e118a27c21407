"""Files of tokens made by other projects, mapped from disk."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..tokenizer import BPE
from ..tokenizer.contract import Tokenizer
from .contract import Batch
from .stream import StreamData, TokenStream

HEADER = 256  # int32 numbers before the tokens of an llm.c shard: magic, version, number of tokens, zeros
MAGIC = {20240520: (1, "<u2"), 20240801: (7, "<u4")}  # version and tokens
KNOWN = "known: nanoGPT raw uint16; llm.c with magic 20240520 version 1, or 20240801 version 7"
SAMPLE = 2**20  # bytes of either end of a shard that its hash covers


class Shards(StreamData):
    """Token files as nanoGPT (raw uint16) and llm.c (a header, then uint16 or uint32) write them.

    The files mark no documents, so windows cross their ends. The sha256 covers sizes and both ends of each file, not all bytes.
    A nanoGPT meta.pkl is never opened, since unpickling runs code: give data.vocab_size instead.

    Args:   train, val: files, as glob patterns. vocab_size: how many different tokens there are.
            tokenizer: the one that made the files, if available; without it bits per byte are unknown.
    Raises: FileNotFoundError: nothing matches. ValueError: truncated files or another format, tokens outside the vocabulary.
    """

    path_arguments = ("train", "val")

    def __init__(
        self, *, train: str | None, val: str | None, vocab_size: int | None, tokenizer: Tokenizer | None = None
    ) -> None:
        if train is None or val is None or vocab_size is None:
            raise ValueError("data=shards needs data.train=GLOB data.val=GLOB data.vocab_size=NUMBER")
        if isinstance(tokenizer, BPE):
            raise ValueError(
                "data.tokenizer: a BPE learnt here is not the one that made the files; leave it null, or use bytes"
            )
        if tokenizer is not None and tokenizer.vocab_size > vocab_size:
            raise ValueError(f"data.vocab_size={vocab_size} is smaller than that of data.tokenizer, {tokenizer.vocab_size}")
        self._vocab_size, self.tokenizer = vocab_size, tokenizer
        self.shards = {"train": _find("data.train", train), "val": _find("data.val", val)}

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def origin(self) -> str:
        return f"data=shards {self.shards['train'][0].path.parent}"

    @property
    def token_bytes(self) -> Tensor | None:
        if self.tokenizer is None:
            return None
        sizes = torch.from_numpy(self.tokenizer.token_bytes)
        return torch.cat([sizes, sizes.new_zeros(self.vocab_size - len(sizes))])

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for part, shards in self.shards.items():
            for shard in shards:
                digest.update(f"{part} {shard.path.name} {len(shard.tokens)}\n".encode())
                digest.update(shard.tokens[:SAMPLE].tobytes() + shard.tokens[-SAMPLE:].tobytes())
        return digest.hexdigest()

    @cached_property
    def train(self) -> TokenStream:
        return TokenStream([shard.tokens for shard in self.shards["train"]])

    @cached_property
    def validation(self) -> TokenStream:
        return TokenStream([shard.tokens for shard in self.shards["val"]])

    def check(self, *, seq_len: int) -> None:
        super().check(seq_len=seq_len)
        for shard in self.shards["train"] + self.shards["val"]:
            self._check_range(int(shard.tokens[:SAMPLE].max()), shard.path)

    def batch(self, *, seed: int, step: int, batch_size: int, seq_len: int) -> Batch:
        batch = super().batch(seed=seed, step=step, batch_size=batch_size, seq_len=seq_len)
        # an index outside the embedding would end a GPU run with a message that names nothing
        self._check_range(max(int(batch.tokens.max()), int(batch.targets.max())), self.shards["train"][0].path)
        return batch

    def evaluation(self, *, n_batches: int, batch_size: int, seq_len: int) -> Iterator[Batch]:
        for batch in super().evaluation(n_batches=n_batches, batch_size=batch_size, seq_len=seq_len):
            self._check_range(max(int(batch.tokens.max()), int(batch.targets.max())), self.shards["val"][0].path)
            yield batch

    def _check_range(self, token: int, path: Path) -> None:
        if token >= self.vocab_size:
            raise ValueError(
                f"{path}: token {token} is outside data.vocab_size={self.vocab_size}: "
                f"give the vocabulary that the files were made with, unless they are of another format ({KNOWN})"
            )


class Shard(NamedTuple):
    """One file and its tokens."""

    path: Path
    tokens: np.ndarray


def _find(key: str, pattern: str) -> list[Shard]:
    paths = sorted(Path(match) for match in glob.glob(str(Path(pattern).expanduser()), recursive=True))
    if not paths:
        raise FileNotFoundError(f"{key}={pattern}: no file matches; give a path or a pattern such as 'data/train_*.bin'")
    return [Shard(path, _open(path)) for path in paths]


def _open(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"{path} is not a file; a pattern must match token files alone, such as 'data/train_*.bin'")
    size, header = path.stat().st_size, np.fromfile(path, dtype="<i4", count=HEADER)
    magic = int(header[0]) if len(header) else 0
    headed = len(header) == HEADER and not header[3:].any()
    if magic not in MAGIC and not headed:
        if size == 0 or size % 2:
            raise ValueError(
                f"{path} has {size} bytes, not a whole number of uint16 tokens: truncated, or of another format ({KNOWN})"
            )
        return np.memmap(path, dtype="<u2", mode="r")

    version, dtype = MAGIC.get(magic, (None, "<u2"))
    if not headed or header[1] != version:
        raise ValueError(f"{path}: magic {magic}, {size} bytes: not a shard that is known ({KNOWN})")
    n = int(header[2])
    expected = header.nbytes + n * np.dtype(dtype).itemsize
    if size != expected or n < 1:
        raise ValueError(f"{path} is truncated or damaged: its header says {n} tokens, so {expected} bytes, but it has {size}")
    return np.memmap(path, dtype=dtype, mode="r", offset=header.nbytes, shape=(n,))
