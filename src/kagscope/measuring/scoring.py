"""From the Jacobians of one layer, batch after batch, to its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import comb, log2, sqrt
from typing import Any, NamedTuple

import numpy as np

from kagscope.base.errors import InputError, UndefinedScore
from kagscope.base.reasons import ALL_ZERO, EMPTY_SELECTION, NO_MINORS, NOT_SEEN, OWN_SCORE_NAN, RANK_BELOW_K
from kagscope.columns.layout import make_layout
from kagscope.columns.scales import scales, window_centers, window_radii
from kagscope.columns.selections import All, Selection, Subsets, Window
from kagscope.jacobians.compute import Batch
from kagscope.jacobians.forms import FactoredJacobian, LayerJacobian
from kagscope.measuring.drawn import of_row_means, of_row_norms, ratio_to_haar, refused
from kagscope.measuring.spec import MeasureSpec, ScoreFunction
from kagscope.measuring.state import WHOLE, LayerState, Values
from kagscope.measuring.unit_statistics import MAX_COLUMNS, UnitSums
from kagscope.minors._input import MOMENTS
from kagscope.minors.engine import minor_moments
from kagscope.minors.factored import FactoredMoments
from kagscope.minors.maps import window_moments
from kagscope.minors.moments import Moments
from kagscope.minors.plan import Estimate
from kagscope.minors.rotations import drawn_haar_mean_s1, haar_mean_s1
from kagscope.minors.row_draws import RowDraws
from kagscope.minors.rows import row_means
from kagscope.registry import Score
from kagscope.scores.of_jacobians import numerical_ranks, spectrum

SUMS = frozenset({"s1", "s2", "s4"})  # of pairs: formulas give these without a look at every minor
DRAWN = 128.0  # minors of a pass over W in the time of the draws for one item, for each pair of columns
TRIPLE_ERROR = 5.0  # times the error of pairs, which cost less, is asked of larger minors
VISITED_TRIPLES = comb(32, 3) * comb(64, 3)  # minors of order 3 and more, visited within a second a point
HAAR_TRIPLES = 1e8  # column triples whose volumes are found for Haar means, a second or so
TRIPLE_ROWS = comb(64, 3)  # row means of k = 3 take 10 microseconds each
ROW_STEPS = 1e9  # minors of triples, steps of zonogons of pairs, that row means may cost a layer
FEWEST_SAMPLES = 10  # for scores of a representation


class Part(NamedTuple):
    """Moments of ``some`` of a batch over each of the selections ``chosen``, for those scores ``only``, or all (None)."""

    some: Any
    chosen: Sequence[Selection]
    only: Sequence[str] | None
    found: list[Moments]


class LayerScores:
    """Collects the scores of one layer while its Jacobians pass by: :meth:`update` with each batch, then :meth:`compute`.

    Args:
        layer: its name.
        items: (P, 2) points and tokens of the Jacobians that will come, in their order.
        spec: what to measure.
        roundoff: unit roundoff of the precision in which the Jacobians are computed.
        drawn: the rows that the Jacobians have, where they do not have all of the layer's.
    """

    def __init__(self, layer: str, items: np.ndarray, spec: MeasureSpec, roundoff: float, drawn: RowDraws | None = None) -> None:
        self.layer, self.spec, self.roundoff, self.drawn = layer, spec, roundoff, drawn
        self.state = LayerState(items, drawn=drawn)
        self._seen = 0
        self._row_means: dict[int, list[np.ndarray]] = {}
        self._row_norms: list[np.ndarray] = []
        self._output_slopes: list[np.ndarray] = []
        self._tables: dict[int, tuple[np.ndarray, FactoredMoments]] = {}
        asked = spec.asked
        self._of_moments = [one for one in asked if one.is_of("moments") and not one.against_baseline]
        self._of_jacobians = [one for one in asked if one.is_of("jacobian", "spectrum")]
        self._needed = frozenset(moment for one in asked if one.is_of("moments") for moment in one.moments)
        if spec.own_scores:
            self._needed |= set(MOMENTS)

    def update(self, batch: Batch, more: int = 0) -> None:
        """Score a batch; of its last ``more`` Jacobians only the rows are looked at, for what units do.

        Raises:
            InputError: a Jacobian or an output is not finite.
        """
        count = len(batch.points) - more
        norms = batch.jacobian.row_norms()
        self._check_finite(norms, batch)
        J = batch.jacobian.dense(slice(count))
        self._add_rows(batch, J, norms[count:])
        if not count:
            return
        batch = replace(batch, jacobian=batch.jacobian.of_points(slice(count)))
        ids = np.arange(self._seen, self._seen + count)
        self._seen += count
        self._add_units(J, batch)
        ranks = numerical_ranks(J, self.roundoff, max(self.spec.k))
        for k in self.spec.k:
            if k > 1:  # what is zero altogether has its own reason
                self.state.noise[k] = np.concatenate(
                    [self.state.noise.get(k, np.zeros(0, dtype=int)), ids[(ranks > 0) & (ranks < k)]]
                )
        for k in self.spec.k:
            units = J.shape[1] if self.drawn is None else self.drawn.units
            if min(self._rows(J), J.shape[2]) >= k:
                self._add_minors(k, J, batch, ids)
            elif min(units, J.shape[2]) >= k:
                self._refuse(k, "pr", ids)
            else:
                reason = NO_MINORS.format(rows=units, columns=J.shape[2], k=k)
                self.state.add((k, "all", "pr"), Values.of(ids, np.full(len(ids), np.nan), reason=reason))
        self._add_row_means(J, ids)
        self._add_matrix_scores(J, ids)
        self._add_window_map(J, ids)

    def compute(self, activations: np.ndarray | None, labels: np.ndarray | None) -> LayerState:
        """The state, with what needs all Jacobians or the outputs at many inputs.

        Args:
            activations: (N, m) outputs of the layer, or None where no score asks for them.
            labels: (N,) classes of the same inputs, or None.
        """
        state = self.state
        state.row_means = {k: np.concatenate(parts) for k, parts in self._row_means.items()}
        state.row_norms = np.concatenate(self._row_norms) if self._row_norms else None
        state.output_slopes = np.concatenate(self._output_slopes) if self._output_slopes else None
        if activations is not None and len(activations) >= FEWEST_SAMPLES:
            state.activations = activations
        known = {
            "row_norms": state.row_norms,
            "output_slopes": state.output_slopes,
            "activations": state.activations,
            "labels": labels,
        }
        for one in self.spec.asked:
            if one.takes == ("row_means",):
                for k, means in state.row_means.items():
                    found = of_row_means(state, k, one.function)
                    self._add(k, "all", one.name, Values.of(np.arange(len(means)), *found, self.drawn is None))
            elif one.of_layer and all(known.get(name) is not None for name in one.takes):
                if self.drawn is None or not one.is_of("row_norms", "output_slopes"):
                    whole = Values.of([WHOLE], one.function(*(known[name] for name in one.takes)), reason=one.undefined)
                elif one.is_of("row_norms"):
                    whole = Values.of([WHOLE], *of_row_norms(state, one), False, one.undefined)
                else:
                    whole = refused(self.drawn, [WHOLE])
                state.add((one.orders[0] if one.orders else 0, "all", one.name), whole)
        return state

    # -- one batch ---------------------------------------------------------------------------------------------------------------

    def _check_finite(self, norms: np.ndarray, batch: Batch) -> None:
        """``norms`` (B, m) of the rows are finite where the Jacobians are, unless their sum overflows."""
        bad = ~np.isfinite(norms).all(axis=1)
        J = batch.jacobian.dense() if bad.any() else np.zeros((0, 0, 0))
        if bad.any():
            bad = ~np.isfinite(J).all(axis=(1, 2))
        nan = ~np.isfinite(batch.values).all(axis=1)
        if not bad.any() and not nan.any():
            return
        first = int(np.flatnonzero(bad if bad.any() else nan)[0])
        if not bad.any():
            raise InputError(
                f"the output of layer {self.layer!r} at input {batch.points[first]} is NaN or infinite; "
                "check the weights and that input"
            )
        token = f", token {batch.tokens[first]}" if batch.tokens[first] >= 0 else ""
        count = int((~np.isfinite(J[first])).sum())
        raise InputError(
            f"the Jacobian of layer {self.layer!r} at input {batch.points[first]}{token} has {count} entries that are NaN or "
            f"infinite ({int(bad.sum())} Jacobians of this batch); check the weights and that input"
        )

    def _add_rows(self, batch: Batch, J: np.ndarray, norms: np.ndarray) -> None:
        """What units do at every point: means of |J| over columns, ``norms`` of those beyond J; of the map to the output, slopes
        by column."""
        of_output = self.spec.layer_map == "output"
        kind, parts = ("output_slopes", self._output_slopes) if of_output else ("row_norms", self._row_norms)
        if any(one.is_of(kind) for one in self.spec.asked):
            more = np.abs(batch.jacobian.dense(slice(len(J), None))).max(axis=1) if of_output else norms
            if len(J):
                parts.append(np.abs(J).max(axis=1) if of_output else np.asarray(row_means(J, 1)))
            parts.append(more)

    def _add_units(self, J: np.ndarray, batch: Batch) -> None:
        if self.spec.layer_map == "output" or J.shape[2] > MAX_COLUMNS:
            return
        W = batch.jacobian.W if isinstance(batch.jacobian, FactoredJacobian) else None
        if self.state.units is None:
            self.state.units, self.state.shared = UnitSums(), W
        elif W is not self.state.shared:
            self.state.shared = None
        self.state.units.update(J)

    def _add_minors(self, k: int, J: np.ndarray, batch: Batch, ids: np.ndarray) -> None:
        """Of the whole layer, also where only some of its rows were drawn."""
        if not self._needed:
            return
        if self.drawn is None:
            for some, chosen, only, found in self._found(k, J, batch.jacobian, ids):
                self._record(J[some], ids[some], chosen, found, only)
            return
        groups = [
            self._found(k, J[:, rows], batch.jacobian.of_rows(rows), ids, one) for one, rows in enumerate(self.drawn.groups)
        ]
        for same in zip(*groups, strict=True):
            some, chosen, only, _ = same[0]
            uneven = self.drawn.uneven(J[some])
            whole = [self.drawn.whole(parts, uneven) for parts in zip(*(found for *_, found in same), strict=True)]
            self._record(J[some], ids[some], chosen, whole, only)

    def _found(self, k: int, J: np.ndarray, form: LayerJacobian, ids: np.ndarray, group: int = 0) -> list[Part]:
        """Moments of some Jacobians, of all their rows or of a group that was drawn."""
        if k == 2:
            return self._pairs(J, form, group)
        if k == 1:
            # a ball or a distance says nothing of single columns, so that they all stand under "all"; a window does
            layout = make_layout(J.shape[2], **self._layout())
            narrower = (one for one in self.spec.selections if isinstance(one, Window | Subsets) or not one.columns(layout).all())
            chosen = [All(), *narrower]
            return [Part(slice(None), chosen, None, self._moments(J, 1, chosen, method="exact"))]
        some = ids < self._points(self.spec.budget.triple_points)
        if not some.any():
            return []
        cheap = comb(J.shape[1], k) * comb(J.shape[2], k) * self._groups <= VISITED_TRIPLES
        method = "exact" if self.spec.budget.exact else "auto" if cheap else "sampled"
        rel_error = min(0.5, TRIPLE_ERROR * self.spec.budget.rel_error * sqrt(self._groups))
        told = self._without_noise(k, J[some], ids[some])
        options = {"method": method, "rel_error": rel_error, "seed": self.spec.seed + group}
        return [Part(some, self.spec.selections, None, self._moments(told, k, self.spec.selections, **options))]

    def _pairs(self, J: np.ndarray, form: LayerJacobian, group: int) -> list[Part]:
        """k = 2: formulas and one pass over a shared W where they give it; every minor where that is cheap; else drawn pairs."""
        chosen, budget = self.spec.selections, self.spec.budget
        every = slice(None)
        if self._needed <= SUMS:
            return [Part(every, chosen, None, self._moments(J, 2, chosen))]
        total = comb(J.shape[1], 2) * comb(J.shape[2], 2)
        few = self.drawn is not None and comb(J.shape[1], 2) <= DRAWN
        if budget.exact or few or total * self._groups * len(self.state.items) <= budget.exact_minors:
            return [Part(every, chosen, None, self._moments(J, 2, chosen, method="exact"))]
        known, left, parts = None, self._needed, []
        if isinstance(form, FactoredJacobian) and total * self._groups <= min(
            budget.exact_minors, DRAWN * comb(J.shape[2], 2) * len(self.state.items)
        ):
            known = self._factored_moments(form, self._needed - {"histogram"}, group)
            parts = [Part(every, chosen, None, known)]
            left = self._needed & {"histogram"}
        elif isinstance(form, FactoredJacobian) and self._pays_for_all(*J.shape[1:]):
            known = self._factored_moments(form, self._needed & SUMS, group)
        if left:
            only = None if left == self._needed else [one.name for one in self._of_moments if "histogram" in one.moments]
            seed = self.spec.seed + group
            found = self._moments(J, 2, chosen, moments=left, method="sampled", known=known, seed=seed)
            parts.append(Part(every, chosen, only, found))
        return parts

    def _pays_for_all(self, m: int, n: int) -> bool:
        """Whether sums over all pairs of columns, row pair by row pair of W, cost less than those of every item by itself."""
        by_rows, by_columns = comb(m, 2) * n * log2(n), comb(n, 2) * m * log2(m)
        fits = 8 * len(MOMENTS) * comb(m, 2) <= self.spec.budget.memory_budget // 4
        return fits and self.spec.selections == (All(),) and by_rows < by_columns * len(self.state.items)

    def _factored_moments(self, form: FactoredJacobian, moments: frozenset[str], group: int) -> list[Moments]:
        """Moments of a batch, from one pass over W that serves every item of the layer."""
        if group not in self._tables or not np.array_equal(self._tables[group][0], form.W):
            wanted = tuple(name for name in MOMENTS if name in moments)
            table = FactoredMoments(form.W, 2, list(self.spec.selections), moments=wanted, **self._layout())
            self._tables[group] = (form.W, table)
        found = self._tables[group][1].at(form.d)
        return found if isinstance(found, list) else [found]

    def _record(
        self,
        J: np.ndarray,
        ids: np.ndarray,
        chosen: Sequence[Selection],
        found: Sequence[Moments],
        only: Sequence[str] | None = None,
    ) -> None:
        """The scores that these moments allow, with their errors, and the number of column subsets of each selection."""
        k = found[0].k
        units = J.shape[1] if self.drawn is None else self.drawn.units
        affordable = k != 3 or comb(J.shape[2], 3) * len(chosen) <= HAAR_TRIPLES
        haar = only is None and affordable and k < units and any(one.is_of("haar_s1") for one in self._of_moments)
        options = {"rel_error": self.spec.budget.rel_error, "seed": self.spec.seed, **self._layout()}
        means: Sequence[Any] = [None] * len(chosen)
        if haar and self.drawn is None:
            means = haar_mean_s1(J, k, list(chosen), return_error=True, **options)
        elif haar and self.drawn is not None:
            means = drawn_haar_mean_s1(self.drawn, J, k, chosen, **options)
        for selection, moments, mean in zip(chosen, found, means, strict=True):
            name = str(selection)
            unseen = np.any([np.isnan(one) for one in moments.sums.values()], axis=0)
            reason = np.where(unseen, NOT_SEEN, EMPTY_SELECTION if moments.count == 0 else ALL_ZERO)
            there = {*moments.sums, *(("histogram",) if moments.bins is not None else ())}
            for one in self._of_moments:
                if not set(one.moments) <= there or (only is not None and one.name not in only):
                    continue
                if one.orders is not None and k not in one.orders:
                    continue
                if not one.is_of("haar_s1"):
                    self._put(one, k, name, ids, moments, (moments,), reason)
                elif k == units:  # no rotation changes a minor of all rows: S1, sampled or not, is its own mean
                    known = replace(moments, replicates={}, unknown={})
                    self._put(one, k, name, ids, known, (known, Estimate(np.atleast_1d(known.s1), 0.0)), reason)
                elif mean is not None and self.drawn is not None:
                    self._add(k, name, one.name, Values.of(ids, *ratio_to_haar(one, moments, *mean), False, reason))
                elif mean is not None:
                    met = np.where(np.isnan(mean.value), NOT_SEEN, reason)
                    self._put(one, k, name, ids, moments, (moments, mean), met)
            if only is None:
                self._put_own(k, name, ids, moments)
            if moments.bins is not None:
                self.state.visited.setdefault((k, name), []).append(moments)
            self.state.scores[k, name, "column_subsets"] = Values.of([WHOLE], float(moments.count // comb(units, k)))

    def _put(
        self, one: Score, k: int, selection: str, ids: np.ndarray, moments: Moments, given: tuple[Any, ...], reason: Any
    ) -> None:
        values: Any = one.function(*given)
        # moments know the errors of the scores that are functions of them alone, by the functions' names; 0 of exact ones
        stderr = moments.stderr[one.function.__name__] if one.error is None else one.error(*given)
        exact = moments.are_exact(one.moments) and not any(np.any(mean.stderr) for mean in given if isinstance(mean, Estimate))
        self._add(k, selection, one.name, Values.of(ids, values, stderr, exact, reason))

    def _put_own(self, k: int, selection: str, ids: np.ndarray, moments: Moments) -> None:
        for name, function in self.spec.own_scores.items():
            values, reason = values_of(name, function, moments, len(ids))
            stderr = 0.0 if moments.exact else np.nan
            self._add(k, selection, name, Values.of(ids, values, stderr, moments.exact, reason))

    def _add_row_means(self, J: np.ndarray, ids: np.ndarray) -> None:
        """Row means of the minor matrices, for zero rows and Zipf curves; those of k = 1 at every item."""
        if not any(one.is_of("row_means", "row_norms") for one in self.spec.asked):
            return
        for k in sorted({1, *self.spec.k}):
            if k <= 3 and min(self._rows(J), J.shape[2]) >= k:
                some = ids < self._row_points(k, J)
                if some.any():
                    told = self._without_noise(k, J[some], ids[some])
                    groups = [told] if self.drawn is None else [told[:, rows] for rows in self.drawn.groups]
                    means = np.concatenate([np.asarray(row_means(one, k)) for one in groups], axis=1)
                    self._row_means.setdefault(k, []).append(means)

    def _without_noise(self, k: int, J: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Zeros in place of Jacobians whose k-minors are rounding noise, which it would cost much to tell apart."""
        noise = np.isin(ids, self.state.noise.get(k, []))
        return np.where(noise[:, None, None], 0.0, J) if noise.any() else J

    def _row_points(self, k: int, J: np.ndarray) -> float:
        """At how many items the row means of the k-minor matrix are found: a count of steps decides."""
        n, sets = J.shape[2], comb(self._rows(J), k) * self._groups
        if k == 1:
            return np.inf
        if k == 2:
            return min(self.spec.budget.row_points, ROW_STEPS // (sets * n * log2(max(n, 2))))
        if sets > TRIPLE_ROWS:
            return 0
        points = min(self.spec.budget.row_points, self._points(self.spec.budget.triple_points))
        return min(points, ROW_STEPS // (sets * comb(n, 3)))

    def _add_matrix_scores(self, J: np.ndarray, ids: np.ndarray) -> None:
        squares = None
        for one in self._of_jacobians:
            order = one.orders[0] if one.orders else 0
            some = ids < self._points(getattr(self.spec.budget, one.limit) if one.limit else None)
            if not some.any() or min(J.shape[1:]) < order or (order > 1 and order not in self.spec.k):
                continue
            if self.drawn is not None:
                if one.takes == ("jacobian",):
                    self._add(order, "all", one.name, self._drawn_score(one, J[some], ids[some]))
                else:
                    self._refuse(order, one.name, ids[some])
                continue
            if one.is_of("spectrum") and squares is None:
                squares = spectrum(J)
            known: dict[str, Any] = {"jacobian": J[some], "spectrum": None if squares is None else squares[some]}
            known |= {"rotations": self.spec.budget.rotations, "seed": self.spec.seed}
            found = one.function(*(known[name] for name in one.takes))
            values, stderr = found if isinstance(found, tuple) else (found, 0.0)
            exact = not isinstance(found, tuple)
            self._add(order, "all", one.name, Values.of(ids[some], values, stderr, exact, one.undefined))
        for name, function in self.spec.jacobian_scores.items():
            if self.drawn is not None:
                self._refuse(0, name, ids)
                continue
            values, reason = values_of(name, function, J, len(ids))
            self.state.add((0, "all", name), Values.of(ids, values, reason=reason))

    def _drawn_score(self, one: Score, J: np.ndarray, ids: np.ndarray) -> Values:
        """A score of the whole matrices, from that of the rows that were drawn."""
        assert self.drawn is not None
        groups = self.drawn.groups
        values, stderr = self.drawn.estimate(lambda some: one.function(J[:, groups[some].ravel()]))
        return Values.of(ids, values, stderr, False, one.undefined)

    def _refuse(self, k: int, score: str, ids: np.ndarray) -> None:
        """A score of a layer that the rows that were drawn do not tell."""
        self._add(k, "all", score, refused(self.drawn, ids))

    def _add_window_map(self, J: np.ndarray, ids: np.ndarray) -> None:
        """PR in windows over the image: one radius at every centre of the grid, the others at every second one."""
        shape = self.spec.image_shape
        some = ids < self.spec.budget.window_points
        if not (
            self.spec.window_map
            and self.spec.wants("pr")
            and shape
            and 2 in self.spec.k
            and min(self._rows(J), J.shape[2]) >= 2
            and some.any()
        ):
            return
        centers, radii = window_centers(shape, self.spec.window_map), window_radii(shape)
        rows, columns = (np.unique(centers[:, axis])[::2] for axis in (0, 1))
        coarse = np.isin(centers[:, 0], rows) & np.isin(centers[:, 1], columns)
        found = window_moments(J[some], centers, radii, shape) if self.drawn is None else []
        if self.drawn is not None:
            groups = [window_moments(J[some][:, rows], centers, radii, shape) for rows in self.drawn.groups]
            found = [[self.drawn.whole(same) for same in zip(*one, strict=True)] for one in zip(*groups, strict=True)]
        for radius, per_center in zip(radii, found, strict=True):
            for center, moments, kept in zip(centers, per_center, coarse, strict=True):
                if radius == scales(shape)[0] or kept:
                    name = str(Window((int(center[0]), int(center[1])), radius))
                    reason = EMPTY_SELECTION if moments.count == 0 else ALL_ZERO
                    stderr = moments.stderr["participation_ratio"]
                    self._add(2, name, "pr", Values.of(ids[some], moments.participation_ratio, stderr, moments.exact, reason))

    def _add(self, k: int, selection: str, score: str, values: Values) -> None:
        """Record a score; where the k-minors are rounding noise it is undefined."""
        if k in self.state.noise and len(self.state.noise[k]):
            values = values.undefined_at(np.isin(values.items, self.state.noise[k]), RANK_BELOW_K.format(k=k))
        self.state.add((k, selection, score), values)

    # -- helpers -----------------------------------------------------------------------------------------------------------------

    @property
    def _groups(self) -> int:
        """Groups of rows that are looked at, each for itself."""
        return 1 if self.drawn is None else len(self.drawn.groups)

    def _rows(self, J: np.ndarray) -> int:
        """Rows among which minors are looked at."""
        return int(J.shape[1] if self.drawn is None else self.drawn.groups.shape[1])

    def _points(self, limit: int | None) -> float:
        """How many items a limit of points comes to."""
        return np.inf if limit is None else limit

    def _moments(
        self, J: np.ndarray, k: int, chosen: Sequence[Selection], *, moments: Any = None, **options: Any
    ) -> list[Moments]:
        wanted = self._needed if moments is None else moments
        options = {"rel_error": self.spec.budget.rel_error, "seed": self.spec.seed, **options, **self._layout()}
        options["memory_budget"] = self.spec.budget.memory_budget
        return minor_moments(J, k, list(chosen), moments=tuple(name for name in MOMENTS if name in wanted), **options)

    def _layout(self) -> dict[str, Any]:
        """Where the columns lie."""
        return {name: getattr(self.spec, name) for name in ("image_shape", "positions", "groups")}


def values_of(name: str, function: ScoreFunction, given: Any, count: int) -> tuple[np.ndarray, str]:
    """What a user's own score gives for a batch: (count,) float64, and why any of them is NaN.

    Raises:
        InputError: not one real number for each Jacobian.
    """
    try:
        found = function(given)
    except UndefinedScore as reason:
        return np.full(count, np.nan), f"undefined: {reason}"
    try:
        values = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(())
    if values.shape != (count,):
        raise InputError(f"score {name!r} gave {found!r:.80}; expected one number for each of the {count} Jacobians of a batch")
    return values, OWN_SCORE_NAN
