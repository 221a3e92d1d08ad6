"""The logarithm and the bins of the enumeration, value by value."""

from __future__ import annotations

import numpy as np
import pytest

from kagscope.minors._numba import bin_edges
from kagscope.minors.subsets import sublist
from kagscope.minors.sweeps import enumerate_all


def found_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """M ln M of each value, and their histogram without that of zeros: of the minors with a unit column before them."""
    J = np.zeros((2, len(values) + 1))
    J[0, 0] = 1.0
    J[1, 1:] = values
    places = np.arange(len(values))
    found = enumerate_all(J, sublist(0 * places, places + 1), 2)
    assert found.hist is not None
    assert found.hist[0, 0] == np.sum(values < np.finfo(float).tiny)
    return found.sums[3, : len(values)], found.hist[0, 1:]


@pytest.mark.parametrize("sizes", [(-1020, 20), (-30, 1), (-0.5, 0.5), (-0.02, 0.02)])
def test_any_size(sizes: tuple[float, float]) -> None:
    values = np.exp2(np.random.default_rng(0).uniform(*sizes, size=777))
    entropy, bins = found_of(values)
    wanted = values * np.log(values)
    np.testing.assert_allclose(entropy, wanted, rtol=5e-12, atol=0)
    assert np.abs(entropy - wanted).max() <= 2e-13 * max(values.max(), np.abs(wanted).max())
    np.testing.assert_array_equal(
        bins, np.bincount(np.searchsorted(bin_edges(), values, side="right"), minlength=len(bins) + 1)[1:]
    )


def test_powers_of_two_are_exact() -> None:
    values = np.exp2(np.arange(-1022, 24))
    entropy, bins = found_of(values)
    np.testing.assert_allclose(entropy, values * np.log(values), rtol=4e-16, atol=0)
    assert bins[np.searchsorted(bin_edges(), values, side="right") - 1].tolist() == [1] * len(values)
    assert bins.sum() == len(values)


def test_zeros_and_subnormal_minors_count_as_zero() -> None:
    entropy, bins = found_of(np.array([0.0, 5e-324, 2e-308, 1.0, 1e-310, 0.0, 0.5]))
    np.testing.assert_allclose(entropy[[0, 3, 5, 6]], [0.0, 0.0, 0.0, 0.5 * np.log(0.5)], rtol=1e-15)
    assert bins.sum() == 2
