"""A disk that is full at every level, from the first file on: a line with the path, and with more room the run goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.door import ROOT, assert_same, runs, train, write_text

pytestmark = pytest.mark.torture

WORDS = ("train.steps=12", "train.checkpoint_every=4", "train.eval_every=6")
LEVELS = tuple(range(4, 1024, 34))  # KiB, 30 of them; a whole record has about 900


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system in memory that is filled and emptied by its size alone."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", disk], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"it takes the right to mount a file system: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_every_level_of_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    text = write_text(tmp_path / "story.txt")
    ended = None
    for level in LEVELS:
        subprocess.run(["mount", "-o", f"remount,size={level}k", small_disk], check=True)
        done = train(text, small_disk / "out", *WORDS)
        assert "Traceback" not in done.stderr, (level, done.stderr)
        if done.returncode == 0:
            ended = level
            break
        said = done.stderr + done.stdout
        assert str(small_disk) in said and "No space left" in said, (level, said)
    assert ended is not None, "the largest disk was too small for one run"
    assert train(text, tmp_path / "whole", *WORDS).returncode == 0
    assert_same(runs(tmp_path / "whole")[0], runs(small_disk / "out")[0])
    print(f"{LEVELS.index(ended)} levels of a full disk from {LEVELS[0]} KiB, done at {ended} KiB")


def test_a_report_on_a_full_disk_names_the_file(small_disk: Path, tmp_path: Path) -> None:
    text = write_text(tmp_path / "story.txt")
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    assert train(text, small_disk / "out", "-m", "seed=0,1", *WORDS).returncode == 0
    used = int(
        subprocess.run(["df", "--output=used", "-k", small_disk], capture_output=True, text=True, check=True).stdout.split()[1]
    )
    study = small_disk / "out" / "default"
    told = 0
    for room in range(0, 2000, 100):
        subprocess.run(["mount", "-o", f"remount,size={used + room}k", small_disk], check=True)
        made = subprocess.run(
            [sys.executable, "-m", "analysis.report", study], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in made.stderr, (room, made.stderr)
        if made.returncode == 0:
            break
        assert str(study / "report") in made.stderr and "No space left" in made.stderr, (room, made.stderr)
        told += 1
    assert told and (study / "report" / "index.html").read_text().rstrip().endswith("</html>")
    assert train(text, small_disk / "out", "-m", "seed=0,1", *WORDS).returncode == 0
