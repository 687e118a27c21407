"""python -m analysis.report runs/out/<study>: the study's page, tables and figures, rebuilt from its records alone."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from dataclasses import replace
from pathlib import Path

import jinja2
import pandas as pd

from analysis import digits, plots, plots_claims, plots_cost, plots_curves, plots_moe, plots_tuning, speed
from analysis.axes import axis_effects
from analysis.columns import without_collection
from analysis.comparison import Comparison, compare
from analysis.content import verdicts, words
from analysis.files import refuse_links, write
from analysis.load import read
from analysis.metric import MATCHED
from analysis.noise import checkpoint_noise
from analysis.spreadsheet import csv
from analysis.style import Drawing
from analysis.terminal import outcome, terminal_table
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
    files |= {"verdicts.json": verdicts_text.encode(), "index.html": _page(study, effects, jitter, sections, figures).encode()}
    refuse_links(target, target / "figures", *(target / name for name in files))
    for name, content in files.items():
        write(target / name, content)
    for old in (target / "figures").glob("*") if figures else []:
        if old.name not in figures and old.is_file():
            old.unlink()  # a figure of an earlier state of the study
    return target / "index.html", study


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


def _page(
    study: Comparison, effects: pd.DataFrame, jitter: float, sections: dict[str, list[Drawing]], files: dict[str, bytes]
) -> str:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown = [digits.fixed, digits.si, digits.signed, digits.percent, digits.share, digits.times, digits.interval, digits.three]
    shown.append(digits.count)
    pages.filters.update({function.__name__: function for function in [*shown, outcome, speed.told]})
    images = {
        name: "data:image/svg+xml;base64," + base64.b64encode(files[f"{name}.svg"]).decode()
        for name in _drawing_names(sections)
    }
    differences = {row["arm"]: row for row in study.differences.to_dict("records")}
    return pages.get_template("report.html.jinja").render(
        study=study,
        **words(study, effects, jitter),
        seeds=len(study.seeds),
        interactions=effects[effects["other_axis"].notna() | (effects["n"] == 0)].to_dict("records"),
        arms=[(arm, line, differences.get(arm)) for arm, line in study.arms.iterrows()],
        matched=MATCHED,
        unfit=speed.UNFIT,
        sections=sections,
        images=images,
        runs=study.runs.sort_values(["arm", "seed"], kind="stable").to_dict("records"),
        any_error=bool(study.runs["error"].notna().any()),
    )


def _drawing_names(sections: dict[str, list[Drawing]]) -> list[str]:
    return [drawing.name for drawings in sections.values() for drawing in drawings]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="Rebuild a study's report from its records.")
    parser.add_argument("study", type=Path, help="the study's folder, runs/out/<study>")
    parser.add_argument("--baseline", help="the arm to compare the others with, instead of the one that the study names")
    parsed = parser.parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a minus sign still gets its table
    try:
        page, study = build(parsed.study, parsed.baseline)
    except (RecordError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{terminal_table(study)}\nreport: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
