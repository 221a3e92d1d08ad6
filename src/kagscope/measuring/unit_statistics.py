"""Statistics of a layer's units: incoming weights or mean Jacobian row, its norm, and how often it is zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

WEIGHTS, MEAN_ROW = "weights", "mean Jacobian row"
MAX_COLUMNS = 4096  # of a layer whose rows are kept


@dataclass
class UnitSums:
    """Sums of unit statistics, accumulated batch by batch."""

    points: int = 0
    rows: Any = 0.0
    norms: Any = 0.0
    aligned: Any = 0.0
    nonzero: Any = 0
    means: list[np.ndarray] = field(default_factory=list)

    def update(self, J: np.ndarray) -> None:
        """Add a batch of Jacobians (B, m, n)."""
        size = np.abs(J)
        largest = size.max(axis=2)
        safe = np.where(largest > 0, largest, 1.0)
        relative = np.sqrt(((J / safe[:, :, None]) ** 2).sum(axis=2))  # scaled, so that squares neither overflow nor underflow
        self.points += len(J)
        self.rows = self.rows + J.sum(axis=0)
        self.norms = self.norms + (safe * relative).sum(axis=0)
        self.aligned = self.aligned + np.where(largest > 0, 1 / np.where(relative > 0, relative, 1.0), 0.0).sum(axis=0)
        self.nonzero = self.nonzero + (largest > 0).sum(axis=0)
        self.means.append(size.mean(axis=2))

    def table(self, layer: str, thresholds: Sequence[float], W: np.ndarray | None = None) -> pd.DataFrame:
        """Statistics of all batches, one row per unit.

        Args:
            layer: its name.
            thresholds: of each initial net, at or below which a row is a zero row (MATH.md section 3, ``zero_rows``).
            W: (m, n) where J(x) = diag(d(x)) W at every point.

        Returns:
            ``layer``; ``unit``; ``what`` its ``row`` (list of float) is: :data:`WEIGHTS` (of W) or :data:`MEAN_ROW`, the mean
            over points of that of J(x); ``row_norm``, mean over points of ||J_i(x)||_2; ``zero_share`` of the points,
            the mean over initial nets, NaN without any; ``alignment``, mean over points with a nonzero row of
            max_a |J_ia| / ||J_i||_2, NaN where it is always zero.
        """
        means = np.concatenate(self.means)
        shares = [(means <= threshold).mean(axis=0) for threshold in thresholds]
        return pd.DataFrame(
            {
                "layer": layer,
                "unit": np.arange(means.shape[1]),
                "what": MEAN_ROW if W is None else WEIGHTS,
                "row_norm": self.norms / self.points,
                "zero_share": np.mean(shares, axis=0) if shares else np.nan,
                "alignment": np.where(self.nonzero > 0, self.aligned / np.maximum(self.nonzero, 1), np.nan),
                "row": list(self.rows / self.points if W is None else W),
            }
        )
