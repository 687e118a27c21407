"""The page in a real browser: nothing that a record says is executed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from analysis import report
from tests import records

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [pytest.mark.torture, pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")]


def dom(page: Path, profile: Path) -> str:
    """The page after its scripts have run."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", f"--user-data-dir={profile}"]
    command = [str(CHROMIUM), *words, "--dump-dom", page.resolve().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def title(text: str) -> str:
    return text.partition("<title>")[2].partition("</title>")[0]


@pytest.mark.parametrize("name", records.HOSTILE[:3])
def test_the_names_would_be_executed_in_a_careless_page(tmp_path: Path, name: str) -> None:
    page = tmp_path / "careless.html"
    page.write_text(f'<!doctype html><title>mine</title><p data-name="{name}">{name}</p>')
    assert title(dom(page, tmp_path / "profile")) == records.OWNED


def test_no_name_of_a_study_is_executed(tmp_path: Path) -> None:
    page, _ = report.build(records.hostile(tmp_path))
    found = dom(page, tmp_path / "profile")
    assert records.OWNED in title(found) and title(found).endswith(": comparison")  # as text: the study is called so
    assert found.count("<script>") == 1 and "<svg" not in found and "onerror=" not in found.replace(" onerror=document", "")
    assert 'id="table"' in found
