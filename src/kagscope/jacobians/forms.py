"""Forms of a layer's Jacobians. The type carries the structure, so that it is exploited without being detected again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class FactoredJacobian:
    """``J_b = diag(d[b]) @ W`` for every point b: ``d`` (B, m) and ``W`` (m, n), float64."""

    d: Float64[np.ndarray, "B m"]
    W: Float64[np.ndarray, "m n"]

    def __len__(self) -> int:
        return len(self.d)

    @property
    def shape(self) -> tuple[int, int]:
        return self.W.shape[0], self.W.shape[1]

    def dense(self, points: slice | np.ndarray = slice(None)) -> Float64[np.ndarray, "B m n"]:
        """The Jacobians themselves."""
        return self.d[points][:, :, None] * self.W

    def select_rows(self, rows: np.ndarray) -> FactoredJacobian:
        """The same map to some of its units."""
        return FactoredJacobian(self.d[:, rows], self.W[rows])

    def select_points(self, points: slice) -> FactoredJacobian:
        """Those of some points alone."""
        return FactoredJacobian(self.d[points], self.W)

    def row_norms(self) -> Float64[np.ndarray, "B m"]:
        """L1 norm of every row over the number of columns, (B, m): the row means of the 1-minors."""
        with np.errstate(invalid="ignore", over="ignore"):
            return np.abs(self.d) * np.abs(self.W).sum(axis=1) / self.W.shape[1]


@dataclass(frozen=True)
class DenseJacobian:
    """Unstructured Jacobians ``J`` (B, m, n), float64."""

    J: Float64[np.ndarray, "B m n"]

    def __len__(self) -> int:
        return len(self.J)

    @property
    def shape(self) -> tuple[int, int]:
        return self.J.shape[1], self.J.shape[2]

    def dense(self, points: slice | np.ndarray = slice(None)) -> Float64[np.ndarray, "B m n"]:
        """The Jacobians themselves."""
        return self.J[points]

    def select_rows(self, rows: np.ndarray) -> DenseJacobian:
        """The same map to some of its units."""
        return DenseJacobian(self.J[:, rows])

    def select_points(self, points: slice) -> DenseJacobian:
        """Those of some points alone."""
        return DenseJacobian(self.J[points])

    def row_norms(self) -> Float64[np.ndarray, "B m"]:
        """L1 norm of every row over the number of columns, (B, m)."""
        with np.errstate(over="ignore"):
            return np.array([np.abs(J).mean(axis=1) for J in self.J]).reshape(-1, self.J.shape[1])  # in the cache


LayerJacobian = FactoredJacobian | DenseJacobian
