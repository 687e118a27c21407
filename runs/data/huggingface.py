"""Text from the Hugging Face hub or from local files in a format that its library reads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..tokenizer.contract import Tokenizer
from .corpus import Corpus, Document
from .files import stamp

FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow", ".txt": "text"}
ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+")  # a bare name may be one of the library's own readers, of which one unpickles
SCRIPT = "Dataset scripts"  # how the library begins to say that a data set is a program
LONGEST_LINE = 300  # characters of what it says


class HuggingFace(Corpus):
    """The first max_bytes of a data set, streamed, split by document.

    A document is held out or not by a hash of its text, so that no text is in both parts even where it occurs twice.
    What was read is cached and not fetched again; the text behind a name on the hub may change: revision pins it.
    No program of a data set is ever run, and nothing unpickled.

    Args:   name: on the hub, as in roneneldan/TinyStories; None: read ``files``. config: of the data set, where it has several.
            split: of the data set, the source of both parts. revision: commit or tag on the hub.
            files: local files (json, jsonl, csv, parquet, arrow, txt). text_column: which column holds the text.
            max_bytes: UTF-8 bytes to take; the document that passes the limit is the last.
    Raises: ValueError: the package datasets is missing, or whatever it reports, in one line. FileNotFoundError: no such file.
    """

    path_arguments = ("files",)

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        name: str | None,
        config: str | None = None,
        split: str = "train",
        revision: str | None = None,
        files: Sequence[str] = (),
        text_column: str = "text",
        max_bytes: int = 100_000_000,
    ) -> None:
        super().__init__(tokenizer=tokenizer)
        if (name is None) == (not files):
            raise ValueError("data=hf needs either data.name=OWNER/NAME or data.files=[PATH,...], and not both")
        if name is not None and not ON_THE_HUB.fullmatch(name):
            raise ValueError(f"data.name={name}: OWNER/NAME on the hub is expected; for local files: data.files=[PATH,...]")
        self.paths = [Path(file).expanduser().absolute() for file in files]
        for path in self.paths:
            if not path.is_file():
                raise FileNotFoundError(f"data.files: there is no file {path}; give one of {' '.join(FORMATS)}")
            if FORMATS.get(path.suffix) is None or path.suffix != self.paths[0].suffix:
                raise ValueError(
                    f"data.files: {path} has no known suffix, or another than the first; known: {' '.join(FORMATS)}"
                )
        if max_bytes < 1:
            raise ValueError(f"data.max_bytes={max_bytes}: at least 1 is expected")
        self.name, self.config, self.split, self.revision = name, config, split, revision
        self.text_column, self.max_bytes = text_column, max_bytes

    @property
    def origin(self) -> str:
        return f"data.name={self.name}" if self.name else f"data.files={self.paths[0]}"

    def fingerprint(self) -> str:
        local = [stamp(str(path), path) for path in self.paths]
        return repr((self.name, self.config, self.split, self.revision, self.text_column, self.max_bytes, local))

    def documents(self) -> Iterator[Document]:
        taken = 0
        rows = iter(self._rows())
        while taken < self.max_bytes:
            try:
                row = next(rows, None)
            except Exception as error:  # anything from a network to a broken file
                raise self._one_line(error) from error
            if row is None:
                return
            text = row.get(self.text_column)
            if not isinstance(text, str):
                strings = [column for column, value in row.items() if isinstance(value, str)]
                raise ValueError(f"{self.origin}: no text in data.text_column={self.text_column}; columns with text: {strings}")
            raw = text.encode("utf-8", "replace")
            taken += len(raw)
            yield Document(hashlib.sha256(raw).hexdigest(), raw.decode())

    def _rows(self) -> Any:
        try:
            import datasets
        except ImportError:
            raise ValueError("data=hf needs the package datasets: pip install datasets") from None
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # an error is reported once, below
        try:
            if self.name is not None:
                return datasets.load_dataset(self.name, self.config, split=self.split, revision=self.revision, streaming=True)
            kind = FORMATS[self.paths[0].suffix]
            options = {"sample_by": "document"} if kind == "text" else {}
            files = [str(path) for path in self.paths]
            return datasets.load_dataset(kind, data_files=files, split="train", streaming=True, **options)
        except Exception as error:
            raise self._one_line(error) from error

    def _one_line(self, error: Exception) -> ValueError:
        empty = "there are no rows" if isinstance(error, StopIteration) else type(error).__name__
        said = (str(error).strip().splitlines() or [empty])[0][:LONGEST_LINE]
        if said.startswith(SCRIPT):
            hint = " (it is a program, which is not run; take its copy in parquet, or its files: data.files=[PATH,...])"
        else:
            hint = " (a name needs the network; for local files: data.files=[PATH,...])" if self.name else ""
        return ValueError(f"{self.origin}: {said}{hint}")
