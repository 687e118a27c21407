"""Somebody else's run, opened: whatever its record says, it is loaded or refused in one line, and nothing else happens."""

from __future__ import annotations

import copy
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runs.command import guarded
from runs.compose.explain import EXPECTED, explain
from runs.job.record import CONFIG, ENV, read_json, write_json
from runs.job.start import restore
from runs.train import main
from tests.door import runs, small, write_text

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    "x",
    "../../../etc/passwd",
    "${oc.env:HOME}",
    [],
    [[]],
    {},
    {"_target_": "os.system", "command": "touch owned"},
    {"_target_": "runs.data.cache.store", "name": "owned", "arrays": {}, "facts": {}},
    {"_target_": "arch.decode.torch"},
    {"_target_": 3},
)
TRIED = 250  # of all changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("theirs")
    before, sys.argv = sys.argv, ["train", *small(write_text(out / "story.txt"), out / "out", "train.steps=2", "ffn=moe")]
    try:
        assert guarded(main) == 0
    finally:
        sys.argv = before
    return runs(out / "out")[0]


def places(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place of a tree."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(content: dict[str, Any], place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """value: what stands there now; ...: the place is gone."""
    anew = copy.deepcopy(content)
    inner: Any = anew
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return anew


def opened(folder: Path) -> str:
    """How it ended: loaded, or the line that refuses it."""
    try:
        restore(folder)
    except EXPECTED as error:
        line = explain(error)
        assert line and "\n" not in line, line
        return line
    return "loaded"


@pytest.mark.parametrize("file", [CONFIG, ENV])
@pytest.mark.parametrize("tried", [TRIED, pytest.param(20_000, marks=pytest.mark.torture)])
def test_any_change_to_a_sealed_record_is_loaded_or_refused(
    folder: Path, tmp_path: Path, file: str, tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(folder, theirs)
    content = {key: value for key, value in read_json(folder / file).items() if key not in ("git_diff", "earlier")}
    every = [(place, value) for place in places(content) for value in (*VALUES, ...)]
    monkeypatch.chdir(tmp_path)
    refused = 0
    for place, value in random.Random(0).sample(every, min(tried, len(every))):
        write_json(theirs / file, changed(content, place, value))
        try:
            refused += opened(theirs) != "loaded"
        except Exception as error:
            raise AssertionError(f"{place} = {value!r}: {type(error).__name__}: {error}") from error
    assert not list(tmp_path.rglob("owned*"))
    assert refused > tried / 10 or file == ENV
