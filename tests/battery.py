"""What every route of the engine is asked in test_battery.py: matrices of every kind, and the exact answers in fractions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import torch

import kagscope as kag
from kagscope.columns.layout import make_layout
from kagscope.minors.moments import SUMS, Moments
from kagscope.minors.routes import Route, auto, routes_of_kind
from kagscope.minors.subsets import cached_counts
from kagscope.minors.task import EVERY_MOMENT, Matrices, Task

AUTO = auto.Auto()
EXACT: tuple[Route, ...] = tuple(
    route for kind in ("formula", "expansion", "visit") for route in routes_of_kind(kind, on_device=True)
)
ON_DEVICES = [route for route in EXACT if route not in routes_of_kind(route.kind)]
SAMPLERS: tuple[Route, ...] = (*routes_of_kind("draw"), auto.SAMPLED)
POWER = {"s1": 1, "s2": 2, "s4": 4, "top": 1}
LN2 = math.log(2.0)
LEAST = Fraction(1, 10**300)  # what a selection that lies so far below the largest minor of its matrix may lose
TOLERANCE = Fraction(1, 10**10)  # what exact=True promises


# -- matrices --------------------------------------------------------------------------------------------------------------------


def _low_rank(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    return (rng.integers(-3, 4, size=(m, 2)) @ rng.integers(-3, 4, size=(2, n))).astype(float)


def _near_parallel(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    return rng.normal(size=(m, 1)) * rng.normal(size=n) + 10.0 ** -rng.integers(4, 16, size=n) * rng.normal(size=(m, n))


def _repeated(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    return rng.normal(size=(m, n))[rng.integers(m, size=m)][:, rng.integers(n, size=n)]


def _with_zero_lines(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    return rng.normal(size=(m, n)) * (rng.random((m, 1)) < 0.6) * (rng.random(n) < 0.6)


def _mixed_rows(exponents: list[int]) -> Callable[[np.random.Generator, int, int], np.ndarray]:
    return lambda rng, m, n: rng.normal(size=(m, n)) * 10.0 ** rng.choice(exponents, size=(m, 1))


KINDS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "Gaussian": lambda rng, m, n: rng.normal(size=(m, n)),
    "whole numbers": lambda rng, m, n: rng.integers(-2, 3, size=(m, n)).astype(float),
    "signs": lambda rng, m, n: rng.choice([-1.0, 1.0], size=(m, n)),
    "heavy tails": lambda rng, m, n: np.exp(3 * rng.normal(size=(m, n))) * rng.choice([-1.0, 1.0], size=(m, n)),
    "sparse": lambda rng, m, n: rng.normal(size=(m, n)) * (rng.random((m, n)) < 0.4),
    "zero rows and columns": _with_zero_lines,
    "repeated rows and columns": _repeated,
    "rank two": _low_rank,
    "rounded rank two": lambda rng, m, n: _low_rank(rng, m, n) / 10,
    "nearly parallel columns": _near_parallel,
    "rows of 1 and 1e-170": _mixed_rows([0, -170]),
    "rows of 1e200 and 1e-200": _mixed_rows([200, -200]),
    "columns of 1e100 and 1": lambda rng, m, n: _mixed_rows([100, 0])(rng, n, m).T.copy(),
    "columns of 1e200 and 1e-200": lambda rng, m, n: _mixed_rows([200, -200])(rng, n, m).T.copy(),
    "entries of 1e150, 1 and 1e-150": lambda rng, m, n: rng.normal(size=(m, n)) * 10.0 ** rng.choice([-150, 0, 150], size=(m, n)),
    "large": lambda rng, m, n: 1e306 * rng.normal(size=(m, n)),
    "subnormal": lambda rng, m, n: 5e-324 * rng.integers(-3, 4, size=(m, n)),
    "ordinary beside subnormal rows": lambda rng, m, n: np.where(
        np.arange(m)[:, None] == rng.integers(m), rng.normal(size=n), KINDS["subnormal"](rng, m, n)
    ),
    "ordinary beside subnormal entries": lambda rng, m, n: np.where(
        rng.random((m, n)) < 0.2, rng.normal(size=(m, n)), KINDS["subnormal"](rng, m, n)
    ),
}


@lru_cache(maxsize=4096)
def matrix(kind: str, seed: int, k: int, most: int = 6) -> np.ndarray:
    """One with k to ``most`` rows and columns."""
    rng = np.random.default_rng(seed)
    m, n = rng.integers(k, most + 1, size=2)
    J = KINDS[kind](rng, int(m), int(n))
    J.flags.writeable = False
    return J


# -- exact answers ---------------------------------------------------------------------------------------------------------------


class Truth:
    """The minors of some column subsets, none negative, as whole numbers of some power of two."""

    def __init__(self, minors: list[int], unit: int) -> None:
        self.minors, self.unit = minors, unit  # in units of 2^unit
        self.nonzero = [M for M in minors if M]
        self.sums = {name: sum(M**p for M in minors) for name, p in (("s1", 1), ("s2", 2), ("s4", 4))}
        self.sums["top"] = max(minors, default=0)

    def sum(self, name: str, exponent: int) -> Fraction:
        """Of M / 2^exponent."""
        shift = POWER[name] * (self.unit - exponent)
        return Fraction(self.sums[name] << max(shift, 0), 1 << max(-shift, 0))

    @cached_property
    def logarithms(self) -> list[float]:
        """log2 M of those that are not zero, in units; the whole part and the rest of it apart, for the sake of digits."""
        return [_log2(M) for M in self.nonzero]

    def entropy(self, exponent: int) -> tuple[float, float]:
        """Sums of M ln M and of |M ln M|, M in units of 2^exponent, over the sum of M."""
        terms = [
            M / self.sums["s1"] * LN2 * (log + self.unit - exponent) for M, log in zip(self.nonzero, self.logarithms, strict=True)
        ]
        return math.fsum(terms), math.fsum(map(abs, terms))

    @cached_property
    def places(self) -> np.ndarray:
        """Sorted, 8 log2 M."""
        return np.sort([8 * (_log2(M) + self.unit) if M else -math.inf for M in self.minors])


def _log2(x: int) -> float:
    return x.bit_length() + math.log2(x / (1 << x.bit_length()))


def determinant(rows: list[list[Any]]) -> Any:
    if len(rows) == 1:
        return rows[0][0]
    return sum((-1) ** j * x * determinant([r[:j] + r[j + 1 :] for r in rows[1:]]) for j, x in enumerate(rows[0]) if x)


@lru_cache(maxsize=1024)
def _minors(shape: tuple[int, int], entries: bytes, k: int) -> tuple[dict[tuple[int, ...], list[int]], int]:
    exact = [[Fraction(x) for x in row] for row in np.frombuffer(entries).reshape(shape).tolist()]
    unit = max(x.denominator for row in exact for x in row)
    whole = [[int(x * unit) for x in row] for row in exact]
    by_columns = {
        C: [abs(determinant([[whole[r][c] for c in C] for r in R])) for R in combinations(range(shape[0]), k)]
        for C in combinations(range(shape[1]), k)
    }
    return by_columns, -k * (unit.bit_length() - 1)


@lru_cache(maxsize=4096)
def _truth(shape: tuple[int, int], entries: bytes, k: int, chosen: kag.Selection) -> Truth:
    by_columns, unit = _minors(shape, entries, k)
    found = [one for C, minors in by_columns.items() if allows(chosen, C) for one in minors]
    return Truth(found, unit)


def truth(J: np.ndarray, k: int, chosen: kag.Selection | None = None) -> Truth:
    """Of all column subsets, or of those that a selection allows where columns lie at 0, 1, 2, …"""
    return _truth(J.shape, np.ascontiguousarray(J).tobytes(), k, chosen or kag.All())


def allows(chosen: kag.Selection, columns: tuple[int, ...]) -> bool:
    far = [b - a for a, b in combinations(columns, 2)]
    match chosen:
        case kag.Ball(radius):
            return all(d <= radius for d in far)
        case kag.Apart(distance):
            return all(d >= distance for d in far)
        case kag.Shell(low, high):
            return all(low <= d < high for d in far)
        case kag.Window(center, radius):
            return all(abs(c - center[0]) <= radius for c in columns)
        case kag.Subsets(listed):
            return columns in {tuple(sorted(one)) for one in listed}
    return True


# -- asking ----------------------------------------------------------------------------------------------------------------------


def selections(n: int, k: int, seed: int) -> list[kag.Selection]:
    """Every kind of selection that n columns on a line have."""
    rng = np.random.default_rng(seed)
    listed = {tuple(sorted(rng.choice(n, k, replace=False).tolist())) for _ in range(3)}
    window = kag.Window((float(rng.integers(n)),), float(rng.integers(1, n + 1)))
    return [kag.All(), kag.Ball(2), kag.Apart(2), window, kag.Subsets(sorted(listed)), *([kag.Shell(1, 3)] if k == 2 else [])]


def tasks(
    J: np.ndarray, k: int, chosen: list[kag.Selection], wanted: frozenset[str] = EVERY_MOMENT, device: bool = False
) -> list[Task]:
    """What ``minor_moments`` makes of an exact call for matrices (B, m, n) or one of them."""
    batch = np.ascontiguousarray(J if J.ndim == 3 else J[None])  # as calls make it, or kernels are compiled for tests alone
    layout = make_layout(batch.shape[2], positions=np.arange(batch.shape[2]))
    shared = Matrices(torch.from_numpy(batch.copy()) if device else batch, k)
    counts = cached_counts(tuple(chosen), layout, k)
    return [Task(shared, k, one, count, layout, wanted, "exact") for one, count in zip(chosen, counts, strict=True)]


def wanted_of(route: Route, task: Task) -> Iterator[frozenset[str]]:
    """Sets of moments to ask a route for: those that lead to kernels of their own."""
    given = route.provides(task)
    seen = set()
    for some in (EVERY_MOMENT, EVERY_MOMENT - {"histogram"}, {"s1", "s2", "s4"}, {"s1", "s2", "s4", "top"}, {"s1"}):
        if (asked := given & some) and asked not in seen:
            seen.add(asked)
            yield asked


def answers(route: Route, J: np.ndarray, k: int, chosen: list[kag.Selection]) -> Iterator[tuple[kag.Selection, Moments]]:
    """What a route finds of each selection that it takes, for each set of moments; without what it leaves to others."""
    able = [task for task in tasks(J, k, chosen, device=route in ON_DEVICES) if route.provides(task)]
    for wanted in sorted({one for task in able for one in wanted_of(route, task)}, key=sorted):
        asked = [replace(task, wanted=wanted & route.provides(task)) for task in able]
        for task, found in zip(asked, route.run(asked), strict=True):
            if found is not None:
                yield task.selection, AUTO._moments(task, [found])


def check(found: Moments, exact: Truth, label: object, row: int = 0) -> None:
    """Every number of one matrix to what ``exact=True`` promises; scores are NaN where S1 is 0."""
    assert found.exact, label
    assert found.count == len(exact.minors), label
    exponent = found.k * int(found.exponent[row])
    for name in POWER:
        if name in found.sums:
            value, wanted = float(found.sums[name][row]), exact.sum(name, exponent)
            assert math.isfinite(value), (label, name, value)
            assert abs(Fraction(value) - wanted) <= TOLERANCE * wanted + LEAST, (label, name, value, float(wanted))
    if "entropy" in found.sums and exact.sum("s1", exponent) > LEAST:
        wanted_entropy, size = exact.entropy(exponent)
        value = float(found.sums["entropy"][row]) / float(exact.sum("s1", exponent))
        assert abs(value - wanted_entropy) <= TOLERANCE * max(size, 1.0), (label, "entropy", value, wanted_entropy)
    if found.bins is not None:
        check_histogram(found[row].histogram, exact, label, exponent)
    one, tiny = found[row], exact.sum("s4", exponent) < LEAST
    for name, needs in (("participation_ratio", {"s1", "s2"}), ("ipr", {"s2", "s4"}), ("kl_uniform", {"s1", "entropy"})):
        if needs <= set(found.sums):
            assert math.isnan(getattr(one, name)) == (not exact.nonzero) or tiny, (label, name)


def check_histogram(found: kag.Histogram, exact: Truth, label: object, exponent: float = -math.inf) -> None:
    """Each minor in its bin, or the next where it lies at the edge.

    Those 2^-900 of the largest, or of 2^exponent, which is about the largest of the matrix, may count as zeros.
    """
    places = exact.places
    lost = places <= 8 * (max(places.max(initial=-math.inf) / 8, exponent, -1e8) - 900)
    least = np.where(lost, -math.inf, places)
    assert found.counts.sum() + found.zeros == len(places), (label, "histogram")
    assert found.zeros <= lost.sum(), (label, "zeros")
    below = found.zeros + np.concatenate([[0], np.cumsum(found.counts)])
    edges = found.first + np.arange(len(below))
    at_least, at_most = np.searchsorted(places, edges - 1e-8), np.searchsorted(least, edges + 1e-8)
    assert ((at_least <= below) & (below <= at_most)).all(), (label, "bins")


def same_bits(left: Moments, right: Moments) -> bool:
    return all(np.array_equal(left.sums[name], right.sums[name], equal_nan=True) for name in SUMS if name in left.sums)
