"""S4 of all 3-minors from the moments of row triples: the degree-3 invariant of ternary quartics (MATH.md 4.9).

det^4 of rows i, j, k and columns a, b, c is a product of four sums over permutations; summed over the columns it is a sum of
products of three numbers T = sum over columns of J_a J_b J_c J_d with a, b, c, d among the three rows. Two of the four
indices are equal, so that the matrices (J o J_a^2) J^T hold every T.
"""

from __future__ import annotations

from collections import Counter
from itertools import permutations, product
from math import comb

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kagscope.minors.det2 import KERNEL
from kagscope.minors.routes import register
from kagscope.minors.routes.determinants import row_subsets
from kagscope.minors.routes.one_moment import NarrowSide
from kagscope.minors.scaling import times_power_of_two
from kagscope.minors.task import Task
from kagscope.minors.threads import one_blas_thread

FloatArray = NDArray[np.float64]
CANCELS = 1e-4  # a sum below this share of its terms has lost digits: recomputed with orthonormal rows
MOST_BITS = 70  # between columns, and between entries of a row: products of twelve entries stay in the range
TOLERANCE = 1e-11  # share of the total that may be rounding in recomputed triples: beyond, the sum is considered lost
UNIT = float(np.finfo(np.float64).eps)


def _sign(order: tuple[int, ...]) -> int:
    return 1 if order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)) else -1


def _terms() -> tuple[NDArray[np.int64], FloatArray]:
    """(terms, 3, 3): for each factor T the indices a, b, c of T_aabc; and (terms,) coefficients."""
    counts: Counter[tuple[tuple[int, ...], ...]] = Counter()
    orders = list(permutations(range(3)))
    for three in product(orders, repeat=3):
        factors = tuple(sorted(tuple(sorted((c, *(order[c] for order in three)))) for c in range(3)))
        counts[factors] += _sign(three[0]) * _sign(three[1]) * _sign(three[2])
    kept = [(factors, count) for factors, count in counts.items() if count]
    return np.array([[_repeated_first(f) for f in factors] for factors, _ in kept]), np.array([float(c) for _, c in kept])


def _repeated_first(indices: tuple[int, ...]) -> tuple[int, int, int]:
    twice = next(index for index in indices if indices.count(index) >= 2)
    rest = list(indices)
    rest.remove(twice)
    rest.remove(twice)
    return twice, rest[0], rest[1]


TERMS, COEFFICIENTS = _terms()


@njit(**KERNEL)
def _triple_sums(T, terms, coefficients, sums, whole):  # type: ignore[no-untyped-def]
    """S4 of each row triple in lexicographic order and the sum of the sizes of its terms; ``T`` (m, m, m) holds T_aabc."""
    m = T.shape[0]
    rows = np.empty(3, np.int64)
    triple = 0
    for i in range(m):
        for j in range(i + 1, m):
            for k in range(j + 1, m):
                rows[0], rows[1], rows[2] = i, j, k
                total = size = 0.0
                for t in range(coefficients.size):
                    value = coefficients[t]
                    for f in range(3):
                        value *= T[rows[terms[t, f, 0]], rows[terms[t, f, 1]], rows[terms[t, f, 2]]]
                    total += value
                    size += abs(value)
                sums[triple], whole[triple] = total, size
                triple += 1


def triple_s4(J: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(C(m, 3),) sums of det^4 over all column triples for each row triple of J (m, n), and the sizes of their terms, summed."""
    m = len(J)
    with one_blas_thread():
        T = np.stack([(J * J[a] ** 2) @ J.T for a in range(m)])
    sums, whole = np.empty(comb(m, 3)), np.empty(comb(m, 3))
    _triple_sums(T, TERMS, COEFFICIENTS, sums, whole)
    return sums, whole


def quartic_s4(J: FloatArray) -> float | None:
    """S4 over all 3-minors of J (m, n), m <= n, without zero rows; None where it cannot be distinguished from rounding."""
    exponent = np.frexp(np.abs(J).max(axis=1))[1].astype(np.int64)
    rows = times_power_of_two(J, -exponent[:, None])
    sums, whole = triple_s4(rows)
    triples = row_subsets(len(J), 3)
    powers = exponent[triples].sum(axis=1)
    largest = int(powers[whole > 0].max(initial=powers.min()))
    with np.errstate(under="ignore", over="ignore"):
        weights = np.where(whole > 0, np.ldexp(1.0, 4 * (powers - largest)), 0.0)
    hard = np.flatnonzero((sums < CANCELS * whole) & (whole * weights > 1e-13 * (sums * weights).sum() / max(len(sums), 1)))
    doubt = 0.0
    for index in hard:
        with one_blas_thread():
            q, r = np.linalg.qr(rows[triples[index]].T)
        (again,), (size,) = triple_s4(np.ascontiguousarray(q.T))
        lengths = np.abs(np.diagonal(r))
        volume = float(np.prod(lengths))
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            doubt += weights[index] * volume**4 * UNIT * float(4 * lengths.max() / lengths.min() * abs(again) + size)
        sums[index] = volume**4 * again
    if not doubt <= TOLERANCE * float((sums * weights).sum()):
        return None
    return float(np.ldexp((sums * weights).sum(), 4 * largest))


@register
class Quartic(NarrowSide):
    """S4 of all 3-minors of some columns."""

    name = "invariants of the quartics of row triples"
    k, moment = 3, "s4"
    column_bits, entry_bits = MOST_BITS, MOST_BITS

    def provides(self, task: Task) -> frozenset[str]:
        fits = min(task.shape) ** 3 * 8 <= task.memory_budget // 2
        return super().provides(task) if fits else frozenset()

    def steps(self, task: Task) -> dict[str, float]:
        few, many = sorted(task.shape)
        return {"Grams": float(few**3 * many) + 70.0 * comb(few, 3)}

    def side_value(self, side: FloatArray) -> float | None:
        inside = np.ascontiguousarray(side[:, side.any(axis=0)])
        return quartic_s4(inside) if min(inside.shape) >= 3 else 0.0
