"""Which package is a piece of code from? Labels that are right, classes that are even, files that stay on one side."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from runs.data import Packages
from runs.data.contract import IGNORED, Data
from runs.data.corpus import Document, held_out
from runs.data.packages import part_files
from runs.tokenizer import BPE, Bytes

ROOT = Path(__file__).parent.parent
SIZES = {"ant": 300, "bee": 400, "cat": 200, "dog": 100}  # bytes of a file, in each of 20


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARCHLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A standard library of four packages whose files say over and over which package and file they are."""
    path = tmp_path / "lib"
    for package, size in SIZES.items():
        (path / package / "inner").mkdir(parents=True)
        for i in range(20):
            name = f"{package}/inner/{i}.py" if i % 2 else f"{package}/{i}.py"
            (path / name).write_text(f"{package}-{i:02} " * (size // 7) + "\n")
    (path / "alone.py").write_text("no package " * 1000)
    (path / "few").mkdir()
    for i in range(4):
        (path / "few" / f"{i}.py").write_text("too few files " * 1000)
    paths = {"stdlib": str(path), "purelib": str(path / "site-packages")}
    monkeypatch.setattr(sysconfig, "get_path", paths.__getitem__)
    return path


def packages(n_classes: int = 3, roots: tuple[str, ...] = ()) -> Packages:
    return Packages(tokenizer=Bytes(), n_classes=n_classes, roots=roots)


# classes ------------------------------------------------------------------------------------------------------------


def test_classes_are_the_largest_packages_of_enough_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packages, "texts", None)  # not needed to know this
    assert packages(2).classes == ["bee", "ant"]
    assert packages(4).classes == ["bee", "ant", "cat", "dog"]
    assert (packages(4).n_classes, packages(4).vocab_size) == (4, 256)


def test_too_few_packages_are_refused_with_their_number() -> None:
    with pytest.raises(ValueError, match=r"data\.n_classes=5: there are 4 packages of at least 5 files; take fewer, or give"):
        packages(5).check(seq_len=8)
    with pytest.raises(ValueError, match="n_classes=1: at least 2"):
        packages(1)


def test_roots_add_packages(library: Path, tmp_path: Path) -> None:
    for i in range(6):
        for folder in (library / "site-packages" / "installed", tmp_path / "mine" / "deep"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.py").write_text("x = 1\n" * 5000)
    assert packages(3, ("site-packages", str(tmp_path / "mine"))).classes == ["installed", "mine", "bee"]
    with pytest.raises(FileNotFoundError, match=r"data\.roots: there is no folder /nowhere"):
        packages(3, ("/nowhere",))


def test_whole_files_are_held_out_of_each_package() -> None:
    texts = packages(4).texts()
    for package, train, validation in zip(packages(4).classes, texts["train"], texts["validation"], strict=True):
        for i in range(20):
            mark, name = f"{package}-{i:02}", f"{package}/inner/{i}.py" if i % 2 else f"{package}/{i}.py"
            assert (mark in train) != (mark in validation)
            if held_out(name):
                assert mark in validation
        assert 2 <= len(set(validation.split())) <= 6  # of 20 files
        assert not set(packages(4).classes) - {package} & {word.split("-")[0] for word in (train + validation).split()}


def test_no_more_files_are_held_out_than_needed() -> None:
    free = [name for name in map(str, range(60)) if not held_out(name)]
    train, validation = part_files([Document(name, "x" * 100) for name in free[:40]])
    assert (train.count("x"), validation.count("x")) == (3600, 400)
    train, validation = part_files([Document(name, "x" * 100) for name in free[:5]])
    assert (train.count("x"), validation.count("x")) == (300, 200)  # at least two files
    more = [Document(name, "x" * 100) for name in map(str, range(60)) if held_out(name)]
    train, validation = part_files([*more, *(Document(name, "x" * 100) for name in free[:10])])
    assert (train.count("x"), validation.count("x")) == (1000, 100 * len(more))  # what is held out elsewhere comes first


# batches ------------------------------------------------------------------------------------------------------------


def test_each_row_is_a_piece_of_its_package_and_asks_for_the_next_token() -> None:
    data = packages()
    train = data.texts()["train"]
    batch = data.batch(seed=0, step=0, batch_size=24, seq_len=33)
    assert batch.labels is not None
    assert batch.tokens.shape == batch.targets.shape == (24, 33)
    assert batch.labels.shape == (24,)
    assert batch.tokens.dtype == batch.targets.dtype == batch.labels.dtype == torch.int64
    for row, label in zip(batch.tokens.numpy(), batch.labels, strict=True):
        assert Bytes().decode(row) in train[label]
    assert torch.equal(batch.targets[:, :-1], batch.tokens[:, 1:])
    assert (batch.targets[:, -1] == IGNORED).all()
    assert (batch.positions, batch.types, batch.source) == (None, None, None)


def test_classes_and_places_are_equally_likely() -> None:
    data = packages()
    batches = [data.batch(seed=0, step=step, batch_size=100, seq_len=2) for step in range(30)]
    labels = torch.cat([batch.labels for batch in batches if batch.labels is not None])
    assert (torch.bincount(labels, minlength=3) - 1000).abs().max() < 4 * (3000 * 2 / 9) ** 0.5
    texts = {Bytes().decode(row) for batch in batches for row in batch.tokens.numpy()}
    assert {" b", " a", " c", "t-", "-1", "\n\n"} <= texts  # ends of files are places too


def test_held_out_rows_take_the_classes_in_turn_and_cover_each() -> None:
    data = packages()
    batches = list(data.evaluation(n_batches=5, batch_size=6, seq_len=20))
    labels = torch.cat([batch.labels for batch in batches if batch.labels is not None])
    assert labels.tolist() == [0, 1, 2] * 10
    rows = [Bytes().decode(row) for batch in batches for row in batch.tokens.numpy()]
    for label, text in enumerate(data.texts()["validation"]):
        mine = rows[label::3]
        assert all(row in text for row in mine)
        assert (mine[0], mine[-1]) == (text[:20], text[-20:])
        assert len(set(mine)) > 5
    again = packages().evaluation(n_batches=5, batch_size=6, seq_len=20)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(batches, again, strict=True))


def test_one_held_out_row_is_enough() -> None:
    (batch,) = packages().evaluation(n_batches=1, batch_size=1, seq_len=20)
    assert batch.tokens.shape == (1, 20)


def test_batches_are_a_function_of_seed_and_step_in_every_process(library: Path) -> None:
    first = packages().batch(seed=3, step=7, batch_size=8, seq_len=20)
    code = (
        "import sys, sysconfig; from runs.data import Packages; from runs.tokenizer import Bytes\n"
        "sysconfig.get_path = lambda name: sys.argv[1]\n"
        "batch = Packages(tokenizer=Bytes(), n_classes=3).batch(seed=3, step=7, batch_size=8, seq_len=20)\n"
        "print([batch.tokens.tolist(), batch.labels.tolist()])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(library)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert first.labels is not None
    assert json.loads(done.stdout) == [first.tokens.tolist(), first.labels.tolist()]
    for seed, step in ((3, 8), (4, 7)):
        assert not torch.equal(packages().batch(seed=seed, step=step, batch_size=8, seq_len=20).tokens, first.tokens)


def test_a_package_shorter_than_a_row_is_named() -> None:
    data = packages(4)
    size = min(map(len, data.texts()["validation"]))
    data.check(seq_len=size)
    with pytest.raises(ValueError, match=rf"the validation part of dog has {size} tokens, but a row takes .* {size + 1}:"):
        data.check(seq_len=size + 1)
    with pytest.raises(ValueError, match="the validation part of dog"):
        data.batch(seed=0, step=0, batch_size=1, seq_len=size + 1)


# keeping ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bpe", [False, True])
def test_tokens_are_kept_between_runs(bpe: bool, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> Packages:
        return Packages(tokenizer=BPE(vocab_size=270) if bpe else Bytes(), n_classes=3)

    first = load()
    batch = first.batch(seed=0, step=0, batch_size=8, seq_len=20)
    assert first.token_bytes is not None
    spelled = [int(first.token_bytes[tokens.astype(np.int64)].sum()) for tokens in first.rows["train"]]
    assert spelled == [len(text) for text in first.texts()["train"]]
    assert len(list(own_cache.iterdir())) == 1
    monkeypatch.setattr(Packages, "texts", None)
    monkeypatch.setattr(BPE, "fit", None)
    again = load()
    assert torch.equal(again.batch(seed=0, step=0, batch_size=8, seq_len=20).tokens, batch.tokens)
    assert (again.sha256, again.classes) == (first.sha256, first.classes)
    assert again.token_bytes is not None
    assert torch.equal(again.token_bytes, first.token_bytes)


def test_other_classes_and_other_text_are_other_data(library: Path) -> None:
    before = packages().sha256
    assert packages(4).sha256 != before
    (library / "ant" / "0.py").write_text("new " * 100)
    assert packages().sha256 != before


def test_the_contract_is_kept() -> None:
    members = [name for name in vars(Data) if not name.startswith("_")]
    assert all(hasattr(Packages, name) for name in members)


# the real library ---------------------------------------------------------------------------------------------------


def test_the_standard_library_has_eight_packages_to_tell_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    data = packages(8)
    assert {"asyncio", "email", "idlelib"} < set(data.classes)
    texts = data.texts()
    assert min(map(len, texts["train"])) > 50_000
    assert min(map(len, texts["validation"])) > 10_000
