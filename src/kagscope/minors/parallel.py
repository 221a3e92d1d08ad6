"""Fixed blocks of work on threads: the same bits whatever the number of threads, since no block sees another."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def default_threads() -> int:
    """Number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def map_blocks(work: Callable[[slice], Result], total: int, block: int, threads: int | None = None) -> list[Result]:
    """``work`` over the slices of ``range(total)`` in steps of ``block``, results in order.

    The pool lives for one call only: a kept one would hang in forked workers, and starting one costs 0.1 ms.

    Args:
        work: releases the GIL for most of its time.
        total: number of items.
        block: items per slice; must not depend on ``threads`` where results are summed over blocks.
        threads: at most this many; None means all processors that this process may use.
    """
    slices = [slice(start, min(start + block, total)) for start in range(0, total, block)]
    workers = min(default_threads() if threads is None else max(1, threads), len(slices))
    if workers <= 1:
        return [work(part) for part in slices]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, slices))
