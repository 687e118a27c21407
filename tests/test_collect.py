"""The answers of several studies in one folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.collect import BEGIN, END, collect, main, put_between, summary
from runs.compose.explain import CONF
from runs.job.record import RecordError
from tests import records
from tests.test_claims import question, write

ROOT = CONF.parent


def test_each_prediction_of_each_study_is_an_object_a_row_and_has_a_figure(tmp_path: Path) -> None:
    first = write(tmp_path / "1", question(), {"rmsnorm": -0.002})
    asked = question(predicted={"rmsnorm": "lower", "moe": "lower"}) | {"claim": "Two | things"}
    second = write(tmp_path / "2", asked, {"rmsnorm": 0.1, "moe": -0.1})
    for run in second.iterdir():
        content = json.loads((run / "config.json").read_text())
        records.change(run, "config.json", study=content["study"] | {"name": "other"})
    found = collect([first, second], tmp_path / "to")
    written = json.loads((tmp_path / "to" / "verdicts.json").read_text())
    assert [(row["study"], row["arm"], row["verdict"], row["n"]) for row in written] == [
        ("demo", "rmsnorm", "equivalent", 8),
        ("other", "rmsnorm", "refuted", 8),
        ("other", "moe", "supported", 8),
    ]
    assert all({"claim", "source", "predicted", "measured", "low", "high", "noise", "cost"} <= row.keys() for row in written)
    page = (tmp_path / "to" / "README.md").read_text()
    assert "| demo: **RMSNorm is as good as LayerNorm** (Zhang 2019" in page and "![demo.png](demo.png)" in page
    assert "**Two / things**" in page and page.count("Two") == 1 and "**refuted, against the prediction**" in page
    assert (tmp_path / "to" / "demo.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "to" / "other.png").exists()
    assert len((tmp_path / "to" / "runs.csv").read_text().splitlines()) == 1 + 16 + 24
    assert summary(found) == summary(written) and summary(written).count("\n") == 4
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert put_between(page, summary(found)) == f"before\n{BEGIN}\n{summary(found)}{END}\nafter\n"
    with pytest.raises(RecordError, match="once each"):
        put_between("no comments", summary(found))


def test_a_study_without_a_question_has_nothing_to_collect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, None, {"rmsnorm": 0.0}, seeds=2)
    with pytest.raises(RecordError, match="registered with no question"):
        collect([folder], tmp_path / "to")
    asked = write(tmp_path / "asked", question(), {"rmsnorm": 0.0})
    with pytest.raises(RecordError, match="another of these studies is called demo"):
        collect([asked, asked], tmp_path / "to")
    assert main([str(folder), "--to", str(tmp_path / "to")]) == 2 and not (tmp_path / "to").exists()
    assert capsys.readouterr().err.startswith(f"error: {folder}: its runs were registered with no question")


def test_the_readme_shows_the_verdicts_that_are_kept() -> None:
    written = json.loads((ROOT / "runs" / "reference" / "claims" / "verdicts.json").read_text())
    assert f"{BEGIN}\n{summary(written)}{END}" in (ROOT / "README.md").read_text()
    assert all(row["n"] >= 6 for row in written if row["verdict"] not in (None, "inconclusive"))
