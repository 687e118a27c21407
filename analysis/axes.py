"""What each axis does in a grid of options, and whether two axes change each other's effect: main effects and interactions.

    main effect of a level    its y minus that of the baseline's level, averaged over all settings of the other axes
    interaction of two        (y11 - y01) - (y10 - y00): how much more the first does where the second is swapped too

Both are coefficients of y = constant + a_i x_i + ... + b_ij x_i x_j + ..., fitted to the runs of one seed by least squares; x_i
is 1 where level i is chosen, less 1 over the number of levels of its axis. The baseline's levels have no x.

The seeds are the sample: a t interval and a sign-flip p over the estimates of single seeds, corrected (Holm) for the number of
effects. In a full grid these are the plain averages of differences, and three axes at once may do what they like. A fraction
of a grid gives only those effects that its runs tell apart; of the others it is said what they cannot be told from.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.comparison import Comparison
from analysis.fairness import conditions
from analysis.load import choices
from analysis.metric import usable
from analysis.sample import sign_flip_p, t_interval
from analysis.verdict import decide

COLUMNS = ["axis", "level", "base", "other_axis", "other_level", "other_base", "effect_there", "n", "difference", "low", "high"]
COLUMNS += ["p", "contexts", "smallest", "largest", "aliases"]
Cell = tuple[str, ...]  # a level of each axis


class Term(NamedTuple):
    """A coefficient: of a level, or of a pair of levels of two axes. places: of the axes."""

    places: tuple[int, ...]
    levels: tuple[str, ...]

    def __str__(self) -> str:
        return " with ".join(self.levels)


def axis_effects(study: Comparison) -> pd.DataFrame:
    """One row per effect, main effects first; empty unless the study is a grid: every level is run in several settings.

    axis, level, base: what is swapped for the baseline's level; other_axis ...: the second swap of an interaction, None in a
    main effect; effect_there: the first swap's effect beside the second one. smallest, largest: of a main effect, over its
    ``contexts`` (settings of the other axes). aliases: what an effect without numbers cannot be told from.
    """
    runs = _alike(study)
    axes = [axis for axis in choices(runs) if runs[axis].nunique() > 1 and runs[axis].notna().all()]
    cells = [tuple(cell) for cell in runs[axes].astype(str).to_numpy()]
    runs = runs.assign(cell=pd.Series(cells, index=runs.index, dtype=object))
    base = runs.loc[runs["arm"] == study.baseline, "cell"]
    empty = decide(pd.DataFrame(columns=COLUMNS), lower_is_better=study.metric.lower_is_better)
    if not _is_grid(runs, axes) or base.empty:
        return empty
    fitted = Fit(runs, axes, base.iloc[0], study.metric.column)
    rows = [fitted.main(term) if len(term.places) == 1 else fitted.interaction(term) for term in fitted.terms]
    return decide(pd.DataFrame(rows, columns=COLUMNS), lower_is_better=study.metric.lower_is_better)


def _alike(study: Comparison) -> pd.DataFrame:
    """The finished runs that share data and budget with the baseline."""
    runs = usable(study.runs, study.metric.column)
    base = runs[runs["arm"] == study.baseline]
    for condition in conditions(study.metric.column):
        if condition.refuses and condition.column in runs and len(base):
            runs = runs[runs[condition.column].astype(str) == str(base[condition.column].iloc[0])]
    return runs


def _is_grid(runs: pd.DataFrame, axes: list[str]) -> bool:
    """Whether each level of two axes or more is run in several settings of the others, each setting once at a seed."""
    if len(axes) < 2 or runs.duplicated(["cell", "seed"]).any():
        return False
    cells = list(runs["cell"].unique())
    return all(
        sum(cell[place] == level for cell in cells) > 1
        for place in range(len(axes))
        for level in {cell[place] for cell in cells}
    )


class Fit:
    """The least squares of every seed. levels: of each axis, the baseline's first; terms: single levels, then pairs."""

    def __init__(self, runs: pd.DataFrame, axes: list[str], base: Cell, column: str) -> None:
        cells = set(runs["cell"])
        self.axes = axes
        self.levels = [[base[i], *sorted({cell[i] for cell in cells} - {base[i]})] for i in range(len(axes))]
        singles = [Term((i,), (level,)) for i, levels in enumerate(self.levels) for level in levels[1:]]
        both = [(one, two) for one, two in combinations(singles, 2) if one.places != two.places]
        self.terms = [*singles, *(Term(one.places + two.places, one.levels + two.levels) for one, two in both)]
        self.values = dict(zip(zip(runs["cell"], runs["seed"], strict=True), runs[column].astype(float), strict=True))
        self.design = self._design(sorted(cells))
        self.seeds = []
        for _, mine in runs.groupby("seed"):
            design = self._design(list(mine["cell"]))
            self.seeds.append((design, np.linalg.pinv(design.T), mine[column].to_numpy(float)))

    def main(self, term: Term) -> dict[str, Any]:
        """The row of a level, with the range of its effect over the settings that are run with and without it."""
        (place,), (level,) = term.places, term.levels
        gaps: dict[Cell, list[float]] = {}
        for (cell, seed), value in self.values.items():
            twin = (*cell[:place], self.levels[place][0], *cell[place + 1 :])
            if cell[place] == level and (twin, seed) in self.values:
                gaps.setdefault(twin, []).append(value - self.values[twin, seed])
        over = [float(np.mean(found)) for found in gaps.values()]
        ends = {"contexts": len(over), "smallest": min(over, default=np.nan), "largest": max(over, default=np.nan)}
        names = {"axis": self.axes[place], "level": level, "base": self.levels[place][0]}
        alone = dict.fromkeys(("other_axis", "other_level", "other_base"))
        return {**names, **alone, **ends, **self._effect(term)}

    def interaction(self, term: Term) -> dict[str, Any]:
        """The row of a pair of levels, with the effect of the first one beside the second."""
        (one, two), (level, other) = term.places, term.levels
        contrast = self._unit(Term((one,), (level,)))
        for name in self.levels[two][1:]:
            contrast += ((name == other) - 1 / len(self.levels[two])) * self._unit(Term((one, two), (level, name)))
        there = self._estimates(contrast)
        names = {"axis": self.axes[one], "level": level, "base": self.levels[one][0]}
        names |= {"other_axis": self.axes[two], "other_level": other, "other_base": self.levels[two][0]}
        return {**names, "effect_there": np.mean(there) if len(there) else np.nan, "contexts": 0, **self._effect(term)}

    def _effect(self, term: Term) -> dict[str, Any]:
        sample = self._estimates(self._unit(term))
        found: dict[str, Any] = dict(zip(("difference", "low", "high"), t_interval(sample), strict=True))
        return found | {"n": len(sample), "p": sign_flip_p(sample), "aliases": "" if len(sample) else self._aliases(term)}

    def _estimates(self, contrast: np.ndarray) -> np.ndarray:
        """The contrast of the coefficients, of each seed whose runs determine it."""
        found = [(weights @ contrast, design, y) for design, weights, y in self.seeds]
        return np.array([w @ y for w, design, y in found if np.allclose(design.T @ w, contrast, atol=1e-8)])

    def _aliases(self, term: Term) -> str:
        """The terms whose coefficient would have to be zero, one of them alone, for the runs to determine this one."""
        found = []
        for place, other in enumerate(self.terms, start=1):
            design, contrast = np.delete(self.design, place, axis=1), np.delete(self._unit(term), place)
            if other != term and np.allclose(design.T @ (np.linalg.pinv(design.T) @ contrast), contrast, atol=1e-8):
                found.append(str(other))
        return " or ".join(found) or "several others at once"

    def _unit(self, term: Term) -> np.ndarray:
        return np.array([0.0, *(float(term == one) for one in self.terms)])

    def _design(self, cells: list[Cell]) -> np.ndarray:
        """A row per cell: 1, and the x of each term."""
        rows = []
        for cell in cells:
            x = {(i, level): (cell[i] == level) - 1 / len(found) for i, found in enumerate(self.levels) for level in found}
            rows.append([1.0, *(np.prod([x[at] for at in zip(*term, strict=True)]) for term in self.terms)])
        return np.array(rows)
