"""What each unit of a layer looks at: its incoming weights or mean Jacobian row, how long that is, how often it is zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

WEIGHTS, MEAN_ROW = "weights", "mean Jacobian row"
MAX_COLUMNS = 4096  # of a layer whose rows are kept
NUMBERS = ("row_norm", "zero_share", "alignment")


@dataclass(frozen=True)
class UnitStatistics:
    """The units of one layer of one network.

    Attributes:
        layer: its name.
        what: what ``rows`` holds: :data:`WEIGHTS` W where J(x) = diag(d(x)) W at every point, else :data:`MEAN_ROW`, the mean
            over points of each row of J(x).
        rows: (m, n).
        row_norm: (m,) mean over points of ||J_i(x)||_2.
        zero_share: (m,) share of points at which the row is a zero row: mean |J_ia| over a at or below the threshold of the
            initial net (MATH.md section 3, ``zero_rows``); NaN where there is no initial net to compare with.
        alignment: (m,) mean over points with a nonzero row of max_a |J_ia| / ||J_i||_2; NaN where it is always zero.
    """

    layer: str
    what: str
    rows: np.ndarray
    row_norm: np.ndarray
    zero_share: np.ndarray
    alignment: np.ndarray

    def table(self) -> pd.DataFrame:
        """One row per unit: layer, unit, what, row_norm, zero_share, alignment, row (list of float)."""
        numbers = {name: getattr(self, name) for name in NUMBERS}
        head = {"layer": self.layer, "unit": np.arange(len(self.rows)), "what": self.what}
        return pd.DataFrame({**head, **numbers, "row": list(self.rows)})

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> list[UnitStatistics]:
        """The layers of such a table, in its order."""
        return [
            cls(str(layer), str(one["what"].iloc[0]), np.stack(one["row"].to_list()), *(one[name].to_numpy() for name in NUMBERS))
            for layer, one in table.groupby("layer", sort=False, observed=True)
        ]


@dataclass
class UnitSums:
    """Collects what :class:`UnitStatistics` holds while Jacobians pass by, batch after batch."""

    points: int = 0
    rows: Any = 0.0
    norms: Any = 0.0
    aligned: Any = 0.0
    nonzero: Any = 0
    means: list[np.ndarray] = field(default_factory=list)

    def update(self, J: np.ndarray) -> None:
        """One batch of Jacobians (B, m, n)."""
        size = np.abs(J)
        largest = size.max(axis=2)
        safe = np.where(largest > 0, largest, 1.0)
        relative = np.sqrt(((J / safe[:, :, None]) ** 2).sum(axis=2))  # of the scaled row: squares neither over- nor underflow
        self.points += len(J)
        self.rows = self.rows + J.sum(axis=0)
        self.norms = self.norms + (safe * relative).sum(axis=0)
        self.aligned = self.aligned + np.where(largest > 0, 1 / np.where(relative > 0, relative, 1.0), 0.0).sum(axis=0)
        self.nonzero = self.nonzero + (largest > 0).sum(axis=0)
        self.means.append(size.mean(axis=2))

    def compute(self, layer: str, thresholds: Sequence[float], W: np.ndarray | None = None) -> UnitStatistics:
        """Statistics of all batches; ``W`` (m, n) where all points share it, a threshold for each initial net (or none)."""
        means = np.concatenate(self.means)
        shares = [(means <= threshold).mean(axis=0) for threshold in thresholds]
        zero = np.mean(shares, axis=0) if shares else np.full(means.shape[1], np.nan)
        alignment = np.where(self.nonzero > 0, self.aligned / np.maximum(self.nonzero, 1), np.nan)
        rows = self.rows / self.points if W is None else W
        return UnitStatistics(layer, MEAN_ROW if W is None else WEIGHTS, rows, self.norms / self.points, zero, alignment)
