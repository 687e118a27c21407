"""The question that the runs of a study were registered with."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from analysis.digits import count
from runs.job.question import Question


def registered(runs: pd.DataFrame) -> tuple[Question | None, list[str]]:
    """The newest question that the runs' records hold, and a caution where others hold another one or none."""
    texts = runs["question"].fillna("")
    if not texts.any():
        return None, []
    asked = runs.assign(question=texts)[texts != ""]
    newest = str(asked.loc[asked["started"].fillna("").astype(str).sort_values(kind="stable").index[-1], "question"])
    question = Question(**json.loads(newest))
    cautions = []
    for text, number in texts[texts != newest].value_counts(sort=False).items():
        if not text:
            cautions.append(f"{count(number, 'run')} began without a registered question, so not all was predicted beforehand.")
            continue
        before, now = json.loads(str(text)), json.loads(newest)
        changed = "; ".join(f"{key} {_said(before[key])}, now {_said(now[key])}" for key in now if before[key] != now[key])
        cautions.append(f"{count(number, 'run')} began under another question ({changed}): the newest stands here.")
    return question, cautions


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
