"""Learning-rate shapes, at steps where the answer is known."""

import pytest

from runs.training.schedule import constant, cosine, inverse_sqrt, wsd


def test_all_warm_up_in_a_straight_line() -> None:
    for schedule in (cosine(warmup=0.1), wsd(warmup=0.1), inverse_sqrt(warmup=0.1), constant(warmup=0.1)):
        assert [schedule(step, 100) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_cosine_ends_at_its_floor_and_is_half_way_in_the_middle() -> None:
    schedule = cosine(warmup=0.0, floor=0.1)
    assert schedule(99, 100) == pytest.approx(0.1)
    assert schedule(49, 100) == pytest.approx(0.55)


def test_wsd_is_flat_then_falls_to_one_step_above_zero() -> None:
    schedule = wsd(warmup=0.1, decay=0.2)
    assert [schedule(step, 100) for step in (10, 50, 79)] == [1.0, 1.0, 1.0]
    assert schedule(90, 100) == pytest.approx(10 / 21)
    assert schedule(99, 100) == pytest.approx(1 / 21)


def test_inverse_sqrt_halves_at_four_times_the_warm_up() -> None:
    schedule = inverse_sqrt(warmup=0.1)
    assert schedule(9, 100) == pytest.approx(1.0)
    assert schedule(39, 100) == pytest.approx(0.5)


def test_constant_is_constant() -> None:
    assert {constant()(step, 10) for step in range(10)} == {1.0}


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup=10 is a share: between 0 and 1"):
        cosine(warmup=10)
