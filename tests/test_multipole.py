"""The entropy by multipoles against enumeration, brute force in long numbers and truth files; when it is taken."""

from __future__ import annotations

from pathlib import Path

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kagscope as kag
from kagscope.minors.routes.multipole import entropy_by_multipoles
from kagscope.minors.subsets import complete_pairs
from kagscope.minors.sweeps import enumerate_all
from kernel_cases import minors, read_truth, truth_cases, with_threads

ACCURATE = 1e-12  # of the sum of M |ln M| and of S1, whichever is more


def enumerated(J: np.ndarray) -> tuple[float, float]:
    """The entropy and S1."""
    sums = enumerate_all(J, complete_pairs(J.shape[1]), 2, False).sums.sum(axis=1)
    return float(sums[3]), float(sums[0])


@pytest.mark.parametrize("file", truth_cases())
def test_truth(file: Path) -> None:
    J, _, entries = read_truth(file)
    for entry in entries:
        if entry["k"] == 2 and entry["selection"]["kind"] == "all" and np.abs(J).max() < 1e60 and float(entry["s1"]) > 0:
            narrow = J if J.shape[0] <= J.shape[1] else J.T
            found = entropy_by_multipoles(narrow)
            if found is not None:
                wanted = float(entry["entropy"])
                assert abs(found - wanted) <= ACCURATE * (abs(wanted) + float(entry["s1"]))


def route_of(found: kag.Moments) -> str:
    assert found.plan is not None
    return str(found.plan.routes["entropy"])


def clouds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    A = rng.normal(size=(4, 300))
    centres = rng.normal(size=(4, 3))
    return {
        "gaussian": A,
        "few columns": A[:, :7],
        "heavy tails": rng.standard_cauchy(size=(4, 300)),
        "one huge column": np.concatenate([A, 1e12 * A[:, :1]], axis=1),
        "duplicated columns": np.repeat(A[:, :70], 5, axis=1),
        "parallel and zero columns": np.concatenate([A, -2 * A, 1e-3 * A, 0 * A], axis=1),
        "mixed scales of columns": A * 10.0 ** rng.integers(-9, 9, size=300),
        "mixed scales of rows": A * np.array([[1.0], [1e-9], [1e-3], [1e4]]),
        "clustered angles": np.repeat(centres, 100, axis=1) + 1e-3 * A,
        "one cluster, one bundle": np.concatenate([A, centres[:, :1] + 1e-6 * A], axis=1),
        "rectified": np.maximum(A, 0),
        "sparse": A * (rng.uniform(size=A.shape) < 0.15),
        "whole numbers": rng.integers(-2, 3, size=(4, 200)).astype(float),
        "axes": np.eye(4)[:, rng.integers(0, 4, size=200)],
        "about zero and pi": np.stack([rng.choice([-1.0, 1.0], 300), 1e-3 * rng.normal(size=300), A[0], A[1]]),
    }


@pytest.mark.parametrize("name", clouds())
def test_clouds_of_every_shape(name: str) -> None:
    J = clouds()[name] / 2**8
    found = entropy_by_multipoles(J)
    wanted, s1 = enumerated(J)
    assert found is not None
    assert abs(found - wanted) <= ACCURATE * max(abs(wanted), s1)


def test_nearly_parallel_rows_or_columns_are_left_to_enumeration() -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(1, 500)) + 1e-7 * rng.normal(size=(3, 500))
    assert entropy_by_multipoles(rows) is None
    kl = kag.minor_moments(rows, 2, moments=("s1", "entropy"))
    assert route_of(kl) == "enumeration of every minor"
    wanted = [mpmath.mpf(M.numerator) / M.denominator for row in minors(rows[:2, :40], 2) for M in row if M]
    whole = mpmath.fsum(M * mpmath.log(M) for M in wanted)
    assert kag.minor_moments(rows[:2, :40], 2, moments=("entropy",)).entropy == pytest.approx(float(whole), rel=1e-10, abs=0)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 90), st.sampled_from([0.0, 1.0, 3.0]))
def test_invariances(seed: int, columns: int, tail: float) -> None:
    """Order and signs of columns change nothing; a turn of two rows leaves their minors; a scale adds ln s S1."""
    rng = np.random.default_rng(seed)
    J = rng.normal(size=(2, columns)) * np.exp(tail * rng.normal(size=columns))
    J /= np.abs(J).max()
    wanted, s1 = enumerated(J)
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for other in (J, J[:, rng.permutation(columns)] * rng.choice([-1.0, 1.0], columns), J[::-1], turn @ J):
        found = entropy_by_multipoles(other)
        assert found is None or abs(found - wanted) <= 1e-11 * max(abs(wanted), s1)
    found = entropy_by_multipoles(3.0 * J)
    assert found is None or abs(found - 9 * (wanted + s1 * np.log(9.0))) <= 1e-10 * max(abs(wanted), s1)


def test_taken_where_cheaper_and_the_same_for_any_number_of_threads() -> None:
    J = np.random.default_rng(7).normal(size=(6, 900))
    found = kag.minor_moments(J, 2, moments=("s1", "s2", "entropy"))
    assert route_of(found) == "fast multipoles over angles"
    wanted = kag.minor_moments(J, 2, moments="all")
    assert route_of(wanted) == "enumeration of every minor"
    assert found.entropy == pytest.approx(wanted.entropy, rel=1e-11)
    assert found.kl_uniform == pytest.approx(wanted.kl_uniform, rel=1e-10)
    narrow = kag.minor_moments(J[:, :200], 2, moments=("s1", "s2", "entropy"))
    assert route_of(narrow) == "enumeration of every minor"
    one, two = (with_threads(count, lambda: kag.minor_moments(J, 2, moments=("entropy",)).entropy) for count in (1, 2))
    assert one == two
