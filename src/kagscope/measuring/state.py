"""Measured state of one network, to be compared with that of the same network at initialisation."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from kagscope.base.reasons import ALL_ZERO, RANK_BELOW_K
from kagscope.measuring.spec import MeasureSpec
from kagscope.measuring.unit_statistics import UnitSums
from kagscope.minors.moments import Moments
from kagscope.minors.row_draws import RowDraws

WHOLE = -1  # point of a score that a layer has over many points

Key = tuple[int, str, str]
"""(k, selection, score)."""


class Values(NamedTuple):
    """One score at some items of a layer.

    Attributes:
        items: (P,) indices among the layer's items; :data:`WHOLE` for a score over all of them.
        values: (P,) float64.
        stderr: (P,) standard errors; 0 if exact, NaN if unknown.
        exact: whether the values are exact, up to rounding.
        reason: (P,) reason for a value that is NaN.
    """

    items: np.ndarray
    values: np.ndarray
    stderr: np.ndarray
    exact: bool
    reason: np.ndarray

    @classmethod
    def of(cls, items: Any, values: Any, stderr: Any = 0.0, exact: bool = True, reason: Any = ALL_ZERO) -> Values:
        """Make values from scalars or arrays, which are broadcast."""
        array = np.atleast_1d(np.asarray(values, dtype=np.float64))
        errors = np.broadcast_to(np.asarray(stderr, dtype=np.float64), array.shape)
        return cls(np.asarray(items), array, errors, exact, np.full(array.shape, reason, dtype=object))

    def mask_where(self, mask: np.ndarray, reason: str) -> Values:
        """A copy that is NaN, with the reason, where ``mask`` (P,) bool is true."""
        values, errors = (np.where(mask, np.nan, array) for array in (self.values, self.stderr))
        return self._replace(values=values, stderr=errors, reason=np.where(mask, reason, self.reason))

    def append(self, other: Values) -> Values:
        """These values followed by those at further items."""
        items, values, stderr = (np.concatenate(pair) for pair in zip(self[:3], other[:3], strict=True))
        return Values(items, values, stderr, self.exact and other.exact, np.concatenate([self.reason, other.reason]))


@dataclass
class LayerRecord:
    """How one layer was measured.

    Attributes:
        name: its path in the model, as in the table.
        kind: class of the module.
        rows, columns: shape of its Jacobians; 0 if skipped.
        route: "factored", "forward mode", "reverse mode", "reverse mode, row by row".
        jacobians: number of Jacobians.
        wrt: which input they are derivatives with respect to, by name or position.
        seconds: time taken.
        notes: what a reader should know.
        reason: why it was skipped; "" if measured.
    """

    name: str
    kind: str
    rows: int = 0
    columns: int = 0
    route: str = ""
    jacobians: int = 0
    wrt: int | str = ""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    reason: str = ""


@dataclass
class LayerState:
    """Measured state of one layer.

    Attributes:
        items: (P, 2) int: data point, as an index into the inputs, and token (-1 if there are none) of each Jacobian, in order
            of measurement; expensive scores are measured at the first ones.
        scores: values by (k, selection, score).
        enumerated: moments with a histogram of the first items, batch after batch, by (k, selection).
        row_means: row means of the k-minor matrix at the first items, (P, rows), by k.
        row_norms: means of |J| over the columns at the points of the budget, (U, m); None if not needed.
        output_slopes: largest |d output / d unit| at the same points, (U, n); only for the map "output".
        activations: (N, m) outputs at up to ``budget.samples`` inputs.
        units: sums of unit statistics; None if there are too many columns.
        shared: W of J = diag(d) W if all points share it.
        noise: by k, the items whose numerical rank is below k.
        drawn: the sample of the layer's rows; None if all were measured. ``row_means`` and ``row_norms`` then hold one
            group after another.
        against_itself: cached scores as its own baseline (:func:`kagscope.measuring.compare.compare`), by what was requested.
    """

    items: np.ndarray
    scores: dict[Key, Values] = field(default_factory=dict)
    enumerated: dict[tuple[int, str], list[Moments]] = field(default_factory=dict)
    row_means: dict[int, np.ndarray] = field(default_factory=dict)
    row_norms: np.ndarray | None = None
    output_slopes: np.ndarray | None = None
    activations: np.ndarray | None = None
    units: UnitSums | None = None
    shared: np.ndarray | None = None
    noise: dict[int, np.ndarray] = field(default_factory=dict)
    drawn: RowDraws | None = None
    against_itself: dict[Hashable, dict[Key, Values]] = field(default_factory=dict, repr=False, compare=False)

    def add(self, key: Key, values: Values) -> None:
        """Record a score; the same score at further items is appended."""
        old = self.scores.get(key)
        self.scores[key] = values if old is None else old.append(values)

    def mask_noise(self, k: int, values: Values) -> Values:
        """Make a score undefined at items whose k-minors are rounding noise."""
        if not len(self.noise.get(k, ())):
            return values
        return values.mask_where(np.isin(values.items, self.noise[k]), RANK_BELOW_K.format(k=k))


@dataclass
class State:
    """Measured state of one network.

    Attributes:
        spec: what was measured.
        layers: a record of every requested layer, measured or skipped.
        measured: the state of each measured layer, by name.
        notes: remarks on the whole measurement.
    """

    spec: MeasureSpec
    layers: list[LayerRecord] = field(default_factory=list)
    measured: dict[str, LayerState] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
