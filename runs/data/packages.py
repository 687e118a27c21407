"""Classification from text that every machine with Python already has: which package is this piece of code from?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch

from ..tokenizer.contract import Tokenizer
from .contract import IGNORED, Batch
from .corpus import HELD_OUT, Document, held_out
from .draws import generator
from .library_task import LibraryTask

MIN_FILES = 5  # of a package: fewer cannot be split by file


class Packages(LibraryTask):
    """Pieces of the n_classes largest packages of the running Python's standard library, each labelled with its package.

    A row is seq_len tokens from anywhere in any file; classes are equally likely. Targets are the next tokens, for a
    language-model loss beside that of the label; a row's last token has none.

    Held out are, in each package, the files that PythonSource holds out, and more until they are two files and a tenth of
    its text. So nothing that is held out there is trained on here; but a model trained there has read some of what is held
    out here, without its label.

    Args:   n_classes: packages. roots: more of them: each folder of "site-packages" (the installed packages) is one, and so
            is any other folder with Python files.
    Raises: ValueError: fewer than 2 classes or more than there are packages of 5 files; a package is shorter than a row.
    """

    parts = ("train", "validation")

    def __init__(self, *, tokenizer: Tokenizer, n_classes: int = 8, roots: Sequence[str] = ()) -> None:
        super().__init__(tokenizer=tokenizer, roots=roots)
        if n_classes < 2:
            raise ValueError(f"n_classes={n_classes}: at least 2 are needed")
        self.n_classes = n_classes

    @property
    def settings(self) -> str:
        return str(self.n_classes)

    @property
    def chance(self) -> float:
        """Of naming the right package without looking; classes are equally likely as n_classes divides the rows."""
        return 1 / self.n_classes

    @cached_property
    def classes(self) -> list[str]:
        """The packages' names, in the order of their labels: the largest first."""
        sizes: dict[str, list[int]] = {}
        for name, path in self.library.files:
            sizes.setdefault(self._package(name), []).append(path.stat().st_size)
        sizes.pop("", None)
        names = sorted((name for name in sizes if len(sizes[name]) >= MIN_FILES), key=lambda name: -sum(sizes[name]))
        if len(names) < self.n_classes:
            raise ValueError(
                f"data.n_classes={self.n_classes}: there are {len(names)} packages of at least {MIN_FILES} files; "
                "take fewer, or give more files: data.roots=[site-packages]"
            )
        return names[: self.n_classes]

    def texts(self) -> dict[str, list[str]]:
        found: dict[str, list[Document]] = {name: [] for name in self.classes}
        for document in self.library.documents():
            found.get(self._package(document.name), []).append(document)
        parts = [part_files(files) for files in found.values()]
        return {"train": [train for train, _ in parts], "validation": [validation for _, validation in parts]}

    def _package(self, name: str) -> str:
        """The folder that a file belongs to; "" for a module that is no part of a package."""
        folders = name.split("/")[:-1]
        installed = self.library.folders.get("site-packages")
        if installed is not None and folders[:1] == [installed.name]:
            folders = folders[1:]
        return folders[0] if folders else ""

    def check(self, *, seq_len: int) -> None:
        for part in ("train", "validation"):
            name, tokens = min(zip(self.classes, self.rows[part], strict=True), key=lambda pair: len(pair[1]))
            if len(tokens) < seq_len:
                raise ValueError(
                    f"data=packages: the {part} part of {name} has {len(tokens)} tokens, but a row takes train.seq_len = "
                    f"{seq_len}: take a smaller train.seq_len or data.n_classes"
                )

    def batch(self, *, seed: int, step: int, batch_size: int, seq_len: int) -> Batch:
        """batch_size training pieces: each class equally likely, and each start in it."""
        self.check(seq_len=seq_len)
        rng = generator(seed, step)
        labels = rng.integers(0, self.n_classes, batch_size)
        starts = rng.integers(0, self._n_starts("train", seq_len)[labels])
        return self._batch("train", labels, starts, seq_len)

    def evaluation(self, *, n_batches: int, batch_size: int, seq_len: int) -> Iterator[Batch]:
        """The classes in turn, and of each one pieces at even distances over all that is held out."""
        self.check(seq_len=seq_len)
        turn, labels = np.divmod(np.arange(n_batches * batch_size), self.n_classes)
        last = self._n_starts("validation", seq_len)[labels] - 1
        starts = last * turn // max(turn[-1], 1)
        for i in range(0, len(labels), batch_size):
            yield self._batch("validation", labels[i : i + batch_size], starts[i : i + batch_size], seq_len)

    def _n_starts(self, part: str, seq_len: int) -> np.ndarray:
        """How many rows start in each class. (n_classes,)"""
        return np.array([len(tokens) - seq_len + 1 for tokens in self.rows[part]])

    def _batch(self, part: str, labels: np.ndarray, starts: np.ndarray, seq_len: int) -> Batch:
        pieces = [self.rows[part][label][start : start + seq_len] for label, start in zip(labels, starts, strict=True)]
        tokens = torch.from_numpy(np.stack(pieces).astype(np.int64))
        targets = torch.full_like(tokens, IGNORED)
        targets[:, :-1] = tokens[:, 1:]
        return Batch(tokens, targets, labels=torch.from_numpy(labels))


def part_files(files: Sequence[Document]) -> tuple[str, str]:
    """The text of a package to train on, and to hold out two files or more, at least a tenth of it, chosen by name."""
    parts: tuple[list[str], list[str]] = ([], [])
    enough = HELD_OUT * sum(len(text) for _, text in files)
    for name, text in sorted(files, key=lambda file: (not held_out(file.name), hashlib.sha256(file.name.encode()).digest())):
        parts[held_out(name) or len(parts[1]) < 2 or sum(map(len, parts[1])) < enough].append(text)
    return "\n".join(parts[0]), "\n".join(parts[1])
