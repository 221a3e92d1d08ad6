"""From the Jacobians of one layer, batch after batch, to its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import comb, log2
from typing import Any

import numpy as np

from kagscope.base.errors import InputError, UndefinedScore
from kagscope.base.reasons import ALL_ZERO, EMPTY_SELECTION, NO_MINORS, NOT_SEEN, OWN_SCORE_NAN, RANK_BELOW_K
from kagscope.columns.layout import make_layout
from kagscope.columns.scales import scales, window_centers, window_radii
from kagscope.columns.selections import All, Selection, Subsets, Window
from kagscope.jacobians.compute import Batch
from kagscope.jacobians.forms import FactoredJacobian
from kagscope.measuring.spec import MeasureSpec, ScoreFunction
from kagscope.measuring.state import WHOLE, LayerState, Values
from kagscope.measuring.unit_statistics import MAX_COLUMNS, UnitSums
from kagscope.minors._input import MOMENTS
from kagscope.minors.engine import minor_moments
from kagscope.minors.factored import FactoredMoments
from kagscope.minors.maps import window_moments
from kagscope.minors.moments import Moments
from kagscope.minors.plan import Estimate
from kagscope.minors.rotations import haar_mean_s1
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


class LayerScores:
    """Collects the scores of one layer while its Jacobians pass by: :meth:`update` with each batch, then :meth:`compute`.

    Args:
        layer: its name.
        items: (P, 2) points and tokens of the Jacobians that will come, in their order.
        spec: what to measure.
        roundoff: unit roundoff of the precision in which the Jacobians are computed.
    """

    def __init__(self, layer: str, items: np.ndarray, spec: MeasureSpec, roundoff: float) -> None:
        self.layer, self.spec, self.roundoff = layer, spec, roundoff
        self.state = LayerState(items)
        self._seen = 0
        self._row_means: dict[int, list[np.ndarray]] = {}
        self._row_norms: list[np.ndarray] = []
        self._output_slopes: list[np.ndarray] = []
        self._table: tuple[np.ndarray, FactoredMoments] | None = None
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
        J = batch.jacobian.dense()
        self._check_finite(J, batch)
        self._add_rows(J)
        count = len(J) - more
        if not count:
            return
        J = J[:count]
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
            if min(J.shape[1:]) >= k:
                self._add_minors(k, J, batch, ids)
            else:
                reason = NO_MINORS.format(rows=J.shape[1], columns=J.shape[2], k=k)
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
                    self._add(k, "all", one.name, Values.of(np.arange(len(means)), one.function(means)))
            elif one.of_layer and all(known.get(name) is not None for name in one.takes):
                value = one.function(*(known[name] for name in one.takes))
                state.add((one.orders[0] if one.orders else 0, "all", one.name), Values.of([WHOLE], value, reason=one.undefined))
        return state

    # -- one batch ---------------------------------------------------------------------------------------------------------------

    def _check_finite(self, J: np.ndarray, batch: Batch) -> None:
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

    def _add_rows(self, J: np.ndarray) -> None:
        """What units do at every point: means of |J| over columns, and of the map to the output, slopes by column."""
        of_output = self.spec.layer_map == "output"
        kind, parts = ("output_slopes", self._output_slopes) if of_output else ("row_norms", self._row_norms)
        if any(one.is_of(kind) for one in self.spec.asked):
            parts.append(np.abs(J).max(axis=1) if of_output else np.asarray(row_means(J, 1)))

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
        if not self._needed:
            return
        if k == 2:
            self._add_pairs(J, batch, ids)
        elif k == 1:
            # a ball or a distance says nothing of single columns, so that they all stand under "all"; a window does
            layout = make_layout(J.shape[2], **self._layout())
            narrower = (one for one in self.spec.selections if isinstance(one, Window | Subsets) or not one.columns(layout).all())
            chosen = [All(), *narrower]
            self._record(J, ids, chosen, self._moments(J, 1, chosen, method="exact"))
        else:
            some = ids < self._points(self.spec.budget.triple_points)
            cheap = comb(J.shape[1], k) * comb(J.shape[2], k) <= VISITED_TRIPLES
            if some.any():
                method = "exact" if self.spec.budget.exact else "auto" if cheap else "sampled"
                rel_error = min(0.5, TRIPLE_ERROR * self.spec.budget.rel_error)
                told = self._without_noise(k, J[some], ids[some])
                found = self._moments(told, k, self.spec.selections, method=method, rel_error=rel_error)
                self._record(told, ids[some], self.spec.selections, found)

    def _add_pairs(self, J: np.ndarray, batch: Batch, ids: np.ndarray) -> None:
        """k = 2: formulas and one pass over a shared W where they give it; every minor where that is cheap; else drawn pairs."""
        chosen, budget = self.spec.selections, self.spec.budget
        if self._needed <= SUMS:
            self._record(J, ids, chosen, self._moments(J, 2, chosen))
            return
        total = comb(J.shape[1], 2) * comb(J.shape[2], 2)
        if budget.exact or total * len(self.state.items) <= budget.exact_minors:
            self._record(J, ids, chosen, self._moments(J, 2, chosen, method="exact"))
            return
        form, some = batch.jacobian, slice(0, len(J))
        known, left = None, self._needed
        if isinstance(form, FactoredJacobian) and total <= min(
            budget.exact_minors, DRAWN * comb(J.shape[2], 2) * len(self.state.items)
        ):
            known = self._factored(form, some, self._needed - {"histogram"})
            self._record(J, ids, chosen, known)
            left = self._needed & {"histogram"}
        elif isinstance(form, FactoredJacobian) and self._pays_for_all(*J.shape[1:]):
            known = self._factored(form, some, self._needed & SUMS)
        if left:
            only = None if left == self._needed else [one.name for one in self._of_moments if "histogram" in one.moments]
            found = self._moments(J, 2, chosen, moments=left, method="sampled", known=known)
            self._record(J, ids, chosen, found, only=only)

    def _pays_for_all(self, m: int, n: int) -> bool:
        """Whether sums over all pairs of columns, row pair by row pair of W, cost less than those of every item by itself."""
        by_rows, by_columns = comb(m, 2) * n * log2(n), comb(n, 2) * m * log2(m)
        fits = 8 * len(MOMENTS) * comb(m, 2) <= self.spec.budget.memory_budget // 4
        return fits and self.spec.selections == (All(),) and by_rows < by_columns * len(self.state.items)

    def _factored(self, form: FactoredJacobian, items: slice, moments: frozenset[str]) -> list[Moments]:
        """Moments of some items of a batch, from one pass over W that serves every item of the layer."""
        if self._table is None or self._table[0] is not form.W:
            wanted = tuple(name for name in MOMENTS if name in moments)
            self._table = (form.W, FactoredMoments(form.W, 2, list(self.spec.selections), moments=wanted, **self._layout()))
        found = self._table[1].at(form.d[items])
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
        affordable = k != 3 or comb(J.shape[2], 3) * len(chosen) <= HAAR_TRIPLES
        haar = only is None and affordable and k < J.shape[1] and any(one.is_of("haar_s1") for one in self._of_moments)
        options = {"rel_error": self.spec.budget.rel_error, "seed": self.spec.seed, "return_error": True, **self._layout()}
        means = haar_mean_s1(J, k, list(chosen), **options) if haar else [None] * len(chosen)
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
                elif k == J.shape[1]:  # no rotation changes a minor of all rows: S1, sampled or not, is its own mean
                    known = replace(moments, replicates={}, unknown={})
                    self._put(one, k, name, ids, known, (known, Estimate(np.atleast_1d(known.s1), 0.0)), reason)
                elif mean is not None:
                    met = np.where(np.isnan(mean.value), NOT_SEEN, reason)
                    self._put(one, k, name, ids, moments, (moments, mean), met)
            if only is None:
                self._put_own(k, name, ids, moments)
            if moments.bins is not None:
                self.state.visited.setdefault((k, name), []).extend(moments[i] for i in range(len(moments)))
            subsets = float(moments.count // comb(J.shape[1], k))
            self.state.scores[k, name, "column_subsets"] = Values.of([WHOLE], subsets)

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
            if k <= 3 and min(J.shape[1:]) >= k:
                some = ids < self._row_points(k, *J.shape[1:])
                if some.any():
                    told = self._without_noise(k, J[some], ids[some])
                    self._row_means.setdefault(k, []).append(np.asarray(row_means(told, k)))

    def _without_noise(self, k: int, J: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Zeros in place of Jacobians whose k-minors are rounding noise, which it would cost much to tell apart."""
        noise = np.isin(ids, self.state.noise.get(k, []))
        return np.where(noise[:, None, None], 0.0, J) if noise.any() else J

    def _row_points(self, k: int, m: int, n: int) -> float:
        """At how many items the row means of the k-minor matrix are found: a count of steps decides."""
        if k == 1:
            return np.inf
        if k == 2:
            return min(self.spec.budget.row_points, ROW_STEPS // (comb(m, 2) * n * log2(max(n, 2))))
        if comb(m, 3) > TRIPLE_ROWS:
            return 0
        points = min(self.spec.budget.row_points, self._points(self.spec.budget.triple_points))
        return min(points, ROW_STEPS // (comb(m, 3) * comb(n, 3)))

    def _add_matrix_scores(self, J: np.ndarray, ids: np.ndarray) -> None:
        squares = None
        for one in self._of_jacobians:
            order = one.orders[0] if one.orders else 0
            some = ids < self._points(getattr(self.spec.budget, one.limit) if one.limit else None)
            if not some.any() or min(J.shape[1:]) < order or (order > 1 and order not in self.spec.k):
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
            values, reason = values_of(name, function, J, len(ids))
            self.state.add((0, "all", name), Values.of(ids, values, reason=reason))

    def _add_window_map(self, J: np.ndarray, ids: np.ndarray) -> None:
        """PR in windows over the image: one radius at every centre of the grid, the others at every second one."""
        shape = self.spec.image_shape
        some = ids < self.spec.budget.window_points
        if not (
            self.spec.window_map and self.spec.wants("pr") and shape and 2 in self.spec.k and min(J.shape[1:]) >= 2 and some.any()
        ):
            return
        centers, radii = window_centers(shape, self.spec.window_map), window_radii(shape)
        rows, columns = (np.unique(centers[:, axis])[::2] for axis in (0, 1))
        coarse = np.isin(centers[:, 0], rows) & np.isin(centers[:, 1], columns)
        for radius, per_center in zip(radii, window_moments(J[some], centers, radii, shape), strict=True):
            for center, moments, kept in zip(centers, per_center, coarse, strict=True):
                if radius == scales(shape)[0] or kept:
                    name = str(Window((int(center[0]), int(center[1])), radius))
                    reason = EMPTY_SELECTION if moments.count == 0 else ALL_ZERO
                    self._add(2, name, "pr", Values.of(ids[some], moments.participation_ratio, reason=reason))

    def _add(self, k: int, selection: str, score: str, values: Values) -> None:
        """Record a score; where the k-minors are rounding noise it is undefined."""
        if k in self.state.noise and len(self.state.noise[k]):
            values = values.undefined_at(np.isin(values.items, self.state.noise[k]), RANK_BELOW_K.format(k=k))
        self.state.add((k, selection, score), values)

    # -- helpers -----------------------------------------------------------------------------------------------------------------

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
