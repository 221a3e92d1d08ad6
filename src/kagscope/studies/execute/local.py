"""Run tasks in a pool of processes on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from kagscope.base.errors import KagscopeError
from kagscope.studies.execute.base import POLL, SINGLE_THREAD, Failure, OnEvent, Work, attempt


class WorkersDie(KagscopeError):
    """Worker processes die before any task is finished, so that continuing is pointless."""


@dataclass(frozen=True)
class LocalExecutor:
    """A pool of fresh single-threaded processes: cores are used by tasks, not by threads that wait for each other.

    Attributes:
        workers: number of processes.
        by_default: the number is a default, which may be lowered if memory is short.
    """

    workers: int
    by_default: bool = False

    def run(self, tasks: Sequence[Any], work: Work, on_event: OnEvent) -> list[Failure]:
        """See :class:`Executor`. When a worker dies, the tasks in flight are run again at the end, one at a time.

        A task alone has all the memory, and one that kills its worker is identified.

        Raises:
            WorkersDie: processes die repeatedly before any task is finished.
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
    """Processes that live until all tasks are done or one of them dies."""

    workers: int
    work: Work
    on_event: OnEvent
    failures: list[Failure] = field(default_factory=list)
    finished: int = 0

    def run(self, waiting: deque[Any]) -> list[Any]:
        """Run the tasks in ``waiting`` and return those whose process died."""
        context = multiprocessing.get_context("spawn")  # forked processes inherit locks that torch's threads may hold
        self.events = context.Queue()
        others = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(min(self.workers, len(waiting)), context, start_worker, (self.events, os.getpid()))
        lost: list[Any] = []
        pending: dict[Future[Failure | None], Any] = {}
        try:
            while pending or (waiting and not lost):
                while waiting and not lost and len(pending) < self.workers:
                    task = waiting.popleft()
                    try:
                        with fresh_process_environment():
                            pending[pool.submit(_run_in_worker, task, self.work)] = task
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


def start_worker(events: Any, parent: int) -> None:
    """Initialise a worker: leave Ctrl-C to the parent, and exit when the parent is gone."""
    global _events
    _events = events
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _run_in_worker(task: Any, work: Work) -> Failure | None:
    return attempt(task, work, _events.put)


@contextlib.contextmanager
def fresh_process_environment() -> Iterator[None]:
    """Environment in which worker processes are started."""
    with _single_thread_environment(), _hide_main():
        yield


@contextlib.contextmanager
def _single_thread_environment() -> Iterator[None]:
    """Set single-thread environment variables, which libraries read at import, before a worker could change them."""
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
def _hide_main() -> Iterator[None]:
    """Hide the calling script from workers, which would run it again if it has no ``if __name__ == "__main__"``."""
    main = sys.modules["__main__"]
    before: dict[str, Any] = {name: main.__dict__[name] for name in ("__spec__", "__file__") if name in main.__dict__}
    main.__spec__ = None
    main.__dict__.pop("__file__", None)
    try:
        yield
    finally:
        main.__dict__.update(before)
