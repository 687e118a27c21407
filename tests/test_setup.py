"""What `make setup` does to an environment, and what it installs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pyproject.toml", "requirements.txt", "constraints.txt")


def set_up(checkout: Path, venv: Path, serves: Path) -> tuple[str, list[str]]:
    """Run it in a copy with a venv that serves a checkout: what it says, and what the venv's Python was called with."""
    for name in ("Makefile", *PACKAGES):
        shutil.copy(ROOT / name, checkout)
    installed = venv / "lib" / "python3.12" / "site-packages" / "archlab-0.1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "direct_url.json").write_text(json.dumps({"dir_info": {"editable": True}, "url": serves.as_uri()}))
    python, calls = venv / "bin" / "python", venv / "calls"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    python.chmod(0o755)
    (checkout / ".venv").symlink_to(venv)
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # not as a part of this make
    done = subprocess.run(["make", "setup"], cwd=checkout, env=alone, capture_output=True, text=True, check=True)
    return done.stdout, calls.read_text().splitlines() if calls.exists() else []


def test_an_environment_of_another_checkout_is_left_alone(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir(), theirs.mkdir()
    said, calls = set_up(mine, tmp_path / "venv", serves=theirs)
    assert said.startswith(f".venv was set up for {theirs} and is taken as it is") and len(said.splitlines()) == 1
    assert not calls


@pytest.mark.parametrize("serves", ["mine", "moved away"])
def test_an_environment_of_ones_own_is_set_up_and_says_so_first(serves: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    said, calls = set_up(tmp_path / "mine", tmp_path / "venv", serves=tmp_path / serves)
    assert said.startswith("setting up .venv: ") and "GB" in said.splitlines()[0]
    assert calls[-1] == "-m pip install -c .venv/pins.txt -r requirements.txt -e ."
    assert (tmp_path / "venv" / ".archlab-ready").exists()


def test_every_requirement_has_its_exact_version() -> None:
    required, pinned = (
        re.findall(r"^([\w-]+)(.*)$", (ROOT / name).read_text(), re.MULTILINE)
        for name in ("requirements.txt", "constraints.txt")
    )
    assert {name for name, _ in required} <= {name for name, _ in pinned}
    assert all(version.startswith("==") for _, version in pinned)
