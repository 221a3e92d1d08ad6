"""Moments: the one additive object between minors and scores (MATH.md section 2)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError, UndefinedScore
from kagscope.minors import moment_scores
from kagscope.minors._input import Values, to_device
from kagscope.minors.histograms import Bins, Histogram, group_means, merge
from kagscope.minors.replicates import REPLICATES, deviation, student_factor

if TYPE_CHECKING:
    from kagscope.minors.plan import Plan

FloatArray = NDArray[np.float64]

SUMS = ("s1", "s2", "s4", "entropy", "top")
CHEAP = frozenset(SUMS[:3])  # for k = 2 formulas give these without visiting every minor
_POWER = {"s1": 1, "s2": 2, "s4": 4, "top": 1}
LN2 = float(np.log(2.0))


class _Errors(dict[str, Any]):
    """Standard errors by name: 0 for what is not sampled, except scores that have an error of their own."""

    zero: Any = 0.0
    of: Moments

    def __missing__(self, name: str) -> Any:
        errors = (s.error for s in moment_scores.of_moments() if s.function.__name__ == name and self.of._has(s.moments))
        error = next(errors, None)
        return self.zero if error is None else error(self.of)


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the minors of one matrix, or of each matrix of a batch.

    The sums are those of J / 2^exponent, so that entries of 1e-150 or 1e150 neither vanish nor overflow; reading ``s1``,
    ``s2``, … restores the absolute scale, which may round to 0 or infinity. Moments over disjoint sets of minors add.

    Attributes:
        k: order of the minors.
        count: number N of minors of each matrix, an exact Python int.
        exponent: (B,) int64, the powers of two that J was divided by.
        sums: normalised sums by name, each (B,) float64; those not requested are absent.
        bins: histogram with arrays, first (B,), counts (B, bins), zeros (B,); or None.
        replicates: (B, 64) independent estimates of each sampled sum by name, normalised, whose mean is the sum; fewer where so
            few rows were drawn. Replicates of one call share their draws, so that sums over selections and scores of several
            sums keep their covariance. Exact sums are absent.
        unknown: (B,) by name, where a sum or the histogram is sampled with unknown error; for top, where it is a lower bound.
        batched: whether a batch was given, and arrays are returned rather than floats.
        plan: how the moments were computed; ``plan.explain()`` describes it in words.
        count_error: relative standard error of the count, where counting is out of reach; NaN if not known.
        device: torch device of a batch given on CUDA, where moments and scores are returned as tensors. None: NumPy arrays.
    """

    k: int
    count: int
    exponent: NDArray[np.int64]
    sums: Mapping[str, FloatArray]
    bins: Bins | None = None
    replicates: Mapping[str, FloatArray] = field(default_factory=dict)
    unknown: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    batched: bool = False
    plan: Plan | None = None
    device: Any = None
    count_error: float = 0.0

    # -- reading ----------------------------------------------------------------------------------------------------------------

    def normalised(self, name: str) -> FloatArray:
        """(B,) the normalised sum. Raises :class:`UndefinedScore` when it was not requested."""
        if name not in self.sums:
            have = ", ".join([*self.sums, *(["histogram"] if self.bins else [])]) or "none"
            raise UndefinedScore(
                f'{name} was not computed (only: {have}); ask for it with moments="all" or moments=(..., "{name}")'
            )
        return self.sums[name]

    def out(self, values: Any) -> Values:
        """``values`` (B,) as a float for one matrix, as an array for a batch, or a tensor on the device of the batch."""
        return to_device(np.asarray(values), self.device) if self.batched else float(values[0])

    def _absolute(self, name: str) -> FloatArray:
        """(B,) in the units of the matrices."""
        with np.errstate(over="ignore", under="ignore"):
            return np.ldexp(self._at_scale(name, self.normalised, self.exponent), self.k * _POWER.get(name, 1) * self.exponent)

    def _at_scale(self, name: str, read: Callable[[str], FloatArray], exponent: NDArray[np.int64]) -> FloatArray:
        """The result of ``read`` for a sum, given the logarithms of the absolute scale."""
        return read("entropy") + read("s1") * (self.k * LN2 * exponent) if name == "entropy" else read(name)

    @property
    def s1(self) -> Values:
        """Sum of M = |minor|."""
        return self.out(self._absolute("s1"))

    @property
    def s2(self) -> Values:
        """Sum of M^2."""
        return self.out(self._absolute("s2"))

    @property
    def s4(self) -> Values:
        """Sum of M^4."""
        return self.out(self._absolute("s4"))

    @property
    def entropy(self) -> Values:
        """Sum of M ln M, with 0 ln 0 = 0."""
        return self.out(self._absolute("entropy"))

    @property
    def top(self) -> Values:
        """Largest M."""
        return self.out(self._absolute("top"))

    @property
    def histogram(self) -> Histogram:
        """Counts of log2 M in bins of 1/8; see :class:`Histogram`. Raises :class:`UndefinedScore` when not requested."""
        if self.bins is None:
            raise UndefinedScore('histogram was not computed; ask for it with moments="all" or moments=(..., "histogram")')
        if self.batched:
            return Histogram(*(to_device(values, self.device) for values in self.bins[:3]))
        used = np.flatnonzero(self.bins.counts[0])
        low, high = (used[0], used[-1] + 1) if used.size else (0, 0)
        first = int(self.bins.first[0]) + int(low) if used.size else 0
        return Histogram(first, self.bins.counts[0, low:high], self.bins.zeros[0].item())

    @property
    def exact(self) -> bool:
        """Whether every number is exact up to rounding, none sampled."""
        return self.are_exact((*SUMS, "histogram"))

    @cached_property
    def stderr(self) -> dict[str, Values]:
        """Standard error by moment (and score) name, for what was sampled; NaN where it is unknown. Empty when all is exact.

        An exact moment has error 0, ``near_zero`` the share of minors in the one bin that its threshold cuts.
        """
        errors_by_name: dict[str, FloatArray] = {}
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for name in SUMS:
                if name in self.replicates:
                    draws = self._at_scale(name, self._replicates_of, self.exponent[:, None])
                    spread = deviation(draws) if self.draws > 1 else np.full(len(self), np.nan)
                    error = np.ldexp(
                        student_factor(self.draws) * spread / np.sqrt(self.draws), self.k * _POWER.get(name, 1) * self.exponent
                    )
                    errors_by_name[name] = np.where(self.are_unknown({name}), np.nan, error)
            whole = replace(self, batched=True, device=None)
            for score in moment_scores.of_moments():
                if self._has(score.moments) and not self.are_exact(score.moments):
                    by_draws = (
                        moment_scores.jackknife(score.function, score.moments, whole)
                        if score.error is None
                        else score.error(whole)
                    )
                    errors_by_name[score.function.__name__] = by_draws
        errors = _Errors({name: self.out(value) for name, value in errors_by_name.items()})
        errors.zero = self.out(np.zeros(len(self)))
        errors.of = self
        return errors

    def _has(self, names: Collection[str]) -> bool:
        return set(names) <= {*self.sums, *(("histogram",) if self.bins is not None else ())}

    def are_exact(self, names: Collection[str]) -> bool:
        """Whether none of these ("s1", …, "histogram") was sampled."""
        drawn = {*self.replicates, *self.unknown}
        if self.bins is not None and self.bins.replicates is not None:
            drawn.add("histogram")
        return drawn.isdisjoint(names)

    def are_unknown(self, names: Collection[str]) -> NDArray[np.bool_]:
        """(B,) whether any of these was sampled with an unknown error."""
        return np.any([self.unknown.get(name, np.zeros(len(self), dtype=bool)) for name in names], axis=0)

    @property
    def draws(self) -> int:
        """Number of replicates."""
        return next((values.shape[1] for values in self.replicates.values()), REPLICATES)

    def groups(self, names: Collection[str]) -> int:
        """Number of groups of replicates that all of these have: the histogram may have fewer than the sums."""
        bins = self.bins.replicates if "histogram" in names and self.bins is not None else None
        return self.draws if bins is None else bins.shape[1]

    def leave_one_out(self, names: Collection[str], groups: int) -> Moments:
        """A batch of B times ``groups``: the moments of each matrix with each group of replicates left out in turn."""
        means = {}
        for name in set(names) & {*SUMS}:
            values = self._replicates_of(name, groups)
            means[name] = ((values.sum(axis=1, keepdims=True) - values) / (groups - 1)).ravel()
        bins = self.bins.leave_one_out(groups) if "histogram" in names and self.bins is not None else None
        return Moments(self.k, self.count, np.repeat(self.exponent, groups), means, bins, batched=True)

    def _replicates_of(self, name: str, draws: int = 0) -> FloatArray:
        """(B, draws) replicates, by default all of them; copies of the sum where it is exact."""
        if name in self.replicates:
            return group_means(self.replicates[name], draws or self.draws)
        return np.repeat(self.normalised(name)[:, None], draws or self.draws, axis=1)

    # -- scores (formulas in kagscope.minors.moment_scores) ------------------------------------------------------------------

    def _score(self, name: str) -> Values:
        return getattr(moment_scores, name)(self)

    @property
    def participation_ratio(self) -> Values:
        """sqrt(S2) / S1; see :func:`kagscope.minors.moment_scores.participation_ratio`."""
        return self._score("participation_ratio")

    @property
    def pr_normalized(self) -> Values:
        """S1^2 / (N S2); see :func:`kagscope.minors.moment_scores.pr_normalized`."""
        return self._score("pr_normalized")

    @property
    def effective_minors(self) -> Values:
        """S1^2 / S2; see :func:`kagscope.minors.moment_scores.effective_minors`."""
        return self._score("effective_minors")

    @property
    def ipr(self) -> Values:
        """S2^2 / S4; see :func:`kagscope.minors.moment_scores.ipr`."""
        return self._score("ipr")

    @property
    def kl_uniform(self) -> Values:
        """ln N + E / S1 - ln S1; see :func:`kagscope.minors.moment_scores.kl_uniform`."""
        return self._score("kl_uniform")

    @property
    def near_zero(self) -> Values:
        """Fraction of minors at most 2^-10 of the mean; see :func:`kagscope.minors.moment_scores.near_zero`."""
        return self._score("near_zero")

    # -- combining ---------------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of matrices."""
        return len(self.exponent)

    def __getitem__(self, index: int) -> Moments:
        """The moments of one matrix of the batch."""
        row = slice(index, index + 1) if index != -1 else slice(index, None)
        if not -len(self) <= index < len(self):
            raise IndexError(f"matrix {index} of a batch of {len(self)}")
        bins = self.bins and self.bins.of(row)
        return Moments(
            self.k,
            self.count,
            self.exponent[row],
            {name: value[row] for name, value in self.sums.items()},
            bins,
            {name: value[row] for name, value in self.replicates.items()},
            {name: value[row] for name, value in self.unknown.items()},
            False,
            self.plan,
            self.device,
            self.count_error,
        )

    def __add__(self, other: Moments) -> Moments:
        """Moments of the union of two disjoint sets of minors.

        The caller must ensure that they are disjoint: minors in both count twice.

        Raises:
            InputError: different k or batch sizes, or a batch and a single matrix.
        """
        if not isinstance(other, Moments):
            return NotImplemented
        if self.k != other.k or len(self) != len(other) or self.batched != other.batched:
            ours, theirs = (f"k={m.k} over {f'a batch of {len(m)}' if m.batched else 'one matrix'}" for m in (self, other))
            text = "cannot be added; add moments of the same k and the same matrices"
            raise InputError(f"moments of {ours} and of {theirs} {text}")
        exponent = np.where(
            are_zero(self), other.exponent, np.where(are_zero(other), self.exponent, np.maximum(self.exponent, other.exponent))
        )
        left, right = at_exponent(self, exponent), at_exponent(other, exponent)
        names = [name for name in SUMS if name in left.sums and name in right.sums]
        sums = {
            name: np.maximum(left.sums[name], right.sums[name]) if name == "top" else left.sums[name] + right.sums[name]
            for name in names
        }
        bins = merge(self.bins, other.bins) if self.bins is not None and other.bins is not None else None
        sampled = [name for name in sums if name in left.replicates or name in right.replicates]
        draws = gcd(*(ours.draws for ours in (left, right) if ours.replicates))  # where these differ, means of several in a row
        replicates = {name: left._replicates_of(name, draws) + right._replicates_of(name, draws) for name in sampled}
        unknown = {
            name: left.are_unknown({name}) | right.are_unknown({name})
            for name in (*sums, "histogram")
            if name in left.unknown or name in right.unknown
        }
        return Moments(
            self.k,
            self.count + other.count,
            exponent,
            sums,
            bins,
            replicates,
            unknown,
            self.batched,
            self.plan if self.plan == other.plan else None,
            self.device if self.device is not None else other.device,
            (self.count * self.count_error + other.count * other.count_error) / max(self.count + other.count, 1),  # shared draws
        )


def are_zero(moments: Moments) -> NDArray[np.bool_]:
    """(B,) where every sum is zero, so that the exponent carries no information."""
    zero = np.ones(len(moments), dtype=bool)
    for values in moments.sums.values():
        zero &= values == 0
    return zero


def at_exponent(moments: Moments, exponent: NDArray[np.int64]) -> Moments:
    """The same moments, normalised by 2^exponent (no smaller than their own unless they vanish)."""
    shift = moments.k * (moments.exponent - exponent)

    def rescale(name: str, values: FloatArray, s1: FloatArray, by: NDArray[np.int64]) -> FloatArray:
        return np.ldexp(values + s1 * (by * LN2), by) if name == "entropy" else np.ldexp(values, _POWER[name] * by)

    s1 = moments.sums.get("s1", np.zeros(len(moments)))
    with np.errstate(under="ignore", over="ignore"):
        sums = {name: rescale(name, values, s1, shift) for name, values in moments.sums.items()}
        replicates = {
            name: rescale(name, values, moments._replicates_of("s1") if name == "entropy" else values, shift[:, None])
            for name, values in moments.replicates.items()
        }
    return replace(moments, exponent=exponent, sums=sums, replicates=replicates)
