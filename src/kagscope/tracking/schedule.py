"""Schedules of measurements: every n steps, at geometrically growing steps, every n epochs, or at given steps.

A schedule counts the measurements due up to now (``count_due``, non-decreasing). One is due when this count has grown since the
tracker was last called, so those that fall between two calls are made up for by one measurement at the next call.
"""

from __future__ import annotations

import bisect
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kagscope.base.checks import is_real, is_whole
from kagscope.base.errors import InputError

FORMS = 'every=100 (steps), "geometric" (steps 1, 2, 4, 8, …), ("geometric", 1.5), ("epochs", 1) or a list of steps, [0, 10, 500]'
_ROUNDING = 1e-9  # an epoch summed from fractions may fall short of an integer by rounding


class Schedule(Protocol):
    """Counts the measurements due in steps 1 … ``step``."""

    needs_epoch: bool

    def count_due(self, step: int, epoch: float | None) -> int:
        """Number of measurements due up to optimiser step ``step`` and ``epoch`` passes over the data."""
        ...


@dataclass(frozen=True)
class EverySteps:
    """Every ``n`` optimiser steps."""

    n: int
    needs_epoch = False

    def count_due(self, step: int, epoch: float | None) -> int:
        return step // self.n

    def __str__(self) -> str:
        return f"every {self.n} steps" if self.n > 1 else "every step"


@dataclass(frozen=True)
class Geometric:
    """At steps 1, factor, factor^2, …, rounded up; steps that coincide count once."""

    factor: float = 2.0
    needs_epoch = False

    def count_due(self, step: int, epoch: float | None) -> int:
        return math.floor(math.log(step) / math.log(self.factor) + _ROUNDING) + 1 if step >= 1 else 0

    def __str__(self) -> str:
        return f"geometric, factor {self.factor:g}"


@dataclass(frozen=True)
class EveryEpochs:
    """Every ``n`` passes over the training data; ``n`` may be a fraction."""

    n: float
    needs_epoch = True

    def count_due(self, step: int, epoch: float | None) -> int:
        if epoch is None:
            raise InputError(f"measuring {self} needs the epoch: call tracker.step(step, epoch=step / steps_per_epoch)")
        return math.floor(epoch / self.n + _ROUNDING)

    def __str__(self) -> str:
        return f"every {self.n:g} epochs" if self.n != 1 else "every epoch"


@dataclass(frozen=True)
class AtSteps:
    """At the given steps, ascending."""

    steps: tuple[int, ...]
    needs_epoch = False

    def count_due(self, step: int, epoch: float | None) -> int:
        return bisect.bisect_right(self.steps, step)

    def __str__(self) -> str:
        shown = ", ".join(str(step) for step in self.steps[:6])
        return f"at steps {shown}{', …' if len(self.steps) > 6 else ''}"


def parse_schedule(every: Any) -> Schedule:
    """Parse ``every``: an int (steps), ``"geometric"``, ``("geometric", factor)``, ``("epochs", n)``, or a list of steps.

    Raises:
        InputError: anything else, or a number out of range.
    """
    if isinstance(every, (EverySteps, Geometric, EveryEpochs, AtSteps)):
        return every
    if is_whole(every):
        if every < 1:
            raise InputError(f"every={every!r}, expected at least 1 step; {FORMS}")
        return EverySteps(int(every))
    if isinstance(every, str) and every == "geometric":
        return Geometric()
    if isinstance(every, (tuple, list)) and len(every) == 2 and every[0] == "geometric":
        return Geometric(_number(every, more_than=1.0))
    if isinstance(every, (tuple, list)) and len(every) == 2 and every[0] == "epochs":
        return EveryEpochs(_number(every, more_than=0.0))
    if isinstance(every, (Sequence, np.ndarray)) and not isinstance(every, (str, bytes)):
        return _at_steps(every)
    raise InputError(f"every={every!r} is not a schedule; give {FORMS}")


def check_step(step: Any, name: str) -> int:
    """Return ``step`` as an int. Raises :class:`InputError` unless it is an integer of at least 0."""
    try:
        number = operator.index(step)
    except TypeError:
        number = -1
    if isinstance(step, bool) or number < 0:
        raise InputError(f"{name}={step!r}, expected the number of optimiser steps taken, an integer of at least 0")
    return number


def check_epoch(epoch: Any) -> float:
    """Return ``epoch`` as a float, NaN for None. Raises :class:`InputError` unless None or a number of at least 0."""
    if epoch is None:
        return math.nan
    if isinstance(epoch, bool) or not isinstance(epoch, (int, float, np.number)) or epoch < 0 or epoch == math.inf:
        raise InputError(f"epoch={epoch!r}, expected passes over the training data so far, such as step / steps_per_epoch")
    return float(epoch)


def _at_steps(every: Any) -> AtSteps:
    if len(every) == 0 or not all(is_whole(step, 0) for step in every):
        raise InputError(f"every={every!r}, expected at least one step, each an integer of at least 0; {FORMS}")
    return AtSteps(tuple(sorted({int(step) for step in every})))


def _number(every: Any, more_than: float) -> float:
    number = every[1]
    if not is_real(number, more_than) or number == more_than:
        raise InputError(f"every={every!r}, expected a finite number of more than {more_than:g} after {every[0]!r}; {FORMS}")
    return float(number)
