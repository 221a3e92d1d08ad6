"""Random rotations in closed form (MATH.md 4.5): what S1 would be if the rows pointed in uniformly random directions.

For Q uniform on O(m), E[S1(QJ)] = C(m, k) c(m, k) sum over column subsets C of the volume sqrt(det(J_C^T J_C)). The volumes
come from Gram matrices; where two columns are nearly parallel, from |x| |y - proj_x y| instead, which does not cancel.

Column subsets are given as arrays: ``columns`` (n,) bool (which columns take part), ``pairs`` (n, n) bool (which two may
stand together; a k-subset counts when all its pairs may), or ``subsets`` (count, k) an explicit list. None of them means
every k-subset.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.minors._numba import fma
from kagscope.minors.det2 import KERNEL
from kagscope.minors.plan import Estimate
from kagscope.minors.routes.hull import column_pair_tops, top
from kagscope.minors.routes.zonogon import FloatArray, pair_areas, zonogon_s1
from kagscope.minors.threads import map_blocks, one_blas_thread

BoolArray = NDArray[np.bool_]

NEARLY_PARALLEL = 1e-4  # squared sine below which the Gram matrix has lost too many digits
NOISE = 64 * float(np.finfo(np.float64).eps) ** 2  # squared residual over squared length that rounding alone produces


def haar_constant(m: int, k: int) -> float:
    """c(m, k): mean |det of a k x k corner| of a uniform orthogonal m x m matrix, over what k orthonormal columns span."""
    total = 0.0
    for i in range(1, k + 1):
        total += math.lgamma((k - i + 2) / 2) + math.lgamma((m - i + 1) / 2)
        total -= math.lgamma((k - i + 1) / 2) + math.lgamma((m - i + 2) / 2)
    return math.exp(total)


def random_orthogonal(m: int, count: int, seed: int | np.random.Generator) -> FloatArray:
    """(count, m, m) independent matrices, uniform on O(m): QR of Gaussians with the signs of R's diagonal moved into Q."""
    generator = np.random.default_rng(seed)
    q, r = np.linalg.qr(generator.standard_normal((count, m, m)))
    signs = np.where(np.diagonal(r, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return np.asarray(q * signs[:, None, :])


@njit(**KERNEL)
def _residual_area(x, y, xx, yy):  # type: ignore[no-untyped-def]
    """|x| |y - proj_x y| for nearly parallel x, y; projected twice, since the first coefficient has an error."""
    r = y.copy()
    square = 0.0
    for _ in range(2):
        dot = 0.0
        for i in range(x.size):
            dot += x[i] * r[i]
        t = dot / xx
        square = 0.0
        for i in range(x.size):
            r[i] = fma(-t, x[i], r[i])
            square += r[i] * r[i]
    return 0.0 if square <= NOISE * yy else math.sqrt(xx * square)


@njit(**KERNEL)
def _sum_areas(vectors, gram, allowed, every):  # type: ignore[no-untyped-def]
    """Sum over allowed pairs b < c of the area that vectors b and c (rows) span."""
    total = 0.0
    for b in range(vectors.shape[0]):
        bb = gram[b, b]
        part = 0.0
        if bb > 0:
            for c in range(b):
                if every or allowed[b, c]:
                    whole = bb * gram[c, c]
                    square = whole - gram[b, c] * gram[b, c]
                    if square > NEARLY_PARALLEL * whole:
                        part += math.sqrt(square)
                    elif whole > 0:
                        if bb >= gram[c, c]:
                            part += _residual_area(vectors[b], vectors[c], bb, gram[c, c])
                        else:
                            part += _residual_area(vectors[c], vectors[b], gram[c, c], bb)
        total += part
    return total


_NONE = np.zeros((1, 1), dtype=np.bool_)


def _area_sum(vectors: FloatArray, pairs: BoolArray | None) -> float:
    vectors = np.ascontiguousarray(vectors)
    allowed = _NONE if pairs is None else np.ascontiguousarray(pairs)
    return float(_sum_areas(vectors, vectors @ vectors.T, allowed, pairs is None))


def _away_from(vectors: FloatArray, a: int) -> FloatArray:
    """All vectors with their part along vector ``a`` removed, exactly zero where nothing but rounding is left."""
    axis = vectors[a] / np.linalg.norm(vectors[a])
    rest = vectors - np.outer(vectors @ axis, axis)
    rest -= np.outer(rest @ axis, axis)
    lost = np.einsum("ij,ij->i", rest, rest) <= NOISE * np.einsum("ij,ij->i", vectors, vectors)
    rest[lost] = 0.0
    return rest


def _triple_volumes(vectors: FloatArray, pairs: BoolArray | None) -> float:
    """Sum of volumes over triples a < b < c: |v_a| times the areas of the later ones seen along v_a."""
    norms = np.linalg.norm(vectors, axis=1)

    def work(part: slice) -> float:
        a = part.start
        later = slice(a + 1, None)
        if norms[a] == 0:
            return 0.0
        rest = _away_from(vectors[a:], 0)[1:]
        if pairs is None:
            return float(norms[a]) * _area_sum(rest, None)
        near = pairs[a, later]
        return float(norms[a]) * _area_sum(rest[near], pairs[later, later][np.ix_(near, near)])

    return math.fsum(map_blocks(work, len(vectors), 1))


def _listed_volumes(vectors: FloatArray, subsets: NDArray[np.int64]) -> float:
    """Sum of volumes over listed subsets, by QR of each."""
    total = []
    for start in range(0, len(subsets), 4096):
        chosen = vectors[subsets[start : start + 4096]]
        r = np.linalg.qr(np.swapaxes(chosen, 1, 2), mode="r")
        total.append(float(np.abs(np.prod(np.diagonal(r, axis1=1, axis2=2), axis=1)).sum()))
    return math.fsum(total)


def _sampled_volumes(
    vectors: FloatArray, k: int, pairs: BoolArray | None, rel_error: float, seed: int, max_draws: int
) -> Estimate:
    """Draw k - 2 columns with probability proportional to their lengths, sum exactly over the other two.

    Repeated columns span no volume and forbidden pairs count as none, so that nothing needs rejecting.
    """
    generator = np.random.default_rng(seed)
    norms = np.linalg.norm(vectors, axis=1)
    if not norms.any():
        return Estimate(0.0, 0.0)
    share = norms / norms.sum()
    every = math.factorial(k - 2) * math.comb(k, 2)
    values: list[float] = []
    target = 64
    while True:
        while len(values) < target:
            values.append(_one_draw(vectors, generator.choice(len(vectors), k - 2, p=share), share, pairs) / every)
        mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))
        if error <= rel_error * mean or target >= max_draws:
            return Estimate(mean, error)
        target = min(2 * target, max_draws)


def _one_draw(vectors: FloatArray, chosen: NDArray[np.int64], share: FloatArray, pairs: BoolArray | None) -> float:
    weight = 1.0
    rest, allowed = vectors, np.ones(len(vectors), dtype=np.bool_)
    for a in chosen:
        if not allowed[a]:
            return 0.0
        weight *= float(np.linalg.norm(rest[a])) / float(share[a])
        if weight == 0:
            return 0.0
        rest = _away_from(rest, int(a))
        allowed = allowed & (np.ones(len(vectors), dtype=np.bool_) if pairs is None else pairs[a])
        allowed[a] = False
    return weight * _area_sum(rest[allowed], None if pairs is None else pairs[np.ix_(allowed, allowed)])


def haar_mean_s1_estimate(
    J: FloatArray,
    k: int = 2,
    columns: BoolArray | None = None,
    pairs: BoolArray | None = None,
    subsets: NDArray[np.int64] | None = None,
    *,
    rel_error: float = 0.01,
    seed: int = 0,
    max_triples: float = 5e8,
    max_draws: int = 4096,
) -> Estimate:
    """Mean of S1(QJ) over uniform orthogonal Q (MATH.md 4.5), with its standard error.

    Exact for k = 1, for k = 2, for listed subsets, and for k = 3 up to ``max_triples`` column triples; sampled beyond.

    Args:
        J: (m, n) float64.
        k: order of the minors.
        columns: (n,) bool, which columns take part; None means all.
        pairs: (n, n) symmetric bool, which two columns may stand together; None means any.
        subsets: (count, k) an explicit list of column subsets, instead of both.
        rel_error: standard error over value at which sampling stops.
        seed: of the sampling.
        max_triples: most column triples to sum exactly.
        max_draws: most draws when sampling; the standard error says what they reached.

    Raises:
        InputError: k is not in 1 … min(m, n).
    """
    m, n = J.shape
    if not 1 <= k <= min(m, n):
        raise InputError(f"k={k}, expected 1 to {min(m, n)} for a matrix of {m} rows and {n} columns")
    exponent = int(np.frexp(np.abs(J).max(initial=0.0))[1])
    with np.errstate(under="ignore"):
        vectors = np.ascontiguousarray(np.ldexp(np.asarray(J, dtype=np.float64), -exponent).T)
    if columns is not None and subsets is None:
        vectors = vectors[columns]
        pairs = None if pairs is None else pairs[np.ix_(columns, columns)]
    if k >= 3 and subsets is None:
        present = np.any(vectors != 0, axis=1)
        vectors = vectors[present]
        pairs = None if pairs is None else pairs[np.ix_(present, present)]
    stderr = 0.0
    if subsets is not None:
        value = _listed_volumes(vectors, np.asarray(subsets))
    elif k == 1:
        value = float(np.linalg.norm(vectors, axis=1).sum())
    elif k == 2:
        value = _area_sum(vectors, pairs)
    elif k == 3 and math.comb(len(vectors), 3) <= max_triples:
        value = _triple_volumes(vectors, pairs)
    else:
        value, stderr = _sampled_volumes(vectors, k, pairs, rel_error, seed, max_draws)
    factor = math.exp(math.lgamma(m + 1) - math.lgamma(k + 1) - math.lgamma(m - k + 1)) if m > 500 else float(math.comb(m, k))
    factor *= haar_constant(m, k)
    with np.errstate(over="ignore", under="ignore"):
        return Estimate(float(np.ldexp(factor * value, k * exponent)), float(np.ldexp(factor * stderr, k * exponent)))


def haar_mean_s1(J: FloatArray, k: int = 2, columns: BoolArray | None = None, pairs: BoolArray | None = None, **options) -> float:  # type: ignore[no-untyped-def]
    """The value of :func:`haar_mean_s1_estimate`, which describes the arguments."""
    return haar_mean_s1_estimate(J, k, columns, pairs, **options).value


def _selected_pairs(n: int, columns: BoolArray | None, pairs: BoolArray) -> NDArray[np.int64]:
    allowed = np.triu(pairs, 1)
    if columns is not None:
        allowed &= columns[:, None] & columns[None, :]
    return np.argwhere(allowed)


def _s1(J: FloatArray, k: int, columns: BoolArray | None, pairs: BoolArray | None) -> float:
    chosen = J if columns is None else J[:, columns]
    if k == 1:
        return float(np.abs(chosen).sum())
    if pairs is None:
        return zonogon_s1(chosen)
    listed = _selected_pairs(J.shape[1], columns, pairs)
    return float(pair_areas(J.T, listed[:, 0], listed[:, 1]).sum())


def _top(J: FloatArray, k: int, columns: BoolArray | None, listed: NDArray[np.int64] | None) -> float:
    chosen = J if columns is None else J[:, columns]
    if k == 1:
        return float(np.abs(chosen).max(initial=0.0))
    if listed is None:
        return top(chosen)
    return float(column_pair_tops(J, listed).max(initial=0.0))


def _turned(J: FloatArray, generator: np.random.Generator) -> FloatArray:
    """QJ for a uniform random Q."""
    with one_blas_thread():
        return np.asarray(random_orthogonal(J.shape[0], 1, generator)[0] @ J)


def rotation_ratio_estimate(
    J: FloatArray,
    k: int = 2,
    kind: str = "pr",
    columns: BoolArray | None = None,
    pairs: BoolArray | None = None,
    *,
    rotations: int = 32,
    seed: int = 0,
) -> Estimate:
    """How axis-aligned J is against random rotations of its rows (MATH.md section 3), with the standard error from the rotations.

    Args:
        J: (m, n) float64.
        k: 1 or 2.
        kind: "pr" for E[S1(QJ)] / S1(J), in closed form; "max" for top(J) / E[top(QJ)], exact for each of ``rotations`` Q.
        columns: (n,) bool, which columns take part; None means all.
        pairs: (n, n) symmetric bool, which two columns may stand together; None means any.
        rotations: number of random Q for "max", at least 2.
        seed: of the random Q.

    Returns:
        Value and standard error; NaN where J has no non-zero minor.

    Raises:
        InputError: k or kind is another.
    """
    if kind not in ("pr", "max"):
        raise InputError(f"kind={kind!r}, expected 'pr' or 'max'")
    if k not in (1, 2):
        raise InputError(
            f"k={k}, expected 1 or 2: larger minors would all have to be visited; for 'pr' divide haar_mean_s1 by S1"
        )
    J = np.asarray(J, dtype=np.float64)
    with np.errstate(under="ignore"):
        J = np.ldexp(J, -int(np.frexp(np.abs(J).max(initial=0.0))[1]))
    if kind == "pr":
        s1 = _s1(J, k, columns, pairs)
        mean = haar_mean_s1(J, k, columns, pairs)
        return Estimate(mean / s1 if s1 > 0 else math.nan, 0.0)
    if rotations < 2:
        raise InputError(f"rotations={rotations}, expected at least 2 so that the mean has a standard error")
    listed = None if pairs is None or k == 1 else _selected_pairs(J.shape[1], columns, pairs)
    own = _top(J, k, columns, listed)
    if own == 0:
        return Estimate(math.nan, math.nan)
    generator = np.random.default_rng(seed)
    tops = np.array([_top(_turned(J, generator), k, columns, listed) for _ in range(rotations)])
    mean = float(tops.mean())
    return Estimate(own / mean, own / mean**2 * float(tops.std(ddof=1)) / math.sqrt(rotations))


def rotation_ratio(
    J: FloatArray, k: int = 2, kind: str = "pr", columns: BoolArray | None = None, pairs: BoolArray | None = None, **options: Any
) -> float:
    """The value of :func:`rotation_ratio_estimate`, which describes the arguments."""
    return rotation_ratio_estimate(J, k, kind, columns, pairs, **options).value
