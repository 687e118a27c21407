"""Records: who is who, whole files, claims, and what is said of damaged ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runs.job import record
from runs.job.record import Metrics, RecordError, claim, write_json


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"status": "done"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"value": float("nan")})
    assert record.status(tmp_path) == "done"
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("text", ['{"status": "do', "[1, 2]", ""])
def test_a_damaged_summary_is_named_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(RecordError, match=r"summary\.json: .*delete"):
        record.status(tmp_path)


def test_metrics_survive_a_cut_and_forget_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        metrics.append({"step": step, "loss": float("nan") if step == 2 else 1.0})
    with open(metrics.path, "a") as file:
        file.write('{"step": 4, "lo')
    metrics.keep_until(2)
    assert [json.loads(line) for line in metrics.path.read_text().splitlines()] == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": None},
    ]


def test_garbage_in_the_middle_of_metrics_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nxx\n{"step": 2}\n')
    with pytest.raises(RecordError, match=r"line 2 of 3"):
        Metrics(path).keep_until(5)


def test_a_folder_has_one_owner_and_is_free_after_its_death(tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(RecordError, match="is running this very run"), claim(tmp_path):
        pass
    code = f"import os, pathlib; from runs.job.record import claim\nwith claim(pathlib.Path({str(tmp_path)!r})): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    with claim(tmp_path):
        pass
