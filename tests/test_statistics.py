"""Tests and intervals over nets: against scipy, against enumeration, and by coverage on made-up nets."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kagscope.base.errors import InputError
from kagscope.studies.statistics.bootstrap import balanced_mean, hierarchical_bootstrap, net_means
from kagscope.studies.statistics.kendall import trend_test
from kagscope.studies.statistics.multiple_testing import holm
from kagscope.studies.statistics.signed_rank import equivalence_test, signed_rank_test
from kagscope.studies.statistics.student import Alternative

ALTERNATIVES: tuple[Alternative, ...] = ("greater", "less", "two-sided")


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("nets", [1, 2, 5, 15, 50])
def test_signed_rank_without_ties_is_scipys_exact_one(nets: int, alternative: Alternative) -> None:
    d = np.random.default_rng(nets).normal(0.3, 1, nets)
    expected = stats.wilcoxon(d, alternative=alternative, method="exact").pvalue
    assert signed_rank_test(d, alternative).p_value == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_signed_rank_with_ties_is_the_enumeration_of_all_signs(values: list[int]) -> None:
    d = np.array(values, dtype=float)
    nonzero = d[d != 0]
    result = signed_rank_test(d)
    assert result.n == d.size
    if not nonzero.size:
        assert result.p_value == 1
        return
    ranks = stats.rankdata(np.abs(nonzero))
    sums = np.array([ranks[np.array(signs)].sum() for signs in product([False, True], repeat=nonzero.size)])
    assert result.p_value == pytest.approx((sums >= ranks[nonzero > 0].sum()).mean(), rel=1e-12)
    assert signed_rank_test(-d, "less").p_value == pytest.approx(result.p_value, rel=1e-12)


def test_undefined_differences_are_left_out() -> None:
    d = np.array([0.1, np.nan, 0.2, 0.3, 0.4, 0.5])
    assert signed_rank_test(d) == signed_rank_test(d[np.isfinite(d)])
    assert signed_rank_test(d).p_value == 1 / 32
    assert np.isnan(signed_rank_test([np.nan]).p_value)


def test_five_nets_are_the_fewest_that_reach_five_percent() -> None:
    assert signed_rank_test([1, 2, 3, 4]).p_value > 0.05 > signed_rank_test([1, 2, 3, 4, 5]).p_value


def test_equivalence_needs_both_sides() -> None:
    inside = np.linspace(-0.02, 0.02, 8)
    assert equivalence_test(inside, -0.1, 0.1).p_value < 0.05
    assert equivalence_test(inside + 0.2, -0.1, 0.1).p_value > 0.9
    assert equivalence_test(inside - 0.2, -0.1, 0.1).p_value > 0.9


def test_trend_is_signed_and_needs_two_groups() -> None:
    groups, values = np.repeat([8, 16, 32], 4), np.arange(12.0)
    assert trend_test(groups, values).p_value < 0.01 < trend_test(groups, -values).p_value
    assert np.isnan(trend_test([8, 8], [1.0, 2.0]).p_value)
    assert trend_test(groups, np.ones(12)).p_value == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.randoms())
def test_holm_keeps_the_order_and_follows_any_permutation(p_values: list[float], random) -> None:  # type: ignore[no-untyped-def]
    corrected = holm(p_values)
    assert all(low <= high <= 1 for low, high in zip(p_values, corrected, strict=True))
    assert corrected[int(np.argmin(p_values))] == pytest.approx(min(1, min(p_values) * len(p_values)))
    order = list(range(len(p_values)))
    random.shuffle(order)
    assert holm([p_values[i] for i in order]) == [corrected[i] for i in order]
    assert np.isnan(holm([float("nan"), 0.01])[0])


def test_every_setting_weighs_the_same_and_ones_stay_exactly_one() -> None:
    strata = np.array([8, 8, 8, 16])
    assert balanced_mean(np.array([0.0, 0.0, 0.0, 1.0]), strata) == 0.5
    assert balanced_mean(np.ones(15), np.repeat([1, 2, 3], 5)) == 1.0


def test_net_means_leave_undefined_points_out() -> None:
    means = net_means(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]]))
    assert means[0] == 2
    assert np.isnan(means[1])


def test_bootstrap_interval_covers_about_as_often_as_it_says() -> None:
    """Three settings of five nets at six shared points; the shared part of a point's luck is drawn once for all nets."""
    rng, hits, sets = np.random.default_rng(3), 0, 300
    strata = np.repeat([1, 2, 3], 5)
    for _ in range(sets):
        values = 1 + strata[:, None] + rng.normal(0, 0.3, (15, 1)) + rng.normal(0, 0.2, (1, 12)) + rng.normal(0, 0.2, (15, 12))
        interval = hierarchical_bootstrap(values, strata, resamples=400).interval(0.95)
        hits += interval.low <= 3 <= interval.high
    assert 0.91 <= hits / sets <= 0.99


def test_bootstrap_draws_points_for_all_nets_together() -> None:
    """A spread between points that all nets share does not average out over nets."""
    points = np.random.default_rng(0).normal(0, 1, 20)
    shared = hierarchical_bootstrap(np.tile(points, (50, 1))).draws.std()
    assert shared == pytest.approx(points.std(ddof=1) / np.sqrt(20), rel=0.1)


def test_bootstrap_refuses_what_it_cannot_use() -> None:
    with pytest.raises(InputError, match="not empty"):
        hierarchical_bootstrap(np.zeros(3))
    with pytest.raises(InputError, match="strata"):
        hierarchical_bootstrap(np.zeros((3, 2)), [1, 2])
    with pytest.raises(InputError, match="defined value"):
        hierarchical_bootstrap(np.full((2, 2), np.nan))
    assert np.isnan(hierarchical_bootstrap(np.ones((1, 4))).interval().low)
