"""Compute the scores of one layer from its Jacobians, batch by batch."""

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
from kagscope.measuring.drawn import ratio_to_haar, score_layer, score_row_means, undefined_score
from kagscope.measuring.layer_minors import LayerMinors, as_limit, layout_options, zero_noise
from kagscope.measuring.spec import MeasureSpec, ScoreFunction
from kagscope.measuring.state import WHOLE, LayerState, Values
from kagscope.measuring.unit_statistics import MAX_COLUMNS, UnitSums
from kagscope.minors.maps import window_moments
from kagscope.minors.moments import Moments
from kagscope.minors.plan import Estimate
from kagscope.minors.rotations import drawn_haar_means, haar_means
from kagscope.minors.row_draws import RowDraws
from kagscope.minors.row_means import row_means
from kagscope.registry import Score
from kagscope.scores.of_jacobians import numerical_ranks, spectrum

HAAR_TRIPLES = 1e8  # column triples whose volumes are computed for Haar means, in about a second
TRIPLE_ROWS = comb(64, 3)  # row means of k = 3 take 10 microseconds each
ROW_STEPS = 1e9  # minors of triples, or steps of zonogons of pairs, allowed for the row means of a layer
FEWEST_SAMPLES = 10  # inputs needed for scores of a representation


class LayerScores:
    """Accumulate the scores of one layer: :meth:`update` with each batch of Jacobians, then :meth:`compute`.

    Args:
        layer: its name.
        items: (P, 2) points and tokens of the Jacobians, in the order of the batches.
        spec: what to measure.
        roundoff: unit roundoff of the precision in which the Jacobians are computed.
        drawn: the rows of the Jacobians, if they are a sample of the layer's.
    """

    def __init__(self, layer: str, items: np.ndarray, spec: MeasureSpec, roundoff: float, drawn: RowDraws | None = None) -> None:
        self.layer, self.spec, self.roundoff, self.drawn = layer, spec, roundoff, drawn
        self.state = LayerState(items, drawn=drawn)
        self._seen = 0
        self._row_means: dict[int, list[np.ndarray]] = {}
        self._row_norms: list[np.ndarray] = []
        self._output_slopes: list[np.ndarray] = []
        scores = spec.score_records
        self._of_moments = [score for score in scores if score.is_of("moments") and not score.against_baseline]
        self._of_jacobians = [score for score in scores if score.is_of("jacobian", "spectrum")]
        self._minors = LayerMinors(spec, self.state)

    def update(self, batch: Batch, more: int = 0) -> None:
        """Score a batch; its last ``more`` Jacobians serve only for the scores of units.

        Raises:
            InputError: A Jacobian or an output is not finite.
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
            if k > 1:  # zero Jacobians have their own reason
                self.state.noise[k] = np.concatenate(
                    [self.state.noise.get(k, np.zeros(0, dtype=int)), ids[(ranks > 0) & (ranks < k)]]
                )
        for k in self.spec.k:
            units = J.shape[1] if self.drawn is None else self.drawn.units
            if min(self._minors.rows(J), J.shape[2]) >= k:
                self._add_minors(k, J, batch, ids)
            elif min(units, J.shape[2]) >= k:
                self._add_undefined(k, "pr", ids)
            else:
                reason = NO_MINORS.format(rows=units, columns=J.shape[2], k=k)
                self.state.add((k, "all", "pr"), Values.of(ids, np.full(len(ids), np.nan), reason=reason))
        self._add_row_means(J, ids)
        self._add_matrix_scores(J, ids)
        self._add_window_map(J, ids)

    def compute(self, activations: np.ndarray | None, labels: np.ndarray | None) -> LayerState:
        """Compute the scores that need all Jacobians or the outputs at many inputs, and return the state.

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
        available = {
            "row_norms": state.row_norms,
            "output_slopes": state.output_slopes,
            "activations": state.activations,
            "labels": labels,
        }
        for score in self.spec.score_records:
            if score.takes == ("row_means",):
                for k, means in state.row_means.items():
                    values = score_row_means(state, k, score.function)
                    self._add(k, "all", score.name, Values.of(np.arange(len(means)), *values, self.drawn is None))
            elif score.of_layer and (result := score_layer(state, score, available)) is not None:
                state.add((score.orders[0] if score.orders else 0, "all", score.name), result)
        return state

    # -- one batch ---------------------------------------------------------------------------------------------------------------

    def _check_finite(self, norms: np.ndarray, batch: Batch) -> None:
        """Raise if Jacobians or outputs are not finite; the row norms (B, m) are a cheap first test."""
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
        """Collect row norms of all points (``norms`` for those beyond J), or for maps to the output the slopes by column."""
        of_output = self.spec.layer_map == "output"
        kind, parts = ("output_slopes", self._output_slopes) if of_output else ("row_norms", self._row_norms)
        if any(score.is_of(kind) for score in self.spec.score_records):
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
        for mask, selections, only, moments in self._minors.moments(k, J, batch.jacobian, ids):
            self._record(J[mask], ids[mask], selections, moments, only)

    def _record(
        self,
        J: np.ndarray,
        ids: np.ndarray,
        selections: Sequence[Selection],
        moments_list: Sequence[Moments],
        only: Sequence[str] | None = None,
    ) -> None:
        """Record the scores of these moments with their errors, and each selection's number of column subsets."""
        k = moments_list[0].k
        units = J.shape[1] if self.drawn is None else self.drawn.units
        affordable = k != 3 or comb(J.shape[2], 3) * len(selections) <= HAAR_TRIPLES
        haar = only is None and affordable and k < units and any(score.is_of("haar_s1") for score in self._of_moments)
        means: Sequence[Any] = [None] * len(selections)
        if haar:
            layout = make_layout(J.shape[2], **layout_options(self.spec))
            options = (selections, layout, [score.exponent for score in moments_list], self.spec.budget.rel_error, self.spec.seed)
            means = haar_means(J, k, *options) if self.drawn is None else drawn_haar_means(self.drawn, J, k, *options)
        for selection, moments, mean in zip(selections, moments_list, means, strict=True):
            name = str(selection)
            unseen = np.any([np.isnan(score) for score in moments.sums.values()], axis=0)
            zero = np.where(moments.sums.get("s1", 0.0) > 0, OUT_OF_RANGE, ALL_ZERO)  # S1 is normalised, so it never underflows
            reason = np.where(unseen, NOT_SEEN, EMPTY_SELECTION if moments.count == 0 else zero)
            available = {*moments.sums, *(("histogram",) if moments.bins is not None else ())}
            unscaled = replace(
                moments, exponent=np.zeros_like(moments.exponent)
            )  # Haar means have none either; the ratio has no scale
            for score in self._of_moments:
                if not set(score.moments) <= available or (only is not None and score.name not in only):
                    continue
                if score.orders is not None and k not in score.orders:
                    continue
                if not score.is_of("haar_s1"):
                    self._add_moment_score(score, k, name, ids, moments, (moments,), reason)
                elif k == units:  # rotations keep minors of all rows: S1 is its own Haar mean
                    known = replace(unscaled, replicates={}, unknown={})
                    self._add_moment_score(score, k, name, ids, known, (known, Estimate(np.atleast_1d(known.s1), 0.0)), reason)
                elif mean is not None and self.drawn is not None:
                    self._add(k, name, score.name, Values.of(ids, *ratio_to_haar(score, unscaled, *mean), False, reason))
                elif mean is not None:
                    mean_reason = np.where(np.isnan(mean.value), NOT_SEEN, reason)
                    self._add_moment_score(score, k, name, ids, unscaled, (unscaled, mean), mean_reason)
            if only is None:
                self._add_own_scores(k, name, ids, moments)
            if moments.bins is not None:
                self.state.enumerated.setdefault((k, name), []).append(moments)
            self.state.scores[k, name, "column_subsets"] = Values.of([WHOLE], float(moments.count // comb(units, k)))

    def _add_moment_score(
        self, score: Score, k: int, selection: str, ids: np.ndarray, moments: Moments, arguments: tuple[Any, ...], reason: Any
    ) -> None:
        values: Any = score.function(*arguments)
        # errors of functions of moments alone are known by the functions' names; 0 if exact
        stderr = moments.stderr[score.function.__name__] if score.error is None else score.error(*arguments)
        means = [argument for argument in arguments if isinstance(argument, Estimate)]
        exact = moments.are_exact(score.moments) and not any(np.any(mean.stderr) for mean in means)
        self._add(k, selection, score.name, Values.of(ids, values, stderr, exact, reason))

    def _add_own_scores(self, k: int, selection: str, ids: np.ndarray, moments: Moments) -> None:
        for name, function in self.spec.own_scores.items():
            values, reason = evaluate_own_score(name, function, moments, len(ids))
            stderr = 0.0 if moments.exact else np.nan
            self._add(k, selection, name, Values.of(ids, values, stderr, moments.exact, reason))

    def _add_row_means(self, J: np.ndarray, ids: np.ndarray) -> None:
        """Collect row means of the minor matrices, for zero rows and Zipf curves; for k = 1 at every item."""
        if not any(score.is_of("row_means", "row_norms") for score in self.spec.score_records):
            return
        for k in sorted({1, *self.spec.k}):
            if k <= 3 and min(self._minors.rows(J), J.shape[2]) >= k:
                mask = ids < self._row_points(k, J)
                if mask.any():
                    denoised = zero_noise(self.state, k, J[mask], ids[mask])
                    groups = [denoised] if self.drawn is None else [denoised[:, rows] for rows in self.drawn.groups]
                    means = np.concatenate([np.asarray(row_means(score, k)) for score in groups], axis=1)
                    self._row_means.setdefault(k, []).append(means)

    def _row_points(self, k: int, J: np.ndarray) -> float:
        """Number of items at which row means of the k-minor matrix are computed, limited by operation counts."""
        n, sets = J.shape[2], comb(self._minors.rows(J), k) * self._minors.groups
        if k == 1:
            return np.inf
        if k == 2:
            return min(self.spec.budget.row_points, ROW_STEPS // (sets * n * log2(max(n, 2))))
        if sets > TRIPLE_ROWS:
            return 0
        points = min(self.spec.budget.row_points, as_limit(self.spec.budget.triple_points))
        return min(points, ROW_STEPS // (sets * comb(n, 3)))

    def _add_matrix_scores(self, J: np.ndarray, ids: np.ndarray) -> None:
        squares = None
        for score in self._of_jacobians:
            order = score.orders[0] if score.orders else 0
            mask = ids < as_limit(getattr(self.spec.budget, score.limit) if score.limit else None)
            if not mask.any() or min(J.shape[1:]) < order or (order > 1 and order not in self.spec.k):
                continue
            if self.drawn is not None:
                if score.takes == ("jacobian",):
                    self._add(order, "all", score.name, self._score_drawn_rows(score, J[mask], ids[mask]))
                else:
                    self._add_undefined(order, score.name, ids[mask])
                continue
            if score.is_of("spectrum") and squares is None:
                squares = spectrum(J)
            arguments: dict[str, Any] = {"jacobian": J[mask], "spectrum": None if squares is None else squares[mask]}
            budget = self.spec.budget
            arguments |= {"rotations": budget.rotations, "drawn_minors": budget.drawn_minors, "seed": self.spec.seed}
            result = score.function(*(arguments[name] for name in score.takes))
            values, stderr = result if isinstance(result, tuple) else (result, 0.0)
            exact = not isinstance(result, tuple)
            self._add(order, "all", score.name, Values.of(ids[mask], values, stderr, exact, score.undefined))
        for name, function in self.spec.jacobian_scores.items():
            if self.drawn is not None:
                self._add_undefined(0, name, ids)
                continue
            values, reason = evaluate_own_score(name, function, J.copy(), len(ids))  # the function may write into it
            self.state.add((0, "all", name), Values.of(ids, values, reason=reason))

    def _score_drawn_rows(self, score: Score, J: np.ndarray, ids: np.ndarray) -> Values:
        """Estimate a score of whole matrices from the drawn rows."""
        assert self.drawn is not None
        groups = self.drawn.groups
        values, stderr = self.drawn.estimate(lambda indices: score.function(J[:, groups[indices].ravel()]))
        return Values.of(ids, values, stderr, False, score.undefined)

    def _add_undefined(self, k: int, score: str, ids: np.ndarray) -> None:
        """Record NaN for a score that cannot be estimated from drawn rows."""
        self._add(k, "all", score, undefined_score(self.drawn, ids))

    def _add_window_map(self, J: np.ndarray, ids: np.ndarray) -> None:
        """Record PR in windows over the image: the smallest radius at every centre, the others at every second one."""
        shape = self.spec.image_shape
        mask = ids < self.spec.budget.window_points
        if not (
            self.spec.window_map
            and self.spec.wants("pr")
            and shape
            and 2 in self.spec.k
            and min(self._minors.rows(J), J.shape[2]) >= 2
            and mask.any()
        ):
            return
        centers, radii = window_centers(shape, self.spec.window_map), window_radii(shape)
        rows, columns = (np.unique(centers[:, axis])[::2] for axis in (0, 1))
        coarse = np.isin(centers[:, 0], rows) & np.isin(centers[:, 1], columns)
        by_radius = window_moments(J[mask], centers, radii, shape) if self.drawn is None else []
        if self.drawn is not None:
            groups = [window_moments(J[mask][:, rows], centers, radii, shape) for rows in self.drawn.groups]
            by_radius = [
                [self.drawn.combine(same) for same in zip(*centers_of, strict=True)] for centers_of in zip(*groups, strict=True)
            ]
        for radius, per_center in zip(radii, by_radius, strict=True):
            for center, moments, on_grid in zip(centers, per_center, coarse, strict=True):
                if radius == scales(shape)[0] or on_grid:
                    name = str(Window((int(center[0]), int(center[1])), radius))
                    reason = EMPTY_SELECTION if moments.count == 0 else ALL_ZERO
                    stderr = moments.stderr["participation_ratio"]
                    self._add(2, name, "pr", Values.of(ids[mask], moments.participation_ratio, stderr, moments.exact, reason))

    def _add(self, k: int, selection: str, score: str, values: Values) -> None:
        """Record a score; it is undefined where the k-minors are rounding noise."""
        self.state.add((k, selection, score), self.state.mask_noise(k, values))


def evaluate_own_score(name: str, function: ScoreFunction, argument: Any, count: int) -> tuple[np.ndarray, str]:
    """Evaluate a user's own score for a batch: (count,) float64, and the reason for NaN.

    Raises:
        InputError: The result is not one real number per Jacobian.
    """
    try:
        result = function(argument)
    except UndefinedScore as reason:
        return np.full(count, np.nan), f"undefined: {reason}"
    try:
        values = np.asarray(result.detach().cpu() if hasattr(result, "detach") else result, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(())
    if values.shape != (count,):
        text = " ".join(repr(result).split())
        raise InputError(f"score {name!r} gave {text:.80}; expected one number for each of the {count} Jacobians of a batch")
    return values, OWN_SCORE_NAN
