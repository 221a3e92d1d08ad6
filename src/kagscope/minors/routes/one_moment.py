"""Common bases of routes for one moment, matrix by matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from kagscope.minors.routes import Kind
from kagscope.minors.scaling import column_span, entry_span, narrow, nonzero_rows
from kagscope.minors.task import RouteResult, Task


class OneMoment(ABC):
    """A formula for ``moment``; a derived route defines the attributes and the abstract methods.

    Attributes:
        name: of the route in plans.
        kind: of the route.
        moment: name of the moment it computes.
    """

    name: str
    kind: Kind = "formula"
    moment: str

    @abstractmethod
    def provides(self, task: Task) -> frozenset[str]:
        """As of every route."""

    @abstractmethod
    def steps(self, task: Task) -> dict[str, float]:
        """As of every route."""

    @abstractmethod
    def value(self, matrix: NDArray[np.float64], task: Task) -> float | None:
        """The moment of one normalised matrix without zero rows; None where rounding hides it."""

    def run(self, tasks: list[Task]) -> list[RouteResult | None]:
        return [self._run_task(task) for task in tasks]

    def _run_task(self, task: Task) -> RouteResult | None:
        values = []
        for matrix in task.inside.normalised:
            value = self.value(nonzero_rows(matrix), task)
            if value is None:
                return None
            values.append(value)
        return RouteResult(task.inside.exponent, {self.moment: np.array(values, dtype=np.float64)}, {self.moment: self.name})


class NarrowSide(OneMoment):
    """A formula for every k-minor of some columns, from the side with fewer vectors.

    Attributes:
        k: order of the minors.
        column_bits: most bits between columns of the side, beyond which it does not apply.
        entry_bits: likewise between the entries of a row.
    """

    k: int
    column_bits: int
    entry_bits: int

    @abstractmethod
    def side_value(self, side: NDArray[np.float64]) -> float | None:
        """The moment over every minor of ``side`` (m, n), m <= n, without zero rows; None where rounding hides it."""

    def provides(self, task: Task) -> frozenset[str]:
        return frozenset({self.moment}) if task.k == self.k and task.clique else frozenset()

    def value(self, matrix: NDArray[np.float64], task: Task) -> float | None:
        side = narrow(matrix)
        if column_span(side) > self.column_bits or entry_span(side) > self.entry_bits:
            return None
        return self.side_value(side)
