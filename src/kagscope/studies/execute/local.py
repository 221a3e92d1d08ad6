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
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, Protocol

from kagscope.base.errors import InputError, KagscopeError, OutputError
from kagscope.studies.resources import usable_cores

Event = dict[str, Any]
Report = Callable[[Event], None]
Work = Callable[[Any, Report], None]

DEVICE = "KAGSCOPE_DEVICE"  # environment variable of workers that were given a GPU
POLL = 0.2  # seconds between looks at the events


@dataclass(frozen=True)
class Failure:
    """A task that raised: the message in one line, and the traceback for ``--debug``.

    ``stops``: the store cannot be written, so that no other task could end better; those that wait are not begun.
    """

    task: Any
    message: str
    traceback: str
    stops: bool = False


class Executor(Protocol):
    """Runs tasks somewhere; ``workers`` of them at a time."""

    @property
    def workers(self) -> int:
        """Tasks at a time."""
        ...

    def run(self, tasks: Sequence[Any], work: Work, on_event: Report) -> list[Failure]:
        """Run every task, pass on their events in the calling thread, and return the failures. Ctrl-C stops all workers."""
        ...


def choose_executor(
    name: str,
    workers: int | None = None,
    address: str | None = None,
    cpus_per_run: float | None = None,
    gpus_per_run: float | None = None,
) -> Executor:
    """The executor ``name``: "local" or "ray".

    Args:
        name: which.
        workers: tasks at a time; default all cores, fewer where memory is short.
        address: of an existing Ray cluster; default a Ray of its own on this machine.
        cpus_per_run, gpus_per_run: what Ray sets aside for each task, default one CPU and no GPU; a share such as 0.5 lets
            tasks share a GPU.

    Raises:
        InputError: unknown name, no workers, an option that only Ray has, or Ray is not installed.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    if name == "local":
        if address is not None:
            raise InputError("an address was given, but only --executor ray connects to a cluster")
        if cpus_per_run is not None or gpus_per_run is not None:
            raise InputError("CPUs or GPUs per run were given, but only --executor ray sets them aside; use --workers here")
        return LocalExecutor(workers or usable_cores(), by_default=workers is None)
    if name == "ray":
        from kagscope.studies.execute.ray import RayExecutor

        return RayExecutor(workers, address, 1.0 if cpus_per_run is None else cpus_per_run, gpus_per_run or 0.0)
    raise InputError(f"executor is {name!r}; expected 'local' or 'ray'")


def attempt(task: Any, work: Work, report: Report) -> Failure | None:
    """Run one task; what it raises becomes a :class:`Failure`."""
    try:
        work(task, report)
    except KagscopeError as error:
        return Failure(task, str(error), traceback.format_exc(), stops=isinstance(error, OutputError))
    except MemoryError:
        return Failure(task, "out of memory; use fewer --workers or smaller networks", traceback.format_exc())
    except Exception as error:
        return Failure(task, f"{type(error).__name__}: {error}", traceback.format_exc())
    return None


class WorkersDie(KagscopeError):
    """Worker processes end before they have finished anything: going on makes no sense."""


@dataclass(frozen=True)
class LocalExecutor:
    """A pool of fresh processes of one thread each: cores are filled by tasks, not by threads that wait for each other.

    Attributes:
        workers: processes.
        by_default: nobody asked for that number, so that fewer may be used where memory is short.
    """

    workers: int
    by_default: bool = False

    def run(self, tasks: Sequence[Any], work: Work, on_event: Report) -> list[Failure]:
        """See :class:`Executor`. When a worker dies, the tasks in flight run again at the end, one by one.

        Alone, a task has all the memory, and it is known which one it is that kills its worker.

        Raises:
            WorkersDie: processes die, again and again, before one task is finished.
        """
        failures: list[Failure] = []
        waiting, suspects = deque(tasks), deque[Any]()
        in_vain = 0
        while waiting:
            pool = _Pool(self.workers, work, on_event)
            suspects += pool.run(waiting)
            failures += pool.failures
            in_vain = 0 if pool.finished else in_vain + 1
            if in_vain == MOST_IN_VAIN:
                raise WorkersDie(f"{in_vain} times a worker process died before one task was finished; {DIED}")
        while suspects:
            task = suspects[0]
            pool = _Pool(1, work, on_event)
            if pool.run(deque([suspects.popleft()])):
                failures.append(Failure(task, f"a worker process died twice, once while nothing else ran; {DIED}", DIED))
            failures += pool.failures
        return failures


MOST_IN_VAIN = 3
DIED = "most often for want of memory: use fewer --workers or smaller networks"


@dataclass
class _Pool:
    """Processes until all is done or one of them dies."""

    workers: int
    work: Work
    on_event: Report
    failures: list[Failure] = field(default_factory=list)
    finished: int = 0

    def run(self, waiting: deque[Any]) -> list[Any]:
        """Take tasks from ``waiting`` until it is empty, and return those whose process died."""
        context = multiprocessing.get_context("spawn")  # forked processes inherit locks that threads of torch may hold
        self.events = context.Queue()
        others = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(min(self.workers, len(waiting)), context, _start, (self.events, os.getpid()))
        lost: list[Any] = []
        pending: dict[Future[Failure | None], Any] = {}
        try:
            while pending or (waiting and not lost):
                while waiting and not lost and len(pending) < self.workers:
                    task = waiting.popleft()
                    try:
                        with _single_threaded(), _main_left_alone():
                            pending[pool.submit(_in_worker, task, self.work)] = task
                    except BrokenProcessPool:
                        waiting.appendleft(task)
                        break
                done, _ = wait(pending, timeout=POLL, return_when=FIRST_COMPLETED)
                self._drain()
                for future in done:
                    self._end(future, pending.pop(future), lost)
                if any(failure.stops for failure in self.failures):
                    waiting.clear()
            pool.shutdown()
            self._drain()
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            self.events.close()
            self.events.cancel_join_thread()
        if lost:
            self.on_event({"kind": "note", "text": "a worker process died; what it was at runs again at the end, one by one"})
        return lost

    def _end(self, future: Future[Failure | None], task: Any, lost: list[Any]) -> None:
        try:
            failure = future.result()
        except BrokenProcessPool:
            lost.append(task)
            return
        self.finished += 1
        self.failures += [failure] if failure else []

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self.on_event(self.events.get_nowait())


_events: Any = None


def _start(events: Any, parent: int) -> None:
    """First thing in a worker: Ctrl-C is the parent's to handle, and without a parent there is nothing to work for."""
    global _events
    _events = events
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


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


@contextlib.contextmanager
def _main_left_alone() -> Iterator[None]:
    """Workers need nothing of the calling script; one without ``if __name__ == "__main__"`` would start again in each of them."""
    main = sys.modules["__main__"]
    before: dict[str, Any] = {name: main.__dict__[name] for name in ("__spec__", "__file__") if name in main.__dict__}
    main.__spec__ = None
    main.__dict__.pop("__file__", None)
    try:
        yield
    finally:
        main.__dict__.update(before)
