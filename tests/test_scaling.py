"""Scaling laws come back from tables that they have made, and say how sure they are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis import fit_power_law, fit_routed_law, fit_scaling_law, fit_step_law, fit_surface
from analysis.scaling import RoutedLaw

PUBLISHED = (1.69, 406.4, 0.34, 410.7, 0.28)  # Hoffmann 2022
LAWS = [PUBLISHED, (1.8, 120.0, 0.25, 900.0, 0.35), (0.5, 50.0, 0.2, 80.0, 0.22), (2.2, 5000.0, 0.5, 2000.0, 0.4)]


def table(law: tuple[float, ...], noise: float = 0.0, seeds: int = 1, sizes: int = 6) -> pd.DataFrame:
    """Every size with every length; the noise is a seed's own, as it is where arms share it, and a little more."""
    e, a, alpha, b, beta = law
    draw = np.random.default_rng(0)
    rows = [(n, d, s) for n in np.geomspace(4e7, 1.6e10, sizes) for d in np.geomspace(1e9, 1e12, 6) for s in range(seeds)]
    frame = pd.DataFrame(rows, columns=["params", "tokens", "seed"])
    shift = draw.normal(0, noise, seeds)[frame["seed"]] + draw.normal(0, noise / 4, len(frame))
    frame["loss"] = (e + a * frame["params"] ** -alpha + b * frame["tokens"] ** -beta) * np.exp(shift)
    return frame


@pytest.mark.parametrize("law", LAWS)
def test_a_law_without_noise_comes_back_exactly(law: tuple[float, ...]) -> None:
    found = fit_scaling_law(table(law))
    assert [found.E, found.A, found.alpha, found.B, found.beta] == pytest.approx(law, rel=1e-6)
    assert found.held_out["error"].abs().max() < 1e-6 and found.held_out["n"].unique() == [1.6e10]


def test_one_bad_run_does_not_bend_the_law() -> None:
    frame = table(PUBLISHED)
    frame.loc[7, "loss"] *= 1.3
    assert fit_scaling_law(frame).alpha == pytest.approx(0.34, abs=0.002)


def test_the_best_use_of_a_budget() -> None:
    law = fit_scaling_law(table(PUBLISHED))
    n, d = law.optimum(1e21)
    assert 6 * n * d == pytest.approx(1e21)
    around = [law.predict(n * factor, d / factor) for factor in (0.9, 1.0, 1.1)]
    assert around[1] == min(around)


def test_intervals_hold_the_truth_and_are_drawn_by_seed() -> None:
    """What all runs of a seed share is known no better for more of its runs, as rows drawn one by one would say."""
    frame = table(PUBLISHED, noise=0.004, seeds=8)
    by_seed, by_row = (fit_scaling_law(frame, unit=unit) for unit in ("seed", None))
    for name, (low, high) in by_seed.intervals(draws=60).items():
        value = dict(zip(("E", "A", "alpha", "B", "beta"), PUBLISHED, strict=True))[name]
        assert low - 0.02 * value <= value <= high + 0.02 * value
    spread = [np.std([other.predict(1e9, 3e10) for other in law.resampled(draws=60)]) for law in (by_seed, by_row)]
    assert spread[0] > 2 * spread[1]


def test_the_routed_law_comes_back() -> None:
    truth = RoutedLaw(-0.082, -0.108, 0.009, 1.104, 1.847, 314.0)  # Clark 2022, S-BASE
    n, e = (axis.ravel() for axis in np.meshgrid(np.geomspace(1.5e7, 1.3e9, 6), 2.0 ** np.arange(1, 10)))
    found = fit_routed_law(pd.DataFrame({"params": n, "experts": e, "loss": truth.predict(n, e)}))
    assert list(vars(found).values()) == pytest.approx(list(vars(truth).values()), rel=1e-5)
    assert truth.effective(1) == pytest.approx(truth.e_start)


def test_a_power_law_comes_back() -> None:
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(6e7, 1e9, 4), np.geomspace(2e9, 1e11, 5)))
    found = fit_power_law(pd.DataFrame({"n": n, "d": d, "lr": 1.79 * n**-0.713 * d**0.307}), ["n", "d"], "lr")
    assert (found.factor, *found.exponents.values()) == pytest.approx((1.79, -0.713, 0.307))
    assert found.predict(n=1e8, d=1e10) == pytest.approx(1.79 * 1e8**-0.713 * 1e10**0.307)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="loss"), "no column loss; it has params, tokens, seed"),
        (lambda frame: frame.assign(loss=np.nan), "loss: numbers above 0 are expected in every row"),
        (lambda frame: frame.head(4), "4 rows: at least 5 are needed"),
        (lambda frame: frame.assign(params=1e8), "params takes 1 values; an exponent needs at least 3"),
    ],
)
def test_tables_that_cannot_be_fitted(change: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_scaling_law(change(table(PUBLISHED)))  # type: ignore[operator]


CURVE = np.array([[0.02, 0.004], [0.004, 0.012]])  # of a valley, per octave


def valley(sizes: int = 4, lengths: int = 3, reach: int = 3) -> pd.DataFrame:
    """For each n and d a grid around the Step Law's optimum, in steps of an octave, not centred on it."""
    rows = []
    for n in np.geomspace(6e7, 1e9, sizes):
        for d in np.geomspace(2e9, 1e11, lengths):
            best = np.log2([1.79 * n**-0.713 * d**0.307, 0.58 * d**0.571])
            first = np.floor(best) - reach + 1
            for i, j in np.ndindex(2 * reach, 2 * reach):
                place = first + np.array([i, j])
                rows.append((n, d, *2**place, 2.0 + (place - best) @ CURVE @ (place - best) / 2))
    return pd.DataFrame(rows, columns=["params", "tokens", "lr", "bs", "loss"])


def test_the_step_law_comes_back() -> None:
    found = fit_step_law(valley())
    assert (found.lr.factor, *found.lr.exponents.values()) == pytest.approx((1.79, -0.713, 0.307))
    assert (found.bs.factor, *found.bs.exponents.values()) == pytest.approx((0.58, 0.571))
    assert (found.cells["left_out"] == "").all() and found.cells["loss"].tolist() == pytest.approx([2.0] * 12)
    held = found.held_out
    assert held["n"].unique().tolist() == pytest.approx([1e9])
    assert held[["lr_error", "bs_error", "regret"]].abs().max(axis=None) < 1e-9


def test_a_law_that_bends_is_found_out_on_the_largest_size() -> None:
    frame = valley()
    large = frame["params"] == frame["params"].max()
    frame.loc[large, "lr"] *= 2  # its best rate is twice the one that the others foretell
    held = fit_step_law(frame).held_out
    assert held["lr_error"].tolist() == pytest.approx([-0.5] * 3) and held["regret"].tolist() == pytest.approx([0.01] * 3)


def test_a_surface_knows_its_minimum_and_what_any_other_point_costs() -> None:
    frame = valley(1, 1)
    found = fit_surface(frame)
    assert found.edge == () and found.loss == pytest.approx(2.0)
    assert found.regret(2 * found.lr, found.bs) == pytest.approx(0.01) and found.regret(
        found.lr, found.bs / 4
    ) == pytest.approx(0.024)
    assert found.predict(frame["lr"], frame["bs"]) == pytest.approx(frame["loss"].to_numpy())


def test_a_minimum_beyond_the_grid_is_said_to_lie_at_its_edge() -> None:
    frame = valley(1, 1)
    best = fit_surface(frame)
    left = frame[frame["lr"] < best.lr / 2]
    found = fit_surface(frame[frame["lr"] < best.lr])
    assert found.edge == ("lr",) and found.lr == pytest.approx(frame.loc[frame["lr"] < best.lr, "lr"].max())
    around = found.predict(found.lr, found.bs * 2.0 ** np.array([-0.1, 0.0, 0.1]))
    assert np.argmin(around) == 1  # on the edge it is the lowest
    with pytest.raises(ValueError, match="lr takes 2 values; a parabola needs at least 3"):
        fit_surface(left)
    hill = fit_surface(frame.assign(loss=4 - frame["loss"]))
    assert hill.edge == ("lr", "bs")


def test_cells_that_tell_nothing_are_left_out_with_the_reason() -> None:
    cells = [cell for _, cell in valley().groupby(["params", "tokens"])]
    cells[0] = cells[0][cells[0]["lr"] < fit_surface(cells[0]).lr]  # cut at the minimum
    cells[-1] = cells[-1].head(4)
    found = fit_step_law(pd.concat(cells))
    reasons = found.cells.loc[found.cells["left_out"] != "", "left_out"].tolist()
    assert reasons == [
        "its lowest point lies at the edge in lr",
        "4 rows: at least 5 are needed, one for each number of the law",
    ]
    assert found.lr.exponents == pytest.approx({"n": -0.713, "d": 0.307})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="bs"), "no column bs"),
        (lambda frame: frame[frame["params"] < 7e7], "3 cells have their minimum inside, with one n at most"),
        (lambda frame: frame[frame["params"] < 3e8].head(4 * 36), "4 rows: at least 5 are needed"),
    ],
)
def test_tables_without_a_step_law(change: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_step_law(change(valley()))  # type: ignore[operator]
