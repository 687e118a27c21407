"""The figures of differences: every arm against the baseline, and every option of a grid against the baseline's."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.comparison import Comparison, short_names
from analysis.digits import delta, percent, signed
from analysis.labels import label_room
from analysis.speed import SPEED, told
from analysis.style import BLACK, BLUE, GREY, MOST_ROWS, VERMILLION, WIDTH, Drawing, short, styled

MARKS = {"good": ("o", BLUE, BLUE), "bad": ("s", VERMILLION, VERMILLION), "open": ("D", GREY, "white")}
LETTER = 0.0066  # the width of a letter in the columns of text, as a share of the figure's


@styled
def forest(study: Comparison) -> Drawing | None:
    """Same-seed differences against the baseline with their intervals, best first, and the cost of each beside it."""
    table, names = study.differences, short_names(study)
    if table.empty:
        return None
    if len(table) > MOST_ROWS:
        table = pd.concat([table.head(MOST_ROWS // 2), table.tail(MOST_ROWS // 2)])
    intervals = [delta(row, study.decimals) for row in table.to_dict("records")]
    columns = {
        "difference [95 %]": intervals,
        "n": [str(n) for n in table["n"]],
        "params": [percent(p) for p in table["total_params_percent"]],
        "active": [percent(p) for p in table["active_params_percent"]],
    }
    if study.in_turns:
        columns["speed [95 %]"] = [told(row) for row in table.to_dict("records")]
    fair = study.pairs[study.pairs["refused"] == ""]
    seeds = [
        fair.loc[fair["arm"] == arm, "difference"].tolist() if n else []
        for arm, n in zip(table["arm"], table["n"], strict=True)
    ]
    figure, ax = _rows([short(names[arm]) for arm in table["arm"]], columns)
    _intervals(ax, table.to_dict("records"), list(table["kind"]), seeds)
    band = study.noise["band"] or (-study.noise["sd"], study.noise["sd"])
    if math.isfinite(band[0]):
        ax.axvspan(*band, color="#eef1f4", zorder=0, lw=0)
    ax.set_xlabel(f"{study.metric.name}, difference from {short(names[study.baseline])} at the same seed ({_better(study)})")
    data = table[["arm", "n", "difference", "low", "high", "p", "p_holm", "verdict", "refused"]]
    data = data.join(table[[*SPEED, "total_params_percent", "active_params_percent"]])
    data = data.assign(seeds=[json.dumps(values) for values in seeds])
    caption = (
        "Large marks are means over seeds with 95 % t intervals, small dots the single seeds. Blue circles are better and "
        f"orange squares worse by their verdict ({study.needed} seeds are needed); hollow diamonds have none, or one that "
        "leaves it open; those with † are not compared."
    )
    if study.noise["band"]:
        caption += " Grey band: the interval between the baseline and its own config once more, which is chance alone."
    elif study.noise["df"]:
        caption += " Grey band: one standard deviation of a single run over seeds, the size of chance."
    if len(study.differences) > MOST_ROWS:
        caption += f" The best and the worst {MOST_ROWS // 2} of {len(study.differences)} arms."
    summary = "; ".join(f"{arm} {text}" for arm, text in list(zip(table["arm"], intervals, strict=True))[:12])
    alt = f"Forest plot of differences in {study.metric.name} against {study.baseline}: {summary}."
    return Drawing("differences", "Same-seed differences", caption, alt, data, figure)


@styled
def axis_plot(study: Comparison, effects: pd.DataFrame) -> Drawing | None:
    """In a grid: each option against the baseline's, everything else the same, averaged over all the rest."""
    effects = effects[effects["other_axis"].isna() & (effects["n"] > 0)]
    if effects.empty:
        return None
    rows, decimals = effects.to_dict("records"), study.decimals
    intervals = [delta(row, decimals) for row in rows]
    columns = {
        "difference [95 %]": intervals,
        "seeds": [str(row["n"]) for row in rows],
        "settings": [str(row["contexts"]) for row in rows],
        "over settings": [f"{signed(row['smallest'], decimals)} … {signed(row['largest'], decimals)}" for row in rows],
    }
    labels = [f"{row['axis']}: {row['level']} for {row['base']}" for row in rows]
    figure, ax = _rows(labels, columns)
    _intervals(ax, rows, list(effects["kind"]), [[row["smallest"], row["largest"]] for row in rows])
    ax.set_xlabel(f"{study.metric.name}, change from one option alone ({_better(study)})")
    caption = (
        "One option swapped for another with all other choices and the seed the same, averaged over every setting of the other "
        "axes and then over seeds. Blue is better and orange worse by the verdict, corrected for the number of effects. Small "
        "dots: the settings in which it did least and most; far apart, the axes interact."
    )
    summary = "; ".join(f"{name} {text}" for name, text in zip(labels, intervals, strict=True))
    alt = f"What each option alone does to {study.metric.name}: {summary}."
    return Drawing("axes", "Axis by axis", caption, alt, effects, figure)


def _better(study: Comparison) -> str:
    return f"{'left' if study.metric.lower_is_better else 'right'} is better"


def _rows(labels: list[str], columns: dict[str, list[str]]) -> tuple[Figure, Axes]:
    """A plot with one row per label and, right of it, columns of text."""
    many = len(labels) > 24
    height = (0.2 if many else 0.3) * len(labels) + 0.85
    widths = [LETTER * (max(len(text) for text in [head, *cells]) + 2.2) for head, cells in columns.items()]
    left = label_room(labels)
    width = 1 - left - sum(widths) - 0.015
    figure = Figure(figsize=(WIDTH, height))
    ax = figure.add_axes((left, 0.5 / height, width, 1 - 0.82 / height))
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_yticks(range(len(labels)), labels)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    size, right = (7.5 if many else 8.5), 1.0
    style: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "center", "fontsize": size}
    for (head, cells), room in zip(columns.items(), widths, strict=True):
        right += room / width
        ax.text(right, -1, head, fontweight="bold", **style)
        for y, cell in enumerate(cells):
            ax.text(right, y, cell, **style)
    for y in range(0, len(labels), 2):
        ax.axhspan(y - 0.5, y + 0.5, color="#fafbfc", lw=0, zorder=-2)
    return figure, ax


def _intervals(ax: Axes, rows: list[dict[Any, Any]], kinds: list[str], points: list[list[float]]) -> None:
    """Means and intervals, one row each; what lies far outside is cut off with an arrow, its number is in the columns."""
    left, right = _limits(pd.DataFrame(rows)[["low", "high", "difference"]])
    ax.set_xlim(left, right)
    for y, (row, kind, seeds) in enumerate(zip(rows, kinds, points, strict=True)):
        if not math.isfinite(row["difference"]):
            reason = short(row.get("refused") or "nothing to compare", 60)
            ax.text(0, y, reason, fontsize=8, color=GREY, style="italic", ha="center", va="center")
            continue
        marker, edge, face = MARKS[kind]
        ax.plot(seeds, [y + 0.27] * len(seeds), "o", color=edge, alpha=0.55, ms=3, mew=0)
        ax.plot([row["low"], row["high"]], [y, y], color=edge, lw=1.7, solid_capstyle="butt", alpha=0.9)
        ax.plot([row["difference"]], [y], marker, color=edge, mfc=face, ms=6.5, mew=1.3)
        ends = [row[name] for name in ("low", "high", "difference") if math.isfinite(row[name])]
        if min(ends) < left:
            ax.plot([left], [y], "<", color=edge, ms=6, clip_on=False)
        if max(ends) > right:
            ax.plot([right], [y], ">", color=edge, ms=6, clip_on=False)
    ax.axvline(0, color=BLACK, lw=1)


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """Room for every interval but those that reach three times farther than most; zero always with some space around it."""
    reach = table.abs().max(axis=1).dropna()
    limit = float(min(reach.max(), 3 * reach.quantile(0.75))) if len(reach) else 0.0
    limit = 1.08 * limit if limit > 0 else 1.0
    low, high = (float(table.min().min()), float(table.max().max())) if len(reach) else (0.0, 0.0)
    return max(-limit, 1.08 * min(low, -0.15 * limit)), min(limit, 1.08 * max(high, 0.15 * limit))
