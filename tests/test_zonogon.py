"""Zonogon areas against exact arithmetic, in every kind of ill condition."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings

import kagscope as kag
from kagscope.minors.routes import zonogon
from kagscope.minors.routes.zonogon import _repair, careful_area, pair_areas, row_pair_areas
from kagscope.minors.row_means import row_means
from kernel_cases import matrices, minors, read_truth, relative_error, truth_cases, with_threads

EXACT = 1e-14
repair: Any = _repair  # which Numba leaves untyped


def worst(J: np.ndarray) -> float:
    wanted = [sum(row, Fraction(0)) for row in minors(J, 2)]
    got = row_pair_areas(J)
    assert got.shape == (comb(len(J), 2),)
    return max((relative_error(a, b) for a, b in zip(got, wanted, strict=True)), default=0.0)


@pytest.mark.parametrize("file", truth_cases())
def test_truth(file: Path) -> None:
    J, _, entries = read_truth(file)
    for entry in entries:
        if entry["k"] == 2 and entry["selection"]["kind"] == "all":
            means = np.array([float(x) for x in entry["row_means"]])
            np.testing.assert_allclose(row_pair_areas(J), means * comb(J.shape[1], 2), rtol=EXACT, atol=0)
            assert row_pair_areas(J).sum() == pytest.approx(float(entry["s1"]), rel=EXACT, abs=0)
            assert row_pair_areas(np.ascontiguousarray(J.T)).sum() == pytest.approx(float(entry["s1"]), rel=EXACT, abs=0)


@settings(deadline=None)
@given(matrices(min_rows=2))
def test_any_matrix(J: np.ndarray) -> None:
    assert worst(J) <= EXACT


@pytest.mark.parametrize("epsilon", [1.0, 1e-2, 1e-5, 1e-7, 1e-9, 1e-12, 1e-15])
@pytest.mark.parametrize("factor", [1.0, 1 / 3, -1e6])
def test_nearly_parallel_rows_keep_their_digits(epsilon: float, factor: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=70)
    assert worst(np.stack([x, factor * x + epsilon * rng.normal(size=70)])) <= EXACT


def test_nearly_parallel_columns() -> None:
    rng = np.random.default_rng(2)
    J = np.outer(rng.normal(size=4), np.ones(60)) + 1e-8 * rng.normal(size=(4, 60))
    assert worst(J) <= EXACT


def test_parallel_rows_and_columns_give_exactly_zero() -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(-1000, 1000, size=500).astype(float)
    assert not row_pair_areas(np.stack([x, 3 * x, -x / 8, np.zeros(500), x * 1e3])).any()
    assert row_pair_areas(rng.normal(size=(5, 1))).tolist() == [0.0] * 10


@pytest.mark.parametrize("scale", [1e-150, 1e-120, 1e120, 1e150])
def test_extreme_scales(scale: float) -> None:
    J = np.random.default_rng(4).normal(size=(3, 30)) * scale
    assert worst(J) <= EXACT


def test_rows_of_very_different_lengths() -> None:
    rng = np.random.default_rng(5)
    assert worst(rng.normal(size=(4, 50)) * np.array([[1e-9], [1.0], [1e7], [1e-3]])) <= EXACT
    assert worst(rng.normal(size=(4, 50)) * 10 ** rng.uniform(-12, 12, size=(4, 50))) <= EXACT


@pytest.mark.parametrize("n", [2, 3, 4, 5, 63, 64, 65, 1024, 1025, 5000])
def test_lengths_around_every_boundary(n: int) -> None:
    """Runs of four, checks of 64, index bits; against the column-pair sum written out."""
    x, y = np.random.default_rng(n).normal(size=(2, n))
    wanted = sum(np.abs(x[a] * y[:a] - y[a] * x[:a]).sum() for a in range(n))
    assert row_pair_areas(np.stack([x, y]))[0] == pytest.approx(wanted, rel=1e-12)


def test_keys_that_cannot_tell_slopes_apart_fall_back() -> None:
    """All slopes but two within 1e-9: the 32-bit keys are useless and insertion would be quadratic."""
    rng = np.random.default_rng(6)
    x = np.concatenate([rng.uniform(1, 2, 200), [300.0, 0.0]])
    y = np.concatenate([x[:200] * (1 + 1e-9 * rng.normal(size=200)), [0.0, 300.0]])
    J = np.stack([x, y])
    assert worst(J) <= EXACT
    assert careful_area(*J) == pytest.approx(row_pair_areas(J)[0], rel=EXACT)


def test_repair_sorts_neighbours_and_gives_up_what_is_far_off() -> None:
    rng = np.random.default_rng(10)
    u = rng.uniform(1, 2, size=300)
    v = u * np.sort(rng.normal(size=300))
    for part in (u, v):
        part[1::10], part[2::10] = part[2::10].copy(), part[1::10].copy()
    assert repair(u, v)
    assert (u[:-1] * v[1:] >= u[1:] * v[:-1]).all()
    assert not repair(u[::-1].copy(), v[::-1].copy())


def test_zero_columns_and_duplicates_change_nothing_they_should_not() -> None:
    J = np.random.default_rng(7).normal(size=(5, 40))
    areas = row_pair_areas(J)
    np.testing.assert_allclose(row_pair_areas(np.insert(J, [3, 9], 0.0, axis=1)), areas, rtol=EXACT)
    np.testing.assert_allclose(row_pair_areas(np.repeat(J, 3, axis=1)), 9 * areas, rtol=EXACT)
    np.testing.assert_allclose(row_pair_areas(J[:, ::-1] * np.where(np.arange(40) % 3, 1.0, -1.0)), areas, rtol=EXACT)


def test_chosen_pairs_are_those_of_all_pairs() -> None:
    J = np.random.default_rng(8).normal(size=(6, 30))
    first, second = np.array([4, 0, 2]), np.array([1, 5, 2])
    everything = dict(zip(combinations(range(6), 2), row_pair_areas(J), strict=True))
    got = pair_areas(J, first, second)
    assert got[0] == pytest.approx(everything[1, 4], rel=EXACT)
    assert got[1] == everything[0, 5]
    assert got[2] == 0.0


def test_same_bits_for_any_number_of_threads_and_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    J = np.random.default_rng(9).normal(size=(40, 300))
    one = with_threads(1, lambda: row_pair_areas(J))
    assert np.array_equal(one, with_threads(2, lambda: row_pair_areas(J)))
    monkeypatch.setattr(zonogon, "BLOCK_ENTRIES", 1000)
    assert np.array_equal(one, with_threads(2, lambda: row_pair_areas(J)))


def test_areas_of_row_pairs_are_found_once() -> None:
    """S1, row means and another scale of the same matrix, zero rows among them."""
    J = np.random.default_rng(77).normal(size=(9, 30))
    J[[2, 8]] = 0.0
    with mock.patch("kagscope.minors.routes.zonogon.pair_areas", side_effect=pair_areas) as found:
        s1 = kag.minor_moments(J, 2, moments="s1").s1
        means = row_means(J, 2)
        scaled = row_means(J * 4.0, 2)
    assert found.call_count == 1
    assert means.sum() * comb(30, 2) == pytest.approx(s1, rel=1e-14)
    assert np.array_equal(scaled, means * 16)
    wanted = [0.0 if {i, j} & {2, 8} else row_pair_areas(J[[i, j]])[0] / comb(30, 2) for i, j in combinations(range(9), 2)]
    np.testing.assert_allclose(means, wanted, rtol=1e-14)
