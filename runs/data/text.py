"""The user's own text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from ..tokenizer.contract import Tokenizer
from .corpus import Corpus, Document
from .files import read_utf8, stamp, walk

PROSE = (".txt", ".text", ".md", ".rst", ".tex", ".html", ".xml", ".json", ".jsonl", ".csv", ".tsv")
CODE = (".py", ".c", ".h", ".cpp", ".hpp", ".cc", ".rs", ".go", ".java", ".js", ".ts", ".sh", ".yaml", ".toml")


class Text(Corpus):
    """A file, or every text file of a folder, in UTF-8.

    A folder is split by file, by a hash of the path; one file, or a few of unequal size, by its last tenth.

    Args:   path: a file (of any name), or a folder, which is searched to any depth.
            suffixes: endings of the files that count as text in a folder; None: the usual ones; hidden files never do.
    Raises: FileNotFoundError, PermissionError, ValueError: no such path, no text in it, not UTF-8.
    """

    path_arguments = ("path",)

    def __init__(self, *, tokenizer: Tokenizer, path: str | None, suffixes: Sequence[str] | None = None) -> None:
        super().__init__(tokenizer=tokenizer)
        if not path:
            raise ValueError("data=text needs your text: data.path=FILE_OR_FOLDER")
        self.path = Path(path).expanduser().absolute()
        self.suffixes = PROSE + CODE if suffixes is None else tuple(suffixes)
        if not self.path.exists():
            raise FileNotFoundError(f"data.path={path}: there is no such file or folder; give a text file or a folder of them")
        if not (self.path.is_file() or self.path.is_dir()):
            raise ValueError(f"data.path={path}: this is neither a file nor a folder; give a text file or a folder of them")

    @property
    def origin(self) -> str:
        return f"data.path={self.path}"

    def documents(self) -> Iterator[Document]:
        for name, path in self.files:
            yield Document(name, read_utf8(path))

    def fingerprint(self) -> str:
        return "\n".join([str(self.path), *(stamp(name, path) for name, path in self.files)])

    @cached_property
    def files(self) -> list[tuple[str, Path]]:
        if self.path.is_file():
            return [(self.path.name, self.path)]
        files = list(walk(self.path, suffixes=self.suffixes))
        if not files:
            others = Counter(path.suffix or "no suffix" for _, path in walk(self.path, suffixes=("",)))
            found = ", ".join(f"{n} of {suffix}" for suffix, n in others.most_common(3)) or "no files"
            raise ValueError(
                f"{self.origin}: no text in this folder, but {found}; data.suffixes={' '.join(self.suffixes)} is what counts"
            )
        return files
