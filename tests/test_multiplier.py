"""Compute multipliers of planted curves come back; where the data cannot tell, that is what is said."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis import compute_multiplier
from analysis.multiplier import Multiplier

BUDGETS = np.geomspace(1e15, 2.56e17, 5)
LAWS = [(1.7, 2000.0, 0.2), (0.0, 40.0, 0.08), (0.5, 5e5, 0.35)]


def table(
    gain: float = 1.33,
    law: tuple[float, float, float] = LAWS[0],
    *,
    seeds: int = 5,
    noise: float = 0.0,
    growth: float = 0.0,
    budgets: np.ndarray = BUDGETS,
    draw: int = 0,
) -> pd.DataFrame:
    """Two arms on one law, the second as if it had gain times the compute, times growth for each e-fold of it."""
    floor, height, exponent = law
    generator, rows = np.random.default_rng(draw), []
    for seed in range(seeds):
        shared = generator.normal(0, noise)
        for flops in budgets:
            for arm, worth in (("base", 1.0), ("arm", gain * (flops / budgets[0]) ** growth)):
                own = shared + generator.normal(0, noise / 2)
                rows.append((arm, seed, flops, floor + height * (worth * flops) ** -exponent + own))
    return pd.DataFrame(rows, columns=["arm", "seed", "flops", "loss"])


def multiplier(frame: pd.DataFrame, **rest: int) -> Multiplier:
    return compute_multiplier(frame, "arm", "base", **rest)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("gain", [1.33, 0.6, 3.1])
@pytest.mark.parametrize("many", [3, 5])
def test_a_constant_shift_is_the_multiplier(law: tuple[float, float, float], gain: float, many: int) -> None:
    found = multiplier(table(gain, law, seeds=2, budgets=BUDGETS[:many]), draws=20)
    inside = found.budgets[found.budgets["outside"] == ""]
    assert len(inside) == many - 1 and inside["multiplier"].tolist() == pytest.approx([gain] * len(inside), rel=1e-6)
    assert found.misfit < 1e-6 and found.crossings == ()


def test_what_lies_beyond_the_data_is_a_bound_and_no_number() -> None:
    better, worse = multiplier(table(1.5)).budgets, multiplier(table(0.7)).budgets
    assert better["outside"].tolist() == ["", "", "", "", "above"] and worse["outside"].tolist() == ["below", "", "", "", ""]
    for last in (better.iloc[-1], worse.iloc[0]):
        assert math.isnan(last["multiplier"]) and last["bound"] == pytest.approx(1.0)
    assert (better.iloc[-1]["low"], better.iloc[-1]["high"]) == (pytest.approx(1.0), math.inf)
    assert (worse.iloc[0]["low"], worse.iloc[0]["high"]) == (0.0, pytest.approx(1.0))
    told = multiplier(table(1.5)).sentences()
    assert "base needs more than 1.00\u00d7 the compute of arm: beyond its budgets." in told[4]
    assert "base needs 1.50\u00d7 [1.50, 1.50] the compute of arm." in told[0]


def test_budgets_of_the_baseline_need_not_be_those_of_the_arm() -> None:
    frame = table(1.5, budgets=np.geomspace(5e14, 1e18, 7))
    mine = table(1.5, budgets=np.geomspace(1e15, 4e17, 4))
    both = pd.concat([frame[frame["arm"] == "base"], mine[mine["arm"] == "arm"]])
    assert multiplier(both, draws=20).budgets["multiplier"].tolist() == pytest.approx([1.5] * 4)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 95 % intervals from 4 seeds; quantiles of the same draws hold it 80 % of the time."""
    held, trends = [], []
    for draw in range(100):
        found = multiplier(table(seeds=4, noise=0.003, budgets=BUDGETS[:4], draw=draw), draws=50)
        inside = found.budgets.iloc[:3]
        held += ((inside["low"] < 1.33) & (inside["high"] > 1.33)).tolist()
        trends += [found.trend[1] < 0 < found.trend[2]] if math.isfinite(found.trend[0]) else []
    assert 0.90 <= np.mean(held) <= 0.99 and 0.88 <= np.mean(trends) <= 0.99


def test_pairing_by_seed_takes_what_seeds_share_out_of_the_interval() -> None:
    paired = table(noise=0.003)
    strange = paired.assign(seed=np.where(paired["arm"] == "arm", (paired["seed"] + 1) % 5, paired["seed"]))
    widths = [(found["high"] - found["low"]).iloc[1] for found in (multiplier(paired).budgets, multiplier(strange).budgets)]
    assert widths[0] < 0.8 * widths[1]


def test_a_gain_that_shrinks_with_compute_has_a_slope_below_zero() -> None:
    found = multiplier(table(2.0, growth=-0.05, noise=0.0005, budgets=np.geomspace(1e15, 1e18, 6)))
    slope, low, high = found.trend
    assert slope == pytest.approx(-0.05, abs=0.01) and low < -0.05 < high < 0
    assert "The gain shrinks with compute: slope" in found.sentences()[-1]


def test_a_trend_needs_three_budgets_with_a_multiplier() -> None:
    found = multiplier(table(1.4, budgets=BUDGETS[:3]))
    assert all(map(math.isnan, found.trend))
    assert "needs 3 budgets with a multiplier; there are 2" in found.sentences()[-1]


def test_curves_that_cross_say_where() -> None:
    frame = table(1.0)
    arm = frame["arm"] == "arm"
    frame.loc[arm, "loss"] = 1.7 + 2000.0 * 3e16**-0.2 * (frame["flops"] / 3e16) ** -0.3  # steeper, and equal at 3e16
    found = multiplier(frame)
    assert found.crossings == pytest.approx([3e16])
    assert found.budgets["outside"].tolist() == ["below", "", "", "", "above"]
    assert (found.budgets["multiplier"][1:4] > 1).tolist() == [False, False, True] and found.trend[1] > 0
    assert any("The curves cross at 30.0P FLOPs" in sentence for sentence in found.sentences())


def test_the_same_arm_twice_neither_wins_nor_crosses() -> None:
    found = multiplier(table(1.0))
    assert found.budgets["multiplier"].tolist() == pytest.approx([1.0] * 5) and found.crossings == ()


def test_one_seed_gives_numbers_without_intervals() -> None:
    found = multiplier(table(seeds=1))
    assert found.budgets["multiplier"][:4].tolist() == pytest.approx([1.33] * 4)
    assert found.budgets["low"][:4].isna().all() and "1.33\u00d7 the compute" in found.sentences()[0]


def test_a_curve_that_no_law_describes_says_so() -> None:
    frame = table()
    frame.loc[frame["flops"] == BUDGETS[2], "loss"] *= 1.05
    assert multiplier(frame, draws=20).misfit > 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="seed"), "no column seed; it has arm, flops, loss"),
        (lambda frame: frame[frame["arm"] == "arm"], "no run of 'base'; the arms are: arm"),
        (lambda frame: frame[frame["flops"] < 1e16], "arm has 2 budgets in flops; a curve needs at least 3"),
        (lambda frame: frame.assign(loss=np.inf), "loss of arm: numbers above 0 are expected in every row"),
        (lambda frame: frame.drop(index=1), r"seed 0 of arm has no run of 1e\+15 flops"),
        (lambda frame: frame[(frame["arm"] == "arm") | (frame["seed"] > 0)], "seed 0: arm and base have not both"),
    ],
)
def test_tables_that_cannot_be_used(change: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        multiplier(change(table()))  # type: ignore[operator]
