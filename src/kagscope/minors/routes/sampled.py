"""Moments estimated from sampled column sets, with exact sums over row sets where these are few (MATH.md 4.11).

Column sets are drawn in proportion to their volumes (:mod:`kagscope.minors.routes.volume_draws`): sets of volume zero are never
drawn, and sums over the row sets of a drawn one are nearly proportional to its volume. :data:`REPLICATES` independent replicates
give errors and covariances, also of moments that are added. The histogram, which counts small minors as well as large ones, has
draws of its own: uniform, of listed sets half of them even over the octaves of the volumes.
"""

from __future__ import annotations

from math import comb, log2

import numpy as np
from numpy.typing import NDArray

from kagscope.columns.selections import Subsets
from kagscope.minors.histograms import Bins, line_up
from kagscope.minors.moments import SUMS
from kagscope.minors.plan import AUTO_SECONDS, RATES
from kagscope.minors.rank import rank_below
from kagscope.minors.replicates import (
    CARRIED,
    GROUPS,
    REPLICATES,
    apply_control_variate,
    deviation,
    effective_draws,
    relative_error,
    slope,
)
from kagscope.minors.routes import Kind
from kagscope.minors.routes.volume_draws import DEAR, FIRST, Sets, count_sets
from kagscope.minors.routes.zonotope_sampled import s1_draws
from kagscope.minors.scaling import nonzero_rows, normalise
from kagscope.minors.task import EVERY_MOMENT, RouteResult, Task, draw_notes, sampled_bins

FloatArray = NDArray[np.float64]

MOST_STEPS = 2.0**30  # work for one matrix, in minors of an enumeration
UNITS = FIRST // REPLICATES  # initial column prefixes of each replicate
MOST_DEAR = 8  # nothing is drawn where it takes more than this many times the work of some seconds
MOST_SETS = 1 << 20  # column sets drawn for one matrix
SUSPICIOUS = 0.02  # relative error times prefixes: below, nearly all draws were alike, and a different one may have been missed
ENOUGH = 4096  # prefixes of one matrix that are trusted even so
FLAT = 1e-6  # root of S2 over its bound from the lengths alone: below, sums over two columns of a drawn set cancel too far
NOISE_SHARE = 1e-3  # of S1 that may be rounding
UNSEEN = "no minor that is not zero was met"
TOO_LARGE = "minors of this order are too large to be drawn within a minute"
ROUNDING = "the minors that were met cannot be told from rounding"


class Sampled:
    """Every moment of any order and selection, with standard errors."""

    name = "drawn by volume"
    kind: Kind = "draw"

    def provides(self, task: Task) -> frozenset[str]:
        return EVERY_MOMENT

    def steps(self, task: Task) -> dict[str, float]:
        return {}

    def run(self, tasks: list[Task]) -> list[RouteResult | None]:
        return [self._run_task(task) for task in tasks]

    def _run_task(self, task: Task) -> RouteResult:
        matrices, names = task.inside, task.sums_to_draw
        samples = [_Sample(matrix, task, task.known_s1(index)) for index, matrix in enumerate(matrices.normalised)]
        columns, count_error, notes = task.count, 0.0, [f"{np.mean([s.steps for s in samples]):.3g} minors looked at a matrix"]
        if columns is None:
            columns, error = count_sets(task.selection.pairs(task.layout), task.k, task.seed)
            count_error = error / max(columns, 1)
            notes.append("the number of minors is itself an estimate: counting cliques of this size is out of reach")
        count = comb(task.shape[0], task.k) * columns
        sums = {name: np.array([s.sums[name] for s in samples]) for name in names}
        replicates = {name: np.stack([s.replicates[name] for s in samples]) for name in names if name != "top"}
        unknown = {name: np.array([name in s.unknown for s in samples]) for name in names}
        if "histogram" in task.wanted:
            unknown["histogram"] = np.array([not s.zero and not s.hist.size for s in samples])
        for trouble in (UNSEEN, ROUNDING, TOO_LARGE):
            if hit := [s for s in samples if s.trouble == trouble]:
                with np.errstate(over="ignore"):
                    bound = np.ldexp(max(s.bound for s in hit) * np.sqrt(float(count)), task.k * int(matrices.exponent.max()))
                notes.append(f"{trouble} in {len(hit)} of {len(samples)} matrices: undefined; S1 is at most {bound:.3g}")
        notes += draw_notes(task, unknown, [s.converged for s in samples])
        return RouteResult(
            matrices.exponent,
            sums,
            {name: "largest minor met, a lower bound" if name == "top" else self.name for name in task.wanted},
            _histogram(samples, count, columns, task.k, matrices.exponent) if "histogram" in task.wanted else None,
            count=count,
            count_error=count_error,
            replicates={name: values for name, values in replicates.items() if not all(s.zero or s.every for s in samples)},
            unknown={name: flags for name, flags in unknown.items() if flags.any()},
            notes=tuple(notes),
        )


class _Sample:
    """Estimates for one normalised matrix.

    Attributes:
        sums: estimates by name; NaN where ``trouble`` says why.
        replicates: (REPLICATES,) by name.
        unknown: names of sums whose error is unknown.
        hist: (GROUPS, slots) estimated shares of the minors of nonzero rows, from slot ``first`` on.
        steps: work, in minors of an enumeration.
        drawn: number of column sets drawn.
        converged: whether the error of everything wanted is small enough.
        zero: whether every minor is known to be zero.
        every: whether every minor was visited, so that at most the histogram is sampled.
        bound: upper bound of the root mean square volume of the column sets.
    """

    def __init__(self, matrix: FloatArray, task: Task, s1: float | None) -> None:
        self.task, self.s1 = task, s1
        far = bool(np.abs(matrix).max(initial=0.0) >= 1)
        self.sets = _sets(normalise(matrix[None])[0][0] if far else matrix, task)
        self.steps, self.drawn, self.top, self.trouble, self.unknown = 0.0, 0, 0.0, "", set[str]()
        self.zero = not far and (self.sets.empty or rank_below(self.sets.J, task.k))
        self.converged, self.first, self.hist = True, 1, np.zeros((GROUPS, 0))
        self.bound, self.every = 0.0, False
        if self.zero:
            self.sums = dict.fromkeys(SUMS, 0.0)
            self.replicates = {name: np.zeros(REPLICATES) for name in SUMS[:4]}
            return
        if self.sets.steps(FIRST) > MOST_DEAR * DEAR and not self.sets.whole:
            self._give_up(TOO_LARGE, {*task.wanted, "s1", "top"} & {*SUMS})
            return
        if far:  # products of entries would leave the range
            self._give_up(ROUNDING, {*task.wanted, "s1", "top"} & {*SUMS})
            self.bound = np.inf
            return
        if "histogram" in task.wanted:
            shares, looked = self.sets.histogram(task.seed)
            used = np.flatnonzero(shares[:, 1:].any(axis=0)) + 1
            self.first, last = (int(used[0]), int(used[-1])) if used.size else (1, 0)
            self.hist = shares[:, self.first : last + 1]
            self.steps += looked
        self._draw()
        if s1 is None and "s1" in self.replicates and self.sets.clique and task.k >= 3 and not self.trouble:
            self._improve_s1()

    def _improve_s1(self) -> None:
        """Replace S1 by an estimate with exact sums over the last two columns, which varies less, and correct the entropy."""
        task, current = self.task, self.replicates["s1"]
        if np.sqrt(self.sums["s2"]) < FLAT * self.sets.bound():
            return
        draws = s1_draws(self.sets.J, task.k, task.rel_error / 2, task.seed, max_row_sets(self.sets.J.shape[1], task.k))
        improved = draws.reshape(-1, REPLICATES).mean(axis=0)
        error, current_error = (float(deviation(values)) / np.sqrt(REPLICATES) for values in (improved, current))
        apart = abs(float(improved.mean() - current.mean())) > 6 * np.hypot(error, current_error)
        if error >= current_error or apart or effective_draws(draws) < CARRIED:
            return
        entropy = self.replicates["entropy"]
        self.replicates |= {"s1": improved, "entropy": entropy + slope(current, entropy) * (improved - current)}
        self.sums |= {name: float(self.replicates[name].mean()) for name in ("s1", "entropy")}
        self.unknown.discard("s1")
        names = [name for name in SUMS[:4] if name in task.wanted and name not in task.known]
        self.converged = self.unknown <= {"top"} and self._error(names) <= task.rel_error

    def counts(self, columns: int) -> FloatArray:
        """Estimated counts of the minors, shaped as ``hist``; ``columns`` is the number of all column sets."""
        m, n = self.sets.J.shape
        return self.hist * float(comb(m, self.task.k) * (comb(n, self.task.k) if self.sets.clique else columns))

    def _draw(self) -> None:
        if (exact := self.sets.exact_sums) is not None:
            self.every, self.sums = True, dict(zip(SUMS, exact.tolist(), strict=True))
            self.steps += self.sets.steps_of_exact_sums
            self.replicates = {name: np.full(REPLICATES, self.sums[name]) for name in SUMS[:4]}
            return
        names = [name for name in SUMS[:4] if name in self.task.wanted and name not in self.task.known]
        values = np.empty((4, REPLICATES, 0))
        noise, units, turn, lost = 0.0, UNITS, 0, False
        while names or "top" in self.task.wanted:
            estimates, share = self.sets.estimates(self.task.seed, turn, units)
            self.steps += self.sets.steps(units * REPLICATES)
            self.drawn += units * REPLICATES * self.sets.fan
            self.top, noise = max(self.top, float(estimates[4].max())), max(noise, share)
            values = np.concatenate([values, estimates[:4]], axis=2)
            replicates = _correct_entropy(values.mean(axis=2), self.s1)
            self.replicates = dict(zip(SUMS, replicates, strict=False))
            self.unknown = {name for name in names if _effective_draws(values, SUMS.index(name), self.s1) < CARRIED}
            error, prefixes = self._error(names), self.drawn // self.sets.fan
            self.converged = not self.unknown and error <= self.task.rel_error
            conclusive = error * prefixes > SUSPICIOUS or prefixes >= ENOUGH or not names
            lost = noise > NOISE_SHARE or not np.isfinite(replicates).all()
            if (
                (self.converged and conclusive)
                or lost
                or self.drawn > MOST_SETS
                or 2 * self.steps + self.sets.steps(2 * units * REPLICATES) > MOST_STEPS
            ):
                break
            units, turn = values.shape[2], turn + 1
        else:
            self.replicates = {name: np.zeros(REPLICATES) for name in SUMS[:4]}
        self.sums = {name: float(values.mean()) for name, values in self.replicates.items()} | {"top": self.top}
        if names:
            self.trouble = UNSEEN if self.top == 0 else ROUNDING if lost else ""
        if self.trouble:
            self._give_up(self.trouble, {*names, "top"})
        self.unknown.add("top")

    def _error(self, names: list[str]) -> float:
        """Largest of the relative errors of S1, S2, S4 and the error of KL, among those named."""
        known = {} if self.s1 is None else {"s1": np.full(REPLICATES, self.s1)}
        return max((relative_error(name, self.replicates | known) for name in names), default=0.0)

    def _give_up(self, trouble: str, names: set[str]) -> None:
        self.trouble, self.unknown, self.bound = trouble, names, self.sets.bound()
        self.sums = dict.fromkeys(SUMS, np.nan)
        self.replicates = {name: np.full(REPLICATES, np.nan) for name in SUMS[:4]}


def max_row_sets(columns: int, k: int) -> int:
    """Row sets that may be drawn for S1: a quarter of :data:`AUTO_SECONDS` of a reference core."""
    return max(1 << 10, min(1 << 20, int(AUTO_SECONDS / 4 * RATES["zonogons"] / (columns * (log2(columns) + k * k)))))


def _sets(matrix: FloatArray, task: Task) -> Sets:
    """Column sets to draw from: without zero rows and columns; over all subsets of some columns, on the side with fewer rows."""
    rows = nonzero_rows(matrix)
    if isinstance(task.selection, Subsets):
        return Sets(rows, task.k, listed=task.selection.array(task.layout, task.k))
    if task.selection.clique or task.k == 1:
        inside = rows[:, rows.any(axis=0)]
        return Sets(inside if inside.shape[0] <= inside.shape[1] else inside.T, task.k)
    allowed = task.selection.pairs(task.layout) & ~np.eye(task.layout.columns, dtype=bool)
    return Sets(rows, task.k, allowed=allowed)


def _correct_entropy(replicates: FloatArray, s1: float | None) -> FloatArray:
    """(4, REPLICATES) with the entropy corrected where S1 is known."""
    return replicates if s1 is None else np.stack([*replicates[:3], apply_control_variate(replicates[0], replicates[3], s1)])


def _effective_draws(values: FloatArray, row: int, s1: float | None) -> float:
    """Effective number of draws that dominate the variance of a sum; for the entropy, of KL, which depends on it and S1."""
    draws, first = values[row].ravel(), values[0].ravel()
    if row != 3 or not first.any():
        return effective_draws(draws)
    if s1 is not None:
        return effective_draws(apply_control_variate(first, draws, s1))
    return effective_draws(draws - (draws.mean() / first.mean() + 1) * first)


def _histogram(samples: list[_Sample], count: int, columns: int, k: int, exponent: NDArray[np.int64]) -> Bins:
    """Estimated counts from the sampled shares; the remaining minors are zero."""
    low, full = line_up([(s.first, s.counts(columns)) for s in samples])
    return sampled_bins(full, k, count, exponent, low)
