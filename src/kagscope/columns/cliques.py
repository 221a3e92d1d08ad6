"""Counting cliques of a graph of columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def count_cliques(adjacency: NDArray[np.bool_], k: int) -> int:
    """Number of k-cliques of a graph: the allowed k-subsets when a selection is a condition on pairs."""

    def below(candidates: NDArray[np.bool_], size: int) -> int:
        if size == 1:
            return int(candidates.sum())
        total = 0
        for column in np.flatnonzero(candidates):
            later = candidates & adjacency[column]
            later[: column + 1] = False
            total += below(later, size - 1)
        return total

    return below(np.ones(len(adjacency), dtype=bool), k)
