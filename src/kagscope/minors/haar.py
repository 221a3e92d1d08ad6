"""Random rotations in closed form (MATH.md 4.5): what S1 would be if the rows pointed in uniformly random directions.

For Q uniform on O(m), E[S1(QJ)] = C(m, k) c(m, k) sum over column subsets C of the volume sqrt(det(J_C^T J_C)). The volumes
come from Gram matrices; where two columns are nearly parallel, from the residual of one, which does not cancel.

Column subsets are given as arrays: ``columns`` (n,) bool (which columns take part), ``pairs`` (n, n) bool (which two may
be combined; a k-subset counts when all its pairs may), or ``subsets`` (count, k) an explicit list. Without any of these,
every k-subset counts.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.minors.area_kernels import spanned_area
from kagscope.minors.det2 import KERNEL
from kagscope.minors.plan import Estimate
from kagscope.minors.precise_determinants import MOST_EXACT, bareiss_dets, integers
from kagscope.minors.rank import rank_below
from kagscope.minors.routes.determinants import clique_subsets, row_subsets
from kagscope.minors.routes.spectral import elementary_symmetric
from kagscope.minors.routes.volume_draws import spanned_volumes
from kagscope.minors.routes.zonogon import FloatArray
from kagscope.minors.scaling import bit_span, normalise, times_power_of_two
from kagscope.minors.threads import map_blocks

BoolArray = NDArray[np.bool_]

MOST_PRODUCTS = 2**26  # scalar products held in memory at once
NEARLY_PARALLEL = 1e-4  # squared sine below which the Gram matrix has too few digits
DEPENDENT = 1e-5  # volume over the product of lengths below which digits are lost
ROUNDING = 16 * float(np.finfo(np.float64).eps)  # error of a volume over the product of lengths
EXACT = 1e-10  # relative error up to which a value counts as exact
MOST_BITS = 900  # of a product of k entries: beyond, volumes are computed in integers
NOISE = 64 * float(np.finfo(np.float64).eps) ** 2  # squared residual over squared length that rounding alone produces


def haar_constant(m: int, k: int) -> float:
    """c(m, k): mean |det of a k x k corner| of a uniform orthogonal m x m matrix, over what k orthonormal columns span."""
    total = 0.0
    for i in range(1, k + 1):
        total += math.lgamma((k - i + 2) / 2) + math.lgamma((m - i + 1) / 2)
        total -= math.lgamma((k - i + 1) / 2) + math.lgamma((m - i + 2) / 2)
    return math.exp(total)


@njit(**KERNEL)
def _sum_areas(vectors, start, gram, squares, allowed, every):  # type: ignore[no-untyped-def]
    """Sum over allowed pairs c < b of the area that vectors b and c (rows) span, for the b in the rows of ``gram``."""
    total, z = 0.0, np.empty(vectors.shape[1])
    for b in range(start, start + gram.shape[0]):
        bb = squares[b]
        partial = 0.0
        if bb > 0:
            for c in range(b):
                if every or allowed[b, c]:
                    whole = bb * squares[c]
                    square = whole - gram[b - start, c] * gram[b - start, c]
                    if square > NEARLY_PARALLEL * whole:
                        partial += math.sqrt(square)
                    elif whole > 0:
                        partial += spanned_area(vectors[b], vectors[c], z)
        total += partial
    return total


_NONE = np.zeros((1, 1), dtype=np.bool_)


def _area_sum(vectors: FloatArray, pairs: BoolArray | None) -> float:
    vectors = np.ascontiguousarray(vectors)
    allowed = _NONE if pairs is None else np.ascontiguousarray(pairs)
    total, n = 0.0, len(vectors)
    squares, step = np.empty(n), max(1, MOST_PRODUCTS // max(n, 1))
    for start in range(0, n, step):
        stop = min(start + step, n)
        gram = vectors[start:stop] @ vectors[:stop].T
        squares[start:stop] = np.diagonal(gram[:, start:])
        total += float(_sum_areas(vectors, start, gram, squares, allowed, pairs is None))
    return total


def _project_away(vectors: FloatArray, a: int) -> FloatArray:
    """All vectors with their component along vector ``a`` removed, exactly zero where only rounding is left."""
    axis = vectors[a] / np.linalg.norm(vectors[a])
    rest = vectors - np.outer(vectors @ axis, axis)
    rest -= np.outer(rest @ axis, axis)
    lost = np.einsum("ij,ij->i", rest, rest) <= NOISE * np.einsum("ij,ij->i", vectors, vectors)
    rest[lost] = 0.0
    return rest


def _triple_volumes(vectors: FloatArray, pairs: BoolArray | None) -> float:
    """Sum of volumes over triples a < b < c: |v_a| times the areas of the later ones projected along v_a."""
    norms = np.linalg.norm(vectors, axis=1)

    def work(part: slice) -> float:
        a = part.start
        later = slice(a + 1, None)
        if norms[a] == 0:
            return 0.0
        rest = _project_away(vectors[a:], 0)[1:]
        if pairs is None:
            return float(norms[a]) * _area_sum(rest, None)
        near = pairs[a, later]
        return float(norms[a]) * _area_sum(rest[near], pairs[later, later][np.ix_(near, near)])

    return math.fsum(map_blocks(work, len(vectors), 1))


def _listed_volumes(vectors: FloatArray, subsets: NDArray[np.int64]) -> tuple[float, float]:
    """Sum of volumes over listed subsets, by QR of each, and a bound on its rounding error.

    Volumes of nearly dependent vectors are computed in integers, unless there are too many.
    """
    volumes, lengths = spanned_volumes(vectors, subsets), np.linalg.norm(vectors, axis=1)[subsets].prod(axis=1)
    hard, lost = np.split(np.flatnonzero(volumes < DEPENDENT * lengths), [MOST_EXACT])
    if hard.size:
        volumes[hard] = _exact_volumes(vectors, subsets[hard], 0)
    return float(volumes.sum()), ROUNDING * float(lengths[lost].sum())


def _exact_volumes(vectors: FloatArray, subsets: NDArray[np.int64], power: int) -> FloatArray:
    """(count,) volumes that listed vectors over 2^power span, from integer Gram determinants, rounded once."""
    whole, exponent = integers(vectors)
    gram = whole @ whole.T
    k = subsets.shape[1]
    squares = bareiss_dets(gram[subsets[:, :, None], subsets[:, None, :]])
    return np.array([_scaled_sqrt(int(square), k * (exponent - power)) for square in squares], dtype=np.float64)


def _scaled_sqrt(x: int, exponent: int) -> float:
    """sqrt(x) 2^exponent for integers x of any size."""
    spare = max(x.bit_length() - 64, 0) // 2 * 2
    with np.errstate(over="ignore", under="ignore"):
        return float(np.ldexp(math.sqrt(x >> spare), exponent + spare // 2))


def _length_products(vectors: FloatArray, k: int, pairs: BoolArray | None) -> float:
    """Sum over k-subsets of the products of lengths, an upper bound of the volumes. For k > 3, over all subsets."""
    lengths = np.linalg.norm(vectors, axis=1)
    if k == 3 and pairs is not None:
        roots = np.sqrt(lengths)
        A = np.where(pairs, roots[:, None] * roots, 0.0)
        np.fill_diagonal(A, 0.0)
        return float(((A @ A) * A).sum()) / 6
    return elementary_symmetric(lengths, k)


def _sampled_volumes(
    vectors: FloatArray, k: int, pairs: BoolArray | None, rel_error: float, seed: int, max_draws: int
) -> Estimate:
    """Draw k - 2 columns, each by its length orthogonal to those before it, and sum exactly over the other two.

    NaN where no set with a positive volume was drawn: that does not show the sum to be zero.
    """
    generator = np.random.default_rng(seed)
    every = math.factorial(k - 2) * math.comb(k, 2)
    values: list[float] = []
    target = 64
    while True:
        while len(values) < target:
            values.append(_draw_estimate(vectors, generator.random(k - 2), pairs) / every)
        mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))
        if mean > 0 and (error <= rel_error * mean or target >= max_draws):
            return Estimate(mean, error)
        if target >= max_draws:
            return Estimate(math.nan, math.nan)
        target = min(2 * target, max_draws)


def _draw_estimate(vectors: FloatArray, u: FloatArray, pairs: BoolArray | None) -> float:
    weight = 1.0
    rest, allowed = vectors, np.ones(len(vectors), dtype=np.bool_)
    for uniform in u:
        ends = np.cumsum(np.where(allowed, np.linalg.norm(rest, axis=1), 0.0))
        if ends[-1] == 0:
            return 0.0
        a = int(np.searchsorted(ends, uniform * ends[-1], side="right"))
        weight *= float(ends[-1])  # length over probability
        rest = _project_away(rest, a)
        if pairs is not None:
            allowed = allowed & pairs[a]
        allowed[a] = False
    return weight * _area_sum(rest[allowed], None if pairs is None else pairs[np.ix_(allowed, allowed)])


def _subsets_to_sum(n: int, k: int, pairs: BoolArray | None, subsets: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """(count, k) the subsets to sum over."""
    if subsets is not None:
        return np.asarray(subsets)
    if pairs is None:
        return row_subsets(n, k)
    return clique_subsets(pairs & ~np.eye(n, dtype=np.bool_), k)


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
    max_listed: float = 1e6,
    max_draws: int = 4096,
    power: int = 0,
) -> Estimate:
    """Mean of S1(QJ) over uniform orthogonal Q (MATH.md 4.5), with its standard error.

    Exact for k = 1, for k = 2, for listed subsets, for k = 3 up to ``max_triples`` column triples, beyond k = 3 up to
    ``max_listed`` column sets; sampled beyond, and NaN where every draw has volume zero. For k >= 3, exactly 0 where fewer than
    k columns are linearly independent. The rounding error of volumes of nearly dependent columns, too many to be computed in
    integers, is part of the standard error; NaN where it exceeds the value.

    Args:
        J: (m, n) float64.
        k: order of the minors.
        columns: (n,) bool, which columns to use; None means all.
        pairs: (n, n) symmetric bool, which two columns may be combined; None means any.
        subsets: (count, k) an explicit list of column subsets, instead of both.
        rel_error: standard error over value at which sampling stops.
        seed: of the sampling.
        max_triples: largest number of column triples to sum exactly.
        max_listed: largest number of column sets of k >= 4 to sum exactly.
        max_draws: largest number of draws; the standard error shows what they achieved.
        power: J is divided by 2^power.

    Raises:
        InputError: k is not in 1 … min(m, n).
    """
    m, n = J.shape
    if not 1 <= k <= min(m, n):
        raise InputError(f"k={k}, expected 1 to {min(m, n)} for a matrix of {m} rows and {n} columns")
    vectors = np.ascontiguousarray(np.asarray(J, dtype=np.float64).T)
    if columns is not None and subsets is None:
        vectors = vectors[columns]
        pairs = None if pairs is None else pairs[np.ix_(columns, columns)]
    if k >= 3 and subsets is None:
        present = np.any(vectors != 0, axis=1)
        vectors = vectors[present]
        pairs = None if pairs is None else pairs[np.ix_(present, present)]
    exponent = int(normalise(vectors[None], k)[1][0]) if vectors.size else 0
    given, vectors = vectors, times_power_of_two(vectors, np.array(-exponent))
    sets = math.comb(len(vectors), k) if subsets is None else len(subsets)
    stderr = doubt = 0.0
    if k >= 2 and k * bit_span(given) > MOST_BITS:  # products would leave the range
        listed = _subsets_to_sum(len(given), k, pairs, subsets) if sets <= MOST_EXACT else None
        exponent = power  # columns of a selection may be far below the largest
        value = math.nan if listed is None else math.fsum(_exact_volumes(given, listed, exponent))
    elif k >= 3 and rank_below(vectors if subsets is None else vectors[np.unique(subsets)], k):
        value = 0.0
    elif subsets is not None:
        value, doubt = _listed_volumes(vectors, np.asarray(subsets))
    elif k == 1:
        value = float(np.linalg.norm(vectors, axis=1).sum())
    elif k == 2:
        value = _area_sum(vectors, pairs)
    else:
        if k == 3 and sets <= max_triples:
            value, doubt = _triple_volumes(vectors, pairs), ROUNDING * _length_products(vectors, k, pairs)
        elif sets <= max_listed:
            value, doubt = _listed_volumes(vectors, _subsets_to_sum(len(vectors), k, pairs, None))
        else:
            value, stderr = _sampled_volumes(vectors, k, pairs, rel_error, seed, max_draws)
            doubt = ROUNDING * _length_products(vectors, k, pairs)
        if doubt > EXACT * value and k == 3 and sets <= MOST_EXACT:
            value, doubt = _listed_volumes(vectors, _subsets_to_sum(len(vectors), k, pairs, None))
    if doubt > EXACT * value:
        stderr = math.hypot(stderr, doubt)
    if not stderr <= value:
        value = stderr = math.nan
    factor = math.exp(math.lgamma(m + 1) - math.lgamma(k + 1) - math.lgamma(m - k + 1)) if m > 500 else float(math.comb(m, k))
    factor *= haar_constant(m, k)
    up = k * (exponent - power)
    with np.errstate(over="ignore", under="ignore"):
        return Estimate(float(np.ldexp(factor * value, up)), float(np.ldexp(factor * stderr, up)))
