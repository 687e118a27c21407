"""Verdicts on registered claims: seldom wrong, as powerful as promised, and the same numbers as SciPy's and as by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.sample import bca_interval, beyond_p, equivalence_p, sign_flip_p, t_interval
from analysis.verdict import ALPHA, POWER, Judgement, judge, seeds_for, seeds_needed, seeds_wanted, step_down

STUDIES = 1000
ROOM = 3 * math.sqrt(ALPHA * (1 - ALPHA) / STUDIES)  # three standard errors of a share of 5 %
NOISES = {
    "normal": lambda rng, size: rng.normal(0, 0.02, size),
    "heavy tails": lambda rng, size: 0.01 * rng.standard_t(2.5, size),
}


def studies(noise: str, means: list[float], n: int, seed: int = 0) -> np.ndarray:
    """(study, claim, seed): same-seed differences of arms that share a baseline, so that the claims are not independent."""
    draws = NOISES[noise](np.random.default_rng(seed), (STUDIES, len(means) + 1, n))
    return draws[:, :-1] - draws[:, -1:] + np.array(means)[:, None]


def share(draws: np.ndarray, predicted: list[str], margin: float, wrong: dict[int, set[str]]) -> float:
    """The share of studies in which a claim gets one of the verdicts given for it."""
    found = [judge(predicted, list(study), [margin] * len(predicted)) for study in draws]
    return float(np.mean([any(one[i].verdict in words for i, words in wrong.items()) for one in found]))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("claims", "n"), [(1, 6), (3, 8), (3, 12)])
def test_null_studies_seldom_end_with_a_wrong_verdict(noise: str, claims: int, n: int) -> None:
    draws, directions = studies(noise, [0.0] * claims, n), (["lower", "higher"] * claims)[:claims]
    wrong = share(draws, directions, 0.02, {i: {"supported", "refuted"} for i in range(claims)})
    assert 0 < wrong <= ALPHA + ROOM


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("claims", "n"), [(1, 7), (3, 12)])
def test_a_difference_of_just_the_margin_is_seldom_called_equivalent(noise: str, claims: int, n: int) -> None:
    draws = studies(noise, [0.04, -0.04, 0.04][:claims], n)
    wrong = share(draws, ["equivalent"] * claims, 0.04, {i: {"equivalent"} for i in range(claims)})
    assert wrong <= ALPHA + ROOM


def test_a_difference_within_the_margin_is_seldom_called_larger() -> None:
    draws = studies("normal", [0.0399] * 3, 12)
    assert share(draws, ["equivalent"] * 3, 0.04, {i: {"refuted"} for i in range(3)}) <= ALPHA + ROOM


def test_the_error_holds_over_a_mixture_of_nothing_the_margin_and_a_large_effect() -> None:
    """The worst case of one family with two kinds of tests: each kind alone at 5 % would add up."""
    draws = studies("normal", [0.0, 0.0, 0.06, 0.06, 0.5], 12, seed=1)
    side = {"supported", "refuted"}
    wrong = {0: side, 1: side, 2: {"equivalent", "supported"}, 3: {"equivalent", "supported"}, 4: {"equivalent", "refuted"}}
    assert share(draws, ["lower", "lower", "lower", "lower", "higher"], 0.06, wrong) <= ALPHA + ROOM


def test_a_planted_effect_is_found_with_the_promised_power() -> None:
    sd = 0.02 * math.sqrt(2)
    n = seeds_for(0.03, sd, ALPHA, least=6)
    assert n == 10  # by a table: 80 % power at an effect of 1.06 sd takes 10 pairs (1.00 at n = 10)
    found = share(studies("normal", [-0.03], int(n)), ["lower"], math.nan, {0: {"supported"}})
    assert POWER - 0.06 <= found <= 0.92  # the sign-flip p has few values at ten seeds, and the t interval must agree
    assert share(studies("normal", [-0.03], int(n)), ["higher"], math.nan, {0: {"refuted"}}) == found


def test_equivalence_is_found_with_the_promised_power() -> None:
    sd = 0.02 * math.sqrt(2)
    n = seeds_for(0.03, sd, ALPHA, least=6, sides=1, power=0.9)
    found = share(studies("normal", [0.0], int(n)), ["equivalent"], 0.03, {0: {"equivalent"}})
    assert POWER - 3 * math.sqrt(POWER * (1 - POWER) / STUDIES) <= found <= 0.92  # n is a whole number


def test_the_numbers_are_those_of_scipy() -> None:
    rng = np.random.default_rng(3)
    for n in (2, 5, 9, 12):
        values = rng.normal(0.01, 0.02, n)
        test = stats.ttest_1samp(values, 0.0)
        interval = test.confidence_interval(0.95)
        assert t_interval(values) == pytest.approx((values.mean(), interval.low, interval.high))
        exact = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip_p(values) == pytest.approx(exact.pvalue)
        for margin in (0.005, 0.03):
            sides = [
                stats.ttest_1samp(values, edge, alternative=side).pvalue
                for edge, side in ((-margin, "greater"), (margin, "less"))
            ]
            assert equivalence_p(values, margin) == pytest.approx(max(sides))
    many = rng.normal(0.004, 0.02, 60)
    assert sign_flip_p(many) == pytest.approx(stats.ttest_1samp(many, 0.0).pvalue)


def test_the_bootstrap_interval_follows_the_skew_and_needs_eight_seeds() -> None:
    values = np.array([0.0, 0.001, 0.002, 0.001, 0.0, 0.002, 0.001, 0.03])
    _, low, _ = t_interval(values)
    bca_low, bca_high = bca_interval(values)
    assert low < 0 < bca_low < values.mean() < bca_high and bca_high - values.mean() > values.mean() - bca_low
    assert bca_interval(values) == (bca_low, bca_high)  # the same every time
    assert all(map(math.isnan, bca_interval(values[:7]))) and bca_interval(np.full(9, 0.5)) == (0.5, 0.5)


def test_tost_by_hand() -> None:
    # mean 2, sd 1, n 3, margin 5: t = 3 sqrt(3) = 5.196 on 2 degrees of freedom, P(T > t) = (1 - t / sqrt(t^2 + 2)) / 2
    by_hand = (1 - math.sqrt(27 / 29)) / 2
    assert equivalence_p(np.array([1.0, 2.0, 3.0]), 5.0) == pytest.approx(by_hand)
    assert equivalence_p(np.array([1.0, 2.0, 3.0]), 2.0) == 0.5 and equivalence_p(np.array([1.0, 2.0, 3.0]), 1.0) > 0.5
    assert equivalence_p(np.zeros(3), 1.0) == 0.0 and equivalence_p(np.ones(3), 1.0) == 0.5
    assert equivalence_p(np.array([1.0]), 2.0) == beyond_p(np.array([]), 1.0) == 1.0 and math.isnan(
        equivalence_p(np.ones(3), math.nan)
    )
    assert beyond_p(np.array([2.0, 3.0, 4.0]), 1.0) == 2 / 8 and beyond_p(np.array([0.5, 0.6]), 1.0) == 1.0


def test_the_correction_by_hand() -> None:
    # three claims; .001 has 3 claims left, .004 too (the first one keeps a test); .01 is the second test of the first claim
    p = np.array([[0.001, 0.01, math.nan], [0.004, 0.5, math.nan], [0.3, math.nan, math.nan]])
    found = step_down(p)
    assert found[0, :2].tolist() == pytest.approx([0.003, 0.03]) and found[1, 0] == pytest.approx(0.012)
    assert found[2, 0] == pytest.approx(0.6)  # two claims are left: the second and its own
    assert found[1, 1] == pytest.approx(0.6) and np.isnan(found[:, 2]).all()  # not below the one before it


SEEDS = np.array([-0.002, 0.001, 0.002, 0.0, -0.001, 0.001, -0.001, 0.0])


def one(predicted: str, mean: float, margin: float, n: int = 8) -> Judgement:
    (found,) = judge([predicted], [mean + SEEDS[:n] - SEEDS[:n].mean()], [margin])
    return found


@pytest.mark.parametrize(
    ("predicted", "mean", "verdict", "holds"),
    [
        ("lower", -0.05, "supported", True),
        ("higher", 0.05, "supported", True),
        ("lower", 0.05, "refuted", False),
        ("higher", -0.05, "refuted", False),
        ("lower", -0.003, "equivalent", False),  # it is lower, by less than would matter
        ("lower", 0.0, "equivalent", False),
        ("equivalent", 0.003, "equivalent", True),
        ("equivalent", -0.05, "refuted", False),
        ("equivalent", 0.0101, "inconclusive", None),
    ],
)
def test_the_four_words(predicted: str, mean: float, verdict: str, holds: bool | None) -> None:
    found = one(predicted, mean, 0.01)
    assert (found.verdict, found.holds, found.n) == (verdict, holds, 8)


def test_below_the_seeds_needed_every_verdict_is_open_and_says_how_many_would_do() -> None:
    for predicted in ("lower", "equivalent"):
        found = one(predicted, -0.05 if predicted == "lower" else 0.0, 0.01, n=5)
        assert found.verdict == "inconclusive" and found.holds is None
    assert judge(["lower"], [np.array([])], [0.01])[0].verdict == "inconclusive"
    assert judge([], [], []) == []


def test_how_many_seeds_would_do() -> None:
    assert seeds_wanted("lower", -0.05 + SEEDS[:5], 0.01, 1) == 6  # a difference so clear needs only what any claim needs
    assert seeds_wanted("lower", np.array([]), 0.01, 2) == seeds_needed(2)
    unclear = np.array([0.1, -0.1, 0.3, -0.3, 0.2, -0.2, 0.0])  # mean 0, sd 0.216
    assert seeds_wanted("higher", unclear, 0.1, 1) == 39  # (1.960 + 0.842)^2 0.216^2 / 0.1^2 = 36.6, and two for the t
    assert seeds_wanted("equivalent", unclear, 0.1, 1) == 42  # (1.645 + 1.282)^2 0.216^2 / 0.1^2 = 40, and two for the t
    assert seeds_wanted("lower", unclear, 1e-4, 1) == math.inf


def test_more_claims_need_more_seeds_for_each() -> None:
    values = -0.05 + SEEDS[:6]
    assert judge(["lower"], [values], [0.01])[0].verdict == "supported"
    assert [found.verdict for found in judge(["lower"] * 2, [values] * 2, [0.01] * 2)] == ["inconclusive"] * 2
    assert seeds_wanted("lower", values, 0.01, 2) == 7
