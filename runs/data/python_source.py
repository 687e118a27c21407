"""Text that every machine with Python already has: the sources of its standard library."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from ..tokenizer.contract import Tokenizer
from .corpus import Corpus, Document
from .files import stamp, walk

# tests, caches, other people's packages; and what differs between two builds of one Python version
LEFT_OUT = ("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload")
OF_THE_BUILD = ("_sysconfigdata", "config-", "sitecustomize")


class PythonSource(Corpus):
    """The running Python's own standard library without its tests: about 12 MB, nothing downloaded, split by file.

    A file is held out or not by a hash of its relative path. Files that are not UTF-8 are left out.
    Versions of Python differ in their text: results compare within one ``sha256``.

    Args:   roots: more text: "site-packages" (the installed packages) or folders with Python files.
    Raises: ValueError: no sources, as in an embedded Python. FileNotFoundError: a root that is no folder.
    """

    def __init__(self, *, tokenizer: Tokenizer, roots: Sequence[str] = ()) -> None:
        super().__init__(tokenizer=tokenizer)
        self.folders = {root: self._folder(root) for root in roots}

    @property
    def origin(self) -> str:
        return "data=python_source"

    def documents(self) -> Iterator[Document]:
        for name, path in self.files:
            try:
                yield Document(name, path.read_bytes().decode("utf-8"))
            except UnicodeDecodeError:
                continue

    def fingerprint(self) -> str:
        return "\n".join(stamp(name, path) for name, path in self.files)

    @cached_property
    def files(self) -> list[tuple[str, Path]]:
        """(relative path, path) of every file, those of the standard library first."""
        library = Path(sysconfig.get_path("stdlib"))
        found = _sources(library) if library.is_dir() else ()
        own = [(name, path) for name, path in found if not name.startswith(OF_THE_BUILD)]
        if not own:
            raise ValueError(
                f"data=python_source: no sources in {library}, as in an embedded Python; give a text: data=text data.path=PATH"
            )
        seen = {path for _, path in own}
        for root, folder in self.folders.items():
            more = [(f"{folder.name}/{name}", path) for name, path in _sources(folder) if path not in seen]
            if not more:
                raise ValueError(
                    f"data.roots: {root} holds no Python files besides tests and what is there already; name another folder"
                )
            seen.update(path for _, path in more)
            own += more
        return own

    @staticmethod
    def _folder(root: str) -> Path:
        folder = Path(sysconfig.get_path("purelib")) if root == "site-packages" else Path(root).expanduser().resolve()
        if not folder.is_dir():
            raise FileNotFoundError(f"data.roots: there is no folder {root}; give site-packages or an existing folder")
        return folder


def _sources(folder: Path) -> Iterator[tuple[str, Path]]:
    return walk(folder, suffixes=(".py",), without=LEFT_OUT)
