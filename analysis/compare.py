"""python -m analysis.compare A B: two runs, or with a study's folder first two of its arms, side by side; A is the baseline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.answer import answers
from analysis.comparison import Comparison, compare
from analysis.digits import count, delta, fixed, percent, signed, three, times
from analysis.load import load
from analysis.metric import called
from analysis.row import OWN
from analysis.speed import UNFIT, told
from runs.job.record import RecordError


def side_by_side(names: list[str]) -> str:
    """What differs in the configs, the gap with its interval, speed, memory and size, and the verdict in one sentence."""
    runs, one, other = _two_runs(*names) if len(names) == 2 else _two_arms(*names)
    study = compare(runs, one)
    changed = config_difference(runs, one, other)
    width = max((len(key) for key, *_ in changed), default=0)
    lines = [f"{other} against {one}"]
    lines += [f"  {key:<{width}}  {before} -> {now}" for key, before, now in changed] or ["  the same config"]
    return "\n".join([*lines, *_numbers(study, other), *_verdict(study, other)])


def config_difference(runs: pd.DataFrame, one: str, other: str) -> list[tuple[str, str, str]]:
    """(key, value of the one, value of the other) of every choice and setting in which two arms differ, at shared seeds."""
    a, b = (runs[runs["arm"] == arm] for arm in (one, other))
    shared = set(a["seed"]) & set(b["seed"])
    a, b = (arm[arm["seed"].isin(shared)] if shared else arm for arm in (a, b))
    keys = [key for key in runs.columns if key not in OWN and not key.startswith(("val_", "routing_"))]
    found = [(key, _values(a[key]), _values(b[key])) for key in keys]
    return [(key, before, now) for key, before, now in found if before != now]


def _values(column: pd.Series) -> str:
    texts = dict.fromkeys("-" if pd.isna(v) else f"{v:g}" if isinstance(v, float) else str(v) for v in column)
    return ", ".join(texts)


def _two_runs(first: str, second: str) -> tuple[pd.DataFrame, str, str]:
    parts = []
    for name in (first, second):
        parts.append(load(name))
        if len(parts[-1]) != 1:
            raise RecordError(f"{name}: {len(parts[-1])} runs; give two runs' folders, or a study's folder and two of its arms")
    runs = pd.concat(parts, ignore_index=True)
    if runs["arm"].nunique() == 1:
        runs["arm"] = [
            f"{Path(name).resolve().parent.name}/{run}" for name, run in zip((first, second), runs["run"], strict=True)
        ]
    if runs["arm"].nunique() == 1:
        raise RecordError(f"{second}: the same run twice")
    one, other = map(str, runs["arm"])
    return runs.assign(study=runs["study"].iloc[0], question=None), one, other


def _two_arms(folder: str, first: str, second: str) -> tuple[pd.DataFrame, str, str]:
    runs = load(folder)
    found = []
    for name in (first, second):
        arms = called(runs, name)
        if not arms:
            raise RecordError(f'no arm is called "{name}"; the arms are: {"; ".join(sorted(map(str, runs["arm"].unique())))}')
        found.append(arms[0])
    if found[0] == found[1]:
        raise RecordError(f'"{second}" is the same arm as "{first}"')
    return runs, found[0], found[1]


def _numbers(study: Comparison, other: str) -> list[str]:
    row, found = _row(study, other), study.arms["mean"].to_dict()
    before, now = (float(found[arm]) for arm in (study.baseline, other))
    if (study.pairs["arm"] == other).any():
        gap = f"{delta(row, study.decimals)} over {count(row['n'], 'shared seed')}"
    else:
        gap = f"{signed(now - before, study.decimals)} of the means, no seed shared"
    gap = "no difference is taken" if row["refused"] else gap
    return [
        f"{study.metric.name}: {fixed(before, study.decimals)} -> {fixed(now, study.decimals)}, {gap}",
        f"speed {told(row) if row['speed'] > 0 else UNFIT}, memory {times(row['peak_memory_bytes_ratio'])}, "
        f"parameters {percent(row['total_params_percent'])}",
    ]


def _verdict(study: Comparison, other: str) -> list[str]:
    row, good = _row(study, other), {"good": "better", "bad": "worse", "open": ""}
    claimed = [text for text, arm in zip(answers(study), study.claims["arm"], strict=True) if arm == other]
    if row["claimed"]:
        return claimed
    if row["verdict"] in ("lower", "higher"):
        family = f", corrected for {count(len(study.explored), 'arm')}" if len(study.explored) > 1 else ""
        sentence = f"{row['verdict']}, so {good[row['kind']]}: p = {three(row['p_holm'])}{family}"
    else:
        sentence = row["note"] or f"{row['verdict']}: zero is not ruled out, p = {three(row['p_holm'])}"
    return [f"verdict: {sentence}.", *([f"with care: {row['caution']}."] if row["caution"] else [])]


def _row(study: Comparison, arm: str) -> dict[Any, Any]:
    return study.differences[study.differences["arm"] == arm].to_dict("records")[0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.compare",
        description="Two runs, or two arms of a study, side by side; the first is the baseline.",
        usage="%(prog)s RUN RUN | STUDY ARM ARM",
    )
    parser.add_argument("names", nargs="+", help="two runs' folders; or a study's folder, runs/out/<study>, and two arms")
    names = parser.parse_args(arguments).names
    if len(names) not in (2, 3):
        parser.error(f"{len(names)} names; two runs' folders are expected, or a study's folder and two of its arms")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a minus sign still gets its numbers
    try:
        print(side_by_side(names))
    except (RecordError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
