"""Moments of 3-minors from column triples drawn by volume, for several selections at once (MATH.md 4.11).

The volume of every column triple, the root of its S2, comes from one Gram matrix. Triples that belong to the same selections
are a *cell*. In each a third of the draws is by volume, for S1 and the entropy, a third by its fourth power, for S4,
and a third is uniform, so that small minors are sampled and weights stay bounded; for a histogram half of it is even over the
octaves of the volumes, as few triples may hold much of the minors near zero. Sums over the rows of a drawn triple nearly
follow functions of its volume whose sums are known (control variates). Where there are many rows, they are drawn too, half by
volume, half uniformly; S2 needs no sample, and S4 none within a triple. The same draws, in independent replicates, serve every
moment and selection, so that sums and differences keep their covariance.
"""

from __future__ import annotations

from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kagscope.columns.selections import Subsets
from kagscope.minors._numba import SLOTS
from kagscope.minors.histograms import Bins, line_up, scale_to_total
from kagscope.minors.moments import SUMS
from kagscope.minors.rank import rank_below
from kagscope.minors.replicates import GROUPS, REPLICATES, apply_control_variate, effective_draws, relative_error
from kagscope.minors.routes import Kind, register
from kagscope.minors.routes.triple_draws import Cells, Draws, Volumes
from kagscope.minors.routes.triple_kernels import times_logarithm
from kagscope.minors.scaling import bit_span, nonzero_rows
from kagscope.minors.task import EVERY_MOMENT, RouteResult, Task, absolute_bins, draw_notes, sampled_bins, trim_histogram

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_VOLUMES = 3e8  # column triples whose volumes are computed
UNITS = 2  # initial draws of each cell and replicate
COUNTED = 16  # the same with a histogram, from the uniform third, if few enough minors are visited
MOST_COUNTED = 2.0**23
MOST_STEPS = 2.0**28  # minors of one matrix visited
CARRIED = 32.0  # effective draws behind the variance of a sum: with fewer, its error is unknown
CANCELS = 1e-5  # a sum of squared volumes below this share of its terms has too few digits left
LOST = 1e-8  # below this, volumes are rounding: left to draws column by column
MOST_BITS = 300  # between columns and between rows, in all: minors stay in the range
LEAST = 2.0**-960  # sum of fourth powers of volumes: its dominant terms stay in the range
VARIES = 1e-6  # of its size, by which a control variate has to vary
CONTROLS = {"s1": [0], "s4": [3], "entropy": [0, 1]}  # columns of ``Volumes.sums`` that are control variates of each sum
MOST_TIMES = 3.0  # largest factor by which draws grow at a time


@register
class Triples:
    """Every moment of k = 3 over conditions on pairs of columns, with standard errors; S2 exact."""

    name = "column triples drawn by volume"
    kind: Kind = "draw"

    def provides(self, task: Task) -> frozenset[str]:
        if task.k != 3 or isinstance(task.selection, Subsets) or task.count is None:
            return frozenset()
        vectors = min(task.shape) if task.clique else task.shape[1]
        return EVERY_MOMENT if comb(vectors, 3) <= MOST_VOLUMES else frozenset()

    def steps(self, task: Task) -> dict[str, float]:
        return {}

    def run(self, tasks: list[Task]) -> list[RouteResult | None]:
        """Compute tasks; selections that are conditions on the same columns share their draws."""
        alike: dict[bytes, list[int]] = {}
        for index, task in enumerate(tasks):
            key = str(index).encode() if task.clique else task.selection.columns(task.layout).tobytes()
            alike.setdefault(key, []).append(index)
        results: dict[int, RouteResult | None] = {}
        for same in alike.values():
            for start in range(0, len(same), 60):
                indices = same[start : start + 60]
                results |= zip(indices, self._run_shared([tasks[index] for index in indices]), strict=True)
        return [results[index] for index in range(len(tasks))]

    def _run_shared(self, tasks: list[Task]) -> list[RouteResult | None]:
        samples = [_Sample(tasks, index) for index in range(tasks[0].matrices.shape[0])]
        return [self._make_result(task, [sample.parts[i] for sample in samples], samples) for i, task in enumerate(tasks)]

    def _make_result(self, task: Task, parts: list[_SelectionEstimate | None], samples: list[_Sample]) -> RouteResult | None:
        known = [e for e in parts if e is not None]
        if len(known) < len(parts):
            return None
        zero = all(e is _ZERO for e in known)
        exact = {"s2"} if zero or all(sample.s2_exact for sample in samples) else set()
        names = [] if zero else task.sums_to_draw
        unknown = {name: np.array([name in e.unknown for e in known]) for name in names}
        notes = [f"{np.mean([sample.steps for sample in samples]):.3g} minors looked at a matrix"]
        notes += draw_notes(task, unknown, [e.times == 0 for e in known])
        routes = dict.fromkeys(EVERY_MOMENT, self.name) | {"top": "largest minor met, a lower bound"}
        routes |= dict.fromkeys(exact, "Gram determinants of all column triples")
        if all(sample.counted is not None for sample in samples):
            routes["histogram"] = "every minor of all column triples"
        return RouteResult(
            task.inside.exponent,
            {name: np.array([e.sums[name] for e in known]) for name in task.sums_to_draw},
            {name: routes[name] for name in task.wanted},
            _histogram(samples, known, task) if "histogram" in task.wanted else None,
            replicates={name: np.stack([e.replicates[name] for e in known]) for name in names if name not in {"top", *exact}},
            unknown={name: flags for name, flags in unknown.items() if flags.any()},
            notes=tuple(notes),
        )


class _SelectionEstimate(NamedTuple):
    """Estimates for one selection of one matrix, as in :class:`RouteResult`; ``times`` as many further draws as made are needed;
    ``members`` (cells,) of the selection."""

    sums: dict[str, float]
    replicates: dict[str, FloatArray]
    unknown: set[str]
    times: float
    members: NDArray[np.bool_]


class _Sample:
    """Draws from one matrix for tasks over the same columns, until each is precise enough.

    Attributes:
        parts: estimate for each task; None where minors cannot be distinguished from rounding.
        estimates: from all draws; None where every minor is zero.
        counted: (cells, SLOTS) all minors by slot, if there are so few triples that each is visited; else None.
        steps: minors visited.
        s2_exact: whether sums of squares are exact.
    """

    def __init__(self, tasks: list[Task], index: int) -> None:
        self.tasks, self.index = tasks, index
        self.steps, self.s2_exact = 0.0, True
        matrix = nonzero_rows(tasks[0].inside.normalised[index])
        self.parts: list[_SelectionEstimate | None] = [_ZERO] * len(tasks)
        self.estimates: _Estimates | None = None
        self.counted: IntArray | None = None
        if rank_below(matrix, 3):
            return
        if tasks[0].inside.far or sum(bit_span(np.abs(matrix).max(axis=axis)) for axis in (0, 1)) > MOST_BITS:
            self.parts = [None] * len(tasks)
            return
        volumes = _volumes(matrix, tasks)
        nonempty = volumes.counts > 0
        if (volumes.sums[:, 2] < LOST * volumes.sums[:, 4])[nonempty].any() or (volumes.sums[:, 3] < LEAST)[nonempty].any():
            self.parts = [None] * len(tasks)
            return
        self._draw(volumes)

    def _draw(self, volumes: Volumes) -> None:
        """Add draws in the cells of selections whose errors are too large, until there are none."""
        members = volumes.cells.members
        histogram = any("histogram" in task.wanted for task in self.tasks)
        seed = [self.tasks[0].seed, 3]
        nonempty = volumes.counts > 0
        enough = MOST_COUNTED / (volumes.work_of_draw * REPLICATES * max(nonempty.sum(), 1)) if histogram else UNITS
        units = np.where(nonempty, max(UNITS, min(COUNTED, int(enough))), 0)
        if histogram:  # where there are fewer triples than draws, one that none meets may hold much of the small minors
            self.counted = volumes.count(int(units.sum()) * REPLICATES)
        if self.counted is not None:
            histogram, units = False, np.where(nonempty, UNITS, 0)
            self.steps += volumes.work_of_draw * volumes.counts.sum()
        self.s2_exact = bool((volumes.sums[:, 2] >= CANCELS * volumes.sums[:, 4]).all())
        drawn: Draws | None = None
        while units.any():
            more = volumes.draw(units, [*seed, 0 if drawn is None else drawn.cells.size], histogram)
            drawn = more if drawn is None else drawn.concatenate(more)
            self.steps += volumes.work_of_draw * more.inverse.size
            self.estimates = _Estimates(volumes, drawn)
            self.parts = [self.estimates.merge(task, members[i], self.index, self.s2_exact) for i, task in enumerate(self.tasks)]
            times = np.array([0.0 if e is None else e.times for e in self.parts])
            factors = (members * times[:, None]).max(axis=0)
            units = np.ceil(factors * np.bincount(drawn.cells, minlength=len(factors))).astype(np.int64)
            cost = volumes.work_of_draw * REPLICATES * units.sum()
            if not units.any() or self.steps + cost > MOST_STEPS:
                return


_ZERO = _SelectionEstimate(
    dict.fromkeys(SUMS, 0.0), dict.fromkeys(SUMS, np.zeros(REPLICATES)), set(), 0.0, np.zeros(0, dtype=bool)
)


def _volumes(matrix: FloatArray, tasks: list[Task]) -> Volumes:
    """Volumes of the nonzero columns; over all triples of some columns, of the shorter side."""
    histogram = any("histogram" in task.wanted for task in tasks)
    nonzero = matrix.any(axis=0)
    side = matrix[:, nonzero]
    if tasks[0].clique:
        side = side if len(side) >= side.shape[1] else side.T
        return Volumes(np.ascontiguousarray(side.T), Cells.whole(side.shape[1]), histogram)
    columns = tasks[0].selection.columns(tasks[0].layout).copy()
    columns[np.flatnonzero(columns)[~nonzero]] = False
    cells = Cells.of(tuple(task.selection for task in tasks), tasks[0].layout, columns)
    return Volumes(np.ascontiguousarray(side.T), cells, histogram)


class _Estimates:
    """Estimates by cell and replicate from all draws so far."""

    def __init__(self, volumes: Volumes, drawn: Draws) -> None:
        self.volumes, self.drawn = volumes, drawn
        cells = len(volumes.counts)
        self.number = np.bincount(drawn.cells, minlength=cells)
        weight = 1.0 / self.number[drawn.cells]
        means = np.zeros((drawn.cells.size, cells))  # averages over the draws of each cell
        means[np.arange(drawn.cells.size), drawn.cells] = weight
        self.deviations: dict[str, FloatArray] = {}
        self.replicates: dict[str, FloatArray] = {}
        scale = 1.0 / np.maximum(volumes.sums[:, 0], np.finfo(np.float64).tiny)[drawn.cells]  # all cells weigh the same
        logs = np.empty_like(drawn.volumes)
        times_logarithm(drawn.volumes.ravel(), logs.ravel())
        powers = {0: drawn.volumes, 1: logs, 3: drawn.volumes**4}
        for name, controls in CONTROLS.items():
            values, known = drawn.sums[SUMS.index(name)] * drawn.inverse, np.zeros(cells)
            given = np.stack([powers[v] * drawn.inverse for v in controls])
            centred = [(v - (v @ means).mean(axis=0)[drawn.cells]) * scale for v in (values, *given)]
            for control, centred_control in zip(given, centred[1:], strict=True):
                if np.abs(centred_control).max() <= VARIES * np.abs(control * scale).max():
                    centred_control[:] = 0.0  # what is left is rounding, by which the slope would be any
            slopes = np.linalg.lstsq(np.stack([v.ravel() for v in centred[1:]], axis=1), centred[0].ravel(), rcond=1e-9)[0]
            values, known = values - np.tensordot(slopes, given, axes=1), volumes.sums[:, controls] @ slopes
            self.replicates[name] = values @ means + known
            self.deviations[name] = (values - (values @ means).mean(axis=0)[drawn.cells]) * weight
        squares = drawn.volumes**2 * drawn.inverse
        self.replicates["s2"], self.deviations["s2"] = squares @ means, squares * weight

    def merge(self, task: Task, members: NDArray[np.bool_], index: int, s2_exact: bool) -> _SelectionEstimate | None:
        """Estimate for a selection with these cells; None where no minor drawn can be distinguished from rounding."""
        drawn = self.drawn
        inside = members[drawn.cells]
        if not inside.any():
            return _ZERO  # no such triples of nonzero columns
        replicates = {name: values @ members for name, values in self.replicates.items()}
        top = float(drawn.sums[4][:, inside].max(initial=0.0))
        if top == 0:
            return None
        if (known := task.known_s1(index)) is not None:  # the entropy corrected for the error of S1
            replicates["entropy"] = apply_control_variate(replicates["s1"], replicates["entropy"], known)
            replicates["s1"] = np.full(REPLICATES, known)
        sums = {name: float(values.mean()) for name, values in replicates.items()} | {"top": top}
        if s2_exact:
            sums["s2"] = float(self.volumes.sums[members, 2].sum())
        names = [name for name in task.sums_to_draw if name != "top" and not (name == "s2" and s2_exact)]
        deviation = {name: self.deviations[name][:, inside] for name in names}
        if "entropy" in deviation and sums["s1"] > 0 and "s1" not in task.known:  # as KL depends on both
            deviation["entropy"] = deviation["entropy"] - (sums["entropy"] / sums["s1"] + 1) * self.deviations["s1"][:, inside]
        unknown = {name for name in names if effective_draws(deviation[name]) < CARRIED}
        error = np.inf if unknown else max((relative_error(name, replicates) for name in names), default=0.0)
        times = 0.0 if error <= task.rel_error else min(1.1 * (error / task.rel_error) ** 2 - 1, MOST_TIMES)
        return _SelectionEstimate(sums, replicates, {*unknown, "top"}, times, members)

    def histogram(self, members: NDArray[np.bool_]) -> FloatArray:
        """(GROUPS, slots) estimated counts of the minors in these cells by slot of the draws, scaled to their known total."""
        hist = np.tensordot(self.drawn.hist, members / np.maximum(self.number, 1), axes=(1, 0))
        return scale_to_total(hist, self.volumes.counts[members].sum() * np.float64(comb(self.volumes.V.shape[1], 3)))


def _histogram(samples: list[_Sample], parts: list[_SelectionEstimate], task: Task) -> Bins:
    """Counts, or estimates of them: of the minors of nonzero rows and columns, and the rest zero."""
    drawn: list[tuple[int, FloatArray]] = []  # first slot after that of zeros, and (GROUPS, slots) counts from it on
    whole = []
    for sample, part in zip(samples, parts, strict=True):
        if sample.estimates is not None and part.members.size and sample.counted is None:
            drawn.append((sample.estimates.drawn.first, sample.estimates.histogram(part.members)[:, 1:]))
            continue
        hist = np.zeros(SLOTS, np.int64) if sample.counted is None or not part.members.size else part.members @ sample.counted
        whole.append(trim_histogram(hist))
        drawn.append((1 + whole[-1].first, np.tile(whole[-1].counts.astype(np.float64), (GROUPS, 1))))
    if len(whole) == len(samples):
        return absolute_bins(whole, 3, task.minors, task.inside.exponent)
    low, full = line_up(drawn)
    return sampled_bins(full, 3, task.minors, task.inside.exponent, low)
