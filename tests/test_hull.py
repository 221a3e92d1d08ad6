"""The largest 2-minor by pruning against the largest of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.spatial import ConvexHull

from kagscope.minors.routes.hull import _hull, _top, column_pair_tops, row_pair_tops, top
from kernel_cases import matrices, minors, read_truth, relative_error, truth_cases, with_threads

ACCURATE = 1e-14
hull: Any = _hull  # which Numba leaves untyped
pruned_top: Any = _top


@pytest.mark.parametrize("file", truth_cases())
def test_truth(file: Path) -> None:
    J, _, entries = read_truth(file)
    for entry in entries:
        if entry["k"] == 2 and entry["selection"]["kind"] == "all":
            assert top(J) == pytest.approx(float(entry["top"]), rel=ACCURATE, abs=0)


@settings(deadline=None)
@given(matrices(min_rows=2, min_columns=2))
def test_any_matrix(J: np.ndarray) -> None:
    wanted = [max(row) for row in minors(J, 2)]
    got = row_pair_tops(J)
    assert max(relative_error(a, b) for a, b in zip(got, wanted, strict=True)) <= ACCURATE
    assert relative_error(top(J), max(wanted)) <= ACCURATE


def brute(J: np.ndarray) -> np.ndarray:
    i, j = np.triu_indices(len(J), 1)
    return np.array([np.abs(np.outer(J[a], J[b]) - np.outer(J[b], J[a])).max() for a, b in zip(i, j, strict=True)])


@pytest.mark.parametrize("shape", ["circle", "ellipse", "square", "gaussian", "heavy", "polygon", "quadrant"])
def test_clouds_of_every_shape(shape: str) -> None:
    rng = np.random.default_rng(11)
    angle = np.linspace(0, np.pi, 150, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    J = {
        "circle": circle,
        "ellipse": np.array([[3.0, 2.9], [0.0, 0.01]]) @ circle,
        "square": rng.uniform(-1, 1, size=(5, 300)),
        "gaussian": rng.normal(size=(8, 300)),
        "heavy": rng.standard_cauchy(size=(6, 200)),
        "polygon": np.stack([np.cos(angle[::30]), np.sin(angle[::30])]).repeat(9, axis=1),
        "quadrant": rng.uniform(0, 1, size=(5, 300)),
    }[shape]
    np.testing.assert_allclose(row_pair_tops(J), brute(J), rtol=1e-12)
    assert top(J) == pytest.approx(brute(J).max(), rel=1e-12)


def test_rows_far_from_parallel_are_pruned_as_they_stand() -> None:
    J = np.random.default_rng(14).normal(size=(2, 300))
    assert pruned_top(*J, 0.0, np.empty(300)) == pytest.approx(brute(J)[0], rel=1e-12)  # -1 would ask for other coordinates


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_hull_keeps_vertices_alone(scale: float) -> None:
    for seed in range(8):
        u, v = scale * np.random.default_rng(seed).normal(size=(2, 200))
        both = np.stack([np.abs(u), v], axis=1)
        assert hull(np.abs(u), v) == len(ConvexHull(np.concatenate([both, -both])).vertices) / 2


def test_large_random_clouds_near_a_circle() -> None:
    rng = np.random.default_rng(12)
    for _ in range(60):
        n = int(rng.integers(3, 400))
        angle, radius = rng.uniform(0, 2 * np.pi, n), 1 + rng.uniform(-1, 1, n) * 10 ** rng.uniform(-9, -1)
        J = rng.normal(size=(2, 2)) @ np.stack([radius * np.cos(angle), radius * np.sin(angle)])
        np.testing.assert_allclose(row_pair_tops(J), brute(J), rtol=1e-12)


def test_parallel_rows_have_no_top_and_nearly_parallel_ones_an_accurate_one() -> None:
    x = np.arange(1.0, 40.0)
    assert row_pair_tops(np.stack([x, 2 * x, np.zeros(39)])).tolist() == [0.0, 0.0, 0.0]
    y = np.random.default_rng(13).normal(size=39)
    for epsilon in (1e-5, 1e-8, 1e-11):
        J = np.stack([x, x + epsilon * y])
        assert relative_error(row_pair_tops(J)[0], max(minors(J, 2)[0])) <= ACCURATE


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_extreme_scales(scale: float) -> None:
    J = np.random.default_rng(14).normal(size=(4, 20)) * scale
    assert relative_error(top(J), max(max(row) for row in minors(J, 2))) <= ACCURATE


def test_listed_column_pairs() -> None:
    J = np.random.default_rng(15).normal(size=(7, 9))
    pairs = np.array([[0, 1], [8, 3], [2, 5]])
    wanted = [brute(J[:, pair]).max() for pair in pairs]
    np.testing.assert_allclose(column_pair_tops(J, pairs), wanted, rtol=1e-14)


def test_same_bits_for_any_number_of_threads() -> None:
    J = np.random.default_rng(16).normal(size=(64, 784))
    one, two = (with_threads(count, lambda: row_pair_tops(J)) for count in (1, 2))
    assert np.array_equal(one, two)
    assert with_threads(1, lambda: top(J)) == with_threads(2, lambda: top(J)) == one.max()
