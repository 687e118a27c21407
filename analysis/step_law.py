"""The best learning rate and batch size: loss surfaces over both, and how their minima move with parameters and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from analysis.scaling import PowerLaw, checked, fit_power_law

LEVELS = 3  # that a parabola needs of each axis
POINTS = 6  # the numbers of a surface
AXES = ("lr", "bs")


@dataclass(frozen=True)
class Surface:
    """loss = c + g . x + x . H x / 2 with x = (log2 lr, log2 bs) - middle, for one model and number of tokens.

    lr, bs, loss: its lowest point within the grid that it was fitted to. edge: the axes in which that lies on the grid's edge,
    so that a better one may lie beyond; empty where it is a minimum.
    """

    c: float
    g: np.ndarray
    h: np.ndarray
    middle: np.ndarray
    lr: float
    bs: float
    loss: float
    edge: tuple[str, ...]

    def predict(self, lr: Any, bs: Any) -> Any:
        x = np.stack(np.broadcast_arrays(np.log2(lr), np.log2(bs)), axis=-1) - self.middle
        return self.c + x @ self.g + ((x @ self.h) * x).sum(-1) / 2

    def regret(self, lr: Any, bs: Any) -> Any:
        """How much higher the loss is at this point than at the lowest one."""
        return self.predict(lr, bs) - self.loss


def fit_surface(frame: pd.DataFrame, lr: str = "lr", bs: str = "bs", loss: str = "loss") -> Surface:
    """The surface of a table with one run per row, by least squares.

    A parabola is the middle of a valley: leave out runs far above the best, whose losses rise faster.

    Raises: ValueError: a missing column, numbers that are not above 0, fewer than 6 points, or 3 rates or batch sizes.
    """
    table = checked(frame, {"lr": lr, "bs": bs, "loss": loss})
    for name, column in (("lr", lr), ("bs", bs)):
        if table[name].nunique() < LEVELS:
            raise ValueError(f"{column} takes {table[name].nunique()} values; a parabola needs at least {LEVELS}")
    x = np.log2(table[[*AXES]].to_numpy())
    middle = x.mean(0)
    u, v = (x - middle).T
    columns = np.stack([np.ones_like(u), u, v, u**2 / 2, u * v, v**2 / 2], axis=1)
    numbers, _, rank, _ = np.linalg.lstsq(columns, table["loss"].to_numpy(), rcond=None)
    if rank < POINTS:
        points = len(table.drop_duplicates([*AXES]))
        raise ValueError(f"{points} points of {lr} and {bs} do not fix a surface; a grid of {LEVELS} by {LEVELS} does")
    c, g, h = float(numbers[0]), numbers[1:3], np.array([[numbers[3], numbers[4]], [numbers[4], numbers[5]]])
    ends = np.stack([x.min(0), x.max(0)]) - middle
    place, edge = _lowest(g, h, ends)
    rate, batch = (float(2**value) for value in place + middle)
    return Surface(c, g, h, middle, rate, batch, float(c + place @ g + place @ h @ place / 2), edge)


def _lowest(g: np.ndarray, h: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """The lowest point of a parabola on a rectangle: in it, on one of its sides, or in a corner. The axes held at an end."""
    found = []
    for held in product((None, 0, 1), repeat=2):  # each axis free, at its lower or at its upper end
        place = np.array([0.0 if end is None else ends[end, axis] for axis, end in enumerate(held)])
        free = [axis for axis, end in enumerate(held) if end is None]
        if free:
            curve = h[np.ix_(free, free)]
            if np.linalg.eigvalsh(curve).min() <= 0:
                continue  # no valley: the lowest point lies further out
            place[free] = np.linalg.solve(curve, -(g + h @ place)[free])
        if (place >= ends[0] - 1e-12).all() and (place <= ends[1] + 1e-12).all():
            edge = tuple(name for name, end in zip(AXES, held, strict=True) if end is not None)
            found.append((float(place @ g + place @ h @ place / 2), len(edge), place, edge))
    _, _, place, edge = min(found, key=lambda one: one[:2])
    return place, edge


@dataclass(frozen=True)
class StepLaw:
    """lr = c n^a d^b and bs = c d^e: the best learning rate and batch size for n parameters and d tokens.

    cells: a row per n and d: the lowest point of its surface (lr, bs, loss), and left_out, why the laws do not count it: its
    lowest point lies at the edge of its grid, or it has too few points for a surface. surfaces: those that there are.

    Paper: Li 2025, arXiv:2503.04715 (Step Law: lr = 1.79 n^-0.713 d^0.307, bs = 0.58 d^0.571). Differs: the minima are those of
    surfaces, where they take the best points of the grid.
    """

    lr: PowerLaw
    bs: PowerLaw
    cells: pd.DataFrame
    surfaces: dict[tuple[float, float], Surface]

    @cached_property
    def held_out(self) -> pd.DataFrame:
        """The cells of the largest n, and what the laws of all smaller ones say of them: predicted_lr, predicted_bs, their
        errors (relative), and regret: how much higher the cell's own surface is there than at its minimum."""
        good = self.cells[self.cells["left_out"] == ""]
        largest = good["n"] == good["n"].max()
        rate, batch = _laws(good[~largest])
        cells = good[largest].drop(columns="left_out")
        cells = cells.assign(predicted_lr=rate.predict(n=cells["n"], d=cells["d"]), predicted_bs=batch.predict(d=cells["d"]))
        regret = [
            float(self.surfaces[row["n"], row["d"]].regret(row["predicted_lr"], row["predicted_bs"]))
            for row in cells.to_dict("records")
        ]
        errors = {f"{name}_error": cells[f"predicted_{name}"] / cells[name] - 1 for name in AXES}
        return cells.assign(**errors, regret=regret)


def fit_step_law(
    frame: pd.DataFrame, n: str = "params", d: str = "tokens", lr: str = "lr", bs: str = "bs", loss: str = "loss"
) -> StepLaw:
    """The laws of a table with one run per row: a surface for each n and d, and power laws through their minima.

    Args:   n, d: its columns of parameters and training tokens. lr, bs: of learning rate and batch size (tokens). loss: the
            final one (nats).
    Raises: ValueError: a missing column, numbers that are not above 0, or fewer than 5 cells whose minimum lies inside.
    """
    table = checked(frame, {"n": n, "d": d, "lr": lr, "bs": bs, "loss": loss})
    rows, surfaces = [], {}
    for size, tokens in table[["n", "d"]].drop_duplicates().sort_values(["n", "d"]).itertuples(index=False):
        cell = table[(table["n"] == size) & (table["d"] == tokens)]
        try:
            surface = surfaces[size, tokens] = fit_surface(cell)
        except ValueError as error:
            rows.append({"n": size, "d": tokens, "left_out": str(error)})
            continue
        left_out = f"its lowest point lies at the edge in {' and '.join(surface.edge)}" if surface.edge else ""
        rows.append({"n": size, "d": tokens, "lr": surface.lr, "bs": surface.bs, "loss": surface.loss, "left_out": left_out})
    cells = pd.DataFrame(rows, columns=["n", "d", "lr", "bs", "loss", "left_out"])
    return StepLaw(*_laws(cells[cells["left_out"] == ""]), cells, surfaces)


def _laws(cells: pd.DataFrame) -> tuple[PowerLaw, PowerLaw]:
    for name in ("n", "d"):
        if cells[name].nunique() < 2:
            raise ValueError(f"{len(cells)} cells have their minimum inside, with one {name} at most; an exponent needs 2")
    return fit_power_law(cells, ["n", "d"], "lr"), fit_power_law(cells, ["d"], "bs")
