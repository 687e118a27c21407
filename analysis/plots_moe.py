"""The figures of the experts: the load of each, its history, and the router's entropy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from analysis.comparison import Comparison, short_names
from analysis.digits import TIMES
from analysis.labels import label_ends
from analysis.style import HEAT, INK, WIDTH, Drawing, layer_names, marks, short, styled

MOST_ARMS = 6  # heat maps in one figure; of more, the least balanced


@styled
def expert_load(study: Comparison, routing: pd.DataFrame) -> Drawing | None:
    """Each expert's load at the end of training, in units of an even share: 1 is balanced, 0 is dead."""
    last = _finished(routing)
    if last.empty:
        return None
    last = last[last["step"] == last.groupby("run")["step"].transform("max")].copy()
    last["rank"] = last.groupby(["run", "layer"])["share"].rank(ascending=False, method="first").astype(int)
    last["load"] = last["share"] * last["n_experts"]
    data = last.groupby(["arm", "layer", "rank"])["load"].agg(["mean", "min", "max", "count"]).reset_index()
    arms = _least_balanced(study, data.rename(columns={"mean": "load"}))
    data = data[data["arm"].isin(arms)]
    columns = 2 if len(arms) == 4 else min(len(arms), 3)
    layers = layer_names(data["layer"])
    rows, height = math.ceil(len(arms) / columns), 0.75 + 0.28 * max(2, min(len(layers), 24))
    figure = Figure(figsize=(WIDTH, rows * height + 0.25))
    panels = figure.subplots(rows, columns, squeeze=False)
    inches = rows * height + 0.25
    figure.subplots_adjust(
        left=0.075, right=0.9, bottom=0.45 / inches, top=1 - 0.3 / inches, wspace=0.06, hspace=0.8 / (height - 0.55)
    )
    top, image = max(2.0, float(data["mean"].quantile(0.98))), None
    for i, (ax, arm) in enumerate(zip(panels.flat, arms, strict=False)):
        table = data[data["arm"] == arm].pivot(index="layer", columns="rank", values="mean")
        image = _heat(ax, table.reindex(list(layers)), top, list(layers.values()) if i % columns == 0 else [])
        ax.set_title(short(short_names(study)[arm], 34))
        ax.set_xlabel("experts, busiest first")
    for ax in list(panels.flat)[len(arms) :]:
        ax.set_visible(False)
    _colour_bar(figure, image)
    caption = (
        "Load of each expert after training in units of an even share (1 = balanced), sorted within each layer and averaged "
        "over seeds."
    )
    if len(arms) < last["arm"].nunique():
        caption += f" The {len(arms)} least balanced arms of {last['arm'].nunique()}."
    worst = data.loc[[data["mean"].idxmax()]].to_dict("records")[0]
    alt = f"Heat maps of expert load by layer. The highest is {worst['mean']:.2f} times an even share, in {worst['arm']}."
    return Drawing("expert_load", "Expert load", caption, alt, data, figure)


@styled
def load_history(study: Comparison, routing: pd.DataFrame) -> Drawing | None:
    """The load of every single expert over training, in one run per arm."""
    rows = _finished(routing)
    rows = rows[rows.groupby("arm")["step"].transform("nunique") > 1]
    if rows.empty:
        return None
    rows = rows.assign(load=rows["share"] * rows["n_experts"])
    arms = _least_balanced(study, rows)[:3]
    rows = rows[rows["arm"].isin(arms) & (rows["seed"] == rows.groupby("arm")["seed"].transform("min"))]
    layers = layer_names(rows["layer"])
    data = rows.assign(order=rows["layer"].map({name: i for i, name in enumerate(layers)}))
    data = data[["arm", "run", "seed", "order", "layer", "expert", "step", "load"]].sort_values(
        ["arm", "order", "expert", "step"]
    )
    figure = Figure(figsize=(WIDTH, 3.9))
    panels = figure.subplots(1, len(arms), squeeze=False)[0]
    figure.subplots_adjust(left=0.075, right=0.9, bottom=0.13, top=0.92, wspace=0.06)
    top, image = max(2.0, float(data["load"].quantile(0.98))), None
    for ax, arm in zip(panels, arms, strict=True):
        mine = data[data["arm"] == arm]
        table = mine.pivot(index=["order", "expert"], columns="step", values="load")  # one row per expert, layer by layer
        steps = table.columns.to_numpy(float)
        edges = np.concatenate([steps[:1] - (steps[1] - steps[0]), steps])  # a row of the log covers the steps before it
        image = ax.pcolormesh(edges, np.arange(len(table) + 1), table.to_numpy(), cmap=HEAT, vmin=0, vmax=top, rasterized=True)
        ends = mine.groupby("layer", sort=False)["expert"].nunique().cumsum()
        ax.hlines(ends[:-1], edges[0], edges[-1], color="white", lw=2)
        names = [layers[str(name)] for name in ends.index] if ax is panels[0] else [""] * len(ends)
        ax.set_yticks((ends + ends.shift(fill_value=0)) / 2, names)
        ax.set_ylim(len(table), 0)
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False)
        ax.set(title=f"{short(short_names(study)[arm], 26)}, seed {mine['seed'].iloc[0]}", xlabel="training step")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, prune="both"))
    _colour_bar(figure, image)
    caption = (
        "One row per expert, over training, in units of an even share: a row that stays dark is an expert that learns nothing."
    )
    alt = f"Heat maps of each expert's load over training for {', '.join(arms)}."
    return Drawing("load_history", "Expert load over training", caption, alt, data.drop(columns="order"), figure)


@styled
def router_health(study: Comparison, routing: pd.DataFrame) -> Drawing | None:
    """Router entropy, the busiest expert and dropped assignments over training."""
    rows = _finished(routing)
    if rows.empty:
        return None
    layers = rows.groupby(["arm", "run", "step", "layer"])[["share", "n_experts", "entropy", "dropped"]].max().reset_index()
    layers["entropy"] = layers["entropy"] / np.log(layers["n_experts"].clip(lower=2))
    layers["busiest"] = layers["share"] * layers["n_experts"]
    layers["dropped"] = 100 * layers["dropped"]
    panels = (
        ("entropy", "router entropy / ln(experts)"),
        ("busiest", f"busiest expert, {TIMES} even share"),
        ("dropped", "dropped assignments, %"),
    )
    data = layers.melt(["arm", "step"], [name for name, _ in panels], var_name="quantity").dropna()
    data = data.groupby(["arm", "quantity", "step"])["value"].agg(["mean", "min", "max"]).reset_index()
    found = marks(study)
    arms = sorted(data["arm"].unique(), key=lambda arm: found[arm].named)
    figure = Figure(figsize=(WIDTH, 3.3))
    axes = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.05, right=0.83, bottom=0.15, top=0.9, wspace=0.22)
    for ax, (name, label) in zip(axes, panels, strict=True):
        for arm in arms:
            line, mark = data[(data["arm"] == arm) & (data["quantity"] == name)], found[arm]
            ax.plot(line["step"], line["mean"], color=mark.colour, ls=mark.line, lw=1.7 if mark.named else 0.8)
            if mark.named:
                ax.fill_between(line["step"], line["min"], line["max"], color=mark.colour, alpha=0.13, lw=0)
        ax.set(title=label, xlabel="training step")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes[0].set_ylim(top=max(1.02, axes[0].get_ylim()[1]))
    axes[1].axhline(1, color=INK, lw=0.8)
    axes[2].set_ylim(0, max(axes[2].get_ylim()[1], 1.0))
    middle = sum(axes[2].get_ylim()) / 2  # the lines of a good router coincide: the names are ordered by rank instead
    label_ends(axes[2], dict.fromkeys(arms[::-1], middle), found, short_names(study))
    caption = (
        "Means over layers and seeds, bands their range. Entropy is how undecided the router is about one token: 1 weighs all "
        "experts alike, 0 is sure of one. Dropped: assignments that found their expert full."
    )
    alt = "Router entropy, load of the busiest expert and dropped assignments over training for " + ", ".join(arms[:12]) + "."
    return Drawing("router", "Router", caption, alt, data, figure)


def _finished(routing: pd.DataFrame) -> pd.DataFrame:
    return routing[(routing["status"] == "done") & routing["share"].notna()]


def _least_balanced(study: Comparison, loads: pd.DataFrame) -> list[str]:
    """All arms in the study's order, or the MOST_ARMS whose busiest expert has the highest load."""
    worst = loads.groupby("arm")["load"].max().sort_values(ascending=False, kind="stable").index[:MOST_ARMS]
    return [str(arm) for arm in study.arms.index if arm in worst]


def _heat(ax: Axes, table: pd.DataFrame, top: float, names: list[str]) -> AxesImage:
    image = ax.imshow(table.to_numpy(), cmap=HEAT, vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    if table.shape[1] <= 16 and len(table) <= 12:
        for y, values in enumerate(table.to_numpy()):
            for x, value in enumerate(values):
                colour = "white" if value < 0.55 * top else INK
                ax.text(
                    x, y, f"{value:.1f}" if math.isfinite(value) else "", ha="center", va="center", fontsize=7.5, color=colour
                )
    n = len(table)
    labelled = list(range(0, n, max(1, math.ceil(n / 12))))
    ax.set_yticks(labelled, [names[y] if names else "" for y in labelled])
    ax.set_xticks([])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False)
    return image


def _colour_bar(figure: Figure, image: object) -> None:
    bar = figure.colorbar(image, cax=figure.add_axes((0.925, 0.2, 0.012, 0.62)))  # type: ignore[arg-type]
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label(f"{TIMES} even share")
