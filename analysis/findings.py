"""The findings of a study in sentences, its caveats, and its table for the terminal."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.compare import Comparison, Metric, non_causal_arms, short_names, thread_counts
from analysis.digits import count, delta, fixed, listed, si, signed, times
from analysis.verdict import too_few


def findings(study: Comparison, effects: pd.DataFrame | None = None) -> list[str]:
    """Findings as sentences; every number in them stands in the tables too. effects: what each axis does, in a grid."""
    metric, table = study.metric, study.differences
    seeds, base = study.runs["seed"].nunique(), study.arms.to_dict("index")[study.baseline]
    name = "The baseline" if study.baseline == "baseline" else f"The baseline ({study.baseline})"
    spread = (
        f", with a standard deviation of {fixed(base['sd'], study.decimals)} over seeds" if math.isfinite(base["sd"]) else ""
    )
    sentences = [
        f"{count(len(study.arms), 'arm')}, {count(seeds, 'seed')}, {study.arms['train.steps'].max():.0f} steps "
        f"({si(base['tokens'])} tokens) each.",
        f"{name} reaches {_value(fixed(base['mean'], study.decimals), metric)}{spread}.",
    ]
    fair = table[(table["reading"] != "refused") & (table["n"] > 0) & ~table["ahead"]]
    better, worse = (fair[fair["kind"] == kind] for kind in ("good", "bad"))
    unclear, waiting = fair[fair["verdict"] == "inconclusive"], fair[fair["verdict"].isna()]
    if len(better):
        sentences.append(_against_baseline(better.to_dict("records")[0], study))
    elif len(fair) > len(waiting):
        sentences.append("No arm is better than the baseline by its verdict.")
    if effects is not None and len(effects):
        swaps = [f"{row['level']} for {row['base']} {delta(row, study.decimals)}" for row in effects.to_dict("records")]
        sentences.append(f"Axis by axis, all else the same: {'; '.join(swaps)}.")
        sentences.append(
            f"Of {count(len(fair), 'arm')}, {len(better)} did better and {len(worse)} worse than the baseline by their "
            f"verdicts; {len(unclear)} cannot be distinguished from it, and {len(waiting)} have too few seeds to say."
        )
        return sentences
    good, bad = ("Lower", "Higher") if metric.lower_is_better else ("Higher", "Lower")
    for rows, beginning in (
        (better.iloc[1:], f"{good} as well"),
        (worse.iloc[::-1], f"{bad}, that is worse"),
        (unclear, "Not distinguishable from the baseline"),
    ):
        if len(rows):
            sentences.append(f"{beginning}: {_with_numbers(rows, study)}.")
    if len(waiting):
        sentences.append(f"Measured, without a verdict yet ({study.needed} seeds needed): {_with_intervals(waiting, study)}.")
    return sentences


def cautions(study: Comparison) -> list[str]:
    """The caveats of the numbers."""
    names, table, sentences = short_names(study), study.differences, []
    seeds, compared = study.runs["seed"].nunique(), int((table["n"] > 1).sum())
    for wanted in study.runs["baseline"].dropna().unique():
        base = study.runs[study.runs["arm"] == study.baseline]
        if wanted not in (study.baseline, *base["given_name"]):
            sentences.append(
                f"The study names {wanted} as its baseline, and no arm is called so: {study.baseline} stands for it."
            )
    if study.noise["df"]:
        sd, df = fixed(study.noise["sd"], study.decimals), study.noise["df"]
        sentences.append(f"The seed alone moves a run by {sd} (pooled sd, {df} degrees of freedom).")
    for pair in study.noise["twins"]:
        sentences.append(f"{pair['twin']} is {pair['arm']} once more: {delta(pair, study.decimals)} of pure noise.")
    if too_few(seeds, study.needed):
        sentences.append(f"{too_few(seeds, study.needed)}.")
    if compared >= 20:
        sentences.append(f"Of {compared} intervals at 95 %, about {round(0.05 * compared)} leave zero out by chance alone.")
    uneven = table.loc[table["total_params_percent"].abs() > 1, "arm"]
    if len(uneven):
        sentences.append(f"Not at equal parameters: {listed([names[arm] for arm in uneven])}.")
    for status in ("diverged", "failed", "unfinished"):
        ended = study.arms.loc[study.arms[status] > 0, status]
        if len(ended):
            sentences.append(
                f"{count(int(ended.sum()), 'run')} {status}, in {listed([names[str(arm)] for arm in ended.index])}."
            )
    refused = table.loc[table["reading"] == "refused", "arm"]
    if len(refused):
        sentences.append(f"Refused, since data or budget differ: {listed([names[arm] for arm in refused])}.")
    ahead = [names[arm] for arm in non_causal_arms(study)]
    if ahead:
        sentences.append(f"\u2020 sees later tokens, so it is no language model: {listed(ahead)}.")
    if study.set_aside:
        what = count(len(study.set_aside), "run")
        sentences.append(f"{what} set aside, since the record is damaged: the numbers are those of the others only.")
    return sentences + _machines(study.runs)


def _machines(runs: pd.DataFrame) -> list[str]:
    """What it means where the runs were not all made alike."""
    sentences, threads = [], thread_counts(runs)
    if len(threads) > 1:
        sentences.append(
            f"Not all sessions had the same number of threads ({', '.join(threads)}): results of equal seeds differ by "
            "rounding, and speeds are compared only where it was the same."
        )
    if runs["device"].dropna().nunique() > 1:
        sentences.append("The runs come from different devices: speeds are compared only where it was the same.")
    return sentences


def terminal_table(study: Comparison) -> str:
    """A sweep in one compact table: result, difference, speed, size, memory and the statuses of the runs."""
    runs, seeds, names = study.runs, sorted(study.runs["seed"].unique()), short_names(study)
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
    notes = [note for note in [too_few(len(seeds), study.needed)] if note]
    flagged = study.differences[(study.differences["reading"] == "refused") | study.differences["ahead"]]
    notes += [f"{arm}: {note.split('; ')[0]}" for arm, note in zip(flagged["arm"], flagged["note"], strict=True)]
    notes += [f"set aside: {run}: {reason}" for run, reason in study.set_aside[:10]]
    notes += [f"set aside: {len(study.set_aside) - 10} more"] * (len(study.set_aside) > 10)
    failed = runs[runs["error"].notna()]
    notes += [f"{run}: {error}" for run, error in zip(failed["run"], failed["error"], strict=True)][:10]
    return "\n".join([title, *lines, *notes])


def outcome(line: pd.Series) -> str:
    """3 done, 1 diverged: the statuses that occur."""
    return ", ".join(f"{line[status]} {status}" for status in ("done", "diverged", "failed", "unfinished") if line[status])


def _terminal_row(study: Comparison, arm: str, name: str, line: pd.Series) -> list[str]:
    against = "baseline"
    for row in study.differences[study.differences["arm"] == arm].to_dict("records"):
        against = "refused" if row["reading"] == "refused" else delta(row, study.decimals)
    spread = f" ± {fixed(line['sd'], study.decimals)}" if math.isfinite(line["sd"]) else ""
    return [
        name if len(name) <= 48 else name[:47] + "…",
        fixed(line["mean"], study.decimals) + spread,
        against,
        si(line["tokens_per_s"]),
        si(line["total_params"]),
        si(line["active_params"]),
        si(line["peak_memory_bytes"], "B"),
        outcome(line),
    ]


def _against_baseline(row: dict[Any, Any], study: Comparison) -> str:
    direction = "lower" if row["difference"] < 0 else "higher"
    ends = sorted((abs(row["low"]), abs(row["high"])))
    mean, low, high = (fixed(value, study.decimals) for value in (abs(row["difference"]), *ends))
    size = (
        f"{mean} {direction} in accuracy"
        if study.metric.column == "val_accuracy"
        else f"{mean} {study.metric.unit} {direction}"
    )
    return f"Against the baseline, {short_names(study)[row['arm']]} is {size} [{low}, {high}]{_at_cost(row)}."


def _at_cost(row: dict[Any, Any]) -> str:
    """ " at 0.62x the speed ..." for the ratios that may be stated."""
    total, active = 1 + row["total_params_percent"] / 100, 1 + row["active_params_percent"] / 100
    ratios = [("speed", row["tokens_per_s_ratio"]), ("parameters", total)]
    ratios += [("active ones", active)] if active != total else []
    cost = listed([f"{times(ratio)} the {what}" for what, ratio in ratios if math.isfinite(ratio)])
    return f" at {cost}" if cost else ""


def _with_numbers(rows: pd.DataFrame, study: Comparison) -> str:
    names = short_names(study)
    return listed(
        [f"{names[arm]} ({signed(d, study.decimals)})" for arm, d in zip(rows["arm"], rows["difference"], strict=True)]
    )


def _with_intervals(rows: pd.DataFrame, study: Comparison) -> str:
    """The first with its costs: it heads the table."""
    names, lines = short_names(study), rows.to_dict("records")
    texts = [f"{names[row['arm']]} {delta(row, study.decimals)}" for row in lines]
    return listed([texts[0] + _at_cost(lines[0]), *texts[1:]])


def _value(number: str, metric: Metric) -> str:
    return f"an accuracy of {number}" if metric.column == "val_accuracy" else f"{number} {metric.unit}"
