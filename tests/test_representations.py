"""Scores of representations against their textbook formulas, and what must not change them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kagscope.base.errors import InputError
from kagscope.scores.of_representations import (
    debiased_cka,
    effective_dimension,
    intrinsic_dimension,
    kernel_alignment,
    linear_cka,
)


def rotation(m: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(m, m)))[0]


def centred_alignment(K: np.ndarray, L: np.ndarray) -> float:
    """The definition, with H = I - 11^T / n written out (Cortes et al. 2012)."""
    n = len(K)
    H = np.eye(n) - np.full((n, n), 1 / n)
    HKH, HLH = H @ K @ H, H @ L @ H
    return float((HKH * HLH).sum() / np.sqrt((HKH**2).sum() * (HLH**2).sum()))


def unbiased_hsic(K: np.ndarray, L: np.ndarray) -> float:
    """Mean over all ordered quadruples of different points (Song et al. 2012, as a U-statistic), by brute force."""
    n = len(K)
    total, count = 0, 0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q])
                        count += 1
    return total / count


cases = given(seed=st.integers(0, 2**32 - 1), n=st.integers(5, 25), m=st.integers(1, 6))


@settings(deadline=None)
@cases
def test_kernel_alignment_is_its_definition(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    A, labels = rng.normal(size=(n, m)) + 3 * rng.normal(size=m), rng.permutation(np.arange(n) % 3) * 7 - 2
    Y = np.array([[float(label == other) for other in labels] for label in labels])
    assert kernel_alignment(A, labels) == pytest.approx(centred_alignment(A @ A.T, Y), rel=1e-9, abs=1e-12)
    assert 0 <= kernel_alignment(A, labels) <= 1 + 1e-12


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(4, 7))
def test_debiased_cka_is_its_definition(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(n, 3)), rng.normal(size=(n, 4))
    K, L = A @ A.T, B @ B.T
    own = unbiased_hsic(K, K) * unbiased_hsic(L, L)
    got = debiased_cka(A, B)
    if own > 1e-9:
        assert got == pytest.approx(unbiased_hsic(K, L) / np.sqrt(own), rel=1e-7, abs=1e-9)
    elif own < -1e-9:
        assert np.isnan(got)


LABELS = np.arange(25) % 4
SCORES: dict[str, Callable[[np.ndarray], float]] = {
    "kernel_alignment": lambda A: kernel_alignment(A, LABELS[: len(A)]),
    "linear_cka": lambda A: linear_cka(A, np.cos(np.arange(2 * len(A))).reshape(-1, 2)),
    "debiased_cka": lambda A: debiased_cka(A, np.cos(np.arange(2 * len(A))).reshape(-1, 2)),
    "effective_dimension": effective_dimension,
}


@pytest.mark.parametrize("name", SCORES)
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(5, 25), m=st.integers(1, 6), exponent=st.floats(-120, 120))
def test_rotation_shift_and_scale_change_nothing(name: str, seed: int, n: int, m: int, exponent: float) -> None:
    rng = np.random.default_rng(seed)
    A, score = rng.normal(size=(n, m)), SCORES[name]
    expected = score(A)
    if np.isnan(expected):
        return
    assert score(A @ rotation(m, rng)) == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert score(A + rng.normal(size=m)) == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert score(A * 10.0**exponent) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert score(np.hstack([A, np.full((n, 2), 0.1)])) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(deadline=None)
@cases
def test_cka_of_itself_is_one_and_symmetric(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(n, m)), rng.normal(size=(n, 2))
    for score in (linear_cka, debiased_cka):
        itself = score(A, A)
        assert np.isnan(itself) or itself == pytest.approx(1)
        np.testing.assert_allclose(score(A, B), score(B, A), rtol=1e-9, atol=1e-12)


def test_debiased_cka_of_independent_data_is_about_zero_and_biased_is_not() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(50, 80)), rng.normal(size=(50, 80))) for _ in range(60)]
    debiased, biased = (np.array([score(a, b) for a, b in pairs]) for score in (debiased_cka, linear_cka))
    assert abs(debiased.mean()) < 4 * debiased.std() / np.sqrt(len(pairs))
    assert np.abs(debiased).max() < 0.15
    assert biased.min() > 0.5


@settings(deadline=None)
@cases
def test_effective_dimension_is_within_its_bounds(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, m)) * np.exp(3 * rng.normal(size=m))
    value = effective_dimension(A)
    spectrum = np.linalg.eigvalsh(np.atleast_2d(np.cov(A.T)))
    assert value == pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum(), rel=1e-9)
    assert 1 - 1e-9 <= value <= min(m, n - 1) + 1e-9


def test_effective_dimension_by_hand() -> None:
    assert effective_dimension(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])) == pytest.approx(2)
    assert effective_dimension(np.outer(np.arange(9.0), [1, -2, 3])) == pytest.approx(1)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1 / 3, -1e10])
@pytest.mark.parametrize("n", [7, 10, 1000])
def test_constant_activations_have_no_score(constant: float, n: int) -> None:
    """0.1 has no exact mean in binary: its rounding must not pass for a signal."""
    A, B = np.full((n, 3), constant), np.random.default_rng(0).normal(size=(n, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(kernel_alignment(A, np.arange(n) % 2))
        assert np.isnan(kernel_alignment(B, np.zeros(n, int)))
        assert np.isnan(linear_cka(A, B))
        assert np.isnan(debiased_cka(A, B))
        assert np.isnan(effective_dimension(A))
        assert np.isnan(intrinsic_dimension(A))


def swiss_roll(count: int, rng: np.random.Generator) -> np.ndarray:
    angle, height = rng.uniform(3, 9, count), rng.uniform(0, 20, count)
    return np.stack([angle * np.cos(angle), height, angle * np.sin(angle)], axis=1)


@pytest.mark.parametrize(
    ("draw", "dimension"),
    [
        (lambda rng: swiss_roll(1500, rng), 2),
        (lambda rng: rng.uniform(size=(1500, 2)) @ rng.normal(size=(2, 30)), 2),
        (lambda rng: np.tanh(rng.uniform(size=(1500, 1)) @ rng.normal(size=(1, 12))), 1),
        (lambda rng: rng.uniform(size=(1500, 3)), 3),
        (lambda rng: rng.uniform(size=(1500, 1)), 1),
    ],
    ids=["swiss roll", "plane in 30 dimensions", "curve", "cube", "one unit"],
)
def test_intrinsic_dimension_of_known_manifolds(draw: Callable[[np.random.Generator], np.ndarray], dimension: int) -> None:
    rng = np.random.default_rng(1)
    A = draw(rng)
    value = intrinsic_dimension(A)
    assert value == pytest.approx(dimension, rel=0.12)
    assert intrinsic_dimension(np.concatenate([A, A[:300]])) == pytest.approx(value, rel=1e-9)
    assert intrinsic_dimension(A[::-1] * 1e-3) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("units", [2, 25, 40])
def test_intrinsic_dimension_is_that_of_scikit_dimension(units: int) -> None:
    two_nn = pytest.importorskip("skdim.id").TwoNN
    A = np.random.default_rng(units).normal(size=(300, units))
    assert intrinsic_dimension(A) == pytest.approx(two_nn().fit(A).dimension_, rel=1e-9)


@pytest.mark.parametrize(
    "change", [lambda A: A + 1e7, lambda A: A * 1e-200, lambda A: A * 1e200], ids=["shift", "small", "large"]
)
def test_intrinsic_dimension_has_no_origin_and_no_scale(change: Callable[[np.ndarray], np.ndarray]) -> None:
    A = np.random.default_rng(5).normal(size=(200, 40))
    assert intrinsic_dimension(change(A)) == pytest.approx(intrinsic_dimension(A), rel=1e-6)


def test_intrinsic_dimension_leaves_random_state_alone_and_repeats() -> None:
    A = np.random.default_rng(2).normal(size=(200, 4))
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    assert intrinsic_dimension(A) == intrinsic_dimension(A)
    assert (np.random.get_state(legacy=False)["state"]["key"] == before).all()  # noqa: NPY002


def test_intrinsic_dimension_of_too_few_or_even_points_is_undefined() -> None:
    rng = np.random.default_rng(3)
    assert np.isnan(intrinsic_dimension(rng.normal(size=(9, 3))))
    assert np.isnan(intrinsic_dimension(np.repeat(rng.normal(size=(9, 3)), 20, axis=0)))
    assert not np.isnan(intrinsic_dimension(rng.normal(size=(10, 3))))
    assert np.isnan(intrinsic_dimension(np.argwhere(np.ones((6, 6))).astype(float)))


def test_points_must_be_the_same() -> None:
    A = np.ones((5, 2))
    with pytest.raises(InputError, match="5 activations but 4 labels"):
        kernel_alignment(A, np.zeros(4, int))
    with pytest.raises(InputError, match="got 5 and 6"):
        linear_cka(A, np.ones((6, 2)))
    with pytest.raises(InputError, match="got 5 and 6"):
        debiased_cka(A, np.ones((6, 2)))
    with pytest.raises(InputError, match="4 or more points in both; got 3 and 3"):
        debiased_cka(A[:3], A[:3])


def exactly(A: np.ndarray) -> np.ndarray:
    """Its entries as fractions."""
    return np.array([[Fraction(x) for x in row] for row in A.tolist()])


def test_debiased_cka_beside_an_outlier() -> None:
    """One activation of 1e9 beside ones of about 1: differences of 1e18 were told from each other."""
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(9, 3)), rng.normal(size=(9, 4))
    A[0, 0] = 1e9
    K, L = (one @ one.T for one in map(exactly, (A, B)))
    cross, own = unbiased_hsic(K, L), unbiased_hsic(K, K) * unbiased_hsic(L, L)
    wanted = float(cross) / math.sqrt(own)
    assert debiased_cka(A, B) == pytest.approx(wanted, rel=1e-9)


def test_a_self_similarity_of_rounding_is_none() -> None:
    """Points along axes of their own have exactly none; it was 1e-17, and the score of another with it 1e-9."""
    own, other = np.eye(12, 4), np.random.default_rng(0).normal(size=(12, 3))
    assert math.isnan(debiased_cka(own, other))
    assert math.isnan(debiased_cka(3 * own + 0.1, other))


@pytest.mark.parametrize("score", [linear_cka, debiased_cka])
def test_alignment_at_the_ends_of_the_range_and_far_from_the_origin(score: Callable[..., float]) -> None:
    rng = np.random.default_rng(1)
    whole, other = rng.integers(-9, 10, size=(15, 4)).astype(float), rng.normal(size=(15, 3))
    wanted = score(whole, other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in (whole * 2.0**1020, whole * 5e-324, whole + 2.0**45):
            assert score(same, other) == pytest.approx(wanted, rel=1e-12)
            assert effective_dimension(same) == pytest.approx(effective_dimension(whole), rel=1e-12)
