"""Haar means in closed form against truth, quadrature by rotations, and each other."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import kagscope as kag
from battery import KINDS, determinant, matrix
from kagscope.base.errors import InputError
from kagscope.minors.haar import haar_constant, haar_mean_s1_estimate
from kagscope.minors.precise_determinants import integers
from kagscope.minors.random_rotations import max_rotation_ratio, random_orthogonal
from kagscope.minors.routes.hull import top
from kernel_cases import matrices, read_truth, selected, truth_cases, with_threads


def haar_mean_s1(J: np.ndarray, k: int, **options: Any) -> float:
    return float(haar_mean_s1_estimate(J, k, **options).value)


@pytest.mark.parametrize("file", truth_cases())
def test_truth(file: Path) -> None:
    J, positions, entries = read_truth(file)
    for entry in entries:
        arguments = selected(positions, entry["selection"])
        wanted = float(entry["haar_mean_s1"])
        assert haar_mean_s1(J, entry["k"], **arguments) == pytest.approx(wanted, rel=1e-13, abs=0), entry["selection"]


@settings(deadline=None)
@given(matrices(min_rows=3, min_columns=3))
def test_rotating_the_rows_changes_nothing(J: np.ndarray) -> None:
    Q = random_orthogonal(len(J), 1, 5)[0]
    for k in (1, 2, 3):
        scale = math.prod(sorted(np.linalg.norm(J, axis=0))[-k:])
        assert haar_mean_s1(Q @ J, k) == pytest.approx(haar_mean_s1(J, k), rel=1e-9, abs=1e-12 * scale)


@settings(deadline=None)
@given(matrices(min_rows=3, min_columns=3))
def test_a_list_of_subsets_and_a_graph_agree_with_all(J: np.ndarray) -> None:
    n = J.shape[1]
    for k in (2, 3):
        every = haar_mean_s1(J, k)
        scale = math.prod(sorted(np.linalg.norm(J, axis=0))[-k:])
        listed = np.array(list(combinations(range(n), k)))
        assert haar_mean_s1(J, k, subsets=listed) == pytest.approx(every, rel=1e-7, abs=1e-9 * scale)
        assert haar_mean_s1(J, k, pairs=np.ones((n, n), dtype=bool)) == pytest.approx(every, rel=1e-12, abs=0)


def test_nearly_parallel_columns_keep_their_digits() -> None:
    """Angle 1e-7: the Gram determinant alone would have no digit left."""
    x = np.array([1.0, 2.0, -1.0, 0.5])
    away = np.array([2.0, -1.0, 0.0, 0.0])  # orthogonal to x
    J = np.stack([x, x + 1e-7 * away], axis=1)
    exact = J[:, 1] - x
    area = np.linalg.norm(x) * np.linalg.norm(exact - x * (exact @ x) / (x @ x))
    assert haar_mean_s1(J, 2) == pytest.approx(6 * haar_constant(4, 2) * area, rel=1e-9, abs=0)
    wide = np.concatenate([J, np.eye(4)[:, :1]], axis=1)
    assert haar_mean_s1(wide, 3) == pytest.approx(haar_mean_s1(wide[:, [2, 0, 1]], 3), rel=1e-8, abs=0)


def test_parallel_columns_span_exactly_nothing() -> None:
    rng = np.random.default_rng(1)
    J = np.outer(rng.integers(-9, 10, size=7), rng.integers(-9, 10, size=12)).astype(float)
    assert haar_mean_s1(J, 2) == 0.0
    assert haar_mean_s1(J, 3) == 0.0


@pytest.mark.parametrize("k", [3, 4])
def test_rank_below_k_gives_exactly_zero(k: int) -> None:
    rng = np.random.default_rng(12)
    J = (rng.integers(-9, 9, size=(6, 2)) @ rng.integers(-9, 9, size=(2, 8))).astype(float)
    every = np.array(list(combinations(range(8), k)))
    assert haar_mean_s1_estimate(J, k) == (0.0, 0.0)
    assert haar_mean_s1(J, k, subsets=every) == haar_mean_s1(J, k, pairs=np.ones((8, 8), dtype=bool)) == 0
    assert haar_mean_s1(J, k, max_triples=1, max_listed=1) == 0


def exact_mean(J: np.ndarray, k: int, power: int) -> float:
    """Of J / 2^power, from Gram determinants in whole numbers."""
    whole, exponent = integers(J)
    gram = (whole.T @ whole).tolist()
    total = Fraction(0)
    for C in combinations(range(J.shape[1]), k):
        square = determinant([[gram[a][b] for b in C] for a in C])
        total += math.isqrt(square << 200)  # 2^100 times the volume
    return math.comb(len(J), k) * haar_constant(len(J), k) * float(total * Fraction(2) ** (k * (exponent - power) - 100))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_every_kind_of_matrix(kind: str, k: int) -> None:
    """Of the rounded product of two thin matrices rr_pr was 1.35 instead of 0.95, called exact; of mixed scales NaN."""
    for seed in range(6):
        J = matrix(kind, seed, k)
        moments = kag.minor_moments(J, k, moments=("s1",))
        power = int(moments.exponent[0])
        wanted = exact_mean(J, k, power)
        found = haar_mean_s1_estimate(J, k, power=power)
        assert found.value == pytest.approx(wanted, rel=1e-10, abs=1e-300), seed
        assert found.stderr == 0, seed
        ratio, error = kag.rotation_ratio(J, k, return_error=True)
        if moments.sums["s1"][0] < 1e-300:
            assert math.isnan(ratio), seed
        else:
            assert ratio == pytest.approx(wanted / moments.sums["s1"][0], rel=1e-10), seed
            assert error == 0, seed


@pytest.mark.parametrize("k", [2, 3])
def test_selections_far_below_the_largest_minor(k: int) -> None:
    """rr_pr of columns of 5e-324 beside others of 1 was 0.94 instead of 1.26, called exact."""
    rng = np.random.default_rng(k)
    small = 5e-324 * rng.integers(-9, 10, size=(5, 4))
    J = np.concatenate([rng.normal(size=(5, 4)), small], axis=1)
    labels, alone = np.arange(8) // 4, kag.rotation_ratio(2.0**1000 * small, k)
    sets = [(0, 1, 2)[:k], (0, 1, 3)[:k] if k == 3 else (0, 2), (1, 2, 3)[:k]]
    found = kag.rotation_ratio(J, k, "pr", kag.Subsets([tuple(4 + a for a in one) for one in sets]), return_error=True)
    assert found == pytest.approx((kag.rotation_ratio(2.0**1000 * small, k, "pr", kag.Subsets(sets)), 0), rel=1e-9)
    window = kag.Window((1,), 0)
    assert kag.rotation_ratio(J, k, "pr", window, positions=labels) == pytest.approx(alone, rel=1e-9)


def test_too_many_nearly_dependent_columns_state_what_rounding_may_have_made() -> None:
    rng = np.random.default_rng(3)
    thin = rng.normal(size=(6, 2)) @ rng.normal(size=(2, 160))
    found = haar_mean_s1_estimate(thin + 1e-9 * rng.normal(size=thin.shape), 3)
    assert 1e-9 < found.stderr / found.value < 0.1
    assert np.isnan(haar_mean_s1_estimate(thin, 3)).all()
    near = np.abs(np.subtract.outer(np.arange(160), np.arange(160))) < 2  # few triples of columns: none
    assert haar_mean_s1_estimate(rng.normal(size=(6, 160)), 3, pairs=near) == (0.0, 0.0)


def test_constant_of_one_entry_is_the_mean_of_a_unit_vectors() -> None:
    assert haar_constant(2, 1) == pytest.approx(2 / math.pi, rel=1e-14)
    assert haar_constant(3, 1) == pytest.approx(0.5, rel=1e-14)
    assert haar_constant(5, 5) == pytest.approx(1.0, rel=1e-14)
    assert math.isfinite(haar_constant(100_000, 3))


def test_orthogonal_matrices_are_orthogonal_and_uniform() -> None:
    Q = random_orthogonal(4, 20_000, 2)
    np.testing.assert_allclose(np.swapaxes(Q, 1, 2) @ Q, np.broadcast_to(np.eye(4), Q.shape), atol=1e-13)
    assert np.abs(Q.mean(axis=0)).max() < 0.02  # standard error 0.0035
    np.testing.assert_allclose((Q**2).mean(axis=0), 0.25, atol=0.01)
    np.testing.assert_allclose((Q**4).mean(axis=0), 3 / 24, atol=0.01)
    assert np.abs(np.linalg.det(Q).mean()) < 0.03
    assert np.array_equal(Q[:1], random_orthogonal(4, 1, 2))


@pytest.mark.parametrize("k", [1, 2])
def test_closed_form_is_the_mean_over_rotations(k: int) -> None:
    J = np.random.default_rng(3).normal(size=(5, 7)) * np.array([[5.0], [1], [1], [0.1], [0]])
    values = []
    for Q in random_orthogonal(5, 2000, 4):
        R = Q @ J
        i, j = np.triu_indices(5, 1)
        a, b = np.triu_indices(7, 1)
        pairs = R[i][:, a] * R[j][:, b] - R[i][:, b] * R[j][:, a]
        values.append(np.abs(R).sum() if k == 1 else np.abs(pairs).sum())
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values) - haar_mean_s1(J, k)) < 4 * error


@pytest.mark.parametrize("graph", [False, True])
def test_sampled_means_cover_the_exact_one(graph: bool) -> None:
    rng = np.random.default_rng(6)
    J = rng.normal(size=(9, 14)) * np.exp(rng.normal(size=14))
    near = np.abs(np.subtract.outer(np.arange(14), np.arange(14))) <= 5 if graph else None
    exact = haar_mean_s1_estimate(J, 3, pairs=near)
    assert exact.stderr == 0
    scores = []
    for seed in range(60):
        got = haar_mean_s1_estimate(J, 3, pairs=near, seed=seed, max_triples=0, max_listed=0, rel_error=0.04)
        assert got.stderr > 0
        scores.append((got.value - exact.value) / got.stderr)
    assert 0.75 < np.std(scores) < 1.3
    assert abs(np.mean(scores)) < 0.5


def test_fourth_order_sampled_is_unbiased() -> None:
    J = np.random.default_rng(7).normal(size=(6, 8))
    wanted = haar_mean_s1(J, 4, subsets=np.array(list(combinations(range(8), 4))))
    got = haar_mean_s1_estimate(J, 4, rel_error=0.003, max_listed=0)
    assert abs(got.value - wanted) < 4 * got.stderr


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_extreme_scales(scale: float) -> None:
    J = np.random.default_rng(8).normal(size=(4, 6))
    assert haar_mean_s1(J * scale, 1) == pytest.approx(scale * haar_mean_s1(J, 1), rel=1e-12, abs=0)
    assert haar_mean_s1(J * scale, 2) == pytest.approx(scale**2 * haar_mean_s1(J, 2), rel=1e-12, abs=0)
    assert kag.rotation_ratio(J * scale, 2, "max") == pytest.approx(kag.rotation_ratio(J, 2, "max"), rel=1e-12)


def test_ratio_of_an_axis_aligned_matrix_is_above_one_and_of_a_rotated_one_about_one() -> None:
    aligned = np.zeros((9, 4))
    aligned[[0, 2, 5, 8], [2, 0, 3, 1]] = [1.5, -0.5, 2.0, 1.0]
    for k in (1, 2):
        for kind in ("pr", "max"):
            assert kag.rotation_ratio(aligned, k, kind) > 1.3
        rotated = random_orthogonal(9, 1, 9)[0] @ np.random.default_rng(1).normal(size=(9, 40))
        assert 0.7 < kag.rotation_ratio(rotated, k, "max") < 1.4
        assert kag.rotation_ratio(rotated, k, "pr") == pytest.approx(1.0, abs=0.05)


def test_maximum_ratio_is_what_it_says() -> None:
    J = np.random.default_rng(10).normal(size=(6, 20))
    got = max_rotation_ratio(J, 2, rotations=16, seed=3)
    tops = np.array([top(Q @ J) for Q in random_orthogonal(6, 16, 3)])
    assert got.value == pytest.approx(top(J) / tops.mean(), rel=1e-12)
    assert got.stderr == pytest.approx(got.value * tops.std(ddof=1) / 4 / tops.mean(), rel=1e-12)
    assert max_rotation_ratio(J, 2, pairs=np.ones((20, 20), dtype=bool), rotations=16, seed=3).value == pytest.approx(
        got.value, rel=1e-12
    )


@pytest.mark.parametrize("bits", [20, 51])
def test_maximum_ratio_of_nearly_parallel_pairs_alone(bits: int) -> None:
    """Whatever other columns there are: rotating the whole lost the digits of such pairs (0.85 instead of 1.04)."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=5)
    pair = np.stack([x, 2 * x * (1 + 2.0**-bits * rng.integers(-2, 3, size=5))], axis=1)
    wide = np.concatenate([pair, rng.normal(size=(5, 4))], axis=1)
    wanted = kag.rotation_ratio(pair, 2, "max", rotations=400, return_error=True)
    places = {"positions": [0, 0, 5, 6, 7, 8]}
    for selection in (kag.Window((0,), 0), kag.Ball(0)):
        found = kag.rotation_ratio(wide, 2, "max", selection, rotations=400, return_error=True, **places)
        assert abs(found.value - wanted.value) < 4 * np.hypot(found.stderr, wanted.stderr)
    both = np.concatenate([pair[:2], wide[:2, 2:]], axis=1)
    assert kag.rotation_ratio(both, 2, "max", kag.Ball(0), **places) == 1
    small = wide * np.array([2.0**-660, 2.0**-660, 1, 1, 1, 1])
    assert kag.rotation_ratio(small, 2, "max", kag.Window((0,), 0), **places) == pytest.approx(
        kag.rotation_ratio(wide, 2, "max", kag.Window((0,), 0), **places), rel=1e-9
    )


def test_maximum_ratio_of_minors_far_below_the_range() -> None:
    """Of means below 1e-160 squares are 0: division by zero."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        J = (
            rng.normal(size=(4, 3))
            * 10.0 ** rng.choice([-100, 0, 100], size=(4, 1))
            * 10.0 ** rng.choice([-170, 0, 70], size=(1, 3))
        )
        value, error = kag.rotation_ratio(J, 2, "max", kag.Ball(1), positions=[0, 1, 3], rotations=3, return_error=True)
        assert math.isnan(value) == math.isnan(error)
        assert math.isnan(value) or (value > 0 and error >= 0)


def test_no_minor_no_ratio() -> None:
    for kind in ("pr", "max"):
        assert math.isnan(kag.rotation_ratio(np.zeros((3, 4)), 2, kind))


@pytest.mark.parametrize(("k", "kind", "rotations"), [(3, "max", 8), (2, "mean", 8), (2, "max", 1)])
def test_bad_arguments_say_what_would_do(k: int, kind: str, rotations: int) -> None:
    with pytest.raises(InputError, match="expected"):
        kag.rotation_ratio(np.eye(4), k, kind, rotations=rotations)
    with pytest.raises(InputError, match="expected 1 to 4"):
        haar_mean_s1(np.eye(4), 5)


def test_same_bits_for_any_number_of_threads() -> None:
    J = np.random.default_rng(12).normal(size=(10, 40))
    assert with_threads(1, lambda: haar_mean_s1(J, 3)) == with_threads(2, lambda: haar_mean_s1(J, 3))
    one, two = (with_threads(count, lambda: kag.rotation_ratio(J, 2, "max")) for count in (1, 2))
    assert one == two


def test_tall_matrices_are_rotated_by_thin_draws_of_the_same_law() -> None:
    J = np.random.default_rng(11).normal(size=(40, 5))
    got = max_rotation_ratio(J, 2, rotations=400, seed=0)
    tops = np.array([top(Q @ J) for Q in random_orthogonal(40, 400, 1)])
    expected, error = top(J) / tops.mean(), top(J) * tops.std() / tops.mean() ** 2 / 20
    assert abs(got.value - expected) < 4 * np.hypot(got.stderr, error)
    assert got.stderr < 0.05 * expected


def test_means_are_the_same_bits_after_pairs_were_drawn() -> None:
    """Roots of S2 are summed once for a matrix, by whoever asks first."""
    J = np.random.default_rng(3).normal(size=(6, 48))
    J[2] = 0.0
    chosen, shape = [kag.All(), kag.Ball(3), kag.Apart(4)], (6, 8)
    before = kag.haar_mean_s1(J, 2, chosen, image_shape=shape)
    kag.minor_moments(J, 2, chosen, image_shape=shape, method="sampled")
    assert kag.haar_mean_s1(J, 2, chosen, image_shape=shape) == before


@pytest.mark.parametrize("k", [1, 2, 3])
def test_no_column_at_all(k: int) -> None:
    nowhere = {"selection": kag.Window((9.0,), 1.0), "positions": np.arange(5)}
    J = np.random.default_rng(0).normal(size=(4, 5))
    assert kag.minor_moments(J, k, **nowhere).s1 == kag.haar_mean_s1(J, k, **nowhere) == 0
    assert math.isnan(kag.rotation_ratio(J, k, **nowhere))
