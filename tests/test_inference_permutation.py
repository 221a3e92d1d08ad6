"""Permutation tests: against scipy, against enumeration, and the family-wise error of the joint adjustment by simulation."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from kagscope.studies.inference.permutation import (
    holm_within,
    level_orders,
    pair_signs,
    sign_flips,
    signed_rank_draws,
    signed_rank_p,
    step_down,
    trend_draws,
    two_sided,
)
from kagscope.studies.statistics import paired_test


@pytest.mark.parametrize("n", [6, 9, 12, 13, 14, 20])
def test_signed_ranks_of_many_numbers_are_scipys_exact_test_of_each(n: int) -> None:
    d = np.random.default_rng(n).normal(0.2, 1, (n, 7))
    expected = [stats.wilcoxon(column, method="exact").pvalue for column in d.T]
    np.testing.assert_allclose(signed_rank_p(d, signed_rank_draws(d)), expected, rtol=1e-9)


@given(st.lists(st.integers(-3, 3) | st.just(None), min_size=2, max_size=9))
def test_ties_zeros_and_missing_ones_are_those_of_the_test_of_one_number(values: list[int | None]) -> None:
    d = np.array([np.nan if value is None else float(value) for value in values])
    expected = paired_test(d, "two-sided")
    found = signed_rank_p(d[:, None], signed_rank_draws(d[:, None]))
    assert found[0] == pytest.approx(expected.p_value if expected.n else 1.0, rel=1e-12)


@pytest.mark.parametrize("levels", [3, 4, 6, 7])
def test_one_block_is_kendalls_exact_test(levels: int) -> None:
    y = np.random.default_rng(levels).normal(size=(5, levels))
    p = two_sided(trend_draws(pair_signs(y)[:, None], levels))
    expected = [stats.kendalltau(np.arange(levels), row, method="exact").pvalue for row in y]
    np.testing.assert_allclose(p, expected, rtol=1e-9)


@given(st.lists(st.integers(0, 4), min_size=9, max_size=9))
def test_blocks_are_the_enumeration_of_all_orders_within_each(values: list[int]) -> None:
    """Three blocks of three levels with ties: 216 ways."""
    y = np.array(values, dtype=float).reshape(3, 3)

    def score(orders: tuple[tuple[int, ...], ...]) -> float:
        pairs = [(0, 1), (0, 2), (1, 2)]
        return sum(
            np.sign(order[j] - order[i]) * np.sign(row[j] - row[i])
            for order, row in zip(orders, y, strict=True)
            for i, j in pairs
        )

    observed = score(((0, 1, 2),) * 3)
    every = [score(orders) for orders in product(permutations(range(3)), repeat=3)]
    expected = np.mean([abs(value) >= abs(observed) for value in every])
    assert two_sided(trend_draws(pair_signs(y)[None], 3))[0] == pytest.approx(expected, rel=1e-12)


def test_drawn_orders_agree_with_all_of_them() -> None:
    y = np.random.default_rng(3).normal(size=(20, 4, 4)) + 0.3 * np.arange(4)
    signs = pair_signs(y)
    every = level_orders(4, 4, 24**4)
    exact = two_sided(every.reshape(len(every), -1) @ np.r_[signs.reshape(20, -1)].T)
    drawn = two_sided(trend_draws(signs, 4))
    assert (np.abs(drawn - exact) < 4 * np.sqrt(exact * (1 - exact) / 10_000) + 2e-4).all()


def test_first_draw_is_the_data_and_the_same_seed_gives_the_same_draws() -> None:
    for draws in (sign_flips(4), sign_flips(30)):
        assert (draws[0] == 1).all()
    assert (level_orders(6, 5)[0] == 1).all()
    np.testing.assert_array_equal(sign_flips(30, seed=3), sign_flips(30, seed=3))


@given(seed=st.integers(0, 10_000), tests=st.integers(1, 8))
@settings(max_examples=40)
def test_joint_adjustment_lies_between_the_p_value_and_bonferroni(seed: int, tests: int) -> None:
    d = np.random.default_rng(seed).normal(0.4, 1, (8, tests))
    draws = signed_rank_draws(d)
    p, joint = two_sided(draws), step_down(draws)
    assert (joint >= p - 1e-12).all()
    assert (joint <= np.minimum(1, tests * p) + 1e-12).all()
    again = step_down(np.repeat(draws, 3, axis=1))
    np.testing.assert_allclose(again[::3], joint, err_msg="the same number three times costs nothing")
    order = np.random.default_rng(seed).permutation(tests)
    np.testing.assert_allclose(step_down(draws[:, order]), joint[order])


def test_joint_adjustment_by_hand() -> None:
    """Two numbers of three pairs: the larger statistic is held against the larger of both in each of the eight flips."""
    d = np.array([[1.0, 3.0], [2.0, -1.0], [3.0, 2.0]])
    sums = np.array([[sum(s * r for s, r in zip(signs, (1, 2, 3), strict=True)) for signs in product((1, -1), repeat=3)]])
    first = np.abs(sums[0])
    second = np.abs(np.array([sum(s * r for s, r in zip(signs, (3, -1, 2), strict=True)) for signs in product((1, -1), repeat=3)]))
    larger = np.maximum(first, second)
    expected = [(larger >= 6).mean(), max((larger >= 6).mean(), (second >= 4).mean())]
    np.testing.assert_allclose(step_down(signed_rank_draws(d)), expected)


def test_any_false_rejection_is_as_rare_as_promised() -> None:
    """Ten related numbers without effect, 400 times: at most 5% of the families reject anything."""
    rng, families, wrong = np.random.default_rng(5), 400, 0
    for _ in range(families):
        d = rng.normal(size=(8, 1)) + 0.7 * rng.normal(size=(8, 10))
        wrong += step_down(signed_rank_draws(d)).min() <= 0.05
    assert stats.binom.sf(wrong - 1, families, 0.05) > 0.001


def test_holm_within_families_is_that_of_statsmodels() -> None:
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.2, 0.001])
    found = holm_within(p, ["a", "a", "a", "b", "b", "b"])
    np.testing.assert_allclose(found[[0, 1]], multipletests(p[[0, 1]], method="holm")[1])
    np.testing.assert_allclose(found[3:], multipletests(p[3:], method="holm")[1])
    assert np.isnan(found[2])
