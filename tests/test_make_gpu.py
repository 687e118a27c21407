"""make gpu: its parts go on after each other's failures, what was found is kept, and the end says what failed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# In Python's place: says what it was asked for, leaves what each part would, and fails at some of them.
PYTHON = """#!/bin/sh
case "$*" in
  *get_device_name*) echo nvidia-h100-80gb-hbm3 ;;
  *"import "*) ;;
  *pytest*) echo "tests: $*"; exit {tests} ;;
  *runs.train*) echo sweep; exit {sweep} ;;
  *analysis.report*) mkdir -p runs/out/gpu-card/report; echo rows > runs/out/gpu-card/report/runs.csv ;;
  *runs.bench*) mkdir -p runs/out/bench; echo "{{}}" > runs/out/bench/gpu.json ;;
  *freeze*) echo torch==2.13.0 ;;
esac
"""


@pytest.mark.skipif(shutil.which("make") is None or shutil.which("timeout") is None, reason="needs make and timeout")
@pytest.mark.parametrize(("tests", "sweep", "said"), [(0, 0, None), (1, 0, "failed: tests;"), (1, 4, "failed: tests, sweep;")])
def test_every_part_runs_and_leaves_its_record(tests: int, sweep: int, said: str | None, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(PYTHON.format(tests=tests, sweep=sweep))
    python.chmod(0o755)
    (tmp_path / "runs/out/bench").mkdir(parents=True)
    (tmp_path / "runs/out/bench/gpu.json").write_text("of another day")
    command = ["make", "-f", str(ROOT / "Makefile"), "gpu", f"GPU={python}"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (found.returncode == 0) == (said is None) and (said is None or said in found.stdout)
    assert "tests: -m pytest -m gpu -n8" in found.stdout and "sweep" in found.stdout
    place = tmp_path / "runs/reference/gpu-nvidia-h100-80gb-hbm3"
    left = {path.name: path.read_text() for path in place.iterdir()}
    assert left == {"bench.json": "{}\n", "runs.csv": "rows\n", "versions.txt": "torch==2.13.0\n"}
