"""p-values adjusted for how many numbers were tested."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kagscope.studies.statistics.permutation import ROUNDING
from kagscope.studies.statistics.student import Alternative, Array


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979): compare with alpha as they are. NaN counts as a test and stays NaN."""
    p = np.array(p_values, dtype=np.float64)
    order = np.argsort(np.where(np.isnan(p), np.inf, p), kind="stable")
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1.0)
    return [float(value) for value in adjusted]


def holm_within(p_values: Sequence[float] | Array, families: Sequence[str]) -> Array:
    """Holm's adjustment within each family; NaN is no test."""
    p, names = np.asarray(p_values, dtype=float), np.asarray(families, dtype=object)
    adjusted = np.full(p.shape, np.nan)
    for family in dict.fromkeys(families):
        members = np.flatnonzero((names == family) & np.isfinite(p))
        adjusted[members] = holm(p[members].tolist())
    return adjusted


def step_down(draws: Array, alternative: Alternative = "two-sided") -> Array:
    """p-values adjusted for all tests together: Westfall & Young 1993, algorithm 4.1 (step-down max T).

    Controls the probability of any false rejection in the family, as Holm's method does, but counts numbers that move together
    as one. With n pairs it can reach 2 / 2^n however many numbers are tested, where Holm's method multiplies by their number.

    Args:
        draws: (draws, tests) as :mod:`~kagscope.studies.statistics.permutation` makes them; the first row is the data.
        alternative: "greater" counts only what lies above 0.

    Returns:
        (tests,); 1 where every draw of a test is 0.
    """
    spread = np.sqrt((draws**2).mean(axis=0))
    size = np.divide(draws, spread, out=np.zeros_like(draws), where=spread > 0)
    size = np.abs(size) if alternative == "two-sided" else np.maximum(size, 0.0)
    order = np.argsort(-size[0], kind="stable")
    largest = np.zeros(len(size), dtype=size.dtype)
    adjusted = np.empty(order.size)
    for index in order[::-1]:  # the largest of this test and all smaller ones
        largest = np.maximum(largest, size[:, index])
        adjusted[index] = (largest >= (1 - ROUNDING) * size[0, index]).mean()
    adjusted[order] = np.maximum.accumulate(adjusted[order])
    return adjusted
