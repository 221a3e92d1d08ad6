"""The scores of one layer's Jacobians, batch after batch, as a :class:`~kagscope.measuring.states.State`."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import comb
from typing import Any

import numpy as np

import kagscope as kag
from kagscope.base.errors import InputError
from kagscope.jacobians import FactoredJacobian
from kagscope.jacobians.compute import Batch
from kagscope.measuring.comparison import rounding_only
from kagscope.measuring.geometry import SUMS
from kagscope.measuring.own_scores import values_of
from kagscope.measuring.settings import MeasureSettings
from kagscope.measuring.states import ALL_ZERO, WHOLE, State, record
from kagscope.measuring.unit_statistics import MAX_COLUMNS, IncomingSums
from kagscope.minors.haar import rotation_ratio_estimate
from kagscope.minors.moments import Moments
from kagscope.scores import of_jacobians
from kagscope.scores.of_representations import effective_dimension, intrinsic_dimension, kernel_alignment
from kagscope.wanted import SPECTRAL_SCORES

FACTORED_PASS = 2.0  # times the minors that may be visited: one pass over W serves all points
DIVERGENCE_ITEMS = 10
ROW_ITEMS = 20  # whose rows of pairs and triples are looked at; zero rows of k = 1 are counted at every item
ROTATIONS = 16
SMALL_TRIPLES = 5e7  # minors whose row means are found at once
FEWEST_SAMPLES = 10  # for scores of a representation
EMPTY = "undefined: no column subset in this selection"
UNDEFINED_JACOBIAN = "undefined: the Jacobian is zero"


@dataclass
class LayerScores:
    """Collects the scores of one layer while its Jacobians pass by.

    Args:
        layer: its name.
        items: how many Jacobians will come.
        settings: what to measure.
    """

    layer: str
    items: int
    settings: MeasureSettings
    state: State = field(init=False)
    seen: int = 0
    incoming: IncomingSums = field(default_factory=IncomingSums)
    shared: np.ndarray | None = None  # W of J = diag(d) W, where every batch has it
    _row_means: dict[int, list[np.ndarray]] = field(default_factory=dict)
    _values: list[np.ndarray] = field(default_factory=list)
    _column_norms: list[np.ndarray] = field(default_factory=list)
    _table: Any = None

    def __post_init__(self) -> None:
        self.state = State(np.arange(self.items))

    def add(self, batch: Batch) -> None:
        """Score one batch. Raises :class:`InputError` where a Jacobian is not finite."""
        J = batch.jacobian.dense()
        self._check(J, batch)
        ids = np.arange(self.seen, self.seen + len(J))
        self.seen += len(J)
        self._values.append(batch.values)
        if self.settings.layer_map != "output" and J.shape[2] <= MAX_COLUMNS:
            W = batch.jacobian.W if isinstance(batch.jacobian, FactoredJacobian) else None
            self.shared = W if not self.incoming.points or W is self.shared else None
            self.incoming.add(J)
        if self.settings.layer_map == "output":
            self._column_norms.append(np.abs(J).max(axis=1))
        for k in self.settings.k:
            if min(J.shape[1:]) >= k:
                self._minors(k, J, batch, ids)
            else:
                reason = f"undefined: a {J.shape[1]} x {J.shape[2]} Jacobian has no {k} x {k} minors"
                self.state.add((self.layer, k, "all", "pr"), ids, np.full(len(ids), np.nan), reason=reason)
        self._rows(J, ids)
        self._spectra(J, ids)

    def finish(self, labels: np.ndarray | None) -> State:
        """The state, with what needs all Jacobians; ``labels`` (items,) may be given for kernel alignment."""
        layer, state = self.layer, self.state
        state.row_means = {(layer, k): np.concatenate(parts) for k, parts in self._row_means.items()}
        if self.settings.layer_map == "output":
            slopes = np.concatenate(self._column_norms)
            state.output_slopes = {layer: slopes}
            state.add((layer, 0, "all", "unfelt_units_exact"), [WHOLE], rounding_only(slopes).sum())
            return state
        state.row_norms = {layer: state.row_means[layer, 1]}
        values = np.concatenate(self._values)
        if len(values) >= FEWEST_SAMPLES:
            state.activations = {layer: values}
            constant = "undefined: the activations are constant"
            state.add((layer, 0, "all", "effective_dimension"), [WHOLE], effective_dimension(values), reason=constant)
            few = "undefined: too few distinct activations"
            state.add((layer, 0, "all", "intrinsic_dimension"), [WHOLE], intrinsic_dimension(values), reason=few)
            if labels is not None:
                state.add((layer, 0, "all", "kernel_alignment"), [WHOLE], kernel_alignment(values, labels), reason=constant)
        return state

    def _check(self, J: np.ndarray, batch: Batch) -> None:
        nan = ~np.isfinite(batch.values).all(axis=1)
        bad = ~np.isfinite(J).all(axis=(1, 2))
        if nan.any() and not bad.any():
            first = int(np.flatnonzero(nan)[0])
            raise InputError(
                f"the output of layer {self.layer!r} at input {batch.points[first]} is NaN or infinite; "
                "check the weights and that input"
            )
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            token = f", token {batch.tokens[first]}" if batch.tokens[first] >= 0 else ""
            count = int((~np.isfinite(J[first])).sum())
            raise InputError(
                f"the Jacobian of layer {self.layer!r} at input {batch.points[first]}{token} has {count} entries that are NaN or "
                f"infinite ({int(bad.sum())} Jacobians of this batch); check the weights and that input"
            )

    def _minors(self, k: int, J: np.ndarray, batch: Batch, ids: np.ndarray) -> None:
        total = comb(J.shape[1], k) * comb(J.shape[2], k)
        if k == 2:
            self._pairs(J, batch, ids, total)
            for i in ids[ids < self.settings.rotation_points]:
                value, stderr = rotation_ratio_estimate(J[i - ids[0]], 2, "max", rotations=ROTATIONS, seed=self.settings.seed)
                self.state.add((self.layer, 2, "all", "rr_max"), [i], value, stderr, exact=False)
            return
        found = self._moments(J, k, method="exact" if k == 1 else "auto")
        self._record(J, ids, found, visited=k == 1)

    def _pairs(self, J: np.ndarray, batch: Batch, ids: np.ndarray, total: int) -> None:
        """k = 2: sums of every item exactly; every minor is looked at where that is cheap, else entropy is sampled."""
        budget = self.settings.visited_minors
        enough = self.items if total * self.items <= budget else max(1, int(budget // total)) if total <= 5 * budget else 0
        cut = int(np.searchsorted(ids, enough))
        if cut:
            self._record(J[:cut], ids[:cut], self._moments(J[:cut], 2, method="exact"), visited=True)
        if cut == len(ids):
            return
        J, ids = J[cut:], ids[cut:]
        if isinstance(batch.jacobian, FactoredJacobian) and total <= FACTORED_PASS * budget:
            self._record(J, ids, self._factored(batch.jacobian).at(batch.jacobian.d[cut:]), visited=False)
            return
        self._record(J, ids, self._moments(J, 2, method="exact", moments=SUMS), visited=False)
        sampled = self._moments(J, 2, method="sampled", moments=("s1", "entropy"), rel_error=self.settings.rel_error / 2)
        for selection, found in zip(self.settings.selections, sampled, strict=True):
            errors = found.stderr.get("kl_uniform", np.nan)
            reason = EMPTY if found.count == 0 else ALL_ZERO
            self.state.add((self.layer, 2, str(selection), "kl_uniform"), ids, found.kl_uniform, errors, found.exact, reason)

    def _factored(self, jacobian: FactoredJacobian) -> Any:
        """One pass over W, which then serves every item."""
        if self._table is None or self._table[0] is not jacobian.W:
            options = {"moments": (*SUMS, "entropy", "top"), **self._layout()}
            self._table = (jacobian.W, kag.FactoredMoments(jacobian.W, 2, list(self.settings.selections), **options))
        return self._table[1]

    def _record(self, J: np.ndarray, ids: np.ndarray, found: list[Moments], *, visited: bool) -> None:
        k = found[0].k
        chosen = list(self.settings.selections)
        means = kag.haar_mean_s1(J, k, selection=chosen, **self._layout()) if k <= 2 else None
        for place, (selection, moments) in enumerate(zip(chosen, found, strict=True)):
            name = str(selection)
            record(self.state, self.layer, J.shape[1], name, ids, moments)
            for score, function in self.settings.scores.items():
                values, reason = values_of(score, function, moments, len(ids))
                errors = 0.0 if moments.exact else np.nan
                self.state.add((self.layer, k, name, score), ids, values, errors, moments.exact, reason)
            if means is not None:
                s1 = np.asarray(moments.s1)
                self.state.add((self.layer, k, name, "rr_pr"), ids, means[place] / np.where(s1 > 0, s1, np.nan))
            if visited and moments.bins is not None:
                self.state.visited.setdefault((self.layer, k, name), []).extend(moments[i] for i in range(len(moments)))

    def _rows(self, J: np.ndarray, ids: np.ndarray) -> None:
        """Row means of the minor matrices, for zero rows; those of k = 1 always."""
        for k in sorted({1, *self.settings.k}):
            if k > 3 or min(J.shape[1:]) < k or (k == 3 and comb(J.shape[1], 3) * comb(J.shape[2], 3) > SMALL_TRIPLES):
                continue
            some = J if k == 1 else J[ids < ROW_ITEMS]
            if len(some):
                self._row_means.setdefault(k, []).append(kag.row_means(some, k))

    def _spectra(self, J: np.ndarray, ids: np.ndarray) -> None:
        for score, values in ((one, getattr(of_jacobians, one)(J)) for one in SPECTRAL_SCORES):
            self.state.add((self.layer, 0, "all", score), ids, values, reason=UNDEFINED_JACOBIAN)
        for score, function in self.settings.jacobian_scores.items():
            values, reason = values_of(score, function, J, len(ids))
            self.state.add((self.layer, 0, "all", score), ids, values, reason=reason)
        some = ids < DIVERGENCE_ITEMS
        if some.any():
            few = "undefined: fewer than two nonzero columns"
            self.state.add((self.layer, 1, "all", "column_divergence"), ids[some], kag.column_divergence(J[some], 1), reason=few)

    def _moments(self, J: np.ndarray, k: int, **options: Any) -> list[Moments]:
        options = {"rel_error": self.settings.rel_error, "seed": self.settings.seed, **options}
        budget = self.settings.memory_budget
        return kag.minor_moments(J, k, list(self.settings.selections), memory_budget=budget, **options, **self._layout())

    def _layout(self) -> dict[str, Any]:
        """Where the columns lie; of an "output" map they are units, which lie nowhere."""
        names = ("image_shape", "positions", "groups")
        return {name: getattr(self.settings, name) for name in names}
