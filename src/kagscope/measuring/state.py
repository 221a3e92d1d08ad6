"""What was measured of one network, kept so that it can be compared with the same network at initialisation."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from kagscope.base.reasons import ALL_ZERO, RANK_BELOW_K
from kagscope.measuring.spec import MeasureSpec
from kagscope.measuring.unit_statistics import UnitSums
from kagscope.minors.moments import Moments
from kagscope.minors.row_draws import RowDraws

WHOLE = -1  # the point of a score of a layer over many points

Key = tuple[int, str, str]
"""(k, selection, score)."""


class Values(NamedTuple):
    """One score at some items of a layer.

    Attributes:
        items: (P,) places among the layer's items; :data:`WHOLE` for a score of the layer over all of them.
        values: (P,) float64.
        stderr: (P,) standard errors; 0 where exact, NaN where the error is not known.
        exact: whether the values are exact, up to rounding.
        reason: (P,) why a value is NaN, if it is.
    """

    items: np.ndarray
    values: np.ndarray
    stderr: np.ndarray
    exact: bool
    reason: np.ndarray

    @classmethod
    def of(cls, items: Any, values: Any, stderr: Any = 0.0, exact: bool = True, reason: Any = ALL_ZERO) -> Values:
        """Values from scalars or arrays, which are broadcast."""
        found = np.atleast_1d(np.asarray(values, dtype=np.float64))
        errors = np.broadcast_to(np.asarray(stderr, dtype=np.float64), found.shape)
        return cls(np.asarray(items), found, errors, exact, np.full(found.shape, reason, dtype=object))

    def undefined_at(self, places: np.ndarray, reason: str) -> Values:
        """A copy that is NaN, for that reason, where ``places`` (P,) bool is true."""
        values, errors = (np.where(places, np.nan, one) for one in (self.values, self.stderr))
        return self._replace(values=values, stderr=errors, reason=np.where(places, reason, self.reason))

    def and_then(self, other: Values) -> Values:
        """The values at these items and at further ones."""
        items, values, stderr = (np.concatenate(pair) for pair in zip(self[:3], other[:3], strict=True))
        return Values(items, values, stderr, self.exact and other.exact, np.concatenate([self.reason, other.reason]))


@dataclass
class LayerRecord:
    """How one layer was measured.

    Attributes:
        name: as in the table: its path in the model.
        kind: class of the module.
        rows, columns: shape of its Jacobians; 0 where skipped.
        route: "factored", "forward mode", "reverse mode", "reverse mode, row by row".
        jacobians: how many.
        wrt: which input they are derivatives with respect to, by name or position.
        seconds: taken.
        notes: what a reader should know.
        reason: why it was skipped; "" where it was measured.
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

    def as_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return asdict(self)


@dataclass
class LayerState:
    """What was measured of one layer.

    Attributes:
        items: (P, 2) int: the data point, as an index in the inputs given, and the token (-1 where there are none) of each
            Jacobian, in the order in which they were measured; what costs much is measured at the first ones.
        scores: values by (k, selection, score).
        visited: moments with a histogram of the first items, batch after batch, by (k, selection).
        row_means: row means of the k-minor matrix at the first items, (P, rows), by k.
        row_norms: means of |J| over the columns at the points of the budget, (U, m); None where not asked for.
        output_slopes: largest |d output / d unit| at the same points, (U, n); of the map "output" alone.
        activations: (N, m) outputs at up to the budget's number of all inputs.
        units: sums of what each unit looks at; None where the columns are too many.
        shared: W of J = diag(d) W where all points share it.
        noise: by k, the items whose numerical rank is below k.
        drawn: the rows that stand for all of the layer's; None where it was measured whole. ``row_means`` and ``row_norms`` have
            then those of each group after another.
        against_itself: what :func:`kagscope.measuring.compare.compare` found of it as its own baseline, by what was asked.
    """

    items: np.ndarray
    scores: dict[Key, Values] = field(default_factory=dict)
    visited: dict[tuple[int, str], list[Moments]] = field(default_factory=dict)
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
        self.scores[key] = values if old is None else old.and_then(values)

    def undefined_where_noise(self, k: int, values: Values) -> Values:
        """A score, undefined at the items whose k-minors are rounding noise."""
        if not len(self.noise.get(k, ())):
            return values
        return values.undefined_at(np.isin(values.items, self.noise[k]), RANK_BELOW_K.format(k=k))


@dataclass
class State:
    """What was measured of one network.

    Attributes:
        spec: what was measured.
        layers: a record for every layer asked for, measured or skipped.
        measured: the state of each measured layer, by name.
        notes: what holds of the whole measurement.
    """

    spec: MeasureSpec
    layers: list[LayerRecord] = field(default_factory=list)
    measured: dict[str, LayerState] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
