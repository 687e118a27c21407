"""The page of a study: one file that needs no network, its words made here, its tables and charts by its own script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from analysis import answer, digits
from analysis.cautions import cautions
from analysis.comparison import Comparison, non_causal_arms, short_names
from analysis.fairness import thread_counts
from analysis.findings import findings
from analysis.load import Records
from analysis.page.content import content, varied
from analysis.style import Drawing

HERE = Path(__file__).parent
SCRIPTS = ("dom", "state", "table", "chart", "forest", "curves", "costs", "parallel", "experts", "start")  # in this order


def page(
    study: Comparison,
    records: Records,
    effects: pd.DataFrame,
    jitter: float,
    sections: Mapping[str, Sequence[Drawing]],
    asked: Iterable[str],
) -> str:
    """The whole file. sections: the figures for papers, which it links. asked: runs that the study is to have."""
    loader = jinja2.FileSystemLoader(HERE)
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown = [digits.fixed, digits.si, digits.signed, digits.share, digits.interval, digits.three, digits.count]
    pages.filters.update({function.__name__: function for function in shown})
    data = content(study, records)
    untwinned = study.differences[~study.differences["twin"].astype(bool)]
    return pages.get_template("page.html.jinja").render(
        study=study,
        name=study.runs["study"].iloc[0],
        names=short_names(study),
        unfinished=unfinished(study, asked),
        ahead=non_causal_arms(study),
        facts=facts(study),
        question=answer.asked(study),
        claims=answer.rows(study),
        findings=findings(study, effects),
        cautions=cautions(study, jitter),
        interactions=effects[effects["other_axis"].notna() | (effects["n"] == 0)].to_dict("records"),
        notes=[(row["arm"], own_note(row["note"])) for _, row in untwinned.iterrows() if own_note(row["note"])],
        figures=[drawing for drawings in sections.values() for drawing in drawings],
        routed=len(records.routing) > 0,
        data=data,
        comparable=[cost for cost in data["costs"] if cost["varies"] and (data["timed"] or not cost["speed"])],
        json=in_script(data),
        css=Markup(text("page.css")),
        script=Markup("\n".join(text(f"{name}.js") for name in SCRIPTS)),
    )


def text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def in_script(data: dict[str, Any]) -> Markup:
    """JSON that ends no script element, whatever an arm is called."""
    return Markup(json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))


def unfinished(study: Comparison, asked: Iterable[str]) -> str:
    """12 of 20 runs ended so far; empty where all have that were asked for."""
    ended = study.runs["status"].isin(("done", "diverged", "failed")).sum()
    wanted = len({*asked, *study.runs["run"]})
    return "" if ended == wanted else f"{ended} of {digits.count(wanted, 'run')} ended so far"


def own_note(note: str) -> str:
    """The note without the parts that are the same for every arm."""
    return "; ".join(part for part in note.split("; ") if not part.startswith("n = "))


def facts(study: Comparison) -> list[tuple[str, str]]:
    """What all runs share; where they differ, all the values."""
    runs = study.runs

    def values(column: str, cut: int = 40) -> str:
        found = list(runs[column].dropna().unique()) if column in runs else []
        return digits.listed(sorted(f"{v:g}" if isinstance(v, float) else str(v)[:cut] for v in found), 4) or "not recorded"

    dirty = " + uncommitted changes" if (runs["git_dirty"] == True).any() else ""  # noqa: E712 (None is neither)
    sessions, threads = int(runs["timed"].nunique()), thread_counts(runs)
    return [
        ("Baseline", study.baseline),
        ("Varied", digits.listed(varied(runs), 8) or "nothing"),
        ("Objective", values("objective")),
        ("Seeds", digits.listed([str(seed) for seed in study.seeds], 8)),
        (
            "Training",
            f"{values('train.steps')} steps of {values('train.batch_size')} {digits.TIMES} {values('train.seq_len')} tokens",
        ),
        ("Data", f"{values('data')}, SHA-256 {values('data_sha256', 10)}"),
        ("Size", f"{values('size')}, tokenizer {values('tokenizer')}"),
        ("Machine", f"{values('device')}, {digits.listed(threads) or '?'} thread{'' if threads == ['1'] else 's'} a run"),
        ("Speeds", "in turns, in " + digits.count(sessions, "session") if sessions else "as in training, not for comparison"),
        ("Code", f"torch {values('torch')}, Python {values('python')}, commit {values('git_commit', 8)}{dirty}"),
    ]
