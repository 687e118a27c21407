"""The style of figures: colours for the colour-blind, a mark for each arm, a figure with its numbers."""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, MaxNLocator, NullFormatter

from analysis import digits
from analysis.comparison import Comparison
from analysis.spreadsheet import csv

# Okabe and Ito's colours, by value since old matplotlibs lack the name; their yellow is left out: too faint for a line on white
BLACK, BLUE, VERMILLION, GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"
COLOURS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
INK, GREY, PALE = "#1b1f24", "#6b7280", "#d3d7dd"
HEAT = "cividis"
WIDTH = 11.0  # inches: the page's text width, so that 9 points stay 9 points
MOST_ROWS = 60  # arms that one figure lists
STYLED = 16  # arms that get a colour of their own; of more, only a few are picked out

RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same page on every machine
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceef1",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,  # a name with two dollar signs is a name
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.hashsalt": "analysis",  # the same numbers give the same file
    "savefig.dpi": 160,
}


class Mark(NamedTuple):
    """How one arm is drawn in every figure."""

    colour: str
    marker: str
    line: str | tuple[float, tuple[float, ...]]
    named: bool  # labelled; the others stay in the background


@dataclass(frozen=True)
class Drawing:
    """A figure with the numbers in it. data holds exactly what is drawn; alt is the text for screen readers."""

    name: str
    title: str
    caption: str
    alt: str
    data: pd.DataFrame
    figure: Figure

    def files(self) -> dict[str, bytes]:
        """file name -> content: the picture twice and its numbers."""
        with _drawing():
            return {
                f"{self.name}.svg": _saved(self.figure, "svg", {"Date": None, "Creator": None, "Description": self.alt}),
                f"{self.name}.png": _saved(self.figure, "png", {"Software": None, "Description": self.alt}),
                f"{self.name}.csv": csv(self.data),
            }


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    """In this style; a letter that the font lacks is drawn as a box, and that is no reason for a warning."""
    with mpl.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def styled(draw: Callable[..., Drawing | None]) -> Callable[..., Drawing | None]:
    """Draws in this style and leaves the process's own settings alone."""

    def wrapper(*args: object) -> Drawing | None:
        with _drawing():
            return draw(*args)

    return wrapper


class Prefixed(Formatter):
    """Ticks as 800k and 1.2M, with enough digits that neighbours differ."""

    def __init__(self, unit: str = "") -> None:
        self.unit, self.step = unit, 0.0

    def set_locs(self, locs: Any) -> None:
        self.step = float(np.diff(np.sort(locs)).min()) if len(locs) > 1 else 0.0

    def __call__(self, x: float, pos: int | None = None) -> str:
        return digits.tick(x, self.step, self.unit)


def marks(study: Comparison) -> dict[str, Mark]:
    """The baseline in black, up to fifteen others by colour, marker and line; of more, the best six and the rest in grey."""
    others = [str(arm) for arm in study.arms.index if arm != study.baseline]
    few = len(others) < STYLED
    found = {study.baseline: Mark(BLACK, "o", "-", True)}
    for i, arm in enumerate(others):
        if few or i < len(COLOURS):
            line = LINES[i // len(COLOURS)]
            found[arm] = Mark(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], line, True)
        else:
            found[arm] = Mark(PALE, ".", "-", False)
    return found


def dark(colour: str) -> tuple[float, ...]:
    """The colour of a name beside a mark: darker, so that small letters stay readable."""
    return tuple(0.7 * part for part in to_rgb(colour))


def short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def fence(values: pd.Series[float]) -> tuple[float, float]:
    """The range of the values without outliers (ten times the interquartile range beyond the quartiles)."""
    low, high = values.quantile(0.25), values.quantile(0.75)
    room = 10 * (high - low) or math.inf
    inside = values[values.between(low - room, high + room)]
    return float(inside.min()), float(inside.max())


def layer_names(layers: Iterable[str]) -> dict[str, str]:
    """layers.3.ffn -> layer 3, where that stays unambiguous; in the order of the numbers."""
    layers = sorted(set(layers), key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])
    numbers = [re.findall(r"\d+", name)[:1] for name in layers]
    plain = all(numbers) and len({number[0] for number in numbers}) == len(layers)
    return {name: f"layer {number[0]}" if plain else name for name, number in zip(layers, numbers, strict=True)}


def quantity_axis(ax: Axes, label: str, values: pd.Series, margin: float = 0.03) -> None:
    values = values[values > 0]
    ax.set_xlabel(label)
    if len(values) and values.max() / values.min() >= 30:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(Prefixed())
    ax.margins(x=margin)


def _saved(figure: Figure, kind: str, metadata: dict[str, str | None]) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=kind, metadata=metadata)
    return file.getvalue()
