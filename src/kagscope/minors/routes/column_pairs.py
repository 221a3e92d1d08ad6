"""Every moment of k = 2 over any selections in one pass, from drawn column pairs with sums over their rows (MATH.md 4.11)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kagscope.minors.histograms import Bins, line_up
from kagscope.minors.pair_draws import Draws, PairDraws
from kagscope.minors.plan import BYTES_A_SUBSET
from kagscope.minors.replicates import CARRIED, GROUPS, REPLICATES, S4_FACTOR, apply_control_variate, effective_draws_by_row
from kagscope.minors.routes import Kind, register
from kagscope.minors.routes.enumeration import group_passes
from kagscope.minors.scaling import nonzero_rows
from kagscope.minors.subsets import cached_subsets
from kagscope.minors.task import EVERY_MOMENT, NEED_S1, RouteResult, Task, draw_notes, sampled_bins
from kagscope.minors.underflow import LEAST

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ROWS = {"s1": 0, "s4": 1, "entropy": 2}  # rows of the sums of a stage
FIRST = 2  # initial draws of each cell and replicate
COUNTED = 8  # the same with a histogram, if few enough minors are visited: some pairs of each octave of q must be drawn
MOST_COUNTED = 2.0**21
ENOUGH = 2.0  # times the draws needed: the first stage may then stand, although its own error decides
SHORT = 1.5  # a later stage stands if it requires less than this many times its draws
STAGES = 4
MOST_STEPS = 2.0**30  # minors of one matrix visited in one stage
KL_FACTOR, KL_NATS = 5.0, 0.01  # the error of KL may be so many times rel_error, up to so many nats, or rel_error


@register
class ColumnPairs:
    """S2 and mostly S4 exact by Grams, the rest with standard errors; all selections of a call share the drawn pairs."""

    name = "column pairs drawn by their S2"
    kind: Kind = "draw"

    def provides(self, task: Task) -> frozenset[str]:
        listable = task.k == 2 and bool(task.count) and (task.count or 0) * BYTES_A_SUBSET <= task.memory_budget
        return EVERY_MOMENT if listable else frozenset()

    def steps(self, task: Task) -> dict[str, float]:
        return {}

    def run(self, tasks: list[Task]) -> list[RouteResult | None]:
        results: dict[int, RouteResult] = {}
        usable = [index for index, task in enumerate(tasks) if not task.inside.far]
        for indices in ([usable[i] for i in positions] for positions in _passes([tasks[index] for index in usable])):
            subtasks = [tasks[index] for index in indices]
            draws = [_StagedDraws(subtasks, number) for number in range(subtasks[0].matrices.shape[0])]
            for i, index in enumerate(indices):
                results[index] = self._combine(tasks[index], [staged.estimates[i] for staged in draws])
        return [results.get(index) for index in range(len(tasks))]

    def _combine(self, task: Task, estimates: list[_Estimate]) -> RouteResult:
        names = task.sums_to_draw
        replicates = {name: np.stack([e.replicates[name] for e in estimates]) for name in names if name in ROWS}
        sampled = {name: values for name, values in replicates.items() if np.ptp(values, axis=1).any()}
        drawn = [*names, *(("histogram",) if "histogram" in task.wanted else ())]
        unknown = {name: np.array([name in e.unknown for e in estimates]) for name in drawn}
        notes = [f"{np.mean([e.steps for e in estimates]):.3g} minors looked at a matrix"]
        notes += draw_notes(task, unknown, [e.converged for e in estimates])
        routes = dict.fromkeys(task.wanted, self.name) | {"s2": "Gram matrix"}
        if "top" in unknown and unknown["top"].any():
            routes["top"] = "largest minor met, a lower bound"
        if "s4" not in sampled:
            routes["s4"] = "power Grams"
        return RouteResult(
            task.inside.exponent,
            {name: np.array([e.sums[name] for e in estimates]) for name in names},
            {name: routes[name] for name in task.wanted},
            _histogram(estimates, task) if "histogram" in task.wanted else None,
            replicates=sampled,
            unknown={name: flags for name, flags in unknown.items() if flags.any()},
            notes=tuple(notes),
        )


def _passes(tasks: list[Task]) -> Iterator[list[int]]:
    """Indices of tasks that share a pass: those over all columns; a window, or explicit subsets, alone."""
    whole = [index for index, task in enumerate(tasks) if task.shape[1] == task.layout.columns]
    for indices in group_passes([tasks[index] for index in whole]):
        yield [whole[index] for index in indices]
    yield from ([index] for index in range(len(tasks)) if index not in whole)


class _Estimate(NamedTuple):
    """Estimates for one selection of one matrix.

    Attributes:
        sums, replicates: by name, normalised.
        unknown: names of sums with unknown error; "top" where it is a lower bound.
        converged: whether the error of everything wanted is small enough.
        complete: whether every pair was visited, so that nothing is sampled.
        first, groups: (GROUPS, bins) independent estimates of the counts of nonzero minors, from slot ``first`` on.
        steps: minors visited.
    """

    sums: dict[str, float]
    replicates: dict[str, FloatArray]
    unknown: set[str]
    converged: bool
    complete: bool
    first: int
    groups: FloatArray
    steps: float


class _Stage:
    """Estimates of one stage of draws for all selections of one matrix, in the order of ``tasks``.

    Attributes:
        sums: (3, selections) of S1, S4, entropy.
        replicates: (3, selections, REPLICATES) of these.
        unknown: (3, selections) whether the error of a wanted sum is unknown.
        converged: (selections,) whether all errors are small enough.
        needed: (cells,) draws of each replicate that would make them so.
    """

    def __init__(self, pairs: PairDraws, draws: Draws, member: NDArray[np.bool_], tasks: list[Task], number: int) -> None:
        self.pairs, self.draws, self.tasks, self.inside = pairs, draws, tasks, member.T
        known = [task.known_s1(number) for task in tasks]
        spread = np.concatenate(draws.spread, axis=1)
        within = np.repeat(self.inside, [e.shape[1] for e in draws.spread], axis=1)  # (selections, draws)
        self.replicates = np.stack([draws.sums[:, cells].sum(axis=1) for cells in self.inside], axis=1)
        for i, s1 in enumerate(known):
            if s1 is not None:
                draws_inside = spread[[0, 2]][:, within[i]]
                self.replicates[2, i] = apply_control_variate(self.replicates[0, i], self.replicates[2, i], s1, draws_inside)
        self.replicates[1] += np.array([pairs.s4[cells].sum() for cells in self.inside])[:, None]
        self.sums = self.replicates.mean(axis=2)
        self.unknown = np.zeros((3, len(tasks)), dtype=bool)
        alike = (self.inside & draws.alike).any(axis=1)
        deviations = draws.sums - draws.sums.mean(axis=2, keepdims=True)
        covariances = np.matmul(deviations.swapaxes(0, 1), deviations.transpose(1, 2, 0)) / (REPLICATES - 1)
        needed, self.converged = np.zeros(self.inside.shape), np.ones(len(tasks), dtype=bool)
        for row, mix, requested in self._criteria(known):
            variances = np.maximum(np.einsum("cij,si,sj->sc", covariances, mix, mix), 0.0)
            sizes = np.where(self.inside, np.sqrt(variances * draws.draws), 0.0)
            uncertain = requested & (alike | (effective_draws_by_row(mix @ spread, within) < CARRIED))
            needed = np.maximum(needed, sizes * sizes.sum(axis=1, keepdims=True) / REPLICATES)
            needed = np.maximum(needed, np.where(uncertain[:, None] & self.inside, 4 * draws.draws, 0))
            self.converged &= ((sizes**2 / draws.draws).sum(axis=1) <= SHORT * REPLICATES) & ~uncertain
            self.unknown[row] |= uncertain
        self.needed = needed.max(axis=0)

    def _criteria(self, known: list[float | None]) -> Iterator[tuple[int, FloatArray, NDArray[np.bool_]]]:
        """For each sum: its row, (selections, 3) what to mix the sums with so that a standard error of 1 is enough, and where it
        is asked for; zeros elsewhere.
        """
        totals = np.array([estimated if s is None else s for s, estimated in zip(known, self.sums[0], strict=True)])
        rel_error = np.array([task.rel_error for task in self.tasks])
        wanted = [task.wanted - set(task.known) for task in self.tasks]
        usable = totals > LEAST  # smaller ones are recomputed on a scale of their own
        requested = {
            "s1": [s is None and bool(names & ({"s1"} | NEED_S1)) for s, names in zip(known, wanted, strict=True)],
            "s4": ["s4" in names for names in wanted] & (self.sums[1] > LEAST),
            "entropy": ["entropy" in names for names in wanted],
        }
        slope = self.sums[2] / np.where(usable, totals, 1.0) + 1  # of KL; nearly the same corrects where S1 is known
        nats = np.maximum(rel_error, np.minimum(KL_FACTOR * rel_error, KL_NATS))
        zeros = np.zeros(len(self.tasks))
        mixes = {
            "s1": (totals, rel_error, [zeros + 1, zeros, zeros]),
            "s4": (self.sums[1], S4_FACTOR * rel_error, [zeros, zeros + 1, zeros]),
            "entropy": (totals, nats, [-slope, zeros, zeros + 1]),
        }
        for name, row in ROWS.items():
            active = usable & requested[name]
            size, error, mix = mixes[name]
            if active.any():
                yield row, np.where(active, np.array(mix) / (np.where(active, size, 1.0) * error), 0.0).T, active

    def estimates(self) -> list[_Estimate]:
        """Estimates for each selection."""
        names, results = list(ROWS), []
        for i, cells in enumerate(self.inside):
            complete = bool(self.draws.complete[cells].all())
            unknown = {name for name in names if self.unknown[ROWS[name], i]} | (set() if complete else {"top"})
            sums = {name: float(self.sums[row, i]) for name, row in ROWS.items()}
            sums |= {"s2": float(self.pairs.s2[cells].sum()), "top": float(self.draws.top[cells].max(initial=0.0))}
            first, groups = self._histogram(cells)
            replicates = {name: self.replicates[row, i] for name, row in ROWS.items()}
            results.append(
                _Estimate(sums, replicates, unknown, bool(self.converged[i]), complete, first, groups, self.draws.steps)
            )
        return results

    def _histogram(self, cells: NDArray[np.bool_]) -> tuple[int, FloatArray]:
        if self.draws.hist is None:
            return 0, np.zeros((GROUPS, 0))
        whole = self.draws.hist[cells].sum(axis=0)
        used = np.flatnonzero(whole.any(axis=0))
        if not used.size:
            return 0, np.zeros((GROUPS, 0))
        return self.draws.first + int(used[0]), whole[:, used[0] : used[-1] + 1].copy()


class _StagedDraws:
    """Draws for one matrix until the errors of all selections of a pass are small enough, and the resulting estimates.

    Cells that need more draws, judging by the errors of a stage, are redrawn in full and their earlier draws dropped, so that no
    estimate depends on when drawing stopped.
    """

    def __init__(self, tasks: list[Task], number: int) -> None:
        task = tasks[0]
        inside = task.inside
        subsets = cached_subsets(tuple(t.selection for t in tasks), task.layout, 2)
        columns = task.selection.columns(task.layout)
        wanted = frozenset().union(*(t.wanted for t in tasks))
        J = nonzero_rows(inside.normalised[number])
        self.member = subsets.membership
        pairs, starts = subsets.by_cell
        if not columns.all():
            pairs = (np.cumsum(columns) - 1)[pairs]
        self.pairs = PairDraws(J, pairs, starts, "s4" in wanted)
        draws, drawn = np.full(self.pairs.cells, FIRST), None
        if "histogram" in wanted:
            share = MOST_COUNTED / max(self.pairs.steps(np.full(self.pairs.cells, COUNTED)), 1.0)
            draws = np.maximum(draws, int(COUNTED * min(share, 1.0)))
        least = draws + 1
        for stage in range(STAGES):
            drawn = self.pairs.draw(draws, [task.seed, stage], "histogram" in wanted, drawn)
            result = _Stage(self.pairs, drawn, self.member, tasks, number)
            needed_draws = result.needed
            enough = needed_draws * ENOUGH <= draws if stage == 0 else needed_draws <= SHORT * draws
            if enough.all():
                break
            needed = np.maximum(least, np.ceil(1.1 * needed_draws)).astype(np.int64)
            over = self.pairs.steps(needed) / MOST_STEPS
            if over > 1:
                needed = np.maximum(least, (needed / over).astype(np.int64))
            needed = np.where(enough, draws, needed)
            if stage and (needed <= draws).all():
                break
            draws = needed
        self.estimates = result.estimates()


def _histogram(estimates: list[_Estimate], task: Task) -> Bins:
    """Estimated counts in absolute bins, for all and by group of replicates; the remaining minors are zero."""
    low, full = line_up([(e.first, e.groups) for e in estimates])
    full *= np.minimum(1.0, task.minors / np.maximum(full.sum(axis=2, keepdims=True), 1.0))
    bins = sampled_bins(full, task.k, task.minors, task.inside.exponent, low)
    return bins._replace(replicates=None) if all(e.complete for e in estimates) else bins
