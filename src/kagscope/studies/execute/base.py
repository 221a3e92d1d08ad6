"""The interface of executors, which take the same tasks and give the same results.

A task is a picklable object; ``work(task, report)`` is a module-level function that stores its results and reports progress
by ``report(event)``. Results do not pass through the executor, so nothing depends on the order in which tasks end.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kagscope.base.errors import KagscopeError, OutputError

Event = dict[str, Any]
OnEvent = Callable[[Event], None]
Work = Callable[[Any, OnEvent], None]

DEVICE = "KAGSCOPE_DEVICE"  # environment variable of workers with a GPU
POLL = 0.2  # seconds between checks for events
SINGLE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KAGSCOPE_THREADS", "NUMBA_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Failure:
    """A task that raised: its message in one line, and the traceback for ``--debug``.

    ``stops``: the store cannot be written, so every other task would fail too and waiting ones are not started.
    """

    task: Any
    message: str
    traceback: str
    stops: bool = False


class Executor(Protocol):
    """Runs tasks, ``workers`` at a time."""

    @property
    def workers(self) -> int:
        """Number of concurrent tasks."""
        ...

    def run(self, tasks: Sequence[Any], work: Work, on_event: OnEvent) -> list[Failure]:
        """Run all tasks, pass on their events in the calling thread, and return failures. Ctrl-C stops all workers."""
        ...


def attempt(task: Any, work: Work, report: OnEvent) -> Failure | None:
    """Run one task; turn its exception into a :class:`Failure`."""
    try:
        work(task, report)
    except KagscopeError as error:
        return Failure(task, str(error), traceback.format_exc(), stops=isinstance(error, OutputError))
    except MemoryError:
        return Failure(task, "out of memory; use fewer --workers or smaller networks", traceback.format_exc())
    except Exception as error:
        return Failure(task, f"{type(error).__name__}: {error}", traceback.format_exc())
    return None
