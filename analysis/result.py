"""What the comparison of one study tells, as plain data: its verdicts, and its words, for a page and for other programs."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis import answer, digits
from analysis.cautions import cautions
from analysis.comparison import Comparison, non_causal_arms, short_names
from analysis.fairness import thread_counts
from analysis.files import plain
from analysis.findings import findings
from analysis.load import choices
from analysis.speed import UNFIT


def words(study: Comparison, effects: pd.DataFrame, jitter: float = math.nan) -> dict[str, Any]:
    """name: the study's. names: a short one for each arm. ahead: the arms that see later tokens. facts: what all runs share.
    asked, answers: the question and a row per claim. findings, cautions: sentences. notes: of single arms."""
    others = study.differences[~study.differences["twin"].astype(bool)]
    notes = [(arm, _own_note(note)) for arm, note in zip(others["arm"], others["note"], strict=True)]
    return {
        "name": study.runs["study"].iloc[0],
        "names": short_names(study),
        "ahead": non_causal_arms(study),
        "facts": _facts(study),
        "asked": answer.asked(study),
        "answers": answer.rows(study),
        "findings": findings(study, effects),
        "cautions": cautions(study, jitter),
        "notes": [(arm, note) for arm, note in notes if note],
    }


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


def _own_note(note: str) -> str:
    """The note without the parts that are the same for every arm."""
    return "; ".join(part for part in note.split("; ") if not part.startswith("n = "))


def _facts(study: Comparison) -> list[tuple[str, str]]:
    """What all runs share; where they differ, all the values."""
    runs = study.runs

    def values(column: str, cut: int = 40) -> str:
        found = list(runs[column].dropna().unique()) if column in runs else []
        return digits.listed(sorted(f"{v:g}" if isinstance(v, float) else str(v)[:cut] for v in found), 4) or "not recorded"

    varying = [axis for axis in choices(runs) if runs[axis].nunique(dropna=False) > 1]
    dirty = " + uncommitted changes" if (runs["git_dirty"] == True).any() else ""  # noqa: E712 (None is neither)
    sessions, threads = int(runs["timed"].nunique()), thread_counts(runs)
    return [
        ("Baseline", study.baseline),
        ("Varied", digits.listed(varying, 8) or "nothing"),
        ("Objective", values("objective")),
        ("Seeds", digits.listed([str(seed) for seed in study.seeds], 8)),
        (
            "Training",
            f"{values('train.steps')} steps of {values('train.batch_size')} {digits.TIMES} {values('train.seq_len')} tokens",
        ),
        ("Data", f"{values('data')}, SHA-256 {values('data_sha256', 10)}"),
        ("Size", f"{values('size')}, tokenizer {values('tokenizer')}"),
        ("Machine", f"{values('device')}, {digits.listed(threads) or '?'} thread{'' if threads == ['1'] else 's'} a run"),
        ("Speeds", "in turns, in " + digits.count(sessions, "session") if sessions else f"as in training, {UNFIT}"),
        ("Code", f"torch {values('torch')}, Python {values('python')}, commit {values('git_commit', 8)}{dirty}"),
    ]
