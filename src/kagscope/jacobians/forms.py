"""The forms a layer's Jacobians come in. Structure is carried by the type and exploited, never looked for again."""

from __future__ import annotations

from collections.abc import Iterator
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

    def dense(self, points: slice | np.ndarray = slice(None)) -> np.ndarray:
        """The Jacobians themselves, (B, m, n)."""
        return self.d[points][:, :, None] * self.W

    def row_norms(self, points: slice = slice(None)) -> np.ndarray:
        """L1 norm of every row over the number of columns, (B, m): the row means of the 1-minors."""
        return np.abs(self.d[points]) * np.abs(self.W).mean(axis=1)


@dataclass(frozen=True)
class DeepJacobian:
    """``J_b = diag(d[b]) @ chain(b)``: the outer diagonal ``d`` (B, m), the inner product built on demand, float64."""

    d: np.ndarray
    inner: tuple[tuple[np.ndarray, np.ndarray], ...]  # (W of a layer, d (B, h) of the layer before it), outermost first
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.d)

    @property
    def shape(self) -> tuple[int, int]:
        return self.d.shape[1], self.first.shape[1]

    def dense(self, points: slice | np.ndarray = slice(None)) -> np.ndarray:
        """The Jacobians themselves, (B, m, n)."""
        chain = None
        for W, before in self.inner:
            step = W * before[points][:, None, :]
            chain = step if chain is None else chain @ step
        assert chain is not None
        return self.d[points][:, :, None] * (chain @ self.first)

    def row_norms(self, points: slice = slice(None), *, chunk: int = 64) -> np.ndarray:
        """L1 norm of every row over the number of columns, (B, m), in chunks of points."""
        chosen = np.arange(len(self))[points]
        return np.concatenate([np.abs(self.dense(part)).mean(axis=2) for part in _chunks(chosen, chunk)])


@dataclass(frozen=True)
class DenseJacobian:
    """Jacobians as they are: ``J`` (B, m, n), float64."""

    J: Float64[np.ndarray, "B m n"]

    def __len__(self) -> int:
        return len(self.J)

    @property
    def shape(self) -> tuple[int, int]:
        return self.J.shape[1], self.J.shape[2]

    def dense(self, points: slice | np.ndarray = slice(None)) -> np.ndarray:
        """The Jacobians themselves, (B, m, n)."""
        return self.J[points]

    def row_norms(self, points: slice = slice(None)) -> np.ndarray:
        """L1 norm of every row over the number of columns, (B, m)."""
        return np.abs(self.J[points]).mean(axis=2)


LayerJacobian = FactoredJacobian | DeepJacobian | DenseJacobian


def _chunks(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
