"""From the Jacobians of one layer, batch after batch, to its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import comb, log2
from typing import Any

import numpy as np

from kagscope.base.errors import InputError, UndefinedScore
from kagscope.base.reasons import ALL_ZERO, EMPTY_SELECTION, NO_MINORS, NOT_SEEN, OUT_OF_RANGE, OWN_SCORE_NAN
from kagscope.columns.layout import make_layout
from kagscope.columns.scales import scales, window_centers, window_radii
from kagscope.columns.selections import Selection, Window
from kagscope.jacobians.compute import Batch
from kagscope.jacobians.forms import FactoredJacobian
from kagscope.measuring.drawn import of_row_means, of_row_norms, ratio_to_haar, unknown_score
from kagscope.measuring.layer_minors import LayerMinors, layout_of, most, without_noise
from kagscope.measuring.spec import MeasureSpec, ScoreFunction
from kagscope.measuring.state import WHOLE, LayerState, Values
from kagscope.measuring.unit_statistics import MAX_COLUMNS, UnitSums
from kagscope.minors.maps import window_moments
from kagscope.minors.moments import Moments
from kagscope.minors.plan import Estimate
from kagscope.minors.rotations import drawn_haar_means, haar_means
from kagscope.minors.row_draws import RowDraws
from kagscope.minors.rows import row_means
from kagscope.registry import Score
from kagscope.scores.of_jacobians import numerical_ranks, spectrum

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
        drawn: the rows that the Jacobians have, where they do not have all of the layer's.
    """

    def __init__(self, layer: str, items: np.ndarray, spec: MeasureSpec, roundoff: float, drawn: RowDraws | None = None) -> None:
        self.layer, self.spec, self.roundoff, self.drawn = layer, spec, roundoff, drawn
        self.state = LayerState(items, drawn=drawn)
        self._seen = 0
        self._row_means: dict[int, list[np.ndarray]] = {}
        self._row_norms: list[np.ndarray] = []
        self._output_slopes: list[np.ndarray] = []
        asked = spec.asked
        self._of_moments = [one for one in asked if one.is_of("moments") and not one.against_baseline]
        self._of_jacobians = [one for one in asked if one.is_of("jacobian", "spectrum")]
        self._minors = LayerMinors(spec, self.state)

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
        batch = replace(batch, jacobian=batch.jacobian.select_points(slice(count)))
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
            if min(self._minors.rows(J), J.shape[2]) >= k:
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
                    whole = unknown_score(self.drawn, [WHOLE])
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
        for some, chosen, only, found in self._minors.moments(k, J, batch.jacobian, ids):
            self._record(J[some], ids[some], chosen, found, only)

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
        means: Sequence[Any] = [None] * len(chosen)
        if haar:
            layout = make_layout(J.shape[2], **layout_of(self.spec))
            options = (chosen, layout, [one.exponent for one in found], self.spec.budget.rel_error, self.spec.seed)
            means = haar_means(J, k, *options) if self.drawn is None else drawn_haar_means(self.drawn, J, k, *options)
        for selection, moments, mean in zip(chosen, found, means, strict=True):
            name = str(selection)
            unseen = np.any([np.isnan(one) for one in moments.sums.values()], axis=0)
            zero = np.where(moments.sums.get("s1", 0.0) > 0, OUT_OF_RANGE, ALL_ZERO)  # S1 is over a power of two: never lost
            reason = np.where(unseen, NOT_SEEN, EMPTY_SELECTION if moments.count == 0 else zero)
            there = {*moments.sums, *(("histogram",) if moments.bins is not None else ())}
            bare = replace(moments, exponent=np.zeros_like(moments.exponent))  # as Haar means are: their ratio has no scale
            for one in self._of_moments:
                if not set(one.moments) <= there or (only is not None and one.name not in only):
                    continue
                if one.orders is not None and k not in one.orders:
                    continue
                if not one.is_of("haar_s1"):
                    self._put(one, k, name, ids, moments, (moments,), reason)
                elif k == units:  # no rotation changes a minor of all rows: S1, sampled or not, is its own mean
                    known = replace(bare, replicates={}, unknown={})
                    self._put(one, k, name, ids, known, (known, Estimate(np.atleast_1d(known.s1), 0.0)), reason)
                elif mean is not None and self.drawn is not None:
                    self._add(k, name, one.name, Values.of(ids, *ratio_to_haar(one, bare, *mean), False, reason))
                elif mean is not None:
                    met = np.where(np.isnan(mean.value), NOT_SEEN, reason)
                    self._put(one, k, name, ids, bare, (bare, mean), met)
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
            if k <= 3 and min(self._minors.rows(J), J.shape[2]) >= k:
                some = ids < self._row_points(k, J)
                if some.any():
                    told = without_noise(self.state, k, J[some], ids[some])
                    groups = [told] if self.drawn is None else [told[:, rows] for rows in self.drawn.groups]
                    means = np.concatenate([np.asarray(row_means(one, k)) for one in groups], axis=1)
                    self._row_means.setdefault(k, []).append(means)

    def _row_points(self, k: int, J: np.ndarray) -> float:
        """At how many items the row means of the k-minor matrix are found: a count of steps decides."""
        n, sets = J.shape[2], comb(self._minors.rows(J), k) * self._minors.groups
        if k == 1:
            return np.inf
        if k == 2:
            return min(self.spec.budget.row_points, ROW_STEPS // (sets * n * log2(max(n, 2))))
        if sets > TRIPLE_ROWS:
            return 0
        points = min(self.spec.budget.row_points, most(self.spec.budget.triple_points))
        return min(points, ROW_STEPS // (sets * comb(n, 3)))

    def _add_matrix_scores(self, J: np.ndarray, ids: np.ndarray) -> None:
        squares = None
        for one in self._of_jacobians:
            order = one.orders[0] if one.orders else 0
            some = ids < most(getattr(self.spec.budget, one.limit) if one.limit else None)
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
            budget = self.spec.budget
            known |= {"rotations": budget.rotations, "drawn_minors": budget.drawn_minors, "seed": self.spec.seed}
            found = one.function(*(known[name] for name in one.takes))
            values, stderr = found if isinstance(found, tuple) else (found, 0.0)
            exact = not isinstance(found, tuple)
            self._add(order, "all", one.name, Values.of(ids[some], values, stderr, exact, one.undefined))
        for name, function in self.spec.jacobian_scores.items():
            if self.drawn is not None:
                self._refuse(0, name, ids)
                continue
            values, reason = values_of(name, function, J.copy(), len(ids))  # theirs to write into
            self.state.add((0, "all", name), Values.of(ids, values, reason=reason))

    def _drawn_score(self, one: Score, J: np.ndarray, ids: np.ndarray) -> Values:
        """A score of the whole matrices, from that of the rows that were drawn."""
        assert self.drawn is not None
        groups = self.drawn.groups
        values, stderr = self.drawn.estimate(lambda some: one.function(J[:, groups[some].ravel()]))
        return Values.of(ids, values, stderr, False, one.undefined)

    def _refuse(self, k: int, score: str, ids: np.ndarray) -> None:
        """A score of a layer that the rows that were drawn do not tell."""
        self._add(k, "all", score, unknown_score(self.drawn, ids))

    def _add_window_map(self, J: np.ndarray, ids: np.ndarray) -> None:
        """PR in windows over the image: one radius at every centre of the grid, the others at every second one."""
        shape = self.spec.image_shape
        some = ids < self.spec.budget.window_points
        if not (
            self.spec.window_map
            and self.spec.wants("pr")
            and shape
            and 2 in self.spec.k
            and min(self._minors.rows(J), J.shape[2]) >= 2
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
        self.state.add((k, selection, score), self.state.undefined_where_noise(k, values))


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
        gave = " ".join(repr(found).split())
        raise InputError(f"score {name!r} gave {gave:.80}; expected one number for each of the {count} Jacobians of a batch")
    return values, OWN_SCORE_NAN
