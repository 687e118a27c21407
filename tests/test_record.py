"""Records: who is who, whole files, claims, and what is said of damaged ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runs.job import record
from runs.job.metrics import NONE, Metrics
from runs.job.record import RecordError, claim, read_json, write_json


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"status": "done"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"value": float("nan")})
    assert record.status(tmp_path) == "done"
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_a_file_tells_that_it_is_whole(tmp_path: Path) -> None:
    """Every byte of it: cut anywhere, changed anywhere, doubled, it is refused in one line."""
    path, content = tmp_path / "env.json", {"a": [1.5, None], "b": {"c": 'ü \n "'}}
    write_json(path, content)
    assert read_json(path) == content
    whole = path.read_bytes()
    damaged = [whole[:i] for i in range(len(whole))] + [whole * 2, whole + b" ", b"{}", b"[1, 2]"]
    damaged += [bytes([*whole[:i], byte ^ 4, *whole[i + 1 :]]) for i, byte in enumerate(whole)]
    for content_now in damaged:
        path.write_bytes(content_now)
        with pytest.raises(RecordError, match=r"env\.json: damaged .*again") as caught:
            read_json(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, "NaN", "[1, 2]", ""])
def test_a_sealed_file_of_anything_else_is_refused_too(tmp_path: Path, text: str) -> None:
    path = tmp_path / "env.json"
    body = text.removesuffix("\n}")
    path.write_text(f'{body}{record.SEAL}{record._digest(body + chr(10) + "}")}"\n}}\n')
    with pytest.raises(RecordError, match="damaged"):
        read_json(path)


def test_a_link_in_a_runs_folder_is_refused(tmp_path: Path) -> None:
    """As a stranger may lay one: what is written would land where it leads."""
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    folder.mkdir()
    (folder / "checkpoint").mkdir()
    for name in (".lock", "metrics.jsonl", "log.txt", "checkpoint/state.safetensors"):
        (folder / name).symlink_to(victim)
        with pytest.raises(RecordError, match="it is a link"), claim(folder):
            pass
        (folder / name).unlink()
    assert victim.read_text() == "mine"


def test_metrics_go_on_from_where_they_stood(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    metrics.keep(NONE)
    for step in (1, 2):
        metrics.append({"step": step, "loss": float("nan") if step == 2 else 1.0})
    then = metrics.extent
    metrics.append({"step": 3, "loss": 1.0})
    with open(metrics.path, "a") as file:
        file.write('{"step": 4, "lo')
    again = Metrics(metrics.path)
    assert again.begins_with(then) and again.begins_with(NONE)
    again.keep(then)
    assert again.rows() == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": None}]
    again.append({"step": 3, "loss": 1.0})
    assert again.extent == metrics.extent


def test_metrics_that_are_not_what_they_were_are_known(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    metrics.keep(NONE)
    metrics.append({"step": 1, "loss": 1.0})
    then, whole = metrics.extent, metrics.path.read_bytes()
    for damaged in (b"", whole[:-1], whole.replace(b"1.0", b"1.5"), b"\n" + whole):
        metrics.path.write_bytes(damaged)
        assert not Metrics(metrics.path).begins_with(then)
    metrics.path.unlink()
    assert not Metrics(metrics.path).begins_with(then)


def test_a_folder_has_one_owner_and_is_free_after_its_death(tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(RecordError, match="is running this very run"), claim(tmp_path):
        pass
    code = f"import os, pathlib; from runs.job.record import claim\nwith claim(pathlib.Path({str(tmp_path)!r})): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    with claim(tmp_path):
        pass
