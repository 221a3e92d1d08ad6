"""What a call of a penalty computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kagscope.scores.torch_sums import Task


@dataclass(frozen=True)
class Cost:
    """What one call of a penalty computes for one layer.

    Attributes:
        rows, columns: shape of the Jacobians.
        points: how many there are.
        shared: whether all are diag(d) W, so that sums over pairs of rows of W serve every point.
        pairs: pairs sorted in a call: of rows, or of columns for selections of pairs; 0 where nothing is sorted (k = 1).
        vectors: how many vectors each of them has.
    """

    rows: int
    columns: int
    points: int
    shared: bool
    pairs: int
    vectors: int

    @property
    def steps(self) -> float:
        """Steps of sorting in a call, twice with the derivative; about 3e8 of them take a second of one core."""
        return 2.0 * self.pairs * self.vectors * math.log2(max(self.vectors, 2))


def cost_of(task: Task, points: int, sorts: bool) -> Cost:
    """The cost of a task at so many points: of one matrix for all, or of the first of many; ``sorts``: S1 of 2-minors."""
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
