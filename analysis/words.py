"""What a study says in plain sentences, what to hold against it, and its table for the terminal."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.compare import Comparison, Metric, compare, looking_ahead, short_names, too_few
from analysis.digits import count, delta, fixed, listed, si, signed, times


def reading(study: Comparison, effects: pd.DataFrame | None = None) -> list[str]:
    """Findings as sentences; every number in them stands in the tables too. effects: what each axis does, in a grid."""
    metric, table = study.metric, study.differences
    seeds, base = study.runs["seed"].nunique(), study.arms.to_dict("index")[study.baseline]
    name = "The baseline" if study.baseline == "baseline" else f"The baseline ({study.baseline})"
    spread = f", with a standard deviation of {fixed(base['sd'], study.places)} over seeds" if math.isfinite(base["sd"]) else ""
    told = [
        f"{count(len(study.arms), 'arm')}, {count(seeds, 'seed')}, {study.arms['train.steps'].max():.0f} steps "
        f"({si(base['tokens'])} tokens) each.",
        f"{name} reaches {_value(fixed(base['mean'], study.places), metric)}{spread}.",
    ]
    fair = table[(table["reading"] != "refused") & (table["n"] > 0) & ~table["ahead"]]
    better, worse, unclear = (fair[fair["kind"] == kind] for kind in ("good", "bad", "open"))
    if len(better):
        told.append(_against_baseline(better.to_dict("records")[0], study))
    elif len(fair):
        told.append("No arm beats the baseline by more than its interval.")
    if effects is not None and len(effects):
        swaps = [f"{row['level']} for {row['base']} {delta(row, study.places)}" for row in effects.to_dict("records")]
        told.append(f"Axis by axis, all else the same: {'; '.join(swaps)}.")
        told.append(
            f"Of {count(len(fair), 'arm')}, {len(better)} did better and {len(worse)} worse than the baseline with an interval "
            f"that leaves zero out; {len(unclear)} cannot be told apart from it."
        )
        return told
    good, bad = ("Lower", "Higher") if metric.lower_is_better else ("Higher", "Lower")
    for rows, words in (
        (better.iloc[1:], f"{good} as well, with intervals that leave zero out"),
        (worse.iloc[::-1], f"{bad}, that is worse"),
        (unclear, "Not told apart from the baseline"),
    ):
        if len(rows):
            told.append(f"{words}: {_with_numbers(rows, study)}.")
    return told


def cautions(study: Comparison) -> list[str]:
    """What a reader must hold against the numbers before believing them."""
    names, table, told = short_names(study), study.differences, []
    seeds, compared = study.runs["seed"].nunique(), int((table["n"] > 1).sum())
    if study.noise["df"]:
        sd, df = fixed(study.noise["sd"], study.places), study.noise["df"]
        told.append(f"The seed alone moves a run by {sd} (pooled sd, {df} degrees of freedom).")
    for pair in study.noise["twins"]:
        told.append(f"{pair['twin']} is {pair['arm']} once more: {delta(pair, study.places)} of pure noise.")
    if too_few(seeds):
        told.append(f"{too_few(seeds)}.")
    if compared >= 20:
        told.append(f"Of {compared} intervals at 95 %, about {round(0.05 * compared)} leave zero out by chance alone.")
    uneven = table.loc[table["total_params_percent"].abs() > 1, "arm"]
    if len(uneven):
        told.append(f"Not at equal parameters: {listed([names[arm] for arm in uneven])}.")
    for status in ("diverged", "failed", "unfinished"):
        ended = study.arms.loc[study.arms[status] > 0, status]
        if len(ended):
            told.append(f"{count(int(ended.sum()), 'run')} {status}, in {listed([names[str(arm)] for arm in ended.index])}.")
    refused = table.loc[table["reading"] == "refused", "arm"]
    if len(refused):
        told.append(f"Refused, since data or budget differ: {listed([names[arm] for arm in refused])}.")
    ahead = [names[arm] for arm in looking_ahead(study)]
    if ahead:
        told.append(f"\u2020 sees later tokens, so it is no language model: {listed(ahead)}.")
    if study.runs["device"].dropna().nunique() > 1:
        told.append("The runs come from different devices: their speeds do not compare.")
    return told


def terminal_table(runs: pd.DataFrame, baseline: str | None = None) -> str:
    """The end of a sweep in one compact table: result, difference, speed, size, memory and what became of the runs."""
    study = compare(runs, baseline)
    seeds, names = sorted(runs["seed"].unique()), short_names(study)
    head = ["arm", study.metric.unit, "Δ vs baseline [95 %]", "tokens/s", "params", "active", "memory", "runs"]
    rows = [_terminal_row(study, str(arm), names[str(arm)], line) for arm, line in study.arms.iterrows()]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [cell.ljust(w) if i in (0, 7) else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "─" * max(len(line) for line in lines))
    good = "lower" if study.metric.lower_is_better else "higher"
    title = f"{runs['study'].iloc[0]}: {study.metric.name}, {good} is better; baseline {study.baseline}; "
    title += f"{count(len(seeds), 'seed')}: {', '.join(map(str, seeds[:12]))}{', ...' if len(seeds) > 12 else ''}"
    notes = [note for note in [too_few(len(seeds))] if note]
    marked = study.differences[(study.differences["reading"] == "refused") | study.differences["ahead"]]
    notes += [f"{arm}: {note.split('; ')[0]}" for arm, note in zip(marked["arm"], marked["note"], strict=True)]
    failed = runs[runs["error"].notna()]
    notes += [f"{run}: {error}" for run, error in zip(failed["run"], failed["error"], strict=True)][:10]
    return "\n".join([title, *lines, *notes])


def outcome(line: pd.Series) -> str:
    """3 done, 1 diverged: only what occurred."""
    return ", ".join(f"{line[status]} {status}" for status in ("done", "diverged", "failed", "unfinished") if line[status])


def _terminal_row(study: Comparison, arm: str, name: str, line: pd.Series) -> list[str]:
    against = "baseline"
    for row in study.differences[study.differences["arm"] == arm].to_dict("records"):
        against = "refused" if row["reading"] == "refused" else delta(row, study.places)
    spread = f" ± {fixed(line['sd'], study.places)}" if math.isfinite(line["sd"]) else ""
    return [
        name if len(name) <= 48 else name[:47] + "…",
        fixed(line["mean"], study.places) + spread,
        against,
        si(line["tokens_per_s"]),
        si(line["total_params"]),
        si(line["active_params"]),
        si(line["peak_memory_bytes"], "B"),
        outcome(line),
    ]


def _against_baseline(row: dict[Any, Any], study: Comparison) -> str:
    word = "lower" if row["difference"] < 0 else "higher"
    ends = sorted((abs(row["low"]), abs(row["high"])))
    mean, low, high = (fixed(value, study.places) for value in (abs(row["difference"]), *ends))
    size = f"{mean} {word} in accuracy" if study.metric.column == "val_accuracy" else f"{mean} {study.metric.unit} {word}"
    total, active = 1 + row["total_params_percent"] / 100, 1 + row["active_params_percent"] / 100
    costs = [("speed", row["tokens_per_s_ratio"]), ("parameters", total)] + (
        [("active ones", active)] if active != total else []
    )
    price = listed([f"{times(ratio)} the {what}" for what, ratio in costs if math.isfinite(ratio)])
    return f"Against the baseline, {short_names(study)[row['arm']]} is {size} [{low}, {high}]" + (
        f" at {price}." if price else "."
    )


def _with_numbers(rows: pd.DataFrame, study: Comparison) -> str:
    names = short_names(study)
    return listed([f"{names[arm]} ({signed(d, study.places)})" for arm, d in zip(rows["arm"], rows["difference"], strict=True)])


def _value(number: str, metric: Metric) -> str:
    return f"an accuracy of {number}" if metric.column == "val_accuracy" else f"{number} {metric.unit}"
