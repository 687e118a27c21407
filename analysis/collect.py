"""python -m analysis.collect STUDY ... --to FOLDER: the answers of several studies in one place, from their records alone.

It writes verdicts.json (an object per prediction), README.md (the same as a table), runs.csv, and one figure per study.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import answer, plots_claims
from analysis.comparison import Comparison, compare
from analysis.digits import count
from analysis.files import plain, refuse_links, write
from analysis.load import Records, read
from analysis.spreadsheet import csv
from analysis.tuning import bill, read_trials
from runs.job.record import COSTS, SPEEDS, RecordError

SHOWN = ["study", "run", "arm", "seed", "status", "optim.lr", "train.steps", "tokens", "config", "identity"]
BEGIN = "<!-- written by python -m analysis.collect --readme, from runs/reference/claims/verdicts.json -->"
END = "<!-- end -->"
MACHINE = ["device", "threads", "torch", "python", "git_commit", "data_sha256"]


def collect(studies: Sequence[str | Path], to: str | Path) -> list[dict[str, Any]]:
    """Writes the folder; one object per prediction of the studies, in their order.

    Raises RecordError: a study that registered no question, or has no finished run.
    """
    found: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    tables = []
    for folder in studies:
        records, (trials, _) = read(folder), read_trials(Path(folder))
        study = compare(records.runs, set_aside=records.set_aside)
        if study.question is None:
            raise RecordError(f"{folder}: its runs were registered with no question, so it has no verdict to collect")
        if any(row["study"] == name_of(study) for row in found):
            raise RecordError(f"{folder}: another of these studies is called {name_of(study)} too; collect one of them")
        found += predictions(study, cost(records, trials))
        tables.append(study.runs)
        figure = plots_claims.claims(study)
        files |= {} if figure is None else {f"{name_of(study)}.png": figure.files()[f"{figure.name}.png"]}
    files["runs.csv"] = csv(_runs(pd.concat(tables, ignore_index=True)))
    files["verdicts.json"] = (json.dumps(plain(found), indent=2, allow_nan=False) + "\n").encode()
    files["README.md"] = page(found, [name for name in files if name.endswith(".png")]).encode()
    target = Path(to)
    refuse_links(target, *(target / name for name in files))
    for name, content in files.items():
        write(target / name, content)
    return found


def predictions(study: Comparison, spent: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each prediction of a study with its verdict, in words and numbers, beside the noise floor and what the study cost."""
    noise = {"metric": study.metric.column, "sd": study.noise["sd"], "df": study.noise["df"], "again": study.noise["band"]}
    return [
        {"study": name_of(study), "baseline": study.baseline, **row, "noise": noise, "cost": spent}
        for row in answer.rows(study)
    ]


def cost(study: Records, trials: Records | None) -> dict[str, Any]:
    """What the answer took: runs, seconds of training and FLOPs, the trials of the tuning among them."""
    tuning = None if trials is None else bill(study, trials)
    tried = pd.DataFrame(columns=["trials", "seconds", "flops"], dtype=float) if tuning is None else tuning.arms
    return {
        "runs": len(study.runs),
        "trials": int(tried["trials"].sum()),
        "seconds": float(study.curves.groupby("run")["seconds"].max().sum() + tried["seconds"].sum()),
        "train_flops": float(study.runs["train_flops"].sum() + tried["flops"].sum()),
        "devices": sorted(study.runs["device"].dropna().unique().tolist()),
    }


def name_of(study: Comparison) -> str:
    return str(study.runs["study"].iloc[0])


def page(found: Sequence[Mapping[str, Any]], figures: Sequence[str]) -> str:
    """The folder's README: what was claimed, predicted, measured and decided, with the cost of each answer."""
    lines = ["# Claims, each a study", "", "Written by `python -m analysis.collect`; `verdicts.json` holds every number.", ""]
    lines += ["| claim | arm | predicted | measured [95 %] | seeds | verdict | cost |", "|---|---|---|---|---|---|---|"]
    for rows in by_study(found):
        first = rows[0]
        spent = f"{count(first['cost']['runs'] + first['cost']['trials'], 'run')}, {first['cost']['seconds'] / 60:.0f} min"
        for i, row in enumerate(rows):
            claim = f"{_short(row['study'])}: **{row['claim']}** ({row['source']})" if i == 0 else ""
            verdict = f"**{row['word']}**" + (f": {row['notes']}" if row["notes"] else "")
            cells = [claim, row["name"], row["expected"], row["amounts"], str(row["n"]), verdict, spent if i == 0 else ""]
            lines.append(_line(cells))
    lines += ["", *(f"![{name}]({name})" for name in figures)]
    return "\n".join(lines) + "\n"


def summary(found: Sequence[Mapping[str, Any]]) -> str:
    """One line per study: the claim, what was measured of each arm and the verdict on it, for a first screen."""
    lines = ["| study | claim | measured [95 %] | verdict |", "|---|---|---|---|"]
    for rows in by_study(found):
        measured = [f"{row['name']}{_beside(row)}: {row['amounts']} {_words(row['metric'])}" for row in rows]
        cells = [
            _short(rows[0]["study"]),
            rows[0]["claim"],
            "<br>".join(measured),
            "<br>".join(f"**{row['word']}**" for row in rows),
        ]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _short(study: str) -> str:
    return study.removeprefix("claim-")


def _beside(row: Mapping[str, Any]) -> str:
    return "" if row["against"] in (None, row["baseline"]) else f" against {row['against']}"


def put_between(page: str, table: str) -> str:
    """The page with this table between its two comments. Raises RecordError: it has them not, or not once."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise RecordError(f"--readme: the page has to hold {BEGIN} and {END} once each, in lines of their own")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table}{END}{rest.split(END)[1]}"


def _words(metric: str) -> str:
    return metric.removeprefix("val_").removeprefix("routing_").replace("_", " ")


def by_study(found: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in found:
        groups.setdefault(row["study"], []).append(row)
    return list(groups.values())


def _runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The columns that say what a run was and what came out; the records themselves hold the rest."""
    results = [name for name in map(str, runs) if name.startswith(("val_", "routing_"))]
    return runs[[name for name in (*SHOWN, *results, *COSTS, *SPEEDS, *MACHINE) if name in runs]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.collect", description="Gather the answers of several studies.")
    parser.add_argument("studies", type=Path, nargs="+", help="the studies' folders, runs/out/<study>")
    parser.add_argument("--to", type=Path, required=True, help="the folder to write")
    parser.add_argument("--readme", type=Path, help="a page with two comments, between which the short table goes")
    parsed = parser.parse_args(arguments)
    try:
        found = collect(parsed.studies, parsed.to)
        if parsed.readme:
            write(parsed.readme, put_between(parsed.readme.read_text(), summary(found)).encode())
    except (RecordError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for row in found:
        print(f"{row['study']}: {row['name']}: predicted {row['expected']}, measured {row['amounts']}: {row['word']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
