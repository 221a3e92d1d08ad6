"""Reading moments, and the scores that read them, against values found by hand."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kagscope as kag
from battery import determinant
from kagscope.base.errors import InputError, UndefinedScore
from kagscope.minors import moment_scores
from kagscope.minors.histograms import Bins
from kagscope.minors.precise_determinants import integers
from kagscope.minors.routes.determinants import minor_matrix
from kagscope.minors.subsets import complete_pairs
from kagscope.minors.sweeps import enumerate_sums
from kagscope.scores.of_jacobians import numerical_ranks
from kernel_cases import minors

rng = np.random.default_rng(0)


def test_absent_moments_say_how_to_ask() -> None:
    m = kag.minor_moments(rng.normal(size=(3, 4)), 2, moments=("s2",))
    assert m.s2 > 0
    with pytest.raises(UndefinedScore, match=r'entropy was not computed.*moments="all"'):
        _ = m.entropy
    with pytest.raises(UndefinedScore, match="histogram"):
        _ = m.near_zero


def test_floats_for_one_arrays_for_many() -> None:
    J = rng.normal(size=(2, 3, 5))
    one, many = kag.minor_moments(J[0], 2), kag.minor_moments(J, 2)
    for name in (
        "s1",
        "s2",
        "s4",
        "entropy",
        "top",
        "participation_ratio",
        "pr_normalized",
        "effective_minors",
        "ipr",
        "kl_uniform",
        "near_zero",
    ):
        assert type(getattr(one, name)) is float
        assert getattr(many, name).shape == (2,)
        assert getattr(many, name)[0] == getattr(one, name)
    assert type(one.count) is int
    assert one.exact is True
    assert one.stderr == {}
    assert "enumeration" in one.plan.explain()


def test_zero_matrix_is_undefined_not_silent() -> None:
    m = kag.minor_moments(np.zeros((3, 4)), 2)
    assert (m.s1, m.s2, m.s4, m.entropy, m.top) == (0, 0, 0, 0, 0)
    for name in ("participation_ratio", "pr_normalized", "effective_minors", "ipr", "kl_uniform", "near_zero"):
        assert math.isnan(getattr(m, name))
    for score in (kag.axis_alignment, kag.effective_rank, kag.stable_rank, kag.sv_participation, kag.column_divergence):
        assert math.isnan(score(np.zeros((3, 4))))


def test_uniform_minors_are_uniform() -> None:
    m = kag.minor_moments(np.full((4, 6), -3.0), 1)
    assert m.pr_normalized == pytest.approx(1, rel=1e-14)
    assert m.kl_uniform == pytest.approx(0, abs=1e-14)
    assert m.effective_minors == pytest.approx(24, rel=1e-14)
    assert m.ipr == pytest.approx(24, rel=1e-14)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 3), power=st.integers(-40, 40))
def test_histogram_counts_every_minor_once(seed: int, k: int, power: int) -> None:
    J = np.random.default_rng(seed).normal(size=(5, 6)) * 10.0**power
    J[2] = 0
    M = np.abs(minor_matrix(J, k)) if k < 3 else None
    first, counts, zeros = kag.minor_moments(J, k).histogram
    assert zeros + counts.sum() == math.comb(5, k) * math.comb(6, k)
    if M is not None:
        M = M[np.abs(J).max() ** k * 1e-30 < M]
        edges = 2.0 ** (np.arange(first, first + len(counts) + 1) / 8)
        assert np.abs(np.histogram(M, bins=edges)[0] - counts).sum() <= 2  # LAPACK rounds differently at an edge


def test_exact_powers_of_two_open_their_bin() -> None:
    first, counts, zeros = kag.minor_moments(np.diag([1.0, 2.0, 4.0]), 2).histogram
    assert (first, zeros) == (8, 6)
    assert counts[[0, 8, 16]].tolist() == [1, 1, 1]


def test_near_zero_of_exact_moments_is_off_by_the_bin_that_is_cut() -> None:
    """Which was its error in tables; `stderr` said 0."""
    for J in (np.random.default_rng(5).normal(size=(2, 6, 9)), np.random.default_rng(5).normal(size=(6, 9))):
        m = kag.minor_moments(J, 2)
        sizes = np.array([minor_matrix(one, 2).ravel() for one in J.reshape(-1, 6, 9)])
        true = (sizes <= sizes.mean(axis=1, keepdims=True) / 1024).mean(axis=1)
        assert (m.stderr["near_zero"] >= np.abs(m.near_zero - true.reshape(np.shape(m.near_zero)))).all()
        assert np.shape(m.stderr["near_zero"]) == np.shape(m.near_zero)
        assert not m.stderr  # nothing was sampled
        assert np.all(pickle.loads(pickle.dumps(m)).stderr["near_zero"] == m.stderr["near_zero"])
    assert kag.minor_moments(np.array([[1.0, 1.0]]), 1).stderr["near_zero"] == 0


def test_near_zero_by_hand() -> None:
    J = np.array([[1.0, 1.0, 0.0, 2.0**-13, 1.0, 1.0, 1.0, 1.0]])
    m = kag.minor_moments(J, 1)
    assert m.near_zero == pytest.approx(2 / 8)
    assert moment_scores.near_zero(m, eps=2.0**-20) == pytest.approx(1 / 8)
    assert moment_scores.near_zero(m, eps=2.0) == pytest.approx(1)
    assert moment_scores.near_zero_error(m) == 0


def test_kl_init() -> None:
    J, K = rng.normal(size=(8, 9)), rng.normal(size=(8, 9)) ** 5
    one, two = kag.minor_moments(J, 2), kag.minor_moments(K, 2)
    assert kag.kl_init(one, one) == 0
    assert kag.kl_init(two, one) > 0.1
    assert kag.kl_init(kag.minor_moments(4.0 * K, 2), one) == pytest.approx(kag.kl_init(two, one), rel=1e-12)
    assert kag.kl_init(kag.minor_moments(3.0 * K, 2), one) == pytest.approx(kag.kl_init(two, one), rel=0.05)
    assert math.isnan(kag.kl_init(kag.minor_moments(np.zeros((8, 9)), 2), one))
    image = {"image_shape": (3, 3)}
    near, far = (kag.minor_moments(J, 2, selection, **image) for selection in ("ball(1)", "apart(2)"))
    sets = kag.minor_moments(J, 2, kag.Subsets([(0, at) for at in range(1, 9)] + [(1, 2), (1, 3), (1, 4), (1, 5)]))
    assert near.count == sets.count
    for other in (kag.minor_moments(np.stack([J, J]), 2), kag.minor_moments(J, 1), kag.minor_moments(J[:7], 2), near, far):
        for pair in ((one, other), (other, one)):
            with pytest.raises(InputError, match="kl_init"):
                kag.kl_init(*pair)
    with pytest.raises(InputError, match="ball"):
        kag.kl_init(near, sets)
    assert kag.kl_init(near + far, far + near) == 0


def places_by_hand(J: np.ndarray) -> list[float]:
    """Where the bins of the nonzero entries stand, in bins from their mean."""
    M = np.abs(J).ravel()
    return [math.floor(8 * math.log2(size)) - 8 * math.log2(M.mean()) for size in M if size > 0]


def shape_by_hand(J: np.ndarray, first: int, last: int) -> np.ndarray:
    """Shares of the bins ``first`` to ``last`` from the mean, and of zeros: each entry is split between two bins and spread."""
    counts = np.zeros(last - first + 1)
    bell = {step: math.exp(-((step / 7) ** 2) / 2) for step in range(-28, 29)}
    for place in places_by_hand(J):
        below = math.floor(place)
        for at, share in ((below, 1 - (place - below)), (below + 1, place - below)):
            for step, height in bell.items():
                counts[at + step - first] += share * height / sum(bell.values())
    smoothed = np.append(counts, (J == 0).sum()) + 0.5
    return np.asarray(smoothed / smoothed.sum())


def test_kl_init_entry_by_entry() -> None:
    J, K = np.array([[1.0, 1.3, 7.0, 0.0]]), np.array([[2.0, 3.1, 2.3, 2.0]])
    below = [math.floor(place) for one in (J, K) for place in places_by_hand(one)]
    p, q = (shape_by_hand(one, min(below) - 28, max(below) + 29) for one in (J, K))
    own, other = kag.minor_moments(J, 1), kag.minor_moments(K, 1)
    wanted = [(p * np.log(p / q)).sum(), (q * np.log(q / p)).sum()]
    assert [kag.kl_init(own, other), kag.kl_init(other, own)] == pytest.approx(wanted, rel=1e-12)
    assert own.bins is not None
    padded = Bins(own.bins.first - 3, np.pad(own.bins.counts, ((0, 0), (3, 2))), own.bins.zeros)
    assert kag.kl_init(replace(own, bins=padded), other) == pytest.approx(wanted[0], rel=1e-12)


def test_ranks_and_alignment_by_hand() -> None:
    J = np.diag([2.0, 1.0, 1.0]) * 1e-200
    p = np.array([4, 1, 1]) / 6
    assert kag.effective_rank(J) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-12)
    assert kag.stable_rank(J) == pytest.approx(1.5, rel=1e-12)
    assert kag.sv_participation(J) == pytest.approx(36 / 18, rel=1e-12)
    assert kag.axis_alignment(J) == pytest.approx(1, rel=1e-12)
    assert kag.axis_alignment(np.array([[3.0, 4.0], [0.0, 0.0]])) == pytest.approx(0.8, rel=1e-12)
    assert kag.axis_alignment(np.ones((2, 4))) == pytest.approx(0.5, rel=1e-12)


def test_numerical_ranks_by_hand() -> None:
    small_rows = np.diag([1.0, 1e-100, 1e-200, 0])[:3]  # are no reason: rows are scaled first
    two = np.array([[1.0, 2, 3, 4], [2, 4, 6, 8], [1, 0, 0, 0]])
    nearly_one = np.array([[1.0, 1, 0, 0], [1, 1 + 1e-9, 0, 0], [0, 0, 0, 0]])
    J = np.stack([small_rows, two, nearly_one, np.zeros((3, 4))])
    for either in (J, J.swapaxes(1, 2)):
        for most in (2, 3, 9):
            assert numerical_ranks(either[1:], 2.0**-53, most).tolist() == [2, 2, 0]
        assert numerical_ranks(either[1:], 2.0**-53, 1).tolist() == [1, 1, 0]
        assert numerical_ranks(either[1:], 1e-9, 3).tolist() == [2, 1, 0]
        nine = np.repeat(either[2:3], 9, axis=0)  # singular values 1 and 2.5e-10: between 3 and 4, or 4 and 9 of these
        assert numerical_ranks(nine, 7e-11, 3).tolist() == [1] * 9
        assert numerical_ranks(nine, 5e-11, 3).tolist() == [2] * 9
    assert numerical_ranks(J[:1], 2.0**-53, 3).tolist() == [3]


def test_row_means_of_rounded_parallel_rows() -> None:
    """Outer products: what rounding leaves of three rows, 1e-36, is their minors; it was 0 where all seen along one row was 0."""
    for seed in range(12):
        own = np.random.default_rng(seed)
        J = np.outer(own.normal(size=5), own.normal(size=4))
        each = [kag.minor_moments(J[list(rows)], 3, moments=("s1", "top")).s1 for rows in combinations(range(5), 3)]
        np.testing.assert_allclose(kag.row_means(J, 3), np.array(each) / 4, rtol=1e-10)


def test_zero_rows() -> None:
    J = rng.normal(size=(5, 7))
    J[[1, 3]] = 0
    assert kag.zero_rows(J) == pytest.approx(2 / 5)
    assert kag.zero_rows(J, k=2) == pytest.approx(7 / 10)
    assert kag.zero_rows(J, threshold=1e9) == 1
    limit = np.abs(J).mean(axis=1).max()
    assert kag.zero_rows(J, threshold=limit * (1 - 1e-9)) == pytest.approx(4 / 5)
    assert kag.zero_rows(np.stack([J, J]), threshold=[0.0, 1e9]).tolist() == [2 / 5, 1]
    with pytest.raises(InputError, match="threshold"):
        kag.zero_rows(J, threshold=-1.0)


def test_rows_below_the_range_are_not_zero() -> None:
    """Of minors of 1e-400 every mean rounded to 0, and so did the mean of one smallest number among zeros."""
    J = rng.normal(size=(4, 6))
    for k in (1, 2, 3):
        assert kag.zero_rows(1e-200 * J, k) == kag.zero_rows(5e-324 * np.rint(4 * J) + np.eye(4, 6), k) == 0
        assert kag.zero_rows(np.concatenate([J, J[:2]]), k) == pytest.approx((0, 2 / 15, 8 / 20)[k - 1])
    assert kag.zero_rows(np.array([[5e-324, 0, 0], [1.0, 1.0, 1.0], [0, 0, 0]])) == 1 / 3
    assert kag.row_means(np.full((1, 4), 1.7e308)).tolist() == [1.7e308]
    between = np.array(
        [[1e200, 1e-200], [1e200, 2e-200], [1e-200, 1e200]]
    )  # whose smaller entries leave the range beside the others
    assert kag.row_means(between, 2) == pytest.approx([1.0, math.inf, math.inf], rel=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_column_divergence_of_any_order(k: int, scale: float) -> None:
    """It was NaN at these scales, and of minors that are rounding alone where the rank is below k: 4.7 nats."""
    J = rng.normal(size=(5, 7))
    assert kag.column_divergence(J * scale, k) == pytest.approx(kag.column_divergence(J, k), rel=1e-9)
    assert kag.column_divergence(J * 10.0 ** rng.integers(-60, 60, size=7), k) == pytest.approx(
        kag.column_divergence(J, k), rel=1e-9
    )
    thin = rng.integers(-9, 9, size=(5, k - 1)) @ rng.integers(-9, 9, size=(k - 1, 7))
    assert math.isnan(kag.column_divergence(thin.astype(float), k))


def test_column_divergence() -> None:
    assert kag.column_divergence(np.ones((4, 5))) == pytest.approx(0, abs=1e-12)
    own = np.array([[1.0, 3.0], [3.0, 1.0]])
    p, q = own[:, 0] / 4, own[:, 1] / 4
    assert kag.column_divergence(own) == pytest.approx(((p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()) / 2, rel=1e-5)
    alone = np.array([[1.0, 0.0], [2.0, 0.0]])
    assert math.isnan(kag.column_divergence(alone))  # columns that are zero are left out, and the others' lengths do not matter
    stretched = np.column_stack([own * [1e-250, 1e250], np.zeros(2)])
    assert kag.column_divergence(stretched) == pytest.approx(kag.column_divergence(own), rel=1e-12)
    large, small = 1 - 2.0**-20 * 2 / 3, 2.0**-20 / 3  # one unit each, smoothed: six ordered pairs of the same divergence
    assert kag.column_divergence(np.eye(3)) == pytest.approx((large - small) * math.log(large / small), rel=1e-12)


@pytest.mark.parametrize("k", [1, 2])
def test_row_means_and_pair_map(k: int) -> None:
    J = rng.normal(size=(5, 8))
    M = minor_matrix(J, k)
    assert np.allclose(kag.row_means(J, k), M.mean(axis=1), rtol=1e-12)
    assert np.allclose(kag.row_means(1e100 * J[None], k)[0], M.mean(axis=1) * 1e100**k, rtol=1e-12)
    if k == 2:
        maps = kag.column_pair_map(J)
        first, second = np.triu_indices(8, 1)
        for name, power in (("s1", 1), ("s2", 2), ("s4", 4)):
            assert np.allclose(maps[name][first, second], (M**power).sum(axis=0), rtol=1e-11)
            assert (maps[name] == maps[name].T).all()


def test_column_sets_far_below_others() -> None:
    """Their minors were 0 beside the largest: entries of a map gone, columns left out of the divergence."""
    J = np.array([[1e150, 1e-150, 1.0, 2e-150], [1e150, 2e-150, 3.0, 1e-150], [1e-150, 1.0, 1e150, 1e-150]])
    mapped = kag.column_pair_map(J)
    for a, b in combinations(range(4), 2):
        pair = kag.minor_moments(J[:, [a, b]], 2)
        assert [mapped[name][a, b] for name in ("s1", "s2", "s4")] == pytest.approx([pair.s1, pair.s2, pair.s4], rel=1e-12, abs=0)
    near = np.array([[1.0, 1.0, 0.5], [5e-324, 1e-323, 1.0], [0.0, 5e-324, 2.0]])  # of columns 0 and 1 no minor is above 1e-323
    minors = np.array([[5e-324, 1, 1], [5e-324, 2, 2], [0, 0, 0]]) * [2.0**1000, 1, 1]
    assert kag.column_divergence(near, 2) == pytest.approx(kag.column_divergence(minors), rel=1e-9)


def test_one_minor_far_below_all_rows_and_columns() -> None:
    """It was 0, called exact."""
    J = np.array([[1e-323, 1.5e-323, 1.6], [-0.14, -0.42, 0.0], [0.0, 0.0, 0.045]])
    for k, chosen in ((3, kag.All()), (2, kag.Subsets([(0, 1)]))):
        m = kag.minor_moments(J[:k], k, chosen)
        assert (m.participation_ratio, m.ipr) == pytest.approx((1, 1), rel=1e-12)
        assert m.exact
        assert kag.row_means(J, 3)[0] > 0


def test_a_window_that_holds_no_column() -> None:
    for k in (1, 2, 3):
        m = kag.minor_moments(np.ones((3, 4)), k, kag.Window((9, 9), 1), image_shape=(2, 2))
        assert (m.count, m.s1, m.exact) == (0, 0.0, True)
        assert math.isnan(m.participation_ratio)


@pytest.mark.parametrize("powers", [(-200, 200), (-90, 0), (-150, 200), (0, 200)])
def test_windows_and_maps_on_scales_of_their_own(powers: tuple[int, int]) -> None:
    """Windows on columns far below the others had no PR, and their entries of the map were 0."""
    J = np.random.default_rng(6).normal(size=(4, 6)) * 10.0 ** np.repeat(np.array(powers, dtype=float), 3)
    window = kag.Window((0, 1), 1)
    (found,), wanted = kag.window_moments(J, [(0, 1)], 1, (1, 6)), kag.minor_moments(J, 2, window, image_shape=(1, 6))
    for name in ("participation_ratio", "ipr", "effective_minors"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-12)
    mapped = kag.column_pair_map(J)
    for name in ("s1", "s2", "s4"):
        for a, b in ((0, 1), (1, 2), (0, 3), (3, 4)):
            pair = kag.minor_moments(J[:, [a, b]], 2, moments=(name,))
            assert mapped[name][a, b] == pytest.approx(getattr(pair, name), rel=1e-12, abs=0)


def test_small_columns_are_scaled_and_not_visited_pair_by_pair() -> None:
    with mock.patch("kagscope.minors.maps.minor_moments") as visited:
        kag.column_pair_map(np.random.default_rng(6).normal(size=(4, 6)) * np.repeat([1.0, 2.0**-300], 3))
    assert not visited.called


@pytest.mark.parametrize("k", [4, 5])
def test_larger_orders_by_brute_force(k: int) -> None:
    J = rng.normal(size=(6, 7))
    m = kag.minor_moments(J, k, method="exact")
    s = np.linalg.svd(J, compute_uv=False) ** 2
    e = np.poly(-s)[k]
    assert m.s2 == pytest.approx(e, rel=1e-10)
    M = minor_matrix(J, k)
    assert m.s1 == pytest.approx(M.sum(), rel=1e-12)
    assert m.top == pytest.approx(M.max(), rel=1e-12)
    assert m.entropy == pytest.approx((M * np.log(M)).sum(), rel=1e-12)
    ball = kag.minor_moments(J, k, kag.Ball(k - 1), positions=np.arange(7), method="exact")
    assert ball.count == math.comb(6, k) * (7 - k + 1)


@pytest.mark.parametrize("order", [12, 50, 100])
def test_one_minor_of_large_order(order: int) -> None:
    """Listing its one column set took hours from 20 on, and from about 300 it was 0, called exact."""
    J = np.random.default_rng(order).normal(size=(order, order))
    m = kag.minor_moments(J, order)
    assert math.log(m.sums["s1"][0]) + order * m.exponent[0] * math.log(2) == pytest.approx(np.linalg.slogdet(J)[1], abs=1e-10)
    assert m.exact
    assert (m.participation_ratio, m.ipr, m.kl_uniform) == pytest.approx((1, 1, 0), abs=1e-12)
    twice = np.repeat(J, [2] + [1] * (order - 1), axis=1)
    found = kag.minor_moments(twice, order)  # that of either copy; of both, nothing: in whole numbers, k! products each
    assert (found.histogram.zeros, found.histogram.counts.sum()) == (order - 1, 2)
    assert found.participation_ratio == pytest.approx(2**-0.5, rel=1e-10)


@pytest.mark.parametrize("k", [4, 5])
def test_nearly_dependent_rows_of_larger_minors(k: int) -> None:
    """Each minor within 1e-10 of that in whole numbers, also where all are small beside the lengths of their columns."""
    random = np.random.default_rng(k)
    thin = random.normal(size=(6, 3)) @ random.normal(size=(3, 7)) + 1e-4 * random.normal(size=(6, 7))
    whole, exponent = integers(thin)
    chosen = [(list(R), list(C)) for R in combinations(range(6), k) for C in combinations(range(7), k)]
    wanted = sum(abs(determinant(whole[np.ix_(R, C)].tolist())) for R, C in chosen) * Fraction(2) ** (k * exponent)
    assert kag.minor_moments(thin, k).s1 == pytest.approx(float(wanted), rel=1e-10, abs=0)


def test_many_small_minors_are_told_without_whole_numbers() -> None:
    """Of 900,000, nearly all below 1e-6 of the product of their columns' lengths, S2 is that of the singular values."""
    random = np.random.default_rng(5)
    J = random.normal(size=(9, 2)) @ random.normal(size=(2, 22)) + 1e-3 * random.normal(size=(9, 22))
    m = kag.minor_moments(J, 4, method="exact")
    assert m.s1 > 0
    wanted = math.fsum(math.prod(one) ** 2 for one in combinations(np.linalg.svd(J, compute_uv=False), 4))
    assert m.s2 == pytest.approx(wanted, rel=1e-9, abs=0)


@pytest.mark.parametrize("k", [4, 5])
def test_rows_of_unlike_sizes_need_no_whole_numbers(k: int) -> None:
    """Minors of small rows looked cancelled, and where more than 500,000 did every sum was NaN (4-minors of 12 x 20)."""
    powers = np.array([26, 26, -26, -26, 26, -26, 26])
    even = np.random.default_rng(k).normal(size=(7, 8))
    chosen = list(combinations(range(7), k))
    with mock.patch("kagscope.minors.routes.determinants.MOST_EXACT", 0):
        found = kag.minor_moments(np.ldexp(even, powers[:, None]), k, method="exact")
    wanted = math.fsum(2.0 ** powers[list(R)].sum() * kag.minor_moments(even[list(R)], k).s1 for R in chosen)
    assert found.s1 == pytest.approx(wanted, rel=1e-12, abs=0)
    assert found.histogram.counts.sum() == found.count


def test_more_minors_than_floats_count() -> None:
    J = np.random.default_rng(0).normal(size=(2, 3))
    few = kag.minor_moments(J, 2)
    many = replace(few, count=10**400)
    assert many.pr_normalized == 0
    assert many.kl_uniform - few.kl_uniform == pytest.approx(400 * math.log(10) - math.log(3), rel=1e-12)
    with pytest.raises(InputError, match="10\\^300 minors"):
        kag.minor_moments(np.ones((520, 520)), 260)


@pytest.mark.parametrize("selection", [kag.All(), kag.Ball(2)])
@pytest.mark.parametrize("wanted", ["s2", "s4", "top"])
def test_what_was_not_asked_for_says_so(selection: kag.Selection, wanted: str) -> None:
    J = np.random.default_rng(0).normal(size=(60, 9))
    m = kag.minor_moments(J, 2, selection, image_shape=(3, 3), moments=(wanted,))
    assert getattr(m, wanted) > 0
    for name in {"s1", "s2", "s4", "entropy", "top"} - {wanted}:
        with pytest.raises(kag.UndefinedScore, match=f"{name} was not computed"):
            getattr(m, name)


def test_rank_one_up_to_rounding() -> None:
    """A product of two vectors, rounded, has small minors of its own. Formulas find its S1 and top; other ways, and S2 and S4 on
    every way, are right to the rounding of the products: within N (2 u)^2 for S2 of entries below 1."""
    rng = np.random.default_rng(0)
    J = np.outer(rng.uniform(-1, 1, size=6), rng.uniform(-1, 1, size=9))
    M = [minor for row in minors(J, 2) for minor in row]
    s1, s2, top = float(sum(M)), float(sum(m * m for m in M)), float(max(M))
    u = 2.0**-53
    assert 0 < s1 < 2 * u * len(M)
    for moments in ("all", ("s1", "s2", "s4"), ("s1", "s2", "s4", "top")):
        for chosen in (kag.All(), [kag.All(), kag.Ball(3)]):
            found = kag.minor_moments(J, 2, chosen, positions=np.arange(9), moments=moments)
            m = found[0] if isinstance(found, list) else found
            assert abs(m.s2 - s2) <= len(M) * (2 * u) ** 2
            if m.plan.routes["s1"] == "zonogon areas":
                assert m.s1 == pytest.approx(s1, rel=1e-10, abs=0)
            assert abs(m.s1 - s1) <= len(M) * 2 * u
            if m.plan.routes.get("top", "").startswith("hulls"):
                assert m.top == pytest.approx(top, rel=1e-10, abs=0)


# -- adding ----------------------------------------------------------------------------------------------------------------------


def equal(left: kag.Moments, right: kag.Moments) -> None:
    assert left.count == right.count
    for name in ("s1", "s2", "s4", "entropy", "top"):
        assert getattr(left, name) == pytest.approx(getattr(right, name), rel=1e-11, abs=1e-300), name
    a, b = left.histogram, right.histogram
    assert (a.zeros, a.first) == (b.zeros, b.first)
    assert (a.counts == b.counts).all()


@given(seed=st.integers(0, 2**32 - 1), shift=st.integers(-100, 100), k=st.integers(1, 3))
def test_scales_align(seed: int, shift: int, k: int) -> None:
    """Two matrices of different scale, added, are the block matrix's own rows only where blocks do not mix: compare plain
    sums."""
    rng = np.random.default_rng(seed)
    one, two = rng.normal(size=(3, 4)), rng.normal(size=(3, 5)) * 2.0**shift
    a, b = kag.minor_moments(one, k), kag.minor_moments(two, k)
    both = a + b
    assert both.s1 == pytest.approx(a.s1 + b.s1, rel=1e-12)
    assert both.entropy == pytest.approx(a.entropy + b.entropy, rel=1e-11, abs=1e-12 * abs(a.entropy))
    assert both.top == max(a.top, b.top)
    assert both.histogram.counts.sum() + both.histogram.zeros == both.count
    equal(both, b + a)


def test_zero_matrix_is_neutral() -> None:
    tiny = kag.minor_moments(np.random.default_rng(0).normal(size=(3, 4)) * 1e-150, 2)
    nothing = kag.minor_moments(np.zeros((3, 4)), 2)
    both = tiny + nothing
    assert both.participation_ratio == tiny.participation_ratio
    assert both.ipr == tiny.ipr
    assert both.count == 2 * tiny.count
    assert both.histogram.zeros == nothing.count


def test_batches_add_and_index() -> None:
    J = np.random.default_rng(1).normal(size=(3, 4, 6)) * np.array([1e-100, 1, 1e100])[:, None, None]
    near, far, whole = kag.minor_moments(J, 2, [kag.Shell(0, 2), kag.Shell(2, 9), kag.All()], image_shape=(2, 3))
    both = near + far
    assert both.s1.shape == (3,)
    for b in range(3):
        equal(both[b], whole[b])
        equal(whole[b], kag.minor_moments(J[b], 2))


def test_different_orders_do_not_add() -> None:
    J = np.eye(3)
    with pytest.raises(InputError, match="cannot be added"):
        kag.minor_moments(J, 1) + kag.minor_moments(J, 2)


def test_one_matrix_and_a_batch_of_one_do_not_add() -> None:
    with pytest.raises(InputError, match="k=1 over one matrix and of k=1 over a batch of 1 cannot be added"):
        kag.minor_moments(np.eye(3), 1) + kag.minor_moments(np.eye(3)[None], 1)


def test_pairs_that_nearly_cancel_are_right_without_logarithms_too() -> None:
    """Two columns almost parallel: double precision alone is off by 0.2%."""
    generator = np.random.default_rng(0)
    J = generator.normal(size=(5, 4))
    J[:, 1] = 1.5 * J[:, 0] + 1e-14 * generator.normal(size=5)
    pairs = complete_pairs(4)
    exact = []
    for i, j in pairs.sets.tolist():
        a, b = ([Fraction(x) for x in column] for column in (J[:, i], J[:, j]))
        exact.append(float(sum(abs(a[p] * b[q] - a[q] * b[p]) for p, q in combinations(range(5), 2))))
    np.testing.assert_allclose(enumerate_sums(J, pairs)[0], exact, rtol=1e-12)


def test_warm_up_compiles_what_it_says_to_compile() -> None:
    """A kernel that it told of and did not compile was told of at every start."""
    told: list[str] = []
    kag.warm_up()
    kag.warm_up(told.append)
    assert not told


@pytest.mark.parametrize("rows", [5, 40])
def test_moments_of_several_windows_are_those_of_each(rows: int) -> None:
    """Windows that overlap, that are cut off by the edge, and of one column, which holds no pair."""
    J, centers, radii = np.random.default_rng(0).normal(size=(rows, 30)), [(0, 0), (2, 3), (4, 5)], [0.5, 1, 2.5]
    for radius, found in zip(radii, kag.window_moments(J, centers, radii, (5, 6)), strict=True):
        for center, one in zip(centers, found, strict=True):
            wanted = kag.minor_moments(J, 2, kag.Window(center, radius), image_shape=(5, 6), method="exact")
            assert one.count == wanted.count
            np.testing.assert_allclose([one.s1, one.s2, one.s4], [wanted.s1, wanted.s2, wanted.s4], rtol=1e-12)
