"""Tasks that a second process starts while this one does something else."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from typing import Any, Generic, TypeVar

from kagscope.studies.execute.local import fresh_process_environment, start_worker

T = TypeVar("T")


class SharedTask(Generic[T]):
    """A task for whichever process gets to it first; ``future`` is that of the second process."""

    def __init__(self, task: Callable[[], T]) -> None:
        self.task = task
        self.future: Future[T] | None = None


class SecondProcess:
    """A second process, if any, that takes tasks one at a time until this one takes the rest."""

    def __init__(self, pool: ProcessPoolExecutor | None = None) -> None:
        self._pool = pool
        self._waiting: deque[SharedTask[Any]] = deque()
        self._lock, self._more, self._closed = threading.Lock(), threading.Semaphore(0), False
        if pool is not None:
            threading.Thread(target=self._pass_on, args=(pool,), daemon=True).start()

    def begin(self, tasks: Mapping[str, Callable[[], T]]) -> dict[str, SharedTask[T]]:
        """Queue tasks for the second process; tasks and results are pickled."""
        shared = {name: SharedTask(task) for name, task in tasks.items()}
        for task in shared.values():
            self._waiting.append(task)
            self._more.release()
        return shared

    def finish(self, shared: Mapping[str, SharedTask[T]], tell: Callable[[str], None]) -> dict[str, T]:
        """Run the tasks not yet started, last first, with a call of ``tell`` for each, and return all results.

        Exceptions are raised here. A task that the second process was running when it died is run again.
        """
        results = {}
        for name, task in reversed(list(shared.items())):
            with self._lock:
                mine = task in self._waiting
                if mine:
                    self._waiting.remove(task)
            if mine:
                tell(name)
                results[name] = task.task()
        for name, task in shared.items():
            if task.future is not None:
                try:
                    results[name] = task.future.result()
                except BrokenProcessPool:
                    results[name] = task.task()
        return {name: results[name] for name in shared}

    def close(self) -> None:
        """Start no more tasks."""
        with self._lock:
            self._closed = True
        self._more.release()
        if self._pool is not None:
            self._pool.shutdown()

    def _pass_on(self, pool: ProcessPoolExecutor) -> None:
        """Pass tasks to the other process until it dies or this is closed. (Cancelled futures confuse a dying pool.)"""
        with contextlib.suppress(BrokenProcessPool):
            while True:
                self._more.acquire()
                with self._lock:
                    if self._closed:
                        return
                    if not self._waiting:
                        continue
                    task = self._waiting[0]
                    task.future = pool.submit(task.task)
                    self._waiting.popleft()
                wait([task.future])


@contextlib.contextmanager
def second_process(wanted: bool, module: str) -> Iterator[SecondProcess]:
    """Start a second single-threaded process, which imports ``module`` at once; none if not wanted or not possible."""
    pool = None
    if wanted and not multiprocessing.current_process().daemon:
        with contextlib.suppress(OSError, ImportError, NotImplementedError):  # no semaphores
            pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), start_worker, (None, os.getpid()))
            with fresh_process_environment():
                pool.submit(import_module, module)
    second = SecondProcess(pool)
    try:
        yield second
    finally:
        second.close()
