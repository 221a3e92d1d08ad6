"""Zonotope volumes against exact arithmetic; sampled S1 against enumeration."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from kagscope.base.errors import InputError
from kagscope.minors.plan import Estimate
from kagscope.minors.routes import zonotope
from kagscope.minors.routes.zonotope import row_triple_volumes, zonotope_s1
from kagscope.minors.routes.zonotope_sampled import s1_draws
from kernel_cases import matrices, minors, read_truth, relative_error, truth_cases, with_threads

ACCURATE = 1e-13


def s1_sampled(J: np.ndarray, k: int, rel_error: float = 0.01, seed: int = 0, max_draws: int = 1 << 20) -> Estimate:
    """Mean and standard error of the draws, whose squares may leave the range."""
    draws = s1_draws(J, k, rel_error, seed, max_draws)
    largest = float(draws.max()) or 1.0
    shares = draws / largest
    return Estimate(largest * float(shares.mean()), largest * float(shares.std(ddof=1)) / math.sqrt(shares.size))


def all_triples(m: int) -> np.ndarray:
    return np.array(list(combinations(range(m), 3)), dtype=np.int64).reshape(-1, 3)


def worst(J: np.ndarray) -> float:
    wanted = [sum(row, Fraction(0)) for row in minors(J, 3)]
    return max(relative_error(a, b) for a, b in zip(row_triple_volumes(J, all_triples(len(J))), wanted, strict=True))


@pytest.mark.parametrize("file", truth_cases())
def test_truth(file: Path) -> None:
    J, _, entries = read_truth(file)
    for entry in entries:
        if entry["k"] == 3 and entry["selection"]["kind"] == "all":
            means = np.array([float(x) for x in entry["row_means"]])
            np.testing.assert_allclose(
                row_triple_volumes(J, all_triples(len(J))), means * comb(J.shape[1], 3), rtol=ACCURATE, atol=0
            )
            assert zonotope_s1(J) == pytest.approx(float(entry["s1"]), rel=ACCURATE, abs=0)
            sampled = s1_sampled(J, 3, 0.01)
            assert abs(sampled.value - float(entry["s1"])) <= 4.5 * sampled.stderr + 1e-12 * float(entry["s1"])


@settings(deadline=None)
@given(matrices(max_columns=6, min_rows=3, min_columns=3))
def test_any_matrix(J: np.ndarray) -> None:
    assert worst(J) <= ACCURATE


@pytest.mark.parametrize("epsilon", [1e-2, 1e-5, 1e-8, 1e-12])
def test_nearly_coplanar_rows_keep_their_digits(epsilon: float) -> None:
    rng = np.random.default_rng(1)
    J = rng.normal(size=(3, 12))
    J[2] = J[0] / 3 - 2 * J[1] + epsilon * rng.normal(size=12)
    assert worst(J) <= ACCURATE
    J[1] = J[0] + epsilon * rng.normal(size=12)
    assert worst(J) <= ACCURATE


def test_dependent_rows_give_exactly_zero() -> None:
    rng = np.random.default_rng(2)
    J = rng.integers(-50, 50, size=(5, 30)).astype(float)
    J[2], J[4] = 3 * J[0] - 7 * J[1], 0.0
    volumes = dict(zip(combinations(range(5), 3), row_triple_volumes(J, all_triples(5)), strict=True))
    assert volumes[0, 1, 2] == 0
    assert all(volume == 0 for rows, volume in volumes.items() if 4 in rows)
    assert volumes[0, 1, 3] > 0


@pytest.mark.parametrize("scale", [1e-100, 1e-90, 1e90, 1e100])
def test_extreme_scales(scale: float) -> None:
    assert worst(np.random.default_rng(3).normal(size=(4, 8)) * scale) <= ACCURATE
    J = np.random.default_rng(3).normal(size=(6, 8))
    small, large = s1_sampled(J, 3), s1_sampled(J * scale, 3)
    assert large.value == pytest.approx(small.value * scale**3, rel=1e-10, abs=0)
    assert large.stderr == pytest.approx(small.stderr * scale**3, rel=1e-10, abs=0)


def test_order_signs_and_zero_columns_change_nothing() -> None:
    J = np.random.default_rng(4).normal(size=(3, 25))
    volume = row_triple_volumes(J, all_triples(3))[0]
    signs = np.where(np.arange(25) % 2, 1.0, -1.0)
    for changed in (J[[2, 0, 1]], J[:, ::-1] * signs, np.insert(J, 4, 0.0, axis=1), J * np.array([[1], [-1], [1]])):
        assert row_triple_volumes(changed, all_triples(3))[0] == pytest.approx(volume, rel=ACCURATE)
    assert row_triple_volumes(J, np.array([[0, 1, 1]]))[0] == 0


def exact_s1(J: np.ndarray, k: int) -> float:
    columns = np.array(list(combinations(range(J.shape[1]), k)))
    return sum(
        float(np.abs(np.linalg.det(J[list(R)][:, columns].transpose(1, 0, 2))).sum()) for R in combinations(range(len(J)), k)
    )


@pytest.mark.parametrize("k", [3, 4, 5])
def test_sampled_is_unbiased_with_honest_errors(k: int) -> None:
    rng = np.random.default_rng(5)
    J = rng.normal(size=(6, 8)) * np.exp(rng.normal(size=(6, 1))) * np.exp(rng.normal(size=8))
    J[:, 3] = J[:, 2]
    wanted = exact_s1(J, k)
    scores = []
    for seed in range(150):
        got = s1_sampled(J, k, 0.05, seed)
        scores.append((got.value - wanted) / got.stderr)
    assert abs(np.mean(scores)) < 0.35  # standard error 0.08
    assert 0.8 < np.std(scores) < 1.2


@pytest.mark.parametrize("small", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize(("k", "large"), [(3, 1), (3, 2), (4, 1), (4, 3)])
def test_columns_of_two_lengths_lack_no_order_of_drawing(k: int, large: int, small: float) -> None:
    """Drawn by length alone S1 was a quarter to two thirds of the truth, at stated errors below 1%."""
    J = np.random.default_rng(0).normal(size=(6, 10))
    J[:, large:] *= small
    got = s1_sampled(J, k, 0.02)
    assert abs(got.value - exact_s1(J, k)) <= 4 * got.stderr


@pytest.mark.slow
def test_sampled_intervals_cover_over_400_repetitions() -> None:
    rng = np.random.default_rng(6)
    J = rng.normal(size=(10, 30)) * np.exp(rng.normal(size=(10, 1)))
    wanted = zonotope_s1(J)
    hits = [abs(got.value - wanted) <= 1.96 * got.stderr for got in (s1_sampled(J, 3, 0.005, seed) for seed in range(400))]
    assert 0.93 <= np.mean(hits) <= 0.97


def test_asked_for_accuracy_is_met_and_budget_is_kept() -> None:
    J = np.random.default_rng(7).normal(size=(20, 60))
    for rel_error in (0.01, 0.002):
        got = s1_sampled(J, 3, rel_error)
        assert 0 < got.stderr <= rel_error * got.value
    short = s1_sampled(J, 3, 1e-9, max_draws=1024)
    assert short.stderr > 1e-9 * short.value


def test_same_bits_for_any_number_of_threads_and_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    J = np.random.default_rng(8).normal(size=(8, 70))
    one = with_threads(1, lambda: s1_sampled(J, 3, 0.002, seed=1))
    volumes = with_threads(1, lambda: row_triple_volumes(J, all_triples(8)))
    assert one == with_threads(2, lambda: s1_sampled(J, 3, 0.002, seed=1))
    assert one != s1_sampled(J, 3, 0.002, seed=2)
    assert np.array_equal(volumes, with_threads(2, lambda: row_triple_volumes(J, all_triples(8))))
    monkeypatch.setattr(zonotope, "BLOCK_ENTRIES", 20_000)
    assert np.array_equal(volumes, with_threads(2, lambda: row_triple_volumes(J, all_triples(8))))


def test_rank_too_low_gives_exactly_zero() -> None:
    J = np.zeros((5, 6))
    J[:2, :4] = np.arange(8).reshape(2, 4)
    assert s1_sampled(J, 3) == (0.0, 0.0)


def test_bad_k_says_what_would_do() -> None:
    with pytest.raises(InputError, match="expected 3 to 4"):
        s1_sampled(np.eye(4), 2)
