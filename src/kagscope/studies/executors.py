"""Where tasks run: a pool of processes on this machine, or a Ray cluster. Both take the same tasks and give the same results.

A task is a picklable object, ``work(task, report)`` a module-level function that stores what it makes and tells of its progress
with ``report(event)``. Results do not pass through the executor, so nothing depends on the order in which tasks end.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

from kagscope.errors import InputError, KagscopeError

Event = dict[str, Any]
Report = Callable[[Event], None]
Work = Callable[[Any, Report], None]

POLL = 0.2  # seconds between looks at the events


@dataclass(frozen=True)
class Failure:
    """A task that raised: the message in one line, and the traceback for ``--debug``."""

    task: Any
    message: str
    traceback: str


class Executor(Protocol):
    """Runs tasks somewhere; ``workers`` of them at a time."""

    @property
    def workers(self) -> int:
        """Tasks at a time."""
        ...

    def run(self, tasks: Sequence[Any], work: Work, on_event: Report) -> list[Failure]:
        """Run every task, pass on their events in the calling thread, and return the failures. Ctrl-C stops all workers."""
        ...


def choose_executor(name: str, workers: int | None = None, address: str | None = None) -> Executor:
    """The executor ``name``: "local" or "ray".

    Args:
        name: which.
        workers: tasks at a time; default all cores.
        address: of an existing Ray cluster; default a Ray of its own on this machine.

    Raises:
        InputError: unknown name, no workers, or Ray is not installed.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    if name == "local":
        if address is not None:
            raise InputError("an address was given, but only --executor ray connects to a cluster")
        return LocalExecutor(workers or usable_cores())
    if name == "ray":
        from kagscope.studies.ray_executor import RayExecutor

        return RayExecutor(workers, address)
    raise InputError(f"executor is {name!r}; expected 'local' or 'ray'")


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def attempt(task: Any, work: Work, report: Report) -> Failure | None:
    """Run one task; what it raises becomes a :class:`Failure`."""
    try:
        work(task, report)
    except KagscopeError as error:
        return Failure(task, str(error), traceback.format_exc())
    except MemoryError:
        return Failure(task, "out of memory; use fewer --workers or smaller networks", traceback.format_exc())
    except Exception as error:
        return Failure(task, f"{type(error).__name__}: {error}", traceback.format_exc())
    return None


@dataclass(frozen=True)
class LocalExecutor:
    """A pool of fresh processes of one thread each: cores are filled by tasks, not by threads that wait for each other."""

    workers: int

    def run(self, tasks: Sequence[Any], work: Work, on_event: Report) -> list[Failure]:
        context = multiprocessing.get_context("spawn")  # forked processes inherit locks that threads of torch may hold
        events = context.Queue()
        pids: list[int] = []

        def drain() -> None:
            with contextlib.suppress(queue.Empty):
                while True:
                    event = events.get_nowait()
                    if event.get("kind") == "worker":
                        pids.append(event["pid"])
                    else:
                        on_event(event)

        with _single_threaded():
            pool = ProcessPoolExecutor(min(self.workers, max(len(tasks), 1)), context, _start, (events, os.getpid()))
            pending = {pool.submit(_in_worker, task, work): task for task in tasks}
        failures: list[Failure] = []
        try:
            while pending:
                finished, _ = wait(pending, timeout=POLL, return_when=FIRST_COMPLETED)
                drain()
                failures += [failure for future in finished if (failure := _outcome(future, pending.pop(future)))]
            pool.shutdown()
            drain()
        except BaseException:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            events.close()
            events.cancel_join_thread()
        return failures


def _outcome(future: Future[Failure | None], task: Any) -> Failure | None:
    try:
        return future.result()
    except BrokenProcessPool:
        message = "a worker process died, most often for want of memory; use fewer --workers"
        return Failure(task, message, message)


_events: Any = None


def _start(events: Any, parent: int) -> None:
    """First thing in a worker: Ctrl-C is the parent's to handle, and without a parent there is nothing to work for."""
    global _events
    _events = events
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    events.put({"kind": "worker", "pid": os.getpid()})


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _in_worker(task: Any, work: Work) -> Failure | None:
    return attempt(task, work, _events.put)


SINGLE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KAGSCOPE_THREADS", "NUMBA_NUM_THREADS"), "1"
)


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Environment in which processes are started: libraries read it when they load, before a worker could say anything."""
    before = {name: os.environ.get(name) for name in SINGLE_THREAD}
    os.environ.update(SINGLE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
