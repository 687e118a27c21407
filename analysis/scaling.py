"""Scaling laws: how a loss falls with parameters, tokens and experts, fitted to anyone's table of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

HUBER = 1e-3  # of a residual of the log loss: larger ones count linearly, so that a bad run does not bend the law
EXPONENTS = np.linspace(0.02, 1.5, 40)  # where the search for alpha and beta begins
STARTS = 6  # of its cells that are refined
CONFIDENCE = 0.95


@dataclass(frozen=True)
class ScalingLaw:
    """loss = E + A / n^alpha + B / d^beta.

    Paper: Hoffmann 2022, arXiv:2203.15556 (approach 3), fitted as Besiroglu 2024, arXiv:2404.10102 correct it: Huber on the
    log loss, summed. Differs: the search runs over the two exponents alone, since given these the rest is linear.
    """

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    table: pd.DataFrame  # of columns n, d, loss, unit: what it was fitted to

    def predict(self, n: Any, d: Any) -> Any:
        """The loss of n parameters after d tokens; arrays or numbers."""
        return self.E + self.A * np.asarray(n, float) ** -self.alpha + self.B * np.asarray(d, float) ** -self.beta

    def optimum(self, flops: float, per_parameter_and_token: float = 6.0) -> tuple[float, float]:
        """The parameters and tokens that a budget of training FLOPs = 6 n d is best spent on."""
        product = flops / per_parameter_and_token
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        n = ratio * product ** (self.beta / (self.alpha + self.beta))
        return n, product / n

    def resampled(self, draws: int = 200, seed: int = 0) -> list[ScalingLaw]:
        """The laws of bootstrap samples. Drawn are whole units (seeds), where the table has them, else rows."""
        generator, rows = np.random.default_rng(seed), self.table.groupby("unit").indices
        units = list(rows)
        drawn = (generator.choice(len(units), len(units)) for _ in range(draws))
        start = np.array([np.log(self.E), np.log(self.A), np.log(self.B), self.alpha, self.beta])
        return [_fit(self.table.iloc[np.concatenate([rows[units[i]] for i in chosen])], [start]) for chosen in drawn]

    def intervals(self, draws: int = 200, seed: int = 0) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of the five numbers."""
        laws = [vars(law) for law in self.resampled(draws, seed)]
        return {name: _interval([law[name] for law in laws]) for name in ("E", "A", "alpha", "B", "beta")}

    @cached_property
    def held_out(self) -> pd.DataFrame:
        """The rows of the largest n, and what the law fitted to all smaller ones says of them: predicted, error (relative)."""
        largest = self.table["n"] == self.table["n"].max()
        rows, smaller = self.table[largest], self.table[~largest]
        predicted = _fit(smaller).predict(rows["n"], rows["d"])
        return rows.assign(predicted=predicted, error=predicted / rows["loss"] - 1)


def fit_scaling_law(
    frame: pd.DataFrame, n: str = "params", d: str = "tokens", loss: str = "loss", unit: str | None = None
) -> ScalingLaw:
    """The law of a table with one run per row.

    Args:   n, d, loss: its columns of parameters, training tokens and final loss (nats). unit: the column of what a bootstrap
            may draw again, such as the seed; None: each row by itself.
    Raises: ValueError: a missing column, numbers that are not above 0, fewer than 5 rows, or 2 sizes or lengths at least.
    """
    table = checked(frame, {"n": n, "d": d, "loss": loss}, unit)
    for name, column in (("n", n), ("d", d)):
        if table[name].nunique() < 3:
            raise ValueError(f"{column} takes {table[name].nunique()} values; an exponent needs at least 3")
    return _fit(table)


@dataclass(frozen=True)
class RoutedLaw:
    """log10 loss = a log10 n + b log10 e^ + c log10 n log10 e^ + d, with e^ between e_start and e_max as the experts e grow.

    1 / e^ = 1 / (e - 1 + 1 / (1 / e_start - 1 / e_max)) + 1 / e_max

    Paper: Clark 2022, arXiv:2202.01169 (equation 1 and section 5).
    """

    a: float
    b: float
    c: float
    d: float
    e_start: float
    e_max: float

    def effective(self, e: Any) -> Any:
        """The number of experts that e of them amount to."""
        return 1 / (1 / (np.asarray(e, float) - 1 + 1 / (1 / self.e_start - 1 / self.e_max)) + 1 / self.e_max)

    def predict(self, n: Any, e: Any) -> Any:
        """The loss of n dense parameters with e experts in each routed layer."""
        log_n, log_e = np.log10(np.asarray(n, float)), np.log10(self.effective(e))
        return 10 ** (self.a * log_n + self.b * log_e + self.c * log_n * log_e + self.d)


def fit_routed_law(frame: pd.DataFrame, n: str = "params", e: str = "experts", loss: str = "loss") -> RoutedLaw:
    """The law of routed models, over their dense size and their number of experts. Raises ValueError as fit_scaling_law."""
    table = checked(frame, {"n": n, "e": e, "loss": loss})
    log_n, experts, wanted = np.log10(table["n"]), table["e"].to_numpy(float), np.log10(table["loss"])
    middle = log_n.mean()

    def law(saturation: Sequence[float]) -> tuple[RoutedLaw, np.ndarray]:
        """The best linear part for these ends of the curve, and what it leaves."""
        e_start = 1 + np.exp(saturation[0])
        ends = RoutedLaw(0, 0, 0, 0, e_start, e_start * (1 + np.exp(saturation[1])))
        log_e = np.log10(ends.effective(experts))
        columns = np.stack([log_n - middle, log_e, (log_n - middle) * log_e, np.ones_like(log_e)], axis=1)
        (a, b, c, d), *_ = np.linalg.lstsq(columns, wanted, rcond=None)
        linear = RoutedLaw(*map(float, (a, b - c * middle, c, d - a * middle, ends.e_start, ends.e_max)))
        return linear, columns @ [a, b, c, d] - wanted

    starts = [(x, y) for x in (-2.0, 0.0, 2.0) for y in (1.0, 4.0, 7.0)]
    fits = [
        least_squares(lambda ends: law(ends)[1], start, bounds=([-7, -3], [7, 14]), xtol=1e-15, ftol=1e-15, gtol=1e-15)
        for start in starts
    ]
    return law(min(fits, key=lambda fit: fit.cost).x)[0]


@dataclass(frozen=True)
class PowerLaw:
    """y = factor * product over the inputs x of x^exponents[x], as of the best learning rate by parameters and tokens."""

    factor: float
    exponents: dict[str, float]

    def predict(self, **inputs: Any) -> Any:
        return self.factor * np.prod([np.asarray(inputs[name], float) ** p for name, p in self.exponents.items()], axis=0)


def fit_power_law(frame: pd.DataFrame, inputs: Sequence[str], output: str) -> PowerLaw:
    """A straight line between logarithms. Raises ValueError as fit_scaling_law."""
    table = checked(frame, {name: name for name in (*inputs, output)})
    columns = np.stack([np.ones(len(table)), *(np.log(table[name]) for name in inputs)], axis=1)
    (constant, *slopes), *_ = np.linalg.lstsq(columns, np.log(table[output]), rcond=None)
    return PowerLaw(float(np.exp(constant)), dict(zip(inputs, map(float, slopes), strict=True)))


def checked(frame: pd.DataFrame, columns: Mapping[str, str], unit: str | None = None) -> pd.DataFrame:
    """The columns under their names in a law, and unit. Raises ValueError, as fit_scaling_law."""
    wanted = [*columns.values(), *([unit] if unit else [])]
    if missing := [name for name in wanted if name not in frame]:
        raise ValueError(f"the table has no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
    table = pd.DataFrame({name: frame[column].astype(float).to_numpy() for name, column in columns.items()})
    table["unit"] = np.arange(len(frame)) if unit is None else pd.factorize(frame[unit])[0]
    for name, column in columns.items():
        if not (np.isfinite(table[name]) & (table[name] > 0)).all():
            raise ValueError(f"{column}: numbers above 0 are expected in every row; leave diverged runs out and say so")
    if len(table) < 5:
        raise ValueError(f"{len(table)} rows: at least 5 are needed, one for each number of the law")
    return table


def _fit(table: pd.DataFrame, starts: Sequence[np.ndarray] = ()) -> ScalingLaw:
    """From these starts, or else from the best cells of a grid over the exponents."""
    log_n, log_d, log_loss = (np.log(table[name].to_numpy(float)) for name in ("n", "d", "loss"))
    n_middle, d_middle = log_n.mean(), log_d.mean()
    x, y = log_n - n_middle, log_d - d_middle  # so that the terms do not stand in for each other

    def terms(theta: np.ndarray) -> np.ndarray:
        """(3, rows): E, A / n^alpha and B / d^beta."""
        e, a, b, alpha, beta = theta
        return np.exp(np.stack([np.full_like(x, e), a - alpha * x, b - beta * y]))

    def residual(theta: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.log(terms(theta).sum(0)) - log_loss
        return found

    def slope(theta: np.ndarray) -> np.ndarray:
        share = terms(theta) / terms(theta).sum(0)
        return np.stack([*share, -share[1] * x, -share[2] * y], axis=1)

    moved = [theta + np.array([0, -theta[3] * n_middle, -theta[4] * d_middle, 0, 0]) for theta in starts]
    tight = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 400}
    found = []
    for start in moved or _starts(x, y, np.exp(log_loss)):
        plain = least_squares(residual, start, slope, **tight)
        found.append(least_squares(residual, plain.x, slope, loss="huber", f_scale=HUBER, **tight))
    e, a, b, alpha, beta = min(found, key=lambda fit: fit.cost).x
    numbers = {
        "E": np.exp(e),
        "A": np.exp(a + alpha * n_middle),
        "alpha": alpha,
        "B": np.exp(b + beta * d_middle),
        "beta": beta,
    }
    return ScalingLaw(**{name: float(number) for name, number in numbers.items()}, table=table)


def _starts(x: np.ndarray, y: np.ndarray, loss: np.ndarray) -> list[np.ndarray]:
    """For each pair of exponents the rest is a linear least-squares problem: the best cells of the grid."""
    u, v = np.exp(-np.outer(EXPONENTS, x)), np.exp(-np.outer(EXPONENTS, y))
    k = len(EXPONENTS)
    columns = np.stack(np.broadcast_arrays(np.ones(len(x)), u[:, None, :], v[None, :, :]), axis=-1) / loss[:, None]
    columns = columns.reshape(k * k, len(x), 3)  # divided by the loss: relative residuals are those of the logarithm
    gram = np.swapaxes(columns, 1, 2) @ columns
    weights = np.linalg.solve(gram + 1e-12 * np.eye(3), columns.sum(1)[..., None])[..., 0]
    weights = np.maximum(weights, 1e-6 * loss.min())
    left = ((columns @ weights[..., None])[..., 0] - 1) ** 2
    best = np.argsort(left.sum(1))[:STARTS]
    return [np.array([*np.log(weights[i]), EXPONENTS[i // k], EXPONENTS[i % k]]) for i in best]


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
