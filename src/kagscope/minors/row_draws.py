"""Estimates of the moments of a tall matrix from randomly drawn rows, with errors.

Rows are drawn in independent groups, each at random from all rows, so that sums over the minors of a group, scaled by the number
of row sets, are unbiased for the whole matrix, and groups are independent replicates (means of U-statistics: Hoeffding 1948).
Scores that are not functions of moments are recomputed with a part of the groups left out (Quenouille 1956, Tukey 1958).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagscope.minors.histograms import Bins, place
from kagscope.minors.moments import SUMS, Moments, are_zero, at_exponent
from kagscope.minors.replicates import CARRIED, UNEVEN, effective_draws, jackknife_error

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
MOST, FEWEST = 64, 16  # groups; with fewer than 16, the error is unknown
MANY = 8  # rows of a group that are wanted before more than twice FEWEST groups are drawn
PARTS = 16  # jackknife parts, for scores that are expensive to recompute


@dataclass(frozen=True)
class RowDraws:
    """Groups of rows of a matrix.

    Attributes:
        units: rows of the whole matrix.
        rows: (R,) the drawn rows, ascending.
        groups: (G, g) indices into ``rows``.
    """

    units: int
    rows: IntArray
    groups: IntArray

    @classmethod
    def of(cls, units: int, at_most: int, least: int, seed: int) -> RowDraws:
        """Draw groups with at most ``at_most`` distinct rows in all, the same for every matrix of ``units`` rows.

        Args:
            units: rows of the whole matrix, more than ``at_most``.
            at_most: distinct rows that may be drawn.
            least: minimal rows of a group: the largest order of minors; fewer if ``at_most`` is less.
            seed: seed of the draws.
        """
        least = min(least, at_most)
        rng = np.random.default_rng([seed, units])
        orders = np.stack([rng.choice(units, at_most, replace=False) for _ in range(MOST)])
        tried = [(MOST, max(MANY, least)), (2 * FEWEST, least), *((count, least) for count in range(FEWEST, 0, -1))]
        count, size = next((n, size) for n, enough in tried if (size := _largest_size(orders[:n], at_most)) >= enough)
        drawn = orders[:count, :size]
        rows, places = np.unique(drawn, return_inverse=True)
        return cls(units, rows, places.reshape(drawn.shape).astype(np.int64))

    def dominated_sums(self, J: FloatArray) -> dict[str, NDArray[np.bool_]]:
        """(B,) by name of a sum, whether few of the drawn rows of J (B, rows, n) dominate it, so that its error is unknown.

        A row contributes to a sum over minors about as much as to the same sum over entries, angles aside.
        """
        size = np.abs(J) / np.where((largest := np.abs(J).max(axis=(1, 2), keepdims=True)) > 0, largest, 1.0)
        by_row = {name: (size**power).sum(axis=2) for name, power in (("s1", 1), ("s2", 2), ("s4", 4))}
        logs = (size * np.log(np.where(size > 0, size, 1.0))).sum(axis=2)
        total = by_row["s1"].sum(axis=1, keepdims=True)
        slope = logs.sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0) + 1
        by_row["entropy"] = logs - slope * by_row["s1"]  # as KL depends on them
        dominated = {name: np.array([effective_draws(row) < CARRIED for row in values]) for name, values in by_row.items()}
        return dominated | {"entropy": dominated["entropy"] | dominated["s1"]}

    def combine(self, parts: Sequence[Moments], dominated: Mapping[str, NDArray[np.bool_]] | None = None) -> Moments:
        """Combine the moments of the groups into those of the whole matrices: means over groups, which are kept as replicates.

        ``top`` is the largest of the drawn rows, a lower bound. If every minor met is zero, sums are NaN. ``dominated`` comes
        from :meth:`dominated_sums`.
        """
        first, size = parts[0], self.groups.shape[1]
        factor = comb(self.units, first.k) / comb(size, first.k)
        exponents = np.stack([np.where(are_zero(m), np.iinfo(np.int64).min, m.exponent) for m in parts])
        exponent = np.where((largest := exponents.max(axis=0)) == np.iinfo(np.int64).min, first.exponent, largest)
        with np.errstate(under="ignore"):
            aligned = [at_exponent(m, exponent) for m in parts]
        stacked = {name: np.stack([m.sums[name] for m in aligned], axis=1) for name in SUMS if name in first.sums}
        replicates = {name: factor * values for name, values in stacked.items() if name != "top"}
        unseen = np.all([~(values > 0).any(axis=1) for name, values in stacked.items() if name != "entropy"], axis=0)
        unseen |= np.any([np.isnan(values).any(axis=1) for values in stacked.values()], axis=0)
        sums = {name: values.mean(axis=1) for name, values in replicates.items()}
        if "top" in stacked:
            sums["top"] = stacked["top"].max(axis=1)
        bins = None if first.bins is None else self._combine_bins([m.bins for m in parts if m.bins is not None], factor)
        unknown = {
            name: np.array([_error_is_unknown(m) for m in values]) | (dominated or {}).get(name, False)
            for name, values in replicates.items()
        }
        if "s4" in unknown:  # groups that all miss the few rows that dominate it look alike
            unknown["s4"] = np.ones(len(first), dtype=bool)
        unknown |= {"top": np.ones(len(first), dtype=bool)} if "top" in sums else {}
        unknown |= {"histogram": np.full(len(first), len(parts) < FEWEST)} if bins is not None else {}
        return replace(
            first,
            count=first.count // comb(size, first.k) * comb(self.units, first.k),
            exponent=exponent,
            sums={name: np.where(unseen, np.nan, sums[name]) for name in SUMS if name in sums},
            bins=bins,
            replicates={name: np.where(unseen[:, None], np.nan, values) for name, values in replicates.items()},
            unknown={name: flags | unseen for name, flags in unknown.items()},
        )

    def _combine_bins(self, parts: list[Bins], factor: float) -> Bins:
        """Counts of the whole matrices, with those of the groups as replicates."""
        first = np.min([bins.first for bins in parts], axis=0)
        width = max(int((bins.first - first).max(initial=0)) + bins.counts.shape[1] for bins in parts)
        replicates = np.zeros((len(first), len(parts), width + 1))
        for group, bins in enumerate(parts):
            replicates[:, group, -1] = bins.zeros
            replicates[:, group, :-1] = place(bins.counts, bins.first - first, width)
        replicates *= factor
        mean = replicates.mean(axis=1)
        return Bins(first, mean[:, :-1], mean[:, -1], replicates)

    def leave_one_out(self, function: Callable[[IntArray], Any]) -> FloatArray | None:
        """(parts, …) values of a function of groups with one part of the groups left out each; None if there are too few."""
        every = np.arange(len(self.groups))
        if len(every) < FEWEST:
            return None
        return np.stack([np.asarray(function(np.setdiff1d(every, omitted))) for omitted in np.array_split(every, PARTS)])

    def estimate(self, function: Callable[[IntArray], Any]) -> tuple[FloatArray, FloatArray]:
        """A score of the whole matrices and its standard error, NaN if unknown.

        Args:
            function: maps indices of groups to the score (…) of these groups: a smooth function of means over rows.
        """
        return jackknife(np.asarray(function(np.arange(len(self.groups)))), self.leave_one_out(function))

    def estimate_share(self, function: Callable[[IntArray], Any]) -> tuple[FloatArray, FloatArray]:
        """The same for a share of rows (row sets); its error is unknown if few rows are inside, or outside, of that share."""
        values = np.asarray(function(np.arange(len(self.groups))), dtype=np.float64)
        left = self.leave_one_out(function)
        few = np.minimum(values, 1 - values) * len(self.rows) < CARRIED
        error = np.full(values.shape, np.nan) if left is None else jackknife_error(left)
        return values, np.where(few | ~(error > 0), np.nan, error)


def jackknife(values: FloatArray, left: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """A score without its first-order bias, and its standard error, from its values (parts, …) with one part left out each.

    The error is NaN if there are no such values, if all or all but a few of them are equal, or if the bias removed exceeds the
    error.
    """
    if left is None:
        return values, np.full(values.shape, np.nan)
    bias, error = (len(left) - 1) * (left.mean(axis=0) - values), jackknife_error(left)
    unknown = np.array([_error_is_unknown(row) for row in left.reshape(len(left), -1).T]).reshape(values.shape)
    return values - bias, np.where(unknown | (np.abs(bias) > error), np.nan, error)


def _largest_size(orders: IntArray, at_most: int) -> int:
    """Largest number of first rows of each order that have at most ``at_most`` distinct rows in all."""
    seen = np.zeros(orders.max() + 1, dtype=bool)
    for size in range(orders.shape[1]):
        seen[orders[:, size]] = True
        if seen.sum() > at_most:
            return size
    return orders.shape[1]


def _error_is_unknown(replicates: FloatArray) -> bool:
    """Whether there are too few independent estimates, or too few dominate the variance of their mean."""
    if len(replicates) < FEWEST or not np.isfinite(replicates).all():
        return True
    effective = effective_draws(replicates)
    return bool(np.isinf(effective) or effective < len(replicates) / UNEVEN)
