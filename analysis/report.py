"""python -m analysis.report runs/out/<study>: the study's page, tables and figures, rebuilt from its records alone."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import plots, plots_claims, plots_cost, plots_curves, plots_moe, plots_tuning
from analysis.axes import axis_effects
from analysis.columns import without_collection
from analysis.comparison import Comparison, compare
from analysis.files import plain, refuse_links, write
from analysis.load import read
from analysis.noise import checkpoint_noise
from analysis.page.page import page
from analysis.progress import planned
from analysis.spreadsheet import csv
from analysis.style import Drawing
from analysis.terminal import terminal_table
from analysis.tuning import bill, read_trials
from runs.job.record import RecordError

__all__ = ["build", "main", "terminal_table"]


@without_collection()
def build(path: str | Path, baseline: str | None = None) -> tuple[Path, Comparison]:
    """Writes <study>/report/ (index.html, runs.csv, curves.csv, verdicts.json, figures/); the page's path, and what it tells.

    The same records give the same bytes; every file is replaced whole, the page last. Nothing else on disk is touched.
    """
    records = read(path)
    study = compare(records.runs, baseline, records.set_aside)
    folders = {Path(folder).parent for folder in records.runs["folder"]}
    if len(folders) > 1 or Path(path).resolve() not in {
        folder.resolve() for folder in (*folders, *(f.parent for f in folders))
    }:
        raise RecordError(f"{path}: a report is about one study; give the folder that holds its runs ({min(folders)})")
    trials, damaged = read_trials(min(folders).resolve())
    tuning = None if trials is None else bill(records, trials)
    study = replace(study, set_aside=[*records.set_aside, *damaged], tuning=tuning)
    effects = axis_effects(study)
    jitter = checkpoint_noise(records.curves, study.metric)
    sections = _figures(study, effects, records.curves, records.routing)
    figures = {
        name: content for drawings in sections.values() for drawing in drawings for name, content in drawing.files().items()
    }
    target = folders.pop() / "report"
    verdicts_text = json.dumps(verdicts(study, effects, jitter), indent=2, allow_nan=False) + "\n"
    files = {f"figures/{name}": content for name, content in figures.items()}
    files |= {"runs.csv": csv(records.runs.drop(columns="folder")), "curves.csv": csv(records.curves)}
    files |= {"routing.csv": csv(records.routing)} if len(records.routing) else {}
    files |= {
        "verdicts.json": verdicts_text.encode(),
        "index.html": page(study, records, effects, jitter, sections, planned(target.parent).keys()).encode(),
    }
    refuse_links(target, target / "figures", *(target / name for name in files))
    for name, content in files.items():
        write(target / name, content)
    for old in (target / "figures").glob("*") if figures else []:
        if old.name not in figures and old.is_file():
            old.unlink()  # a figure of an earlier state of the study
    return target / "index.html", study


def verdicts(study: Comparison, effects: pd.DataFrame, jitter: float = math.nan) -> dict[str, Any]:
    """The paired comparisons for other programs; unknown values are null, as is a verdict for want of seeds."""
    content = {
        "study": study.runs["study"].iloc[0],
        "metric": study.metric.column,
        "lower_is_better": study.metric.lower_is_better,
        "baseline": study.baseline,
        "baseline_mean": study.arms.loc[study.baseline, "mean"],
        "seeds": study.seeds,
        "seeds_needed": study.needed,
        "question": None if study.question is None else study.question.to_json(),
        "claims": study.claims.to_dict("records"),
        "noise": study.noise | {"checkpoint_sd": jitter},
        "set_aside": [run._asdict() for run in study.set_aside],
        "comparisons": study.differences.to_dict("records"),
        "axes": effects.to_dict("records"),
        "tuning": None if study.tuning is None else study.tuning.to_json(),
    }
    return plain(content)


def _figures(study: Comparison, effects: pd.DataFrame, curves: pd.DataFrame, routing: pd.DataFrame) -> dict[str, list[Drawing]]:
    sections = {
        "claims": [plots_claims.claims(study)],
        "differences": [plots.axis_plot(study, effects), plots.forest(study)],
        "curves": [plots_curves.curves(study, curves), plots_curves.gaps(study, curves)],
        "cost": [plots_cost.pareto(study), plots_cost.cost_bars(study)],
        "tuning": [plots_tuning.rates(study)],
        "experts": [
            plots_moe.expert_load(study, routing),
            plots_moe.load_history(study, routing),
            plots_moe.router_health(study, routing),
        ],
    }
    return {name: [drawing for drawing in drawings if drawing is not None] for name, drawings in sections.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="Rebuild a study's report from its records.")
    parser.add_argument("study", type=Path, help="the study's folder, runs/out/<study>")
    parser.add_argument("--baseline", help="the arm to compare the others with, instead of the one that the study names")
    parsed = parser.parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a minus sign still gets its table
    try:
        file, study = build(parsed.study, parsed.baseline)
    except (RecordError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{terminal_table(study)}\nreport: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
