"""Permutation tests: against scipy, against enumeration, and the family-wise error of the joint adjustment by simulation."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from kagscope.studies.statistics.kendall import level_orders, pair_signs, trend_draws
from kagscope.studies.statistics.multiple_testing import holm_within, step_down
from kagscope.studies.statistics.permutation import flip_draws, sign_flips, two_sided


@pytest.mark.parametrize("n", [2, 6, 13])
def test_flips_of_many_numbers_are_scipys_test_of_each(n: int) -> None:
    d = np.random.default_rng(n).normal(0.2, 1, (n, 4))
    expected = [
        stats.permutation_test((column,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True).pvalue
        for column in d.T
    ]
    np.testing.assert_allclose(two_sided(flip_draws(d)), expected, rtol=1e-9)


def test_drawn_flips_of_many_pairs_come_near_students_t() -> None:
    d = np.random.default_rng(4).normal(0.3, 1, (40, 8))
    np.testing.assert_allclose(two_sided(flip_draws(d)), stats.ttest_1samp(d, 0).pvalue, atol=0.02)


@given(st.lists(st.integers(-3, 3) | st.just(None), min_size=2, max_size=9))
def test_ties_zeros_and_missing_ones_are_the_enumeration_of_all_signs(values: list[int | None]) -> None:
    d = np.array([value for value in values if value is not None], dtype=float)
    sums = [abs(sum(sign * one for sign, one in zip(signs, d, strict=True))) for signs in product((1, -1), repeat=d.size)]
    expected = np.mean([one >= abs(d.sum()) for one in sums])
    given_ = np.array([[np.nan if value is None else float(value)] for value in values])
    assert two_sided(flip_draws(given_))[0] == pytest.approx(expected, rel=1e-12)


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
            float(np.sign(order[j] - order[i]) * np.sign(row[j] - row[i]))
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
def test_joint_adjustment_follows_its_definition(seed: int, tests: int) -> None:
    d = np.random.default_rng(seed).normal(0.4, 1, (8, tests))
    draws = flip_draws(d)
    p, joint = two_sided(draws), step_down(draws)
    assert (joint >= p - 1e-12).all()
    size = np.abs(draws) / np.sqrt((draws**2).mean(axis=0))
    order = np.argsort(-size[0])
    steps = [(size[:, order[i:]].max(axis=1) >= size[0, order[i]] - 1e-9).mean() for i in range(tests)]
    np.testing.assert_allclose(joint[order], [max(steps[: i + 1]) for i in range(tests)])
    again = step_down(np.repeat(draws, 3, axis=1))
    np.testing.assert_allclose(again[::3], joint, err_msg="the same number three times costs nothing")
    order = np.random.default_rng(seed).permutation(tests)
    np.testing.assert_allclose(step_down(draws[:, order]), joint[order])


def test_joint_adjustment_by_hand() -> None:
    """Two numbers of three pairs: the larger statistic is held against the larger of both in each of the eight flips."""
    d = np.array([[1.0, 3.0], [2.0, -1.0], [3.0, 2.0]])
    sums = np.array(
        [[sum(s * one for s, one in zip(signs, column, strict=True)) for column in d.T] for signs in product((1, -1), repeat=3)]
    )
    first, second = np.abs(sums / np.sqrt((d**2).sum(axis=0))).T
    larger = np.maximum(first, second)
    assert first[0] > second[0]
    expected = [(larger >= first[0] - 1e-9).mean(), (second >= second[0] - 1e-9).mean()]
    np.testing.assert_allclose(step_down(flip_draws(d)), [expected[0], max(expected)])


def test_any_false_rejection_is_as_rare_as_promised() -> None:
    """Ten related numbers without effect, 400 times: at most 5% of the families reject anything."""
    rng, families, wrong = np.random.default_rng(5), 400, 0
    for _ in range(families):
        d = rng.normal(size=(8, 1)) + 0.7 * rng.normal(size=(8, 10))
        wrong += step_down(flip_draws(d)).min() <= 0.05
    assert stats.binom.sf(wrong - 1, families, 0.05) > 0.001


def test_holm_within_families_is_that_of_statsmodels() -> None:
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.2, 0.001])
    found = holm_within(p, ["a", "a", "a", "b", "b", "b"])
    np.testing.assert_allclose(found[[0, 1]], multipletests(p[[0, 1]], method="holm")[1])
    np.testing.assert_allclose(found[3:], multipletests(p[3:], method="holm")[1])
    assert np.isnan(found[2])
