"""What rows drawn at random tell of a taller matrix: estimates of its moments, with their errors.

Rows are drawn in groups, each at random from all rows and without regard to the others, so that sums over the minors of one
group, scaled by the number of row sets, are unbiased for those of the whole matrix, and groups are independent replicates of
each other (means of U-statistics: Hoeffding 1948). Scores that are no functions of moments are found again without a part of the
groups each (jackknife: Quenouille 1956, Tukey 1958).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagscope.minors.histograms import Bins
from kagscope.minors.moments import SUMS, Moments, at_exponent, vanishes
from kagscope.minors.replicates import CARRIED, UNEVEN, carried, widened

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
MOST, FEWEST = 64, 16  # groups: of fewer, the error is not known
MANY = 8  # rows of a group, before there are more than twice FEWEST of them
PARTS = 16  # left out one at a time, of what costs much to find again


@dataclass(frozen=True)
class RowDraws:
    """Groups of rows of a matrix.

    Attributes:
        units: rows of the whole matrix.
        rows: (R,) those that were drawn, rising.
        groups: (G, g) places among ``rows``.
    """

    units: int
    rows: IntArray
    groups: IntArray

    @classmethod
    def of(cls, units: int, at_most: int, least: int, seed: int) -> RowDraws:
        """Groups that have ``at_most`` rows between them, the same for every matrix of so many ``units``.

        Args:
            units: rows of the whole matrix, more than ``at_most``.
            at_most: rows that may be drawn.
            least: rows of a group at least: the largest order of minors. Fewer where ``at_most`` is less.
            seed: of the draws.
        """
        least = min(least, at_most)
        rng = np.random.default_rng([seed, units])
        orders = np.stack([rng.choice(units, at_most, replace=False) for _ in range(MOST)])
        tried = [(MOST, max(MANY, least)), (2 * FEWEST, least), *((count, least) for count in range(FEWEST, 0, -1))]
        count, size = next((n, size) for n, enough in tried if (size := _size(orders[:n], at_most)) >= enough)
        drawn = orders[:count, :size]
        rows, places = np.unique(drawn, return_inverse=True)
        return cls(units, rows, places.reshape(drawn.shape).astype(np.int64))

    def uneven(self, J: FloatArray) -> dict[str, NDArray[np.bool_]]:
        """(B,) by name of a sum, where few of the drawn rows of J (B, rows, n) carry it, so that its error is not known.

        A row carries as much of a sum over minors as of the same sum over entries, up to what angles do.
        """
        size = np.abs(J) / np.where((largest := np.abs(J).max(axis=(1, 2), keepdims=True)) > 0, largest, 1.0)
        by_row = {name: (size**power).sum(axis=2) for name, power in (("s1", 1), ("s2", 2), ("s4", 4))}
        logs = (size * np.log(np.where(size > 0, size, 1.0))).sum(axis=2)
        total = by_row["s1"].sum(axis=1, keepdims=True)
        slope = logs.sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0) + 1
        by_row["entropy"] = logs - slope * by_row["s1"]  # as KL depends on them
        found = {name: np.array([carried(row) < CARRIED for row in values]) for name, values in by_row.items()}
        return found | {"entropy": found["entropy"] | found["s1"]}

    def whole(self, parts: Sequence[Moments], uneven: Mapping[str, NDArray[np.bool_]] | None = None) -> Moments:
        """Moments of the whole matrices from those of each group's rows: means over groups, which stay as replicates.

        ``top`` is the largest of the drawn rows, a lower bound. Where every minor met is zero, nothing is known: NaN. ``uneven``
        as :meth:`uneven` has it.
        """
        first, size = parts[0], self.groups.shape[1]
        factor = comb(self.units, first.k) / comb(size, first.k)
        exponents = np.stack([np.where(vanishes(one), np.iinfo(np.int64).min, one.exponent) for one in parts])
        exponent = np.where((largest := exponents.max(axis=0)) == np.iinfo(np.int64).min, first.exponent, largest)
        with np.errstate(under="ignore"):
            moved = [at_exponent(one, exponent) for one in parts]
        stacked = {name: np.stack([one.sums[name] for one in moved], axis=1) for name in SUMS if name in first.sums}
        replicates = {name: factor * values for name, values in stacked.items() if name != "top"}
        unseen = np.all([~(values > 0).any(axis=1) for name, values in stacked.items() if name != "entropy"], axis=0)
        unseen |= np.any([np.isnan(values).any(axis=1) for values in stacked.values()], axis=0)
        sums = {name: values.mean(axis=1) for name, values in replicates.items()}
        if "top" in stacked:
            sums["top"] = stacked["top"].max(axis=1)
        bins = None if first.bins is None else self._bins([one.bins for one in parts if one.bins is not None], factor)
        unknown = {
            name: np.array([_unknown(one) for one in values]) | (uneven or {}).get(name, False)
            for name, values in replicates.items()
        }
        if "s4" in unknown:  # groups that miss the few rows that carry it look alike
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

    def _bins(self, parts: list[Bins], factor: float) -> Bins:
        """Counts of the whole matrices, with those of each group as replicates."""
        first = np.min([one.first for one in parts], axis=0)
        width = max(int((one.first - first).max(initial=0)) + one.counts.shape[1] for one in parts)
        replicates = np.zeros((len(first), len(parts), width + 1))
        for group, one in enumerate(parts):
            replicates[:, group, -1] = one.zeros
            for row, offset in enumerate(one.first - first):
                replicates[row, group, offset : offset + one.counts.shape[1]] = one.counts[row]
        replicates *= factor
        mean = replicates.mean(axis=1)
        return Bins(first, mean[:, :-1], mean[:, -1], replicates)

    def left_out(self, function: Callable[[IntArray], Any]) -> FloatArray | None:
        """(parts, …) values of a function of some groups without a part of the groups each; None where they are too few."""
        every = np.arange(len(self.groups))
        if len(every) < FEWEST:
            return None
        return np.stack([np.asarray(function(np.setdiff1d(every, part))) for part in np.array_split(every, PARTS)])

    def estimate(self, function: Callable[[IntArray], Any]) -> tuple[FloatArray, FloatArray]:
        """A score of the whole matrices and its standard error, NaN where that is not known.

        Args:
            function: of numbers of groups; its value, (…), as these groups have it: a smooth function of means over rows.
        """
        return jackknife(np.asarray(function(np.arange(len(self.groups)))), self.left_out(function))

    def share(self, function: Callable[[IntArray], Any]) -> tuple[FloatArray, FloatArray]:
        """The same of a share of rows (row sets); its error is not known where few of the rows are, or are not, of that share."""
        values = np.asarray(function(np.arange(len(self.groups))), dtype=np.float64)
        left = self.left_out(function)
        few = np.minimum(values, 1 - values) * len(self.rows) < CARRIED
        error = np.full(values.shape, np.nan) if left is None else _spread(left)
        return values, np.where(few | ~(error > 0), np.nan, error)


def jackknife(values: FloatArray, left: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """A score without its bias of first order, and its standard error, from its values (parts, …) without one part each.

    The error is NaN where there are none, where they are all the same or few of them differ, and where the bias that is taken off
    is larger than the error.
    """
    if left is None:
        return values, np.full(values.shape, np.nan)
    bias, error = (len(left) - 1) * (left.mean(axis=0) - values), _spread(left)
    unknown = np.array([_unknown(one) for one in left.reshape(len(left), -1).T]).reshape(values.shape)
    return values - bias, np.where(unknown | (np.abs(bias) > error), np.nan, error)


def _spread(left: FloatArray) -> FloatArray:
    """Standard error from values (parts, …) without one of independent parts each."""
    squares = ((left - left.mean(axis=0)) ** 2).sum(axis=0)
    return np.asarray(widened(len(left)) * np.sqrt((len(left) - 1) / len(left) * squares))


def _size(orders: IntArray, at_most: int) -> int:
    """How many of the first rows of each order have no more than so many between them."""
    seen = np.zeros(orders.max() + 1, dtype=bool)
    for size in range(orders.shape[1]):
        seen[orders[:, size]] = True
        if seen.sum() > at_most:
            return size
    return orders.shape[1]


def _unknown(replicates: FloatArray) -> bool:
    """Whether these independent estimates are too few, or too few of them carry the variance of their mean."""
    if len(replicates) < FEWEST or not np.isfinite(replicates).all():
        return True
    effective = carried(replicates)
    return bool(np.isinf(effective) or effective < len(replicates) / UNEVEN)
