"""Cap the cost of measuring at a share of the training time by skipping measurements."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

from kagscope.base.checks import is_real
from kagscope.base.errors import InputError

Clock = Callable[[], float]
MAX_OVERHEAD = 0.1  # default share of the training time
ALLOWANCE = 2.0  # seconds of measuring that are always allowed, so that short training runs are measured


class Overhead:
    """Stopwatches for the time spent measuring and the time in between, which is training.

    Args:
        limit: largest ratio of measuring to training time, in (0, inf); None: no limit.
        clock: monotonic clock in seconds.
        allowance: total seconds that measuring may take regardless of the limit.

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
        """Seconds since the start not spent measuring."""
        return max(self._clock() - self._started - self.measuring, 0.0)

    @property
    def share(self) -> float:
        """Ratio of measuring to training time so far; NaN before any time has passed."""
        training = self.training
        return self.measuring / training if training > 0 else math.nan

    def allows_another(self) -> bool:
        """Whether one more measurement and the final one, which is always made, fit under the limit at the last one's cost."""
        return self.limit is None or self.measuring + 2 * self.last <= max(self.limit * self.training, self.allowance)

    @contextlib.contextmanager
    def measurement(self, *, goes_on: bool = False) -> Iterator[None]:
        """Count the time of the block as measuring; with ``goes_on`` it continues the previous measurement."""
        before = self._clock()
        try:
            yield
        finally:
            took = self._clock() - before
            self.last = took + (self.last if goes_on else 0.0)
            self.measuring += took


def check_max_overhead(limit: float | None) -> float | None:
    """Return ``limit`` as a float. Raises :class:`InputError` unless it is None or in (0, 1]."""
    if limit is None:
        return None
    if not is_real(limit, 0, 1) or not limit:
        raise InputError(
            f"max_overhead={limit!r}, expected a share of the training time in (0, 1], such as 0.05, or None for no limit"
        )
    return float(limit)
