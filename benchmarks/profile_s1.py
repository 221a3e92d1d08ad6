"""Where do the milliseconds of exact S1, S2, S4 over all 2-minors go? The stages of ``routes/zonogon.py`` one after the other.

Run: ``python benchmarks/profile_s1.py [rows columns]`` (seconds; default 64 x 784). One thread, processor time, shortest of many
runs; each stage works on what the one before left, block by block as the engine does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

import kagscope as kag
from kagscope.minors._input import as_matrices
from kagscope.minors.routes.power_grams import accurate_row_pair_sums
from kagscope.minors.routes.zonogon import BLOCK_ENTRIES, fold_areas, index_bits, normalise_rows, row_pair_areas, write_keys
from kagscope.minors.scaling import nonzero_rows, normalise

REPEATS = 40


def milliseconds(work: Callable[[], object]) -> float:
    """Processor time of the shortest of many runs: other load only ever adds."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return 1e3 * min(times)


def main() -> None:
    m, n = (int(size) for size in sys.argv[1:3]) if len(sys.argv) > 2 else (64, 784)
    J = np.random.default_rng(0).normal(size=(m, n))
    rows, _ = normalise_rows(J)
    first, second = (index.astype(np.int64) for index in np.triu_indices(m, 1))
    coarse, norms, bits = rows.astype(np.float32), np.abs(rows).sum(axis=1), index_bits(n)
    mask, step = np.int32(2**bits - 1), max(1, BLOCK_ENTRIES // n)
    parts = [slice(start, min(start + step, len(first))) for start in range(0, len(first), step)]
    unsorted, keys = np.empty((2, len(first), n), dtype=np.int32)
    areas = np.empty(len(first))

    def build() -> None:
        for part in parts:
            write_keys(coarse, coarse, first[part], second[part], bits, unsorted[part])

    def copy() -> None:
        for part in parts:
            np.copyto(keys[part], unsorted[part])

    def copy_and_sort() -> None:
        for part in parts:
            np.copyto(keys[part], unsorted[part])
            keys[part].sort(axis=1)

    def fold() -> None:
        for part in parts:
            fold_areas(rows, rows, first[part], second[part], norms, norms, mask, keys[part], True, areas[part])

    def read_and_scale() -> None:
        normalise_rows(nonzero_rows(normalise(as_matrices(J)[0])[0][0]))

    with kag.limit_threads(1), threadpool_limits(1):
        build()
        stages = {"read, check, scale the matrix": milliseconds(read_and_scale), "build the keys": milliseconds(build)}
        copying = milliseconds(copy)
        stages["sort them (NumPy, int32)"] = sorting = milliseconds(copy_and_sort) - copying
        stages["gather, repair, fold"] = milliseconds(fold)
        stages["S2 and S4 by power Grams"] = milliseconds(lambda: accurate_row_pair_sums(J))
        areas_alone = milliseconds(lambda: row_pair_areas(J))
        whole = milliseconds(lambda: kag.minor_moments(J, 2, moments=("s1", "s2", "s4")))
    total = sum(stages.values())
    print(f"S1, S2, S4 of {m} x {n}, one thread: {whole:.2f} ms, of them S1 {areas_alone:.2f} ms")
    for name, spent in stages.items():
        print(f"  {name:<34}{spent:8.2f} ms  {spent / whole:6.1%}")
    print(f"  {'the rest':<34}{whole - total:8.2f} ms  {(whole - total) / whole:6.1%}")
    vectors = len(first) * n
    print(f"{vectors:.2e} vectors: {1e6 * areas_alone / vectors:.2f} ns each; sorting alone {1e6 * sorting / vectors:.2f} ns")


if __name__ == "__main__":
    main()
