"""Text and token files: the same batches in every process, nothing held out is learnt from, one clear line for bad input."""

from __future__ import annotations

import errno
import hashlib
import importlib
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
import sysconfig
import typing
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from runs.data import Data, HuggingFace, PythonSource, Shards, Text, cache
from runs.data.corpus import Document, held_out, split
from runs.data.draws import generator, held_out_generator
from runs.data.stream import TokenStream
from runs.tokenizer import BPE, Bytes

ROOT = Path(__file__).parent.parent
WORDS = "".join(f"line {i}: the quick brown fox\n" for i in range(2000))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARCHLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text(WORDS)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "texts"
    for i in range(60):
        (path / f"part{i % 3}").mkdir(parents=True, exist_ok=True)
        (path / f"part{i % 3}" / f"{i}.md").write_text(f"text {i}: " + "word " * 50 + "\n")
    return path


def words(file: Path) -> Text:
    return Text(tokenizer=Bytes(), path=str(file))


def spelled(part: TokenStream) -> str:
    return Bytes().decode(np.concatenate(part.parts))


# batches ------------------------------------------------------------------------------------------------------------


def test_a_batch_is_a_function_of_its_arguments_alone(file: Path) -> None:
    data = words(file)
    first = data.batch(seed=3, step=7, batch_size=4, seq_len=32)
    torch.manual_seed(1)
    np.random.seed(1)
    data.batch(seed=0, step=0, batch_size=4, seq_len=32)
    assert torch.equal(words(file).batch(seed=3, step=7, batch_size=4, seq_len=32).tokens, first.tokens)
    for seed, step in ((3, 8), (4, 7), (7, 3)):
        assert not torch.equal(data.batch(seed=seed, step=step, batch_size=4, seq_len=32).tokens, first.tokens)


def test_batches_are_the_same_in_another_process(file: Path) -> None:
    code = (
        "import sys; from runs.data import Text; from runs.tokenizer import Bytes\n"
        "data = Text(tokenizer=Bytes(), path=sys.argv[1])\n"
        "print(data.batch(seed=5, step=11, batch_size=3, seq_len=20).tokens.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == words(file).batch(seed=5, step=11, batch_size=3, seq_len=20).tokens.tolist()


def test_each_token_is_asked_for_the_next_one_of_the_training_text(file: Path) -> None:
    data = words(file)
    batch = data.batch(seed=0, step=0, batch_size=16, seq_len=40)
    assert batch.tokens.shape == batch.targets.shape == (16, 40)
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64
    assert batch.positions is None
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    text = spelled(data.train)
    for tokens, targets in zip(batch.tokens.numpy(), batch.targets.numpy(), strict=True):
        assert Bytes().decode([*tokens, targets[-1]]) in text


def test_every_place_of_the_training_text_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "letters.txt"
    path.write_text("abcdefghijklmnopqrst")  # 18 to learn from
    data = words(path)
    starts = torch.cat([data.batch(seed=0, step=step, batch_size=50, seq_len=1).tokens[:, 0] for step in range(40)])
    counts = torch.bincount(starts, minlength=ord("t") + 1)[ord("a") :]
    assert counts.tolist()[17:] == [0, 0, 0]  # the last one starts no window, the rest is held out
    assert counts[:17].min() > 70  # 118 on average


def test_held_out_batches_cover_the_validation_text_and_are_always_the_same(file: Path) -> None:
    data = words(file)
    batches = list(data.evaluation(n_batches=3, batch_size=4, seq_len=16))
    assert [batch.tokens.shape for batch in batches] == [(4, 16)] * 3
    again = words(file).evaluation(n_batches=3, batch_size=4, seq_len=16)
    assert all(
        torch.equal(a.tokens, b.tokens) and torch.equal(a.targets, b.targets) for a, b in zip(batches, again, strict=True)
    )
    text = spelled(data.validation)
    rows = [Bytes().decode(row) for batch in batches for row in batch.tokens.numpy()]
    starts = [text.index(rows[0]), text.rindex(rows[-1])]
    assert starts == [0, len(text) - 17]
    assert all(row in text for row in rows)
    assert len(set(rows)) == len(rows)


def test_windows_come_from_every_array_and_cross_none() -> None:
    parts = [np.arange(10, 15), np.arange(20, 22), np.arange(30, 37)]
    stream = TokenStream([part.astype(np.uint8) for part in parts])
    assert stream.ends(3).tolist() == [3, 3, 8]
    windows = stream.windows(np.array([7, 0, 2, 3]), 3)
    assert windows.tolist() == [[34, 35, 36], [10, 11, 12], [12, 13, 14], [30, 31, 32]]


def test_generators_differ_by_seed_and_step_and_refuse_negative_ones() -> None:
    first = {generator(seed, step).integers(2**60) for seed in range(5) for step in range(5)}
    first |= {held_out_generator(i).integers(2**60) for i in range(5)}
    assert len(first) == 30
    for seed, step in ((-1, 0), (0, -1), (2**64 - 1, 0)):
        with pytest.raises(ValueError, match=f"seed={seed}, step={step}: both must be at least 0"):
            generator(seed, step)


# the split ----------------------------------------------------------------------------------------------------------


def test_documents_are_held_out_whole_and_by_name() -> None:
    documents = [Document(f"file{i}", f"<{i}>" + "x" * 50) for i in range(300)]
    train, validation = split(documents)
    for name, text in documents:
        assert (f"{text}\n" in validation, f"{text}\n" in train) == (held_out(name), not held_out(name))
    assert 0.05 < len(validation) / (len(train) + len(validation)) < 0.2


def test_few_or_unequal_documents_give_their_tail() -> None:
    train, validation = split([Document("one", "0123456789" * 10)])
    assert (len(train), len(validation)) == (90, 10)
    names = [name for name in map(str, range(100)) if not held_out(name)][:2]
    train, validation = split([Document(name, "y" * 99) for name in names])
    assert (len(train), len(validation)) == (180, 20)


# python_source ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library() -> PythonSource:
    return PythonSource(tokenizer=Bytes())


def test_standard_library_is_several_megabytes_without_tests(library: PythonSource) -> None:
    assert len(library.train) + len(library.validation) > 5_000_000
    for name, path in library.files:
        assert not {"test", "tests", "idle_test", "site-packages", "__pycache__"} & set(name.split("/"))
        assert path.suffix == ".py"
    names = [name for name, _ in library.files]
    assert names == sorted(set(names))
    assert {"os.py", "json/decoder.py"} <= set(names)


def test_standard_library_is_split_by_file(library: PythonSource) -> None:
    train, validation = spelled(library.train), spelled(library.validation)
    expected: dict[bool, list[str]] = {True: [], False: []}
    for name, path in library.files:
        text = path.read_bytes().decode("utf-8", "ignore")
        if text and text.encode() == path.read_bytes():
            expected[held_out(name)].append(text if text.endswith("\n") else f"{text}\n")
    assert train == "".join(expected[False])
    assert validation == "".join(expected[True])
    assert 0.05 < len(validation) / len(train + validation) < 0.15


def test_standard_library_has_one_hash_in_every_process(library: PythonSource) -> None:
    whole = spelled(library.train).encode() + b"\xff" + spelled(library.validation).encode()
    assert library.sha256 == hashlib.sha256(whole).hexdigest()
    code = "from runs.data import PythonSource; from runs.tokenizer import Bytes; print(PythonSource(tokenizer=Bytes()).sha256)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == library.sha256


@pytest.fixture
def small_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A standard library of a few files, with everything that is to be left out."""
    path = tmp_path / "lib"
    for i in range(40):
        (path / f"package{i % 4}").mkdir(parents=True, exist_ok=True)
        (path / f"package{i % 4}" / f"module{i}.py").write_text(f"x = {i}\n" * 20)
    for name in (
        "test/a.py",
        "package0/tests/b.py",
        "site-packages/c.py",
        "__pycache__/d.py",
        ".hidden/e.py",
        "_sysconfigdata_x.py",
    ):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("left out\n")
    (path / "latin.py").write_bytes(b"# caf\xe9 left out\n")
    (path / "package0" / "data.txt").write_text("left out\n")
    paths = {"stdlib": str(path), "purelib": str(path / "site-packages")}
    monkeypatch.setattr(sysconfig, "get_path", paths.__getitem__)
    return path


def test_tests_packages_and_undecodable_files_are_left_out(small_library: Path) -> None:
    data = PythonSource(tokenizer=Bytes())
    text = spelled(data.train) + spelled(data.validation)
    assert "left out" not in text
    assert sorted(text.split("\n")) == sorted(("".join(f"x = {i}\n" * 20 for i in range(40))).split("\n"))


def test_roots_add_packages_and_folders(small_library: Path, tmp_path: Path) -> None:
    more = tmp_path / "mine"
    more.mkdir()
    (more / "own.py").write_text("mine = True\n")
    data = PythonSource(tokenizer=Bytes(), roots=["site-packages", str(more)])
    text = spelled(data.train) + spelled(data.validation)
    assert ("left out" in text, "mine = True" in text) == (True, True)
    assert [name for name, _ in data.files][-2:] == ["site-packages/c.py", "mine/own.py"]
    assert data.sha256 != PythonSource(tokenizer=Bytes()).sha256


def test_a_root_that_adds_nothing_is_refused(small_library: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.roots: .*package1 holds no Python files besides tests"):
        PythonSource(tokenizer=Bytes(), roots=[str(small_library / "package1")]).check(seq_len=8)


def test_a_root_that_is_not_there_is_refused_at_once() -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.roots: there is no folder /nowhere; give site-packages or"):
        PythonSource(tokenizer=Bytes(), roots=["/nowhere"])


def test_python_without_sources_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "python311.zip"))
    with pytest.raises(ValueError, match=r"no sources in .*python311\.zip.*data=text data\.path=") as caught:
        PythonSource(tokenizer=Bytes()).check(seq_len=8)
    assert "\n" not in str(caught.value)


# the cache ----------------------------------------------------------------------------------------------------------


def unread(data: Text | PythonSource | HuggingFace, monkeypatch: pytest.MonkeyPatch) -> None:
    def documents() -> Iterator[Document]:
        raise AssertionError("the text was read although its tokens are kept")

    monkeypatch.setattr(data, "documents", documents)


@pytest.mark.parametrize("bpe", [False, True])
def test_tokens_are_kept_between_runs(file: Path, bpe: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> Text:
        return Text(tokenizer=BPE(vocab_size=270) if bpe else Bytes(), path=str(file))

    first, second = load(), load()
    first.check(seq_len=16)
    unread(second, monkeypatch)
    monkeypatch.setattr(BPE, "fit", None)
    second.check(seq_len=16)
    assert isinstance(second.train.parts[0], np.memmap)
    for part in ("train", "validation"):
        np.testing.assert_array_equal(getattr(first, part).parts[0], getattr(second, part).parts[0])
    assert first.sha256 == second.sha256
    assert torch.equal(first.token_bytes, second.token_bytes)
    assert second.tokenizer.decode(second.validation.parts[0]) == WORDS[-(len(WORDS) // 10) :]


def test_changed_text_is_read_again(file: Path) -> None:
    before = words(file).sha256
    file.write_text(WORDS.replace("fox", "cat"))  # of the same length
    os.utime(file, ns=(1, 1))
    data = words(file)
    assert data.sha256 != before
    assert "cat" in spelled(data.train)


def test_each_tokenizer_has_its_own_tokens_of_the_same_text(file: Path) -> None:
    a, b, c = (Text(tokenizer=t, path=str(file)) for t in (Bytes(), BPE(vocab_size=260), BPE(vocab_size=270)))
    assert len(a.train) > len(b.train) > len(c.train)
    assert a.sha256 == b.sha256 == c.sha256


@pytest.mark.parametrize("place", [0, 40, 4096, 4096 + 20_000, -1])
def test_a_damaged_cache_is_made_again(file: Path, own_cache: Path, place: int) -> None:
    good = words(file)
    good.check(seq_len=16)
    (kept,) = own_cache.iterdir()
    raw = bytearray(kept.read_bytes())
    raw[place] ^= 0xFF
    kept.write_bytes(raw)
    assert words(file).sha256 == good.sha256
    np.testing.assert_array_equal(words(file).train.parts[0], np.frombuffer(WORDS[: len(good.train)].encode(), np.uint8))
    assert isinstance(words(file).train.parts[0], np.memmap)  # and kept again


@pytest.mark.parametrize("size", [0, 10, 4096, 30_000])
def test_a_cut_off_cache_is_made_again(file: Path, own_cache: Path, size: int) -> None:
    length = len(words(file).train)
    (kept,) = own_cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:size])
    assert len(words(file).train) == length
    assert isinstance(words(file).train.parts[0], np.memmap)


@pytest.mark.parametrize(
    "header", [b"[]", b'{"arrays": {"train": 1}}', b'{"arrays": {"train": {"dtype": "O", "length": 9, "offset": 0}}}']
)
def test_foreign_content_is_not_taken_for_tokens(own_cache: Path, header: bytes) -> None:
    own_cache.mkdir()
    (own_cache / "name").write_bytes(header.ljust(cache.HEADER) + bytes(100))
    assert cache.load("name") is None


ENTRY = {"dtype": "|u1", "offset": cache.HEADER, "length": 9, "crc32": zlib.crc32(bytes(9))}


@pytest.mark.parametrize(
    "lie",
    [
        {"dtype": "|O"},
        {"dtype": "|O", "length": 0, "crc32": 0},
        {"dtype": "|V9"},
        {"dtype": ["|u1"]},
        {"dtype": {"names": ["a"], "formats": ["|O"]}},
        {"length": -9},
        {"length": 2**62},
        {"length": 10**30},
        {"length": 9.0},
        {"length": "9"},
        {"offset": 10**30},
        {"offset": -1},
        {"offset": 0},
        {"crc32": None},
        {"more": 1},
    ],
    ids=str,
)
def test_a_cache_that_lies_is_a_miss(own_cache: Path, lie: dict[str, Any]) -> None:
    own_cache.mkdir()
    for entry, found in ((ENTRY, True), ({**ENTRY, **lie}, False)):
        header = json.dumps({"facts": {}, "arrays": {"train": entry}}).encode()
        (own_cache / "name").write_bytes(header.ljust(cache.HEADER) + bytes(100))
        assert (cache.load("name") is not None) == found


def test_only_plain_files_of_the_cache_itself_are_read(own_cache: Path, tmp_path: Path) -> None:
    header = json.dumps({"facts": {}, "arrays": {"train": ENTRY}}).encode().ljust(cache.HEADER) + bytes(100)
    own_cache.mkdir()
    for place in (tmp_path / "away", own_cache / "name"):
        place.write_bytes(header)
    (own_cache / "link").symlink_to(tmp_path / "away")
    (own_cache / "loop").symlink_to(own_cache / "loop")
    (own_cache / "folder").mkdir()
    (own_cache / "nested").write_bytes(b"[" * cache.HEADER)
    os.mkfifo(own_cache / "pipe")
    assert cache.load("name") is not None
    for name in ("link", "loop", "folder", "nested", "pipe", "../away", str(tmp_path / "away"), ""):
        assert cache.load(name) is None, name


@pytest.mark.parametrize(
    "lie",
    [
        lambda arrays, facts: arrays.pop("train"),
        lambda arrays, facts: arrays.pop("tokenizer"),
        lambda arrays, facts: facts.pop("spelt"),
        lambda arrays, facts: arrays.update(tokenizer=np.frombuffer(b"{", np.uint8)),
        lambda arrays, facts: arrays.update(tokenizer=np.frombuffer(b"\xff", np.uint8)),
        lambda arrays, facts: arrays.update(validation=np.array([270], np.uint16)),
    ],
    ids=["no text", "no tokenizer", "no facts", "tokenizer cut", "tokenizer not text", "tokens beyond the vocabulary"],
)
def test_what_no_run_has_stored_is_made_again(lie: Callable[..., Any], file: Path, own_cache: Path) -> None:
    def made() -> Text:
        return Text(tokenizer=BPE(vocab_size=270), path=str(file))

    good = made()
    good.check(seq_len=16)
    (kept,) = own_cache.iterdir()
    arrays, facts = cache.load(kept.name) or ({}, {})
    arrays = {label: np.array(array) for label, array in arrays.items()}
    lie(arrays, facts)
    cache.store(kept.name, arrays, facts)
    again = made()
    again.check(seq_len=16)
    assert again.sha256 == good.sha256
    np.testing.assert_array_equal(again.validation.parts[0], good.validation.parts[0])


def test_an_unwritable_cache_only_costs_time(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "occupied").write_text("")
    monkeypatch.setenv("ARCHLAB_CACHE", str(tmp_path / "occupied" / "cache"))
    assert words(file).batch(seed=0, step=0, batch_size=2, seq_len=8).tokens.shape == (2, 8)


def test_no_home_means_no_cache(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ARCHLAB_CACHE")
    monkeypatch.setattr(Path, "home", no_home)
    assert cache.folder() is None
    assert len(words(file).train)


def test_a_full_disk_leaves_nothing_behind(file: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert len(words(file).train)
    assert list(own_cache.iterdir()) == []


def test_the_default_cache_lies_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ARCHLAB_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache.folder() == tmp_path / ".cache" / "archlab"


# text ---------------------------------------------------------------------------------------------------------------


def test_one_file_is_split_at_its_last_tenth_and_kept_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "café"  # any name
    raw = ("é\r\n日本語 no line end " * 40).encode()
    path.write_bytes(raw)
    data = words(path)
    assert (spelled(data.train) + spelled(data.validation)).encode() == raw
    assert 0.08 < len(data.validation) / len(raw) < 0.12
    assert torch.equal(data.token_bytes, torch.ones(256, dtype=torch.int64))
    assert data.vocab_size == 256


def test_a_folder_gives_all_its_text_files(folder: Path) -> None:
    (folder / "picture.png").write_bytes(b"\x89PNG\xff")
    (folder / ".hidden.md").write_bytes(b"\xff")
    data = words(folder)
    train, validation = spelled(data.train), spelled(data.validation)
    assert sorted(map(int, re.findall(r"text (\d+):", train + validation))) == list(range(60))
    for name, _ in data.files:
        number = Path(name).stem
        assert (f"text {number}:" in validation, f"text {number}:" in train) == (held_out(name), not held_out(name))


def test_suffixes_say_what_counts(folder: Path) -> None:
    (folder / "notes.own").write_text("mine " * 100)
    data = Text(tokenizer=Bytes(), path=str(folder), suffixes=[".own"])
    assert spelled(data.train).startswith("mine ")
    assert "text" not in spelled(data.train)


def test_bits_per_byte_can_be_told_under_any_tokenizer(file: Path) -> None:
    for tokenizer in (Bytes(), BPE(vocab_size=300)):
        data = Text(tokenizer=tokenizer, path=str(file))
        tokens = torch.from_numpy(data.train.parts[0].astype(np.int64))
        assert data.token_bytes[tokens].sum() == len(WORDS) - len(WORDS) // 10


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a nice caf\xe9 here", r"bad\.txt is not UTF-8: byte 0xe9 at offset 10; .*iconv -f LATIN1 -t UTF-8"),
        ("text".encode("utf-16"), r"bad\.txt is not UTF-8: byte 0xff at offset 0; it looks like UTF-16.*iconv -f UTF-16"),
        (b"", r"bad\.txt: there is no text; give one that is not empty"),
        (b"short", r"bad\.txt: the training part has 5 tokens in one piece, .*train\.seq_len \+ 1 = 17: give a longer text"),
        (b"x" * 100, r"bad\.txt: the validation part has 10 tokens in one piece, .*train\.seq_len \+ 1 = 17"),
    ],
    ids=["latin-1", "utf-16", "empty", "short", "short to hold out"],
)
@pytest.mark.parametrize("in_folder", [False, True], ids=["file", "folder"])
def test_bad_text_is_refused_in_one_line_before_training(tmp_path: Path, raw: bytes, message: str, in_folder: bool) -> None:
    path = tmp_path / "given" / "bad.txt"
    path.parent.mkdir()
    path.write_bytes(raw)
    data = words(path.parent if in_folder else path)
    if in_folder:
        message = message.replace(r"bad\.txt:", "given:")
    for use in (lambda: data.check(seq_len=16), lambda: next(data.evaluation(n_batches=1, batch_size=1, seq_len=16))):
        with pytest.raises(ValueError, match=message) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_a_batch_from_a_short_text_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(ValueError, match=r"short\.txt: the training part has 5 tokens"):
        words(tmp_path / "short.txt").batch(seed=0, step=0, batch_size=1, seq_len=16)


def test_a_text_of_just_one_sequence_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "just.txt"
    path.write_text("x" * 170)
    data = words(path)
    data.check(seq_len=16)
    assert data.batch(seed=0, step=0, batch_size=2, seq_len=16).tokens.shape == (2, 16)
    assert len(list(data.evaluation(n_batches=2, batch_size=2, seq_len=16))) == 2


def test_a_missing_path_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"data\.path=.*nothing\.txt: there is no such file or folder; give a text file"
    ):
        words(tmp_path / "nothing.txt")
    with pytest.raises(ValueError, match=r"data=text needs your text: data\.path=FILE_OR_FOLDER"):
        Text(tokenizer=Bytes(), path=None)
    with pytest.raises(ValueError, match=r"data\.path=/dev/null: this is neither a file nor a folder"):
        words(Path("/dev/null"))


def test_what_is_no_plain_file_is_neither_read_nor_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    (tmp_path / "zeros.txt").symlink_to("/dev/zero")
    (tmp_path / "up").symlink_to(tmp_path)
    for name, message in (("pipe.txt", "neither a file"), ("zeros.txt", "neither a file"), ("loop.txt", "no such file")):
        with pytest.raises((ValueError, FileNotFoundError), match=rf"data\.path=.*{name}: .*{message}"):
            words(tmp_path / name)
    with pytest.raises(ValueError, match=r"no text in this folder"):
        words(tmp_path).check(seq_len=16)
    (tmp_path / "plain.txt").write_text(WORDS)
    assert [name for name, _ in words(tmp_path).files] == ["plain.txt"]


def test_a_folder_without_text_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no text in this folder, but no files"):
        words(tmp_path).check(seq_len=16)
    for name in ("a.png", "b.png", "c"):
        (tmp_path / name).write_bytes(b"\xff")
    with pytest.raises(
        ValueError, match=r"no text in this folder, but 2 of .png, 1 of no suffix; data.suffixes=.txt .* is what counts"
    ):
        words(tmp_path).check(seq_len=16)


def test_an_unreadable_file_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError, match=r"words\.txt may not be read \(permission denied\): chmod -R u\+rX .*words\.txt"):
        words(file).check(seq_len=16)


# shards -------------------------------------------------------------------------------------------------------------


def llmc(path: Path, tokens: np.ndarray, *, magic: int = 20240520, version: int = 1, n: int | None = None) -> Path:
    header = np.zeros(256, dtype="<i4")
    header[:3] = magic, version, len(tokens) if n is None else n
    path.write_bytes(header.tobytes() + tokens.tobytes())
    return path


def nanogpt(path: Path, tokens: np.ndarray) -> Path:
    path.write_bytes(tokens.astype("<u2").tobytes())
    return path


def shards(folder: Path, vocab_size: int = 1000) -> Shards:
    return Shards(train=str(folder / "train*"), val=str(folder / "val*"), vocab_size=vocab_size)


FORMATS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "nanogpt": nanogpt,
    "llm.c 1": lambda path, tokens: llmc(path, tokens.astype("<u2")),
    "llm.c 7": lambda path, tokens: llmc(path, tokens.astype("<u4"), magic=20240801, version=7),
}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_shards_give_the_tokens_that_were_written(tmp_path: Path, write: Callable[[Path, np.ndarray], Path]) -> None:
    for i in range(3):
        write(tmp_path / f"train_{i}.bin", np.arange(100 * i, 100 * i + 50 + i))
    write(tmp_path / "val.bin", np.arange(900, 960))
    data = shards(tmp_path)
    data.check(seq_len=10)
    assert (data.vocab_size, data.token_bytes) == (1000, None)
    assert [len(part) for part in data.train.parts] == [50, 51, 52]
    assert all(isinstance(part, np.memmap) for part in data.train.parts)
    batch = data.batch(seed=0, step=0, batch_size=60, seq_len=10)
    assert torch.equal(batch.tokens + 1, batch.targets)
    assert (batch.tokens.diff(dim=1) == 1).all()
    assert set((batch.tokens[:, 0] // 100).tolist()) == {0, 1, 2}
    (held,) = data.evaluation(n_batches=1, batch_size=4, seq_len=10)
    assert held.tokens.min() == 900
    assert held.targets.max() == 959
    assert torch.equal(shards(tmp_path).batch(seed=0, step=0, batch_size=60, seq_len=10).tokens, batch.tokens)
    before = data.sha256
    write(tmp_path / "train_1.bin", np.arange(1, 52))
    assert shards(tmp_path).sha256 != before


def test_shards_with_their_tokenizer_tell_bytes(tmp_path: Path) -> None:
    for part in ("train", "val"):
        nanogpt(tmp_path / f"{part}.bin", np.frombuffer(b"some text", np.uint8))
    data = Shards(train=str(tmp_path / "train.bin"), val=str(tmp_path / "val.bin"), vocab_size=300, tokenizer=Bytes())
    assert data.token_bytes is not None
    assert data.token_bytes.tolist() == [1] * 256 + [0] * 44
    with pytest.raises(ValueError, match=r"data\.vocab_size=100 is smaller than that of data\.tokenizer, 256"):
        Shards(train="x", val="x", vocab_size=100, tokenizer=Bytes())


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda p: llmc(p, np.zeros(50, "<u2"), n=60),
            "is truncated or damaged: its header says 60 tokens, so 1144 bytes, but it has 1124",
        ),
        (lambda p: llmc(p, np.zeros(0, "<u2")), "is truncated or damaged: its header says 0 tokens"),
        (
            lambda p: llmc(p, np.zeros(50, "<u2"), version=2),
            "magic 20240520, 1124 bytes: not a shard that is known .*version 1",
        ),
        (
            lambda p: llmc(p, np.zeros(50, "<u2"), magic=20250101),
            "magic 20250101, .*known: nanoGPT raw uint16; llm.c with magic 20240520",
        ),
        (lambda p: p.write_bytes(np.array([20240520, 1, 9], "<i4").tobytes()), "magic 20240520, 12 bytes: not a shard"),
        (lambda p: p.write_bytes(b"abc"), "has 3 bytes, not a whole number of uint16 tokens"),
        (lambda p: p.write_bytes(b""), "has 0 bytes, not a whole number"),
        (lambda p: p.mkdir(), "is not a file; a pattern must match token files alone"),
        (os.mkfifo, "is not a file; a pattern must match token files alone"),
        (lambda p: p.symlink_to("/dev/zero"), "is not a file; a pattern must match token files alone"),
        (lambda p: llmc(p, np.zeros(50, "<u2"), n=-1), "is truncated or damaged: its header says -1 tokens"),
        (lambda p: llmc(p, np.zeros(50, "<u2"), n=2**31 - 1), "is truncated or damaged: its header says 2147483647 tokens"),
    ],
)
def test_damaged_shards_are_refused_by_name(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    nanogpt(tmp_path / "val.bin", np.arange(100))
    write(tmp_path / "train.bin")
    with pytest.raises(ValueError, match=rf"train\.bin:? {message}") as caught:
        shards(tmp_path)
    assert "\n" not in str(caught.value)


def test_tokens_outside_the_vocabulary_are_refused(tmp_path: Path) -> None:
    nanogpt(tmp_path / "train.bin", np.arange(100))
    nanogpt(tmp_path / "val.bin", np.arange(50))
    shards(tmp_path, vocab_size=100).check(seq_len=8)
    with pytest.raises(ValueError, match=r"train\.bin: token 99 is outside data\.vocab_size=99"):
        shards(tmp_path, vocab_size=99).check(seq_len=8)
    with pytest.raises(ValueError, match=r"is outside data\.vocab_size=50"):
        shards(tmp_path, vocab_size=50).batch(seed=0, step=0, batch_size=99, seq_len=8)
    nanogpt(tmp_path / "train.bin", np.arange(50))
    nanogpt(tmp_path / "val.bin", np.arange(100))
    with pytest.raises(ValueError, match=r"val\.bin: token 99 is outside data\.vocab_size=50"):
        list(shards(tmp_path, vocab_size=50).evaluation(n_batches=1, batch_size=99, seq_len=8))


def test_shards_that_are_missing_or_short_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data=shards needs data\.train=GLOB data\.val=GLOB data\.vocab_size=NUMBER"):
        Shards(train=None, val=None, vocab_size=None)
    with pytest.raises(FileNotFoundError, match=r"data\.train=.*: no file matches; give a path or a pattern"):
        shards(tmp_path)
    nanogpt(tmp_path / "train.bin", np.arange(100))
    nanogpt(tmp_path / "val.bin", np.arange(8))
    with pytest.raises(ValueError, match=r"the validation part has 8 tokens in one piece, .*train\.seq_len \+ 1 = 9"):
        shards(tmp_path).check(seq_len=8)


class Trap:
    """Whoever unpickles it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_beside_the_shards_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for part in ("train", "val"):
        nanogpt(tmp_path / f"{part}.bin", np.arange(100))
    data = shards(tmp_path, vocab_size=100)
    data.check(seq_len=8)
    assert data.vocab_size == 100
    assert not (tmp_path / "sprung").exists()
    pickle.loads((tmp_path / "meta.pkl").read_bytes())
    assert (tmp_path / "sprung").exists()  # the trap works


# hf -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"n": i, "text": f"story {i}: " + "once upon a time " * 5}) + "\n" for i in range(200)))
    return path


def hugging_face(path: Path, **more: Any) -> HuggingFace:
    return HuggingFace(tokenizer=Bytes(), name=None, files=[str(path)], **more)


def test_local_rows_are_streamed_and_split_by_document(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = hugging_face(rows)
    data.check(seq_len=32)
    parts = [re.findall(r"story (\d+):", spelled(part)) for part in (data.train, data.validation)]
    assert sorted(map(int, parts[0] + parts[1])) == list(range(200))
    assert 5 < len(parts[1]) < 40
    again = hugging_face(rows)
    unread(again, monkeypatch)
    assert again.sha256 == data.sha256


def test_only_so_many_bytes_are_taken(rows: Path) -> None:
    data = hugging_face(rows, max_bytes=1000)
    assert sorted(map(int, re.findall(r"story (\d+):", spelled(data.train) + spelled(data.validation)))) == list(range(11))
    assert data.sha256 != hugging_face(rows, max_bytes=2000).sha256


def test_the_same_text_never_stands_in_both_parts(tmp_path: Path) -> None:
    path = tmp_path / "twice.jsonl"
    path.write_text("".join(json.dumps({"text": f"story {i % 100}: " + "x" * 90}) + "\n" for i in range(200)))
    data = hugging_face(path)
    train, validation = (set(spelled(part).split("\n")) - {""} for part in (data.train, data.validation))
    assert not train & validation
    assert len(train | validation) == 100


def test_a_local_text_file_is_one_document(file: Path) -> None:
    data = hugging_face(file)
    assert spelled(data.train) + spelled(data.validation) == WORDS


def test_a_wrong_column_is_told_with_those_that_hold_text(rows: Path) -> None:
    for column in ("content", "n"):
        with pytest.raises(ValueError, match=rf"no text in data\.text_column={column}; columns with text: \['text'\]"):
            hugging_face(rows, text_column=column).check(seq_len=8)


def test_missing_datasets_is_told_with_its_command(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="data=hf needs the package datasets: pip install datasets"):
        hugging_face(rows).check(seq_len=8)


def test_a_name_without_network_and_a_broken_file_end_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "fine"}\n{"text": ')
    code = (
        "import sys; from runs.data import HuggingFace; from runs.tokenizer import Bytes\n"
        "for source in ({'name': 'nobody/nothing'}, {'name': None, 'files': [sys.argv[1]]}):\n"
        "    try: HuggingFace(tokenizer=Bytes(), **source).check(seq_len=8)\n"
        "    except ValueError as error: print(error)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(broken)], cwd=ROOT, capture_output=True, text=True, check=True, env=env
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("data.name=nobody/nothing: ")
    assert lines[0].endswith("(a name needs the network; for local files: data.files=[PATH,...])")
    assert lines[1].startswith(f"data.files={broken}: ")
    assert done.stderr == ""


def test_no_program_of_a_data_set_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "owner" / "name"
    place.mkdir(parents=True)
    (place / "name.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'sprung')!r})\n")
    (tmp_path / "train.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))  # what the library's reader pandas takes
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"data\.name=owner/name: .*it is a program, which is not run; take its copy in parquet"
    ):
        HuggingFace(tokenizer=Bytes(), name="owner/name").check(seq_len=8)
    for name in ("pandas", "csv", str(place), "owner/name/name.py", "", "hf://datasets/owner/name"):
        with pytest.raises(ValueError, match=r"data\.name=.*: OWNER/NAME on the hub is expected; for local files: data\.files"):
            HuggingFace(tokenizer=Bytes(), name=name).check(seq_len=8)
    assert not (tmp_path / "sprung").exists()


def test_bad_requests_are_refused_at_once(tmp_path: Path, rows: Path) -> None:
    for name, files in ((None, []), ("a/b", [str(rows)])):
        with pytest.raises(ValueError, match=r"either data\.name=OWNER/NAME or data\.files"):
            HuggingFace(tokenizer=Bytes(), name=name, files=files)
    with pytest.raises(FileNotFoundError, match=r"data\.files: there is no file .*none\.json"):
        hugging_face(tmp_path / "none.json")
    (tmp_path / "a.pdf").write_text("")
    with pytest.raises(ValueError, match=r"a\.pdf has no known suffix.*known: .json"):
        hugging_face(tmp_path / "a.pdf")
    with pytest.raises(ValueError, match=r"data\.max_bytes=0: at least 1"):
        hugging_face(rows, max_bytes=0)


# configs ------------------------------------------------------------------------------------------------------------

YAMLS = sorted([*(ROOT / "conf" / "data").glob("*.yaml"), *(ROOT / "conf" / "tokenizer").glob("*.yaml")])


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_each_option_names_every_argument_and_its_default(path: Path) -> None:
    assert path.read_text().startswith("# ")
    node = yaml.safe_load(path.read_text())
    module, _, name = node.pop("_target_").rpartition(".")
    target = getattr(importlib.import_module(module), name)
    arguments = inspect.signature(target).parameters
    assert set(node) == (set(arguments) if target is not Bytes else set())
    assert set(typing.get_type_hints(target.__init__)) >= set(node)  # what the builder checks types by
    for key, argument in arguments.items():
        if argument.default is not argument.empty:
            assert node[key] == (list(argument.default) if isinstance(argument.default, tuple) else argument.default)


def test_every_kind_keeps_the_contract(file: Path, rows: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        nanogpt(tmp_path / f"{part}.bin", np.arange(100))
    members = [name for name in vars(Data) if not name.startswith("_")]
    for data in (PythonSource(tokenizer=Bytes()), words(file), hugging_face(rows), shards(tmp_path)):
        assert all(hasattr(type(data), name) for name in members)
