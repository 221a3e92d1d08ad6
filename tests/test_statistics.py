"""Tests and intervals over nets: against scipy, against enumeration, and by coverage on made-up nets."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagscope.base.errors import InputError
from kagscope.studies.statistics.bootstrap import defined_means, hierarchical_bootstrap
from kagscope.studies.statistics.multiple_testing import holm, step_down
from kagscope.studies.statistics.permutation import fewest_pairs, flip_draws, one_sided


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_one_sided_flips_are_the_enumeration_of_all_signs(values: list[int]) -> None:
    d = np.array(values, dtype=float)
    sums = np.array([d @ np.array(signs) for signs in product([-1, 1], repeat=d.size)])
    assert one_sided(flip_draws(d[:, None]))[0] == pytest.approx((sums >= d.sum()).mean(), rel=1e-12)


def test_five_seeds_are_the_fewest_that_reach_five_percent() -> None:
    assert fewest_pairs(0.05) == 5
    assert fewest_pairs(1 - 0.95) == 5
    for n, p in ((4, 1 / 16), (5, 1 / 32)):
        assert one_sided(flip_draws(np.linspace(1, 2, n)[:, None]))[0] == p


def test_undefined_differences_are_left_out() -> None:
    d = np.array([[0.1], [np.nan], [0.2], [0.3], [0.4], [0.5]])
    assert one_sided(flip_draws(d))[0] == 1 / 32


def test_step_down_above_zero_does_not_count_what_lies_below() -> None:
    d = np.array([[1.0, 1.1, 0.9, 1.0, 1.2], [0.1, -0.2, 0.1, 0.3, -0.4]]).T
    first, second = step_down(flip_draws(d), "greater")
    assert first == 1 / 32
    assert second > 0.3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.randoms())
def test_holm_keeps_the_order_and_follows_any_permutation(p_values: list[float], random) -> None:  # type: ignore[no-untyped-def]
    corrected = holm(p_values)
    assert all(low <= high <= 1 for low, high in zip(p_values, corrected, strict=True))
    assert corrected[int(np.argmin(p_values))] == pytest.approx(min(1, min(p_values) * len(p_values)))
    order = list(range(len(p_values)))
    random.shuffle(order)
    assert holm([p_values[i] for i in order]) == [corrected[i] for i in order]
    assert np.isnan(holm([float("nan"), 0.01])[0])


def test_net_means_leave_undefined_points_out() -> None:
    means = defined_means(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]]))
    assert means[0] == 2
    assert np.isnan(means[1])


def test_bootstrap_interval_covers_about_as_often_as_it_says() -> None:
    """Five seeds at twelve shared points; the shared part of a point's luck is drawn once for all seeds."""
    rng, hits, sets = np.random.default_rng(3), 0, 300
    for _ in range(sets):
        values = 3 + rng.normal(0, 0.3, (5, 1)) + rng.normal(0, 0.2, (1, 12)) + rng.normal(0, 0.2, (5, 12))
        low, high = hierarchical_bootstrap(values, resamples=400).t_intervals()
        hits += bool(low[0] <= 3 <= high[0])
    assert 0.91 <= hits / sets <= 0.99


def test_bootstrap_draws_points_for_all_nets_together() -> None:
    """A spread between points that all nets share does not average out over nets."""
    points = np.random.default_rng(0).normal(0, 1, 20)
    shared = hierarchical_bootstrap(np.tile(points, (50, 1))).draws.std()
    assert shared == pytest.approx(points.std(ddof=1) / np.sqrt(20), rel=0.1)


def test_bootstrap_refuses_what_it_cannot_use() -> None:
    with pytest.raises(InputError, match="not empty"):
        hierarchical_bootstrap(np.zeros(3))
    with pytest.raises(InputError, match="defined value"):
        hierarchical_bootstrap(np.full((2, 2), np.nan))
    assert np.isnan(hierarchical_bootstrap(np.ones((1, 4))).t_intervals()[0][0])
