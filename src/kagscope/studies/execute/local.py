"""Tasks in a pool of processes on this machine."""

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
from kagscope.studies.execute.base import POLL, SINGLE_THREAD, Failure, Report, Work, attempt


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
    """First thing in a worker: Ctrl-C is the parent's to handle, and without a parent there is nothing to work for."""
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
    """What must hold while a worker process is started."""
    with _single_thread_environment(), _hide_main():
        yield


@contextlib.contextmanager
def _single_thread_environment() -> Iterator[None]:
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
def _hide_main() -> Iterator[None]:
    """Workers need nothing of the calling script; one without ``if __name__ == "__main__"`` would start again in each of them."""
    main = sys.modules["__main__"]
    before: dict[str, Any] = {name: main.__dict__[name] for name in ("__spec__", "__file__") if name in main.__dict__}
    main.__spec__ = None
    main.__dict__.pop("__file__", None)
    try:
        yield
    finally:
        main.__dict__.update(before)
