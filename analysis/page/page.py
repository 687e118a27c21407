"""The page of a study: one file that needs no network, its words made here, its tables and charts by its own script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from analysis import digits
from analysis.comparison import Comparison
from analysis.load import Records
from analysis.page.content import content
from analysis.result import words
from analysis.style import Drawing
from runs.job.record import ENDED

HERE = Path(__file__).parent
SCRIPTS = ("dom", "state", "table", "chart", "forest", "curves", "costs", "parallel", "experts", "start")  # in this order


def page(
    study: Comparison,
    records: Records,
    effects: pd.DataFrame,
    jitter: float,
    sections: Mapping[str, Sequence[Drawing]],
    planned: Iterable[str],
) -> str:
    """The whole file. sections: the figures for papers, which it links. planned: runs that the study is to have."""
    loader = jinja2.FileSystemLoader(HERE)
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown = [digits.fixed, digits.si, digits.signed, digits.share, digits.interval, digits.three, digits.count]
    pages.filters.update({function.__name__: function for function in shown})
    data = content(study, records)
    return pages.get_template("page.html.jinja").render(
        study=study,
        **words(study, effects, jitter),
        unfinished=unfinished(study, planned),
        interactions=effects[effects["other_axis"].notna() | (effects["n"] == 0)].to_dict("records"),
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
    ended = study.runs["status"].isin((*ENDED, "failed")).sum()
    wanted = len({*asked, *study.runs["run"]})
    return "" if ended == wanted else f"{ended} of {digits.count(wanted, 'run')} ended so far"
