"""Records that were damaged, in every file and every way: named, put aside, and the run done again from its last good state."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runs.command import guarded
from runs.job.checkpoint import BEFORE
from runs.job.record import CHECKPOINT, CONFIG, ENV, FILES, METRICS, SUMMARY, RecordError, read, read_json, write_json
from runs.train import main
from tests.door import assert_same, rows, runs, small, write_text

Damage = Callable[[bytes], bytes | None]
DAMAGE: dict[str, Damage] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "flipped": lambda content: (
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
    ),
    "doubled": lambda content: content * 2,
    "missing": lambda content: None,
    "nested": lambda content: b'{"a": ' * 20_000,
    "an object": lambda content: b"{}",
}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "story.txt")


WORDS = ("ffn=moe", "train.steps=12", "train.checkpoint_every=4", "train.eval_every=6")


def again(text: Path, out: Path, *words: str) -> int:
    """The command once more, in this process."""
    before, sys.argv = sys.argv, ["train", *small(text, out, *WORDS, *words)]
    try:
        return guarded(main)
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended; its folder."""
    out = tmp_path_factory.mktemp("whole")
    assert again(text, out) == 0
    return runs(out)[0]


@pytest.fixture(scope="module")
def cut_off(whole: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, ended from outside after step 10: two checkpoints, at steps 8 and 4, and rows beyond them."""
    from runs.job import execute

    out, plain = tmp_path_factory.mktemp("cut"), execute.Metrics.append

    class Cut(BaseException):
        pass

    def append(self: execute.Metrics, row: dict[str, object]) -> None:
        plain(self, row)
        if row["step"] == 10:
            raise Cut

    execute.Metrics.append = append  # type: ignore[method-assign]
    try:
        with pytest.raises(Cut):
            again(text, out)
    finally:
        execute.Metrics.append = plain  # type: ignore[method-assign]
    (folder,) = runs(out)
    assert (folder / CHECKPOINT).exists() and (folder / BEFORE).exists() and [row["step"] for row in rows(folder)][-1] == 10
    return folder


def copied(folder: Path, out: Path) -> Path:
    """As it is, timestamps included, in another out folder."""
    shutil.copytree(folder.parent.parent, out, dirs_exist_ok=True)
    return runs(out)[0]


def damaged(file: Path, damage: Damage) -> None:
    content = damage(file.read_bytes())
    file.unlink() if content is None else file.write_bytes(content)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", [*FILES, SUMMARY])
def test_a_run_that_ended_is_done_again(
    whole: Path, text: Path, tmp_path: Path, name: str, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copied(whole, tmp_path)
    damaged(folder / name, DAMAGE[how])
    if (name, how) == (SUMMARY, "missing"):
        assert read(folder).status == "unfinished"  # as a run that was killed before it could tell
    elif name == CHECKPOINT and how == "flipped":
        read(folder)  # its size alone is looked at, unless asked
        with pytest.raises(RecordError, match=r"state\.safetensors: damaged"):
            read(folder, weights=True)
    else:
        with pytest.raises(RecordError, match=rf"{Path(name).name}: damaged"):
            read(folder)
    assert again(text, tmp_path) == 0
    if (name, how) != (SUMMARY, "missing"):
        assert str(folder / name) in capfd.readouterr().err
    assert read(folder, weights=True).status == "done"
    assert_same(whole, folder)
    if name in (CONFIG, ENV, SUMMARY) and how != "missing":
        assert (folder / f"{name}.damaged").exists()


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", [CONFIG, ENV, METRICS, CHECKPOINT, BEFORE])
def test_a_run_that_was_cut_off_goes_on_with_every_row_once(
    whole: Path, cut_off: Path, text: Path, tmp_path: Path, name: str, how: str
) -> None:
    folder = copied(cut_off, tmp_path)
    damaged(folder / name, DAMAGE[how])
    assert again(text, tmp_path) == 0
    assert_same(whole, folder)
    start = json.loads((folder / ENV).read_text())["begun_at_step"]
    lost = (name == METRICS and how in ("empty", "missing", "nested", "an object"), name == CHECKPOINT)
    assert start == {(True, False): 0, (False, True): 4}.get(lost, 8 if name != METRICS else start)
    assert not (folder / BEFORE).exists()  # once the run has ended, one is enough


def test_a_clock_that_has_gone_back_changes_nothing(whole: Path, cut_off: Path, text: Path, tmp_path: Path) -> None:
    folder = copied(cut_off, tmp_path)
    env = read_json(folder / ENV)
    write_json(folder / ENV, {**env, "started": "2999-01-01T00:00:00+0000"})
    for file in folder.rglob("*"):
        os.utime(file, (2**32, 2**32))
    assert again(text, tmp_path) == 0
    assert_same(whole, folder)


def test_both_checkpoints_damaged_means_from_the_start(whole: Path, cut_off: Path, text: Path, tmp_path: Path) -> None:
    folder = copied(cut_off, tmp_path)
    for name in (CHECKPOINT, BEFORE):
        damaged(folder / name, DAMAGE["flipped"])
    assert again(text, tmp_path) == 0
    assert_same(whole, folder)


def test_a_record_of_an_earlier_version_is_trained_anew(
    whole: Path, text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copied(whole, tmp_path)
    content = {key: value for key, value in json.loads((folder / CONFIG).read_text()).items() if key != "digest"}
    write_json(folder / CONFIG, {**content, "schema": 2})
    assert again(text, tmp_path) == 0
    assert "an earlier version of this program has made it" in capfd.readouterr().err
    assert_same(whole, folder)


def test_a_summary_of_another_run_is_not_believed(whole: Path, text: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path)
    assert again(text, tmp_path, "seed=1") == 0
    other = next(path for path in runs(tmp_path) if path != folder)
    os.replace(other / SUMMARY, folder / SUMMARY)
    with pytest.raises(RecordError, match="not this run's"):
        read(folder)
    assert again(text, tmp_path) == 0
    assert_same(whole, folder)
