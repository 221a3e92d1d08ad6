"""Keeps the cost of measuring under a share of the time that training takes, by leaving measurements out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import numpy as np

from kagscope.base.errors import InputError

Clock = Callable[[], float]
MAX_OVERHEAD = 0.1  # of the training time, where nothing else is said
ALLOWANCE = 2.0  # seconds of measuring in all that nobody minds, so that short trainings are seen


class Overhead:
    """Two stopwatches: time spent measuring and time spent outside, that is training.

    Args:
        limit: largest share, measuring over training, in (0, inf); None: no limit.
        clock: seconds, never going back.
        allowance: seconds that measuring may take in all, whatever the limit.

    Attributes:
        measuring: seconds spent measuring so far.
        last: seconds the last measurement took.
    """

    def __init__(self, limit: float | None, clock: Clock, allowance: float = 0.0) -> None:
        self.limit, self.allowance = limit, allowance
        self.measuring = 0.0
        self.last = 0.0
        self._clock = clock
        self._started = clock()

    @property
    def training(self) -> float:
        """Seconds since the start that were not spent measuring."""
        return max(self._clock() - self._started - self.measuring, 0.0)

    @property
    def share(self) -> float:
        """Measuring over training so far; NaN before any time has passed."""
        training = self.training
        return self.measuring / training if training > 0 else math.nan

    def allows_another(self) -> bool:
        """Whether one more measurement, and the last one that is always made, fit under the limit if they cost as much as the
        last did."""
        return self.limit is None or self.measuring + 2 * self.last <= max(self.limit * self.training, self.allowance)

    @contextlib.contextmanager
    def measurement(self, *, goes_on: bool = False) -> Iterator[None]:
        """Counts the time of the block as measuring; with ``goes_on`` it is part of the measurement before."""
        before = self._clock()
        try:
            yield
        finally:
            took = self._clock() - before
            self.last = took + (self.last if goes_on else 0.0)
            self.measuring += took


def check_max_overhead(limit: float | None) -> float | None:
    """``limit`` itself. Raises :class:`InputError` unless it is None or a share above 0, at most 1."""
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, (int, float, np.number)) or not 0 < limit <= 1:
        raise InputError(
            f"max_overhead={limit!r}, expected a share of the training time in (0, 1], such as 0.05, or None for no limit"
        )
    return float(limit)
