"""p-values adjusted for multiple testing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kagscope.studies.statistics.permutation import ROUNDING
from kagscope.studies.statistics.student import Alternative, Array


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979), to be compared with alpha. NaN counts as a test and stays NaN."""
    p = np.array(p_values, dtype=np.float64)
    order = np.argsort(np.where(np.isnan(p), np.inf, p), kind="stable")
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1.0)
    return [float(value) for value in adjusted]


def holm_within(p_values: Sequence[float] | Array, families: Sequence[str]) -> Array:
    """Holm's adjustment within each family; NaN does not count as a test."""
    p, names = np.asarray(p_values, dtype=float), np.asarray(families, dtype=object)
    adjusted = np.full(p.shape, np.nan)
    for family in dict.fromkeys(families):
        members = np.flatnonzero((names == family) & np.isfinite(p))
        adjusted[members] = holm(p[members].tolist())
    return adjusted


def step_down(draws: Array, alternative: Alternative = "two-sided") -> Array:
    """p-values adjusted for all tests together: Westfall & Young 1993, algorithm 4.1 (step-down max T).

    Controls the probability of any false rejection in the family, as Holm's method does, but counts perfectly correlated numbers
    as one. With n pairs it can reach 2 / 2^n for any number of tests, by which Holm's method multiplies.

    Args:
        draws: (draws, tests) from :mod:`~kagscope.studies.statistics.permutation`; the first row is the data.
        alternative: "greater" counts only values above 0.

    Returns:
        (tests,) adjusted p-values; 1 if every draw of a test is 0.
    """
    spread = np.sqrt((draws**2).mean(axis=0))
    size = np.divide(draws, spread, out=np.zeros_like(draws), where=spread > 0)
    size = np.abs(size) if alternative == "two-sided" else np.maximum(size, 0.0)
    order = np.argsort(-size[0], kind="stable")
    largest = np.zeros(len(size), dtype=size.dtype)
    adjusted = np.empty(order.size)
    for index in order[::-1]:  # maximum over this test and all smaller ones
        largest = np.maximum(largest, size[:, index])
        adjusted[index] = (largest >= (1 - ROUNDING) * size[0, index]).mean()
    adjusted[order] = np.maximum.accumulate(adjusted[order])
    return adjusted
