"""python -m analysis.report runs/out/<study>: the study's page, tables and figures, rebuilt from its records alone."""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from analysis import digits, findings, plots, plots_cost, plots_curves, plots_moe
from analysis.axes import axis_effects
from analysis.compare import ENOUGH, MATCHED, Comparison, compare, non_causal_arms, short_names
from analysis.findings import terminal_table
from analysis.load import RecordError, choices, load, load_curves, load_routing
from analysis.style import Drawing

__all__ = ["build", "main", "terminal_table"]


def build(path: str | Path, baseline: str | None = None) -> Path:
    """Writes <study>/report/ (index.html, runs.csv, curves.csv, verdicts.json, figures/) and returns the page's path.

    The same records give the same bytes; every file is replaced whole, the page last. Nothing else on disk is touched.
    """
    runs = load(path)
    study = compare(runs, baseline)
    folders = {Path(folder).parent for folder in runs["folder"]}
    if len(folders) > 1 or Path(path).resolve() not in {
        folder.resolve() for folder in (*folders, *(f.parent for f in folders))
    }:
        raise RecordError(f"{path}: a report is about one study; give the folder that holds its runs ({min(folders)})")
    effects, curves, routing = axis_effects(study), load_curves(path), load_routing(path)
    sections = _figures(study, effects, curves, routing)
    files = {
        name: content for drawings in sections.values() for drawing in drawings for name, content in drawing.files().items()
    }
    target = folders.pop() / "report"
    for name, content in files.items():
        _write(target / "figures" / name, content)
    for old in (target / "figures").glob("*") if files else []:
        if old.name not in files and old.is_file():
            old.unlink()  # a figure of an earlier state of the study
    _write(target / "runs.csv", _csv(runs.drop(columns="folder")))
    _write(target / "curves.csv", _csv(curves))
    if len(routing):
        _write(target / "routing.csv", _csv(routing))
    _write(target / "verdicts.json", (json.dumps(verdicts(study, effects), indent=2, allow_nan=False) + "\n").encode())
    _write(target / "index.html", _page(study, effects, sections, files).encode())
    return target / "index.html"


def verdicts(study: Comparison, effects: pd.DataFrame) -> dict[str, Any]:
    """The paired comparisons for other programs; unknown values are null, and a verdict needs enough seeds."""
    rows = study.differences.to_dict("records")
    for row in rows:
        verdict = row["reading"] if row["p"] < 0.05 and row["reading"] != "unclear" else "inconclusive"
        row["verdict"] = verdict if row["n"] >= ENOUGH and not row["ahead"] else None
    content = {
        "study": study.runs["study"].iloc[0],
        "metric": study.metric.column,
        "lower_is_better": study.metric.lower_is_better,
        "baseline": study.baseline,
        "baseline_mean": study.arms.loc[study.baseline, "mean"],
        "seeds": sorted(study.runs["seed"].unique()),
        "noise": study.noise,
        "comparisons": rows,
        "axes": effects.to_dict("records"),
    }
    return _plain(content)


def _figures(study: Comparison, effects: pd.DataFrame, curves: pd.DataFrame, routing: pd.DataFrame) -> dict[str, list[Drawing]]:
    sections = {
        "differences": [plots.axis_plot(study, effects), plots.forest(study)],
        "curves": [plots_curves.curves(study, curves), plots_curves.gaps(study, curves)],
        "cost": [plots_cost.pareto(study), plots_cost.cost_bars(study)],
        "experts": [
            plots_moe.expert_load(study, routing),
            plots_moe.load_history(study, routing),
            plots_moe.router_health(study, routing),
        ],
    }
    return {name: [drawing for drawing in drawings if drawing is not None] for name, drawings in sections.items()}


def _page(study: Comparison, effects: pd.DataFrame, sections: dict[str, list[Drawing]], files: dict[str, bytes]) -> str:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown = [digits.fixed, digits.si, digits.signed, digits.percent, digits.times, digits.interval, digits.three, digits.count]
    pages.filters.update({function.__name__: function for function in [*shown, findings.outcome]})
    images = {
        name: "data:image/svg+xml;base64," + base64.b64encode(files[f"{name}.svg"]).decode()
        for name in _drawing_names(sections)
    }
    differences = {row["arm"]: row for row in study.differences.to_dict("records")}
    notes = [(row["arm"], _own_note(row["note"])) for _, row in study.differences.iterrows() if _own_note(row["note"])]
    return pages.get_template("report.html.jinja").render(
        study=study,
        name=study.runs["study"].iloc[0],
        names=short_names(study),
        ahead=non_causal_arms(study),
        facts=_facts(study.runs, study),
        findings=findings.findings(study, effects),
        cautions=findings.cautions(study),
        arms=[(arm, line, differences.get(arm)) for arm, line in study.arms.iterrows()],
        matched=MATCHED,
        notes=notes,
        sections=sections,
        images=images,
        runs=study.runs.sort_values(["arm", "seed"], kind="stable").to_dict("records"),
        any_error=bool(study.runs["error"].notna().any()),
        enough=ENOUGH,
    )


def _drawing_names(sections: dict[str, list[Drawing]]) -> list[str]:
    return [drawing.name for drawings in sections.values() for drawing in drawings]


def _own_note(note: str) -> str:
    """The note without the parts that are the same for every arm."""
    return "; ".join(part for part in note.split("; ") if not part.startswith("n = "))


def _facts(runs: pd.DataFrame, study: Comparison) -> list[tuple[str, str]]:
    """What all runs share; where they differ, all the values."""

    def values(column: str, cut: int = 40) -> str:
        found = list(runs[column].dropna().unique()) if column in runs else []
        return digits.listed(sorted(f"{v:g}" if isinstance(v, float) else str(v)[:cut] for v in found), 4) or "not recorded"

    seeds = sorted(runs["seed"].unique())
    varying = [axis for axis in choices(runs) if runs[axis].nunique(dropna=False) > 1]
    dirty = " + uncommitted changes" if (runs["git_dirty"] == True).any() else ""  # noqa: E712 (None is neither)
    return [
        ("Baseline", study.baseline),
        ("Varied", digits.listed(varying, 8) or "nothing"),
        ("Objective", values("objective")),
        ("Seeds", digits.listed([str(seed) for seed in seeds], 8)),
        (
            "Training",
            f"{values('train.steps')} steps of {values('train.batch_size')} {digits.TIMES} {values('train.seq_len')} tokens",
        ),
        ("Data", f"{values('data')}, SHA-256 {values('data_sha256', 10)}"),
        ("Size", f"{values('size')}, tokenizer {values('tokenizer')}"),
        ("Machine", f"{values('device')}, {values('threads')} threads"),
        ("Code", f"torch {values('torch')}, Python {values('python')}, commit {values('git_commit', 8)}{dirty}"),
    ]


def _plain(value: Any) -> Any:
    """Numpy's numbers as Python's, and nan as null, since JSON has none."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        scratch.write_bytes(content)
        os.replace(scratch, file)
    finally:
        scratch.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="Rebuild a study's report from its records.")
    parser.add_argument("study", type=Path, help="the study's folder, runs/out/<study>")
    parser.add_argument("--baseline", help="the arm to compare the others with, instead of the one that the study names")
    parsed = parser.parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a minus sign still gets its table
    try:
        page = build(parsed.study, parsed.baseline)
        table = terminal_table(load(parsed.study), parsed.baseline)
    except (RecordError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{table}\nreport: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
