"""A study in one compact table for the terminal, its question and answers before it."""

from __future__ import annotations

import math

import pandas as pd

from analysis.answer import answers, asked
from analysis.comparison import Comparison, short_names
from analysis.digits import NONE, count, delta, fixed, listed, share, si
from analysis.speed import UNFIT, told
from analysis.verdict import too_few

MARK = "‡"


def terminal_table(study: Comparison) -> str:
    """A sweep in one compact table: result, difference, speed, size, memory and the statuses of the runs."""
    runs, seeds, names = study.runs, study.seeds, short_names(study)
    head = [
        "arm",
        study.metric.unit,
        "Δ vs baseline [95 %]",
        "verdict",
        "speed [95 %]" if study.in_turns else f"tokens/s {MARK}",
        "params",
        "active",
        "memory",
        "runs",
    ]
    rows = [_terminal_row(study, str(arm), names[str(arm)], line) for arm, line in study.arms.iterrows()]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            cell.ljust(w) if i in (0, 3, 8) else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "─" * max(len(line) for line in lines))
    good = "lower" if study.metric.lower_is_better else "higher"
    title = f"{runs['study'].iloc[0]}: {study.metric.name}, {good} is better; baseline {study.baseline}; "
    title += f"{count(len(seeds), 'seed')}: {', '.join(map(str, seeds[:12]))}{', ...' if len(seeds) > 12 else ''}"
    title += f"; chance {fixed(study.chance, study.decimals)}" if math.isfinite(study.chance) else ""
    notes = _tuning(study)
    notes += (
        []
        if study.in_turns or len(study.arms) < 2
        else [f"{MARK} {UNFIT}, so not to be compared; study.timing=20 does that, with the same command"]
    )
    notes += [note for note in [too_few(len(seeds), study.needed)] if note]
    flagged = study.differences[(study.differences["reading"] == "refused") | study.differences["ahead"]]
    notes += [f"{arm}: {note.split('; ')[0]}" for arm, note in zip(flagged["arm"], flagged["note"], strict=True)]
    notes += [f"set aside: {run}: {reason}" for run, reason in study.set_aside[:10]]
    notes += [f"set aside: {len(study.set_aside) - 10} more"] * (len(study.set_aside) > 10)
    failed = runs[runs["error"].notna()]
    notes += [f"{run}: {error}" for run, error in zip(failed["run"], failed["error"], strict=True)][:10]
    question = [f"asked: {asked(study)}", *answers(study), ""] if asked(study) else []
    return "\n".join([*question, title, *lines, *notes])


def _tuning(study: Comparison) -> list[str]:
    """One line: what the learning rates have cost, and what they are."""
    if study.tuning is None:
        return []
    names, chosen = short_names(study), study.tuning.arms.dropna(subset="chosen")
    rates = [f"{names.get(arm, arm)} {rate:g}" for arm, rate in zip(chosen["arm"], chosen["chosen"], strict=True)]
    cost = f"{count(study.tuning.trials, 'trial')}, {share(study.tuning.share)} of all training FLOPs"
    return [f"tuning: {cost}; optim.lr {listed(rates) or NONE}"]


def outcome(line: pd.Series) -> str:
    """3 done, 1 diverged: the statuses that occur."""
    return ", ".join(f"{line[status]} {status}" for status in ("done", "diverged", "failed", "unfinished") if line[status])


def _terminal_row(study: Comparison, arm: str, name: str, line: pd.Series) -> list[str]:
    against, verdict = "baseline", ""
    for row in study.differences[study.differences["arm"] == arm].to_dict("records"):
        against = "refused" if row["reading"] == "refused" else delta(row, study.decimals)
        verdict = "A/A" if row["twin"] else row["verdict"] or NONE
    spread = f" ± {fixed(line['sd'], study.decimals)}" if math.isfinite(line["sd"]) else ""
    return [
        name if len(name) <= 48 else name[:47] + "…",
        fixed(line["mean"], study.decimals) + spread,
        against,
        verdict,
        _speed(study, arm, line),
        si(line["total_params"]),
        si(line["active_params"]),
        si(line["peak_memory_bytes"], "B"),
        outcome(line),
    ]


def _speed(study: Comparison, arm: str, line: pd.Series) -> str:
    """As many times the baseline's; of arms that were not timed in turns tokens per second, which are not to be compared."""
    if not study.in_turns:
        return si(line["tokens_per_s"])
    return told(study.speeds.to_dict("index")[arm]) if arm != study.baseline else f"{si(line['tokens_per_s'])}/s"
