"""How fast is the engine, against the arithmetic peak of this machine, the published practice and the targets? One question a
section.

Run: ``python benchmarks/engine.py`` (about a minute). Medians of repeated runs; ratios from the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from math import comb

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import kagscope as kag
from kagscope.minors.subsets import complete_pairs
from kagscope.minors.sweeps import enumerate_all, enumerate_s1, enumerate_sums
from kagscope.minors.threads import threads

SCALES = [kag.All(), *[kag.Ball(r) for r in (7, 14, 21, 28)], *[kag.Apart(d) for d in (7, 14, 21, 28)]]
IMAGE = {"image_shape": (28, 28)}
CHEAP = ("s1", "s2", "s4")


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median wall-clock time after one run to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def line(name: str, value: float, note: str = "") -> None:
    print(f"  {name:<62} {value * 1e3:10.2f} ms  {note}")


def published_practice(J: np.ndarray, rng: np.random.Generator) -> float:
    """A Python loop of 500 random 2 x 2 determinants for PR and KL, and 5 rotations with 300 more each for RR."""

    def determinants(A: np.ndarray, count: int) -> np.ndarray:
        values = np.empty(count)
        for index in range(count):
            rows = rng.choice(A.shape[0], 2, replace=False)
            columns = rng.choice(A.shape[1], 2, replace=False)
            values[index] = abs(np.linalg.det(A[np.ix_(rows, columns)]))
        return values

    own = determinants(J, 500)
    ratio = np.linalg.norm(own) / own.sum()
    tops = []
    for _ in range(5):
        Q = np.linalg.qr(rng.normal(size=(J.shape[0],) * 2))[0]
        tops.append(determinants(Q @ J, 300).max())
    return float(ratio + own.max() / np.mean(tops))


def published_practice_torch(J: torch.Tensor, generator: torch.Generator) -> float:
    """The same in PyTorch, one ``torch.linalg.det`` a minor, as Jacobians from autograd invite."""

    def determinants(A: torch.Tensor, count: int) -> torch.Tensor:
        values = []
        for _ in range(count):
            rows = torch.randperm(A.shape[0], generator=generator)[:2]
            columns = torch.randperm(A.shape[1], generator=generator)[:2]
            values.append(torch.linalg.det(A[rows][:, columns]).abs())
        return torch.stack(values)

    own = determinants(J, 500)
    ratio = own.norm() / own.sum()
    tops = []
    for _ in range(5):
        Q = torch.linalg.qr(torch.randn(J.shape[0], J.shape[0], generator=generator, dtype=J.dtype))[0]
        tops.append(determinants(Q @ J, 300).max())
    return float(ratio + own.max() / torch.stack(tops).mean())


def peak() -> float:
    """Float64 multiply-adds per second of one core, from a large matrix product on one thread."""
    A = np.ones((1536, 1536))
    with threadpool_limits(1):
        return 1536**3 / seconds(lambda: A @ A, 5)


def main() -> None:
    rng = np.random.default_rng(0)
    J = rng.normal(size=(64, 784))
    minors = comb(64, 2) * comb(784, 2)
    kag.warm_up(print)
    fma64 = peak()
    print(f"Threads {threads()}; peak {fma64 / 1e9:.0f}e9 float64 multiply-adds a second and core (matrix product)")

    print("\nOne 64 x 784 Jacobian, all 6.2e8 two-minors: exact S1, S2, S4 against the published sampling")
    own = seconds(lambda: kag.minor_moments(J, 2, moments=CHEAP), 60)
    reference = seconds(lambda: published_practice(J, rng), 9)
    line("exact S1, S2, S4", own, "target 25 ms")
    line("500 sampled determinants and 5 rotations of 300, NumPy", reference, f"{reference / own:.1f} times as long; target 20")
    tensor, generator = torch.from_numpy(J), torch.Generator().manual_seed(0)
    reference = seconds(lambda: published_practice_torch(tensor, generator), 9)
    line("the same, PyTorch", reference, f"{reference / own:.1f} times as long; target 20")

    print("\nEvery scale at once (all, 4 balls, 4 minimum distances)")
    line("S1, S2, S4", seconds(lambda: kag.minor_moments(J, 2, SCALES, moments=CHEAP, **IMAGE)))
    line("S1, S2, S4, top", seconds(lambda: kag.minor_moments(J, 2, SCALES, moments=(*CHEAP, "top"), **IMAGE)))
    line("all moments", seconds(lambda: kag.minor_moments(J, 2, SCALES, **IMAGE), 3), "target 1000 ms")

    print("\nEnumeration kernels: minors a second and core, and vector operations (4 a minor for S1) against the peak")
    pairs = complete_pairs(784)
    kernels: list[tuple[str, Callable[[], object], str]] = [
        ("S1", lambda: enumerate_s1(J, pairs), ""),
        ("S1, S2, S4, top", lambda: enumerate_sums(J, pairs), "target 4 for S1 + S2"),
        ("S1, S2, S4, top, entropy", lambda: enumerate_all(J, pairs, 2, False), "target 1"),
        ("the same and histogram", lambda: enumerate_all(J, pairs, 2), ""),
    ]
    for name, work, note in kernels:
        with kag.limit_threads(1):
            took = seconds(work, 3)
        share = f"; {4 * minors / took / fma64:.0%} of the peak of one core" if name == "S1" else ""
        line(name, took, f"{minors / took / 1e9:5.2f}e9 a second{share}  {note}")

    print("\nThe factored family diag(d) W, 64 x 784, 10,000 points, S1 S2 S4 E top")
    d = rng.uniform(size=(10_000, 64))
    for name, chosen in (("9 selections", SCALES), ("all", kag.All())):
        once = kag.FactoredMoments(J, 2, chosen, **IMAGE)
        line(f"{name}: pass over W", seconds(partial(kag.FactoredMoments, J, 2, chosen, **IMAGE), 3), "target 3000 ms")
        line(f"{name}: 10,000 points", seconds(partial(once.at, d), 3), "target 3000 ms")

    print("\nk = 3 over all 3.3e12 minors of 64 x 784")
    took = seconds(lambda: kag.minor_moments(J, 3, moments=("s1", "s2")), 1)
    found = kag.minor_moments(J, 3, moments=("s1", "s2"))
    line("S2 exact, S1 sampled", took, f"standard error {found.stderr['s1'] / found.s1:.2%}; target 1% in 5000 ms")

    print("\nA transformer MLP block, 768 x 3072, k = 2, S1 exact")
    block = rng.normal(size=(768, 3072))
    start = time.perf_counter()
    kag.minor_moments(block, 2, moments=("s1",))
    line("S1", time.perf_counter() - start, "target 60000 ms")

    print("\nHow cost grows: exact S1, S2, S4 over all, ms (and the number of minors)")
    for m in (16, 32, 64, 128, 256):
        cells = []
        for n in (64, 256, 1024):
            A = rng.normal(size=(m, n))
            cells.append(f"{seconds(partial(kag.minor_moments, A, 2, moments=CHEAP), 3) * 1e3:8.2f}")
        print(f"  {m:>4} rows x 64, 256, 1024 columns: {' '.join(cells)}   ({comb(m, 2) * comb(1024, 2):.1e})")
    for batch in (1, 10, 100):
        A = rng.normal(size=(batch, 32, 64))
        took = seconds(partial(kag.minor_moments, A, 2, [kag.All(), kag.Ball(3)], image_shape=(8, 8)), 3)
        line(f"{batch} matrices of 32 x 64, all moments, two scales", took)


if __name__ == "__main__":
    main()
