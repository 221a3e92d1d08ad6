"""Common base of routes for one moment of all minors of some columns, matrix by matrix, from the side with fewer vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from kagscope.minors.routes import Kind
from kagscope.minors.scaling import column_span, entry_span, narrow, nonzero_rows
from kagscope.minors.task import RouteResult, Task


class NarrowSide(ABC):
    """A formula for ``moment`` of k-minors; a derived route defines the attributes, ``steps`` and ``value``.

    Attributes:
        name: of the route in plans.
        kind: of the route.
        k: order of the minors.
        moment: name of the moment it computes.
        column_bits: most bits between columns of the side, beyond which it does not apply.
        entry_bits: likewise between the entries of a row.
    """

    name: str
    kind: Kind = "formula"
    k: int
    moment: str
    column_bits: int
    entry_bits: int

    @abstractmethod
    def steps(self, task: Task) -> dict[str, float]:
        """As of every route."""

    @abstractmethod
    def value(self, side: NDArray[np.float64]) -> float | None:
        """The moment over every minor of ``side`` (m, n), m <= n, without zero rows; None where rounding hides it."""

    def provides(self, task: Task) -> frozenset[str]:
        return frozenset({self.moment}) if task.k == self.k and task.clique else frozenset()

    def run(self, tasks: list[Task]) -> list[RouteResult | None]:
        return [self._run_task(task) for task in tasks]

    def _run_task(self, task: Task) -> RouteResult | None:
        sides = [narrow(nonzero_rows(matrix)) for matrix in task.inside.normalised]
        if any(column_span(side) > self.column_bits or entry_span(side) > self.entry_bits for side in sides):
            return None
        values = [self.value(side) for side in sides]
        if any(value is None for value in values):
            return None
        return RouteResult(task.inside.exponent, {self.moment: np.array(values, dtype=np.float64)}, {self.moment: self.name})
