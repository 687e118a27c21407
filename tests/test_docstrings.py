"""Signature to docstring: each pair as it stands in the file, split by file, the same batches in every process."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from runs.data import Batch, Docstrings, cache
from runs.data.contract import IGNORED, Data
from runs.data.corpus import held_out
from runs.data.docstrings import LONGEST, pairs
from runs.tokenizer import BPE, Bytes

ROOT = Path(__file__).parent.parent
BOS, EOS, PAD = 256, 257, 258


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARCHLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def function(name: str, doc: str) -> str:
    return f'def {name}(x, y=1):\n    """{doc}"""\n    return x\n\n'


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A standard library of 40 files with three functions each, of which two are their own."""
    path = tmp_path / "lib"
    path.mkdir()
    for i in range(40):
        own = function(f"f{i}", f"Do it {i} times.") + function(f"g{i}", "Undo it.")
        (path / f"module{i}.py").write_text(own + function("shared", "Stand in every file."))
    paths = {"stdlib": str(path), "purelib": str(path / "site-packages")}
    monkeypatch.setattr(sysconfig, "get_path", paths.__getitem__)
    return path


def docstrings() -> Docstrings:
    return Docstrings(tokenizer=Bytes())


def spelled(data: Docstrings, batch: Batch) -> list[tuple[str, str]]:
    assert batch.source is not None
    sources = [Bytes().decode(row[row != PAD]) for row in batch.source.numpy()]
    targets = [data.decode(np.where(row == IGNORED, PAD, row)) for row in batch.targets.numpy()]
    return list(zip(sources, targets, strict=True))


# pairs --------------------------------------------------------------------------------------------------------------


def test_signatures_and_first_paragraphs_are_read_as_one_line() -> None:
    text = '''
def plain(a, b: int = 2, *args, key="x y", **rest) -> dict[str, int]:
    """Say  what
    it does.

    And more of it.
    """

async def waits(
    first,  # a comment
    /, second,
): "Wait."

class C:
    @property
    def method(self):
        """
        On its own line.
        \t
        Next."""
        if self:
            def inner(): r"""A \\d."""
        else:
            try:
                pass
            except ValueError:
                def deep(): "Deep."
        match self:
            case 1:
                def matched(): "Matched."

    def none(self):
        return lambda: "no docstring"

    def empty(self): """ """
'''
    assert list(pairs(text)) == [
        ("def plain(a, b: int=2, *args, key='x y', **rest) -> dict[str, int]", "Say what it does."),
        ("async def waits(first, /, second)", "Wait."),
        ("def method(self)", "On its own line."),
        ("def inner()", "A \\d."),
        ("def deep()", "Deep."),
        ("def matched()", "Matched."),
    ]


def test_what_is_no_python_of_today_has_no_pairs() -> None:
    for text in ("print 'old'\n", "a = 1\0\n", "", 'def f(): "half \\ud800 character"\n'):
        found = list(pairs(text))
        assert found == ([("def f()", "half ? character")] if "half" in text else [])
    assert list(pairs('def f(): "An \\escape."\n')) == [("def f()", "An \\escape.")]  # and no warning


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "-" * 100_000 + "1",
        "x = " + "(" * 100_000,
        "x = " + "+".join("1" * 100_000),
        "x = a" + ".b" * 100_000,
        "if a: pass\n" + "elif a: pass\n" * 20_000,
        "def f(x=" + "+".join("1" * 900) + "): 'Deep.'\n",
        "def f(x) -> " + "-" * 900 + "1: 'Deep.'\n",
        "def f(x=0x" + "f" * 9_000 + "): 'Long.'\n",
        "def f(): 'Long.'\n" + "#" * LONGEST,
    ],
    ids=["minus", "brackets", "sum", "dots", "elif", "default", "result", "number", "long"],
)
def test_what_python_cannot_follow_has_no_pairs(text: str) -> None:
    assert list(pairs(text)) == []
    if len(text) < LONGEST and text.startswith("def"):  # what cannot be written is left out alone
        assert list(pairs(text + "def g(): 'Plain.'\n")) == [("def g()", "Plain.")]


def test_each_pair_is_there_once_and_held_out_with_its_file(library: Path) -> None:
    texts = docstrings().texts()
    found = {part: list(zip(texts[f"{part} source"], texts[f"{part} target"], strict=True)) for part in ("train", "validation")}
    everything = found["train"] + found["validation"]
    assert len(everything) == len(set(everything)) == 2 * 40 + 1
    for i in range(40):
        part = "validation" if held_out(f"module{i}.py") else "train"
        assert (f"def f{i}(x, y=1)", f"Do it {i} times.") in found[part]
        assert (f"def g{i}(x, y=1)", "Undo it.") in found[part]
    assert len(found["validation"]) >= 4


def test_the_order_is_that_of_files_and_lines(library: Path) -> None:
    texts = docstrings().texts()["train source"]
    names = sorted(name.stem.removeprefix("module") for name in library.glob("*.py") if not held_out(name.name))
    assert [text for text in texts if "shared" not in text] == [f"def {f}{i}(x, y=1)" for i in names for f in "fg"]


# batches ------------------------------------------------------------------------------------------------------------


def test_rows_are_laid_out_as_the_contract_says() -> None:
    data = docstrings()
    batch = data.batch(seed=0, step=0, batch_size=32, seq_len=40)
    assert batch.source is not None and batch.positions is not None and batch.source_positions is not None
    source_width, width = batch.source.shape[1], batch.tokens.shape[1]
    rows = zip(batch.source, batch.source_positions, batch.tokens, batch.targets, batch.positions, strict=True)
    written = dict(zip(*(data.texts()[f"train {side}"] for side in ("source", "target")), strict=True))
    for source, source_positions, tokens, targets, positions in rows:
        text = Bytes().decode(source[source != PAD])
        n, m = len(text), len(written[text])
        assert source.tolist() == [*text.encode(), *[PAD] * (source_width - n)]
        assert source_positions.tolist() == [*range(n), *[-1] * (source_width - n)]
        assert tokens.tolist() == [BOS, *written[text].encode(), *[PAD] * (width - m - 1)]
        assert targets.tolist() == [*written[text].encode(), EOS, *[IGNORED] * (width - m - 1)]
        assert positions.tolist() == [*range(m + 1), *[-1] * (width - m - 1)]
    assert {t.dtype for t in batch if t is not None} == {torch.int64}
    assert (batch.types, batch.labels) == (None, None)


def test_a_batch_is_as_wide_as_its_longest_rows() -> None:
    data = docstrings()
    batches = [data.batch(seed=0, step=0, batch_size=1, seq_len=64), *data.evaluation(n_batches=2, batch_size=4, seq_len=64)]
    for batch in batches:
        assert batch.source is not None and batch.positions is not None and batch.source_positions is not None
        assert (batch.source != PAD).any(0).all() and (batch.targets != IGNORED).any(0).all()
        assert batch.tokens.shape == batch.targets.shape == batch.positions.shape
        assert batch.source.shape == batch.source_positions.shape != batch.tokens.shape
        assert max(batch.source.shape[1], batch.tokens.shape[1]) < 64


def test_long_rows_are_cut_and_end_without_an_end() -> None:
    batch = docstrings().batch(seed=0, step=0, batch_size=8, seq_len=5)
    assert batch.source is not None and batch.positions is not None
    assert batch.source.shape == batch.tokens.shape == (8, 5)
    assert Bytes().decode(batch.source[0]) == "def f"[:4] + Bytes().decode(batch.source[0])[4]
    assert (batch.tokens[:, 0] == BOS).all()
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    assert not ((batch.targets == EOS) | (batch.targets == IGNORED)).any()
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4]] * 8


def test_batches_are_a_function_of_seed_and_step_in_every_process(library: Path) -> None:
    first = docstrings().batch(seed=3, step=7, batch_size=16, seq_len=40)
    code = (
        "import sys, sysconfig; from runs.data import Docstrings; from runs.tokenizer import Bytes\n"
        "sysconfig.get_path = lambda name: sys.argv[1]\n"
        "batch = Docstrings(tokenizer=Bytes()).batch(seed=3, step=7, batch_size=16, seq_len=40)\n"
        "print([batch.source.tolist(), batch.targets.tolist()])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(library)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert first.source is not None
    assert json.loads(done.stdout) == [first.source.tolist(), first.targets.tolist()]
    for seed, step in ((3, 8), (4, 7)):
        assert not torch.equal(docstrings().batch(seed=seed, step=step, batch_size=16, seq_len=40).targets, first.targets)


def test_every_pair_is_drawn_and_held_out_ones_are_only_tested() -> None:
    data = docstrings()
    texts = data.texts()
    drawn = {pair for step in range(20) for pair in spelled(data, data.batch(seed=0, step=step, batch_size=50, seq_len=64))}
    assert drawn == set(zip(texts["train source"], texts["train target"], strict=True))
    batches = list(data.evaluation(n_batches=4, batch_size=10, seq_len=64))
    assert [len(batch.tokens) for batch in batches] == [10] * 4
    tested = [pair for batch in batches for pair in spelled(data, batch)]
    expected = list(zip(texts["validation source"], texts["validation target"], strict=True))
    assert list(dict.fromkeys(tested)) == expected  # all of them, in order
    again = docstrings().evaluation(n_batches=4, batch_size=10, seq_len=64)
    assert all(torch.equal(a.targets, b.targets) for a, b in zip(batches, again, strict=True))


# tokens -------------------------------------------------------------------------------------------------------------


class WithSpecials(Bytes):
    """Bytes with an end of text among them, as published tokenizers have one."""

    settings = "bytes with eos"
    specials = {"eos": 0, "unk": 1}  # noqa: RUF012


def test_special_tokens_are_the_tokenizers_or_follow_its_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Docstrings, "texts", None)  # not needed to know this
        assert docstrings().specials == {"bos": BOS, "eos": EOS, "pad": PAD}
        assert docstrings().vocab_size == 259
        assert Docstrings(tokenizer=BPE(vocab_size=270)).vocab_size == 273
        data = Docstrings(tokenizer=WithSpecials())
        assert (data.specials, data.vocab_size) == ({"bos": 256, "eos": 0, "pad": 257}, 258)
    batch = data.batch(seed=0, step=0, batch_size=4, seq_len=64)
    assert ((batch.targets == 0).sum(1) == 1).all()
    assert batch.tokens.max() == 257


@pytest.mark.parametrize("bpe", [False, True])
def test_bytes_add_up_to_those_of_the_docstrings(bpe: bool) -> None:
    data = Docstrings(tokenizer=BPE(vocab_size=270) if bpe else WithSpecials())
    (batch,) = data.evaluation(n_batches=1, batch_size=6, seq_len=64)
    assert data.token_bytes is not None
    assert data.token_bytes.shape == (data.vocab_size,)
    predicted = batch.targets[batch.targets != IGNORED]
    said = [data.decode(row[row != IGNORED]) for row in batch.targets.numpy()]
    assert data.token_bytes[predicted].sum() == sum(len(text.encode()) for text in said)
    assert set(said) <= set(data.texts()["validation target"])


def test_a_tokenizer_that_loses_text_tells_no_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lowers(Bytes):
        settings = "lower case"

        def is_lossless(self, text: str) -> bool:
            return text == text.lower()

    assert Docstrings(tokenizer=Lowers()).token_bytes is None

    class PutsASpace(Bytes):
        settings = "space before"

        def encode(self, text: str) -> np.ndarray:
            return super().encode(f" {text}")

    assert Docstrings(tokenizer=PutsASpace()).token_bytes is None


def test_decoding_ends_at_the_first_end() -> None:
    assert docstrings().decode([BOS, *b"said", EOS, *b"more", PAD]) == "said"
    assert docstrings().decode(list(b"said")) == "said"


# keeping ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bpe", [False, True])
def test_tokens_are_kept_between_runs(bpe: bool, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> Docstrings:
        return Docstrings(tokenizer=BPE(vocab_size=270) if bpe else Bytes())

    first = load()
    batch, bytes_ = first.batch(seed=0, step=0, batch_size=8, seq_len=64), first.token_bytes
    assert len(list(own_cache.iterdir())) == 1
    monkeypatch.setattr(Docstrings, "texts", None)
    monkeypatch.setattr(BPE, "fit", None)
    again = load()
    assert torch.equal(again.batch(seed=0, step=0, batch_size=8, seq_len=64).targets, batch.targets)
    assert again.sha256 == first.sha256
    assert again.token_bytes is not None and bytes_ is not None
    assert torch.equal(again.token_bytes, bytes_)


def test_changed_files_are_read_again_and_hashed_anew(library: Path) -> None:
    before = docstrings().sha256
    assert Docstrings(tokenizer=BPE(vocab_size=270)).sha256 == before  # of the text
    (library / "module0.py").write_text(function("new", "New."))
    assert docstrings().sha256 != before
    assert cache.folder() is not None


def test_too_little_to_split_is_refused_in_one_line(library: Path) -> None:
    for file in library.glob("*.py"):
        if held_out(file.name):
            file.write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"data=docstrings: 0 functions with a docstring to hold out; .*roots=") as caught:
        docstrings().check(seq_len=8)
    assert "\n" not in str(caught.value)


def test_the_contract_is_kept() -> None:
    members = [name for name in vars(Data) if not name.startswith("_")]
    assert all(hasattr(Docstrings, name) for name in members)


# the real library ---------------------------------------------------------------------------------------------------


def test_the_standard_library_has_thousands_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    texts = docstrings().texts()
    train, held = (list(zip(texts[f"{part} source"], texts[f"{part} target"], strict=True)) for part in ("train", "validation"))
    assert len(train) > 3000
    assert len(held) > 200
    assert len({*train, *held}) == len(train) + len(held)
    assert all(ast.parse(f"{source}: pass") and target and "\n" not in target for source, target in held)
