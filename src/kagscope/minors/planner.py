"""Which route finds which moment, and saying so (MATH.md 4.8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log2


@dataclass(frozen=True)
class Plan:
    """How moments are found.

    Attributes:
        shape: (matrices, rows that are not zero, columns).
        k: order of the minors.
        selection: canonical name.
        count: minors of one matrix.
        routes: route by moment name, such as ``"s1": "zonogon over row pairs"``.
        seconds: estimated time for one matrix on one core.
        notes: what else was done or could not be.
    """

    shape: tuple[int, int, int]
    k: int
    selection: str
    count: int
    routes: Mapping[str, str]
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())

    def explain(self) -> str:
        """The plan in a few lines."""
        batch, rows, columns = self.shape
        lines = [
            f"{self.count:.4g} minors of order {self.k} over {self.selection}, each of {batch} matrices with {rows} nonzero "
            f"rows, {columns} columns"
        ]
        lines += [f"  {name}: {route}" for name, route in self.routes.items()]
        if self.seconds:
            lines.append(f"  estimated {self.seconds:.2g} s a matrix on one core")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


# Minors per second on one core of the kernels (float64, AVX-512 server core; AVX2 about half). They choose between routes that
# differ by
# more than such factors, and say how long an enumeration would take.
RATE_S1 = 8e9
RATE_ALL = {1: 1e8, 2: 6e8, 3: 5e8}
RATE_BRUTE = 2e6


SECONDS_SORT = 1.1e-9  # a vector of a zonogon, times log2 of their number


def zonogon_seconds(rows: int, columns: int) -> float:
    """Estimated one-core seconds for S1, S2, S4 over all 2-minors, on the side with fewer pairs."""
    few, many = sorted((rows, columns))
    return few * (few - 1) / 2 * many * max(1.0, log2(many)) * SECONDS_SORT


def enumeration_seconds(count: int, k: int) -> float:
    """Estimated one-core seconds to enumerate ``count`` minors with every moment."""
    return count / RATE_ALL.get(k, RATE_BRUTE)
