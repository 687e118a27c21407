"""Attention and expert choices as figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axis import Axis, XAxis
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

MOST_LABELS = 40  # tokens that are written out beside a map
MOST_ROWS = 8  # expert panels under each other
LETTER = 0.11  # inches that a token's label takes along the axis
RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.5,
    "axes.edgecolor": "#6b7280",
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "image.cmap": "cividis",  # as the report's heat maps
    "savefig.dpi": 160,
}


def save(figures: Mapping[str, Callable[[], Figure]], folder: Path) -> list[Path]:
    """Draw each figure in this style and write it as <name>.png; the process's own settings stay."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with mpl.rc_context(RC):
        for name, draw in figures.items():
            files.append(folder / f"{name}.png")
            draw().savefig(files[-1], metadata={"Software": None})
    return files


def attention_figure(maps: Mapping[str, np.ndarray], queries: Sequence[str], keys: Sequence[str]) -> Figure:
    """One row of panels a layer, one column a head: which keys each query attends to, and how much.

    Args:   maps: (heads, queries, keys) of each layer, by its label. queries, keys: the tokens.
    """
    counts = [len(heads) for heads in maps.values()]
    columns, most = max(counts), max(len(queries), len(keys))
    labelled = most <= MOST_LABELS
    side = max(1.2, LETTER * most) if labelled else (1.7 if columns <= 8 else 1.1)
    panel, longest = (side * len(keys) / most, side * len(queries) / most), _longest((*queries, *keys), labelled)
    figure, panels = _grid(len(maps), columns, panel, gap=0.14, beside=longest, below=longest)
    image = None
    for row, (label, heads) in enumerate(maps.items()):
        for head, ax in enumerate(panels[row]):
            if head >= len(heads):
                ax.set_visible(False)
                continue
            visible = np.ma.masked_equal(heads[head], 0)  # masked is not the same as of little weight: it stays white
            image = ax.imshow(visible, norm=PowerNorm(0.5, vmin=0, vmax=1), aspect="auto", interpolation="nearest")
            lowest = not any(count > head for count in counts[row + 1 :])
            _ticks(ax.xaxis, keys if labelled else None, shown=lowest)
            _ticks(ax.yaxis, queries if labelled else None, shown=head == 0)
            ax.set(title=f"head {head}" if row == 0 else None, ylabel=label if head == 0 else None)
    _axes_named(figure, "key: the token attended to", "query: the token that attends")
    _colour_bar(figure, image, panels, "attention weight, coloured by its\nsquare root (white: masked)")
    return figure


def experts_figure(gates: Mapping[str, np.ndarray], tokens: Sequence[str]) -> Figure:
    """One panel a MoE layer: which experts work on each token, and with what weight.

    Args:   gates: (tokens, experts) of each layer, by its label, NaN where an expert does not work on a token.
    """
    labelled = len(tokens) <= 2 * MOST_LABELS
    columns = -(-len(gates) // MOST_ROWS)
    rows = -(-len(gates) // columns)
    width = max(2.5, LETTER * 1.1 * len(tokens)) if labelled else 7.0 / columns
    height = min(3.0, max(0.7, 0.11 * max(table.shape[1] for table in gates.values())))
    figure, panels = _grid(rows, columns, (width, height), gap=0.28, beside=3, below=_longest(tokens, labelled))
    top = max((float(np.nanmax(table)) for table in gates.values() if not np.isnan(table).all()), default=1.0)
    image = None
    for number, ax in enumerate(panels.T.flat):  # down the first column, then the next
        if number >= len(gates):
            ax.set_visible(False)
            continue
        label, table = list(gates.items())[number]
        image = ax.imshow(np.ma.masked_invalid(table.T), norm=Normalize(0, top), aspect="auto", interpolation="nearest")
        _ticks(ax.xaxis, tokens if labelled else None, shown=number % rows == rows - 1 or number == len(gates) - 1)
        _ticks(ax.yaxis, None, shown=number < rows)
        without = int(np.isnan(table).all(axis=1).sum())
        ax.set_title(label + (f": {without} of {len(table)} tokens without an expert" if without else ""), loc="left")
    _axes_named(figure, "token", "expert")
    _colour_bar(figure, image, panels, "gate, the weight of an expert\n(white: not chosen)")
    return figure


def _grid(
    rows: int, columns: int, panel: tuple[float, float], *, gap: float, beside: int, below: int
) -> tuple[Figure, np.ndarray]:
    """Panels of that many inches that far apart, with room for labels of that many letters at the left and below."""
    left, bottom, top, right = 0.5 + 0.068 * beside, 0.38 + 0.068 * below, 0.3, 1.1
    width, height = columns * (panel[0] + 0.14) - 0.14, max(rows * (panel[1] + gap) - gap, 2.3)
    figure = Figure(figsize=(left + width + right, bottom + height + top))
    all_width, all_height = figure.get_size_inches()
    panels = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=left / all_width,
        right=1 - right / all_width,
        bottom=bottom / all_height,
        top=1 - top / all_height,
        wspace=0.14 / panel[0],
        hspace=gap / panel[1],
    )
    return figure, panels


def _ticks(axis: Axis, labels: Sequence[str] | None, *, shown: bool) -> None:
    if labels is None:
        axis.set_major_locator(MaxNLocator(4, integer=True))
        if not shown:
            axis.set_ticklabels([])
        return
    axis.set_ticks(range(len(labels)), [_drawable(label) for label in labels] if shown else [""] * len(labels))
    axis.set_tick_params(rotation=90 if isinstance(axis, XAxis) else 0)


def _drawable(label: str) -> str:
    """A blank as an open box; letters that the font lacks by their number; no letter is read as mathematics."""
    known = get_font(findfont("DejaVu Sans")).get_charmap()
    text = "".join(letter if ord(letter) in known else ascii(letter)[1:-1] for letter in label.replace(" ", "\u2423"))
    return text.replace("$", r"\$")


def _longest(labels: Sequence[str], labelled: bool) -> int:
    """In letters; 3 where there are too many labels and numbers replace them."""
    return max(len(_drawable(label)) for label in labels) if labelled else 3


def _axes_named(figure: Figure, below: str, beside: str) -> None:
    width, height = figure.get_size_inches()
    figure.supxlabel(below, fontsize=8, y=0.05 / height, va="bottom")
    figure.supylabel(beside, fontsize=8, x=0.05 / width, ha="left")


def _colour_bar(figure: Figure, image: AxesImage | None, panels: np.ndarray, label: str) -> None:
    """At the right, as high as the panels, at most 3 inches."""
    assert image is not None
    width, height = figure.get_size_inches()
    top, bottom = panels[0, 0].get_position().y1, panels[-1, 0].get_position().y0
    tall = min(top - bottom, 3.0 / height)
    axes = figure.add_axes((1 - 0.95 / width, top - tall, 0.12 / width, tall))
    figure.colorbar(image, cax=axes, label=label)
