"""How fast are the kernels of ``minors/``, and beside what? Prints one table; takes about half a minute.

Usage: python benchmarks/kernels.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

import kagscope as kag
from kagscope.minors.haar import haar_mean_s1_estimate
from kagscope.minors.random_rotations import max_rotation_ratio, random_orthogonal
from kagscope.minors.routes.hull import row_pair_tops, top
from kagscope.minors.routes.zonogon import row_pair_areas
from kagscope.minors.routes.zonotope import row_triple_volumes
from kagscope.minors.routes.zonotope_sampled import s1_draws


def milliseconds(work: Callable[[], object], repeats: int = 9, threads: int = 2) -> float:
    """Shortest of several runs: other load on the machine only ever adds."""
    times = []
    with kag.limit_threads(threads):
        work()
        for _ in range(repeats):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def sorting(keys: np.ndarray) -> float:
    """Sorting fresh copies of ``keys`` row by row on one core, without the copying."""
    buffer = np.empty_like(keys)

    def copy() -> None:
        np.copyto(buffer, keys)

    def copy_and_sort() -> None:
        copy()
        buffer.sort(axis=1)

    return milliseconds(copy_and_sort) - milliseconds(copy)


def sampled_practice(J: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The published practice: a loop over 500 random determinants, then over 300 in each of 5 rotations."""

    def some(matrix: np.ndarray, count: int) -> list[float]:
        values = []
        for _ in range(count):
            rows, columns = rng.choice(matrix.shape[0], 2, replace=False), rng.choice(matrix.shape[1], 2, replace=False)
            values.append(abs(np.linalg.det(matrix[np.ix_(rows, columns)])))
        return values

    own = some(J, 500)
    rotated = [max(some(Q @ J, 300)) for Q in random_orthogonal(J.shape[0], 5, rng)]
    return float(np.linalg.norm(own) / np.sum(own)), max(own) / float(np.mean(rotated))


def main() -> None:
    rng = np.random.default_rng(0)
    J = rng.normal(size=(64, 784))
    pairs = 64 * 63 // 2
    rows: list[tuple[str, float, str]] = []

    def show(name: str, value: float, note: str = "") -> None:
        rows.append((name, value, note))
        print(f"{name:<64}{value:>12.3f} ms  {note}", flush=True)

    print("k = 2, J of 64 x 784, times of the whole call\n")
    wide = sorting(rng.integers(0, 2**62, size=(pairs, 784)))
    narrow = sorting(rng.integers(-(2**31), 2**31, size=(pairs, 784)).astype(np.int32))
    one, two = milliseconds(lambda: row_pair_areas(J), threads=1), milliseconds(lambda: row_pair_areas(J))
    practice = milliseconds(lambda: sampled_practice(J, rng), 3)
    show("NumPy sort of as many int64 keys, one core", wide)
    show("NumPy sort of as many int32 keys, one core", narrow)
    show("S1 exact, all row pairs, 1 thread", one, f"{one / wide:.2f} x the int64 sort")
    show("S1 exact, all row pairs, 2 threads", two, f"{two / wide:.2f} x the int64 sort (mark: 1.5)")
    show("sampled practice: 500 determinants and 5 rotations of 300", practice, f"{practice / two:.0f} x the exact S1")
    for name, other in {
        "nearly parallel rows": J[:1] + 1e-6 * J,
        "rectified (half the entries 0)": np.maximum(J, 0),
        "heavy-tailed": J * np.exp(2 * rng.normal(size=J.shape)),
    }.items():
        show(f"S1 exact, {name}, 2 threads", milliseconds(partial(row_pair_areas, other), 3))
    show("largest minor of every row pair, 2 threads", milliseconds(lambda: row_pair_tops(J)))
    show("largest minor, 2 threads", milliseconds(lambda: top(J)))
    show("rotation ratio 'max', 32 rotations", milliseconds(lambda: max_rotation_ratio(J, 2), 2))
    show("Haar mean of S1", milliseconds(lambda: haar_mean_s1_estimate(J, 2)))

    print("\nk = 2, larger\n")
    for m, n in ((128, 784), (128, 3072), (384, 1536), (768, 3072)):
        other = rng.normal(size=(m, n))
        spent = milliseconds(partial(row_pair_areas, other), 1)
        count = m * (m - 1) * n * (n - 1) / 4
        show(f"S1 exact, {m} x {n}", spent, f"{count / spent / 1e6:.0f}e9 minors a second")

    print("\nk >= 3, J of 64 x 784\n")
    triples = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]])
    show("one row triple, exact, 1 thread", milliseconds(lambda: row_triple_volumes(J, triples), 3, threads=1) / 4)
    heavy = J * np.exp(rng.normal(size=(64, 1))) * np.exp(1.5 * rng.normal(size=784))
    for k in (3, 4, 6):
        for name, other in (("Gaussian", J), ("heavy-tailed", heavy)):
            draws = s1_draws(other, k, 0.01)
            spent = milliseconds(partial(s1_draws, other, k, 0.01), 3)
            show(f"S1 within 1%, k = {k}, {name}", spent, f"reached {100 * draws.std() / draws.size**0.5 / draws.mean():.2f}%")
    show("Haar mean, k = 3, all 8.0e7 column triples", milliseconds(lambda: haar_mean_s1_estimate(J, 3), 1))
    show("Haar mean within 1%, k = 4", milliseconds(lambda: haar_mean_s1_estimate(J, 4), 1))

    print("\nsampling all moments to 1%, 64 x 784, 2 threads\n")
    for k in (2, 3, 4):
        for name, selection in (("all", kag.All()), ("ball(7)", kag.Ball(7))):
            draw = partial(kag.minor_moments, heavy, k, selection, image_shape=(28, 28), method="sampled")
            found = draw()
            spent = milliseconds(draw, 1)
            show(f"k = {k}, {name}", spent, f"PR within {found.stderr['participation_ratio'] / found.participation_ratio:.2%}")


if __name__ == "__main__":
    main()
