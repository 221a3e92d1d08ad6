"""The number of threads of the kernels, and running their parts: the work is divided in a fixed way, so that the number of
threads never changes a bit of a result."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeVar

from kagscope.base.errors import InputError

T = TypeVar("T")
_limit: ContextVar[int | None] = ContextVar("kagscope_threads", default=None)


def threads() -> int:
    """Threads to use: the innermost :func:`limit_threads`, else ``KAGSCOPE_THREADS``, ``NUMBA_NUM_THREADS``, every core."""
    chosen = _limit.get()
    if chosen is not None:
        return chosen
    from_environment = os.environ.get("KAGSCOPE_THREADS")
    if from_environment:
        if not from_environment.isdigit() or int(from_environment) < 1:
            raise InputError(f"KAGSCOPE_THREADS={from_environment!r}, expected a whole number of at least 1")
        return int(from_environment)
    import numba

    config: Any = numba.config  # numba.get_num_threads() would set OpenMP's for the whole process
    return int(config.NUMBA_NUM_THREADS)


@contextlib.contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """Use ``count`` threads of this process inside the ``with`` block; results have the same bits for any number.

    Outside, the environment variable ``KAGSCOPE_THREADS`` says how many, or else every core is used.

    Args:
        count: at least 1.

    Raises:
        InputError: ``count`` is no such number.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"threads={count!r}, expected a whole number of at least 1")
    token = _limit.set(count)
    try:
        yield
    finally:
        _limit.reset(token)


def run_parts(work: Callable[[int], T], parts: int) -> list[T]:
    """``[work(0), …, work(parts - 1)]`` on :func:`threads` threads; ``work`` must release the GIL to gain from them.

    Each thread, including the caller's, takes the next part as soon as it is free: handing parts over one by one would cost
    more than many of them take. The pool lives for one call only: a persistent one would hang in forked workers.
    """
    workers = min(threads(), parts)
    if workers <= 1:
        return [work(part) for part in range(parts)]
    left = deque(range(parts))
    done: dict[int, T] = {}

    def take() -> None:
        while True:
            try:
                part = left.popleft()
            except IndexError:
                return
            try:
                done[part] = work(part)
            except BaseException:
                left.clear()  # stops the others too
                raise

    with ThreadPoolExecutor(workers - 1) as pool:
        others = [pool.submit(take) for _ in range(workers - 1)]
        take()
    for other in others:
        other.result()
    return [done[part] for part in range(parts)]


def map_blocks(work: Callable[[slice], T], total: int, block: int) -> list[T]:
    """``work`` over the slices of ``range(total)`` in steps of ``block``, results in order, on :func:`threads` threads.

    Args:
        work: releases the GIL for most of its time.
        total: number of items.
        block: items per slice; must not depend on the threads where results are summed over blocks.
    """
    slices = [slice(start, min(start + block, total)) for start in range(0, total, block)]
    return run_parts(lambda part: work(slices[part]), len(slices))


def even_parts(weights: Sequence[float], parts: int) -> list[int]:
    """Boundaries of at most ``parts`` consecutive ranges of about equal weight: ``[0, …, len(weights)]``, strictly rising."""
    total = sum(weights) or 1.0
    bounds, running = [0], 0.0
    for index, weight in enumerate(weights):
        running += weight
        if running * parts >= total * len(bounds) and index + 1 > bounds[-1]:
            bounds.append(index + 1)
    if bounds[-1] != len(weights):
        bounds.append(len(weights))
    return bounds


@lru_cache(maxsize=1)
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


_blas = threading.Lock()
_inside = 0  # number of callers, in all threads, that want one thread now
_before: Any = None


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Context in which matrix products use one thread: the first to enter sets it, and the last to leave restores the number.

    Their bits must not depend on the threads, and idle BLAS threads spin, which costs the kernel that runs next up to 40 ms.
    """
    global _inside, _before
    with _blas:
        _inside += 1
        if _inside == 1:
            _before = _libraries().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _blas:
            _inside -= 1
            if _inside == 0:
                _before.restore_original_limits()
