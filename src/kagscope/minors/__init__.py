"""The engine: exact moments of the minors of any matrix. Import from :mod:`kagscope`; this package knows arrays only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

ORDERS = (1, 2, 3)


def warm_up(progress: Callable[[str], None] | None = None, orders: Sequence[int] = ORDERS) -> None:
    """Compile every kernel for k = 1, 2, 3, or load it from the cache of an earlier run.

    Args:
        progress: called once, with a sentence, when there is something to compile.
        orders: only for these k.
    """
    import numpy as np

    from kagscope.columns.selections import Ball
    from kagscope.minors import factored
    from kagscope.minors.engine import minor_moments
    from kagscope.minors.rotations import rotation_ratio
    from kagscope.minors.routes.enumeration import FEW_ROWS
    from kagscope.minors.row_means import row_means

    if progress is not None and not is_warm():
        progress("compiling the kernels, once on this machine; this takes some seconds")
    J = np.random.default_rng(0).normal(size=(4, 9))
    for k in orders:
        for wanted in (("s1", "s2", "s4"), ("top",), "all"):
            minor_moments(J, k, [Ball(1), Ball(2)], image_shape=(3, 3), moments=wanted)
            minor_moments(J, k, moments=wanted)
        for wanted in (("s1", "s2", "s4"), "all"):
            factored.factored_minor_moments(J, J[:, :1].T, k, moments=wanted)
        row_means(J, k)
        minor_moments(J, k, method="sampled", rel_error=0.5)
    if 2 in orders:
        many_rows = np.random.default_rng(0).normal(size=(FEW_ROWS + 1, 9))  # with fewer rows a separate pass for S1 does not pay
        minor_moments(many_rows, 2, [Ball(1), Ball(2)], image_shape=(3, 3), moments=("s1", "s2"))
        for kind in ("pr", "max"):
            rotation_ratio(J, 2, kind, rotations=2)


def is_warm() -> bool:
    """Whether :func:`warm_up` has nothing to compile."""
    from kagscope.minors import enumeration_kernels, factored_kernels
    from kagscope.minors.routes import triple_kernels

    kernels = (
        enumeration_kernels.s1_pairs,
        enumeration_kernels.sums_pairs,
        enumeration_kernels.all_pairs,
        enumeration_kernels.all_triples,
        factored_kernels.pair_rows,
        triple_kernels.sum_rows,
    )
    return all(any(kernel.signatures) or kernel.stats.cache_hits or _has_cache(kernel) for kernel in kernels)


def _has_cache(kernel: object) -> bool:
    """Whether Numba holds an index of compiled code for this kernel."""
    import os

    cache = getattr(getattr(kernel, "_cache", None), "_cache_file", None)
    return cache is not None and os.path.exists(getattr(cache, "_index_path", ""))
