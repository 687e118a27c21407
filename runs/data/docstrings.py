"""Sequence to sequence from text that every machine with Python already has: what does a function of this signature do?"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..tokenizer.contract import Tokenizer, special_tokens
from .contract import IGNORED, Batch
from .corpus import held_out
from .draws import generator
from .library_task import LibraryTask

ROLES = ("bos", "eos", "pad")  # begin and end of a target, and what fills a row
LONGEST = 2**22  # characters of a file; longer ones are no hand's work, and their trees take a hundred times the memory
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Docstrings(LibraryTask):
    """From a function's signature to the first paragraph of its docstring, over the running Python's standard library.

    source "def name(args) -> result" as one line; tokens BOS t_1 .. t_n, targets t_1 .. t_n EOS. About 6600 pairs, each
    once, of which 8 % are held out: those of the files that PythonSource holds out. Many functions share a signature
    (52 are "def close(self)"), so no model gets all right. Signatures and paragraphs of more than seq_len tokens are cut.

    BOS, EOS and PAD are the tokenizer's ``specials`` of these roles; those that it lacks follow its vocabulary. EOS has
    no bytes: bits per byte spread its cost over the bytes of the paragraph.

    Args:   roots: more functions: "site-packages" (the installed packages) or folders with Python files.
    Shape:  source: (batch, n), tokens, targets: (batch, s); n and s: the longest row of the batch, at most seq_len, so that a
            step has fewer than batch_size * seq_len tokens. Every row starts at position 0, its padding is at -1.
    Raises: ValueError: no sources, as in an embedded Python; no pair to train on or none to hold out.
    """

    chance: float | None = None
    parts = tuple(f"{part} {side}" for part in ("train", "validation") for side in ("source", "target"))

    def __init__(self, *, tokenizer: Tokenizer, roots: Sequence[str] = ()) -> None:
        super().__init__(tokenizer=tokenizer, roots=roots)

    @property
    def settings(self) -> str:
        return ""

    @property
    def specials(self) -> dict[str, int]:
        """The token of each role."""
        return special_tokens(self.tokenizer.specials, ROLES, self.tokenizer.vocab_size)

    @property
    def vocab_size(self) -> int:
        return max(self.tokenizer.vocab_size, *(token + 1 for token in self.specials.values()))

    @cached_property
    def token_bytes(self) -> Tensor | None:
        sizes = super().token_bytes
        return sizes if sizes is None else sizes.index_fill(0, torch.tensor(list(self.specials.values())), 0)

    def texts(self) -> dict[str, list[str]]:
        lists: dict[str, list[str]] = {part: [] for part in self.parts}
        seen = set()
        for name, text in self.library.documents():
            part = "validation" if held_out(name) else "train"
            for source, target in pairs(text):
                if (source, target) not in seen:
                    seen.add((source, target))
                    lists[f"{part} source"].append(source)
                    lists[f"{part} target"].append(target)
        return lists

    def check(self, *, seq_len: int) -> None:
        for part, use in (("train", "train on"), ("validation", "hold out")):
            if not self.rows[f"{part} source"]:
                raise ValueError(
                    f"data=docstrings: 0 functions with a docstring to {use}; give more files: data.roots=[site-packages]"
                )

    def batch(self, *, seed: int, step: int, batch_size: int, seq_len: int) -> Batch:
        """batch_size training pairs, each equally likely."""
        self.check(seq_len=seq_len)
        return self._batch("train", generator(seed, step).integers(0, len(self.rows["train source"]), batch_size), seq_len)

    def evaluation(self, *, n_batches: int, batch_size: int, seq_len: int) -> Iterator[Batch]:
        """n_batches * batch_size pairs at even distances over all that are held out."""
        self.check(seq_len=seq_len)
        rows = np.linspace(0, len(self.rows["validation source"]) - 1, n_batches * batch_size).astype(np.int64)
        for chosen in rows.reshape(n_batches, batch_size):
            yield self._batch("validation", chosen, seq_len)

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """What was written before the first EOS, as text."""
        written = np.asarray(tokens)
        ended = np.flatnonzero(written == self.specials["eos"])
        written = written[: ended[0]] if len(ended) else written
        return self.tokenizer.decode(written[~np.isin(written, list(self.specials.values()))])

    def _batch(self, part: str, chosen: np.ndarray, seq_len: int) -> Batch:
        bos, eos, pad = (self.specials[role] for role in ROLES)
        sources, targets = ([self.rows[f"{part} {side}"][i] for i in chosen] for side in ("source", "target"))
        written = [np.append(bos, target) for target in targets]
        predicted = [np.append(target, eos) for target in targets]
        return Batch(
            tokens=padded(written, most=seq_len, fill=pad),
            targets=padded(predicted, most=seq_len, fill=IGNORED),
            positions=padded([np.arange(len(row)) for row in written], most=seq_len, fill=-1),
            source=padded(sources, most=seq_len, fill=pad),
            source_positions=padded([np.arange(len(row)) for row in sources], most=seq_len, fill=-1),
        )


def padded(rows: Sequence[np.ndarray], *, most: int, fill: int) -> Tensor:
    """Rows of any length, cut after the most tokens and filled up to the longest that is left. (b, width)"""
    width = min(most, max(map(len, rows)))
    table = np.full((len(rows), width), fill, dtype=np.int64)
    for line, row in zip(table, rows, strict=True):
        cut = row[:width]
        line[: len(cut)] = cut
    return torch.from_numpy(table)


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """(signature, first paragraph of the docstring) of every function in a file that has one, in the file's order.

    Left out: files and signatures that Python cannot read, or that nest deeper than it can follow.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in other people's strings
            tree = ast.parse(text if len(text) <= LONGEST else "")
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # of another Python; a null byte; nested: either of the two
        return
    for function in functions(tree):
        paragraph = re.split(r"\n\s*\n", (ast.get_docstring(function) or "").strip())[0]
        if paragraph and (written := signature(function)) is not None:
            yield written, one_line(paragraph)


def functions(tree: ast.Module) -> Iterator[Function]:
    """Every function at any depth. Expressions are left out, since none holds a function with a docstring."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function):
            yield node
        inside = [
            child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case)
        ]
        waiting += reversed(inside)


def signature(function: Function) -> str | None:
    """None: nested too deep, or with a number of thousands of digits."""
    start = "async def" if isinstance(function, ast.AsyncFunctionDef) else "def"
    try:
        end = "" if function.returns is None else f" -> {ast.unparse(function.returns)}"
        return one_line(f"{start} {function.name}({ast.unparse(function.args)}){end}")
    except (RecursionError, ValueError):
        return None


def one_line(text: str) -> str:
    """White space as single blanks; half characters, which UTF-8 cannot hold, as question marks."""
    return " ".join(text.split()).encode("utf-8", "replace").decode()
