"""The cost of a call of a penalty."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kagscope.scores.torch_sums import Task


@dataclass(frozen=True)
class Cost:
    """Cost of one call of a penalty for one layer.

    Attributes:
        rows, columns: shape of the Jacobians.
        points: number of points.
        shared: whether all Jacobians are diag(d) W, so that sums over row pairs of W serve every point.
        pairs: number of pairs sorted per call, of rows, or of columns for selections of pairs; 0 for k = 1.
        vectors: number of vectors sorted for each pair.
    """

    rows: int
    columns: int
    points: int
    shared: bool
    pairs: int
    vectors: int

    @property
    def steps(self) -> float:
        """Sorting steps per call, twice as many with the derivative; about 3e8 take a second on one core."""
        return 2.0 * self.pairs * self.vectors * math.log2(max(self.vectors, 2))


def cost_of(task: Task, points: int, sorts: bool) -> Cost:
    """Cost of a task at ``points`` points; ``sorts`` if it needs S1 of 2-minors."""
    m, n = task.kept.shape[1:]
    shared = task.factors is not None
    times = 1 if shared else points
    pairs, vectors = 0, n
    if sorts and task.pairs is not None:
        times, pairs, vectors = points, len(task.pairs.first), m
    elif sorts and task.rows is not None:
        pairs = len(task.rows.first)
    elif sorts:
        few = m if shared else min(m, n)
        pairs, vectors = math.comb(few, 2), n if shared else max(m, n)
    return Cost(m, n, points, shared, times * pairs, vectors)
