"""Scores of a hidden representation over many data points, from its activations (MATH.md section 3, second table)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Int

from kagscope.base.errors import InputError
from kagscope.base.reasons import CONSTANT_ACTIVATIONS, FEW_ACTIVATIONS
from kagscope.registry import register

GRAM_ROWS = 128  # rows of a Gram matrix at a time, which fit the cache
LOST = 1e-10  # self-similarity relative to the terms it is a difference of, below which it may be rounding
TWO_NN_SHARE = 0.9  # of the points, with the smallest ratios of distances (Facco et al. 2017)


@register(
    "kernel_alignment",
    "kernel alignment",
    ("activations", "labels"),
    undefined=CONSTANT_ACTIVATIONS,
    source="Cortes, Mohri & Rostamizadeh 2012; MATH.md 3",
)
def kernel_alignment(activations: Float[np.ndarray, "N m"], labels: Int[np.ndarray, " L"]) -> float:
    """Centred alignment of the Gram matrix of the activations with that of the one-hot labels (Cortes et al. 2012).

    Args:
        activations: (N, m) float.
        labels: (N,) integer classes.

    Returns:
        <HKH, HLH>_F / (||HKH||_F ||HLH||_F) with K = A A^T and L = Y Y^T, in [0, 1]; NaN when either is constant.

    Raises:
        InputError: lengths differ.
    """
    if len(activations) != len(labels):
        raise InputError(f"{len(activations)} activations but {len(labels)} labels; they must be as many")
    one_hot = (labels[:, None] == np.unique(labels)).astype(np.float64)
    return linear_cka(activations, one_hot)


def linear_cka(first: Float[np.ndarray, "N p"], second: Float[np.ndarray, "L q"]) -> float:
    """Linear CKA, biased form, of two representations (N, p) and (N, q) of the same points (Kornblith et al. 2019, eq. 3).

    NaN when either is constant. Raises :class:`InputError` when the numbers of points differ.
    """
    if len(first) != len(second):
        raise InputError(f"CKA needs the same points in both; got {len(first)} and {len(second)}")
    A, B = _centre(first), _centre(second)
    # ||A^T B||_F^2 equals <AA^T, BB^T>_F and needs no N x N matrix.
    cross, norm_a, norm_b = (np.linalg.norm(x.T @ y) for x, y in ((A, B), (A, A), (B, B)))
    return float(cross**2 / (norm_a * norm_b)) if norm_a * norm_b > 0 else float("nan")


@register(
    "cka_init",
    "CKA with initial",
    ("activations", "initial_activations"),
    undefined=CONSTANT_ACTIVATIONS,
    source="Kornblith et al. 2019, debiased as Song et al. 2012; MATH.md 3",
)
def debiased_cka(first: Float[np.ndarray, "N p"], second: Float[np.ndarray, "L q"]) -> float:
    """Linear CKA with the unbiased HSIC estimator (Song et al. 2012), (N, p) and (N, q), N >= 4: no bias upwards.

    NaN when either is constant, or its estimated self-similarity is not positive, or rounding. Raises :class:`InputError` for
    fewer points, or when their numbers differ.
    """
    if len(first) != len(second) or len(first) < 4:
        raise InputError(f"debiased CKA needs the same 4 or more points in both; got {len(first)} and {len(second)}")
    products, rows = _off_diagonal_products(_subtract_medians(first), _subtract_medians(second))
    n = len(first)
    # unbiased estimates of HSIC (Song et al. 2012), for all four pairs, times n (n - 3)
    total = rows.sum(axis=1)
    hsic = products + np.outer(total, total) / ((n - 1) * (n - 2)) - 2.0 / (n - 2) * rows @ rows.T
    self_similarity = np.diag(hsic)
    if (self_similarity <= LOST * (n - 3) / n * np.diag(products)).any():
        return float("nan")
    return float(hsic[0, 1] / np.sqrt(self_similarity[0] * self_similarity[1]))


@register(
    "effective_dimension",
    "effective dimension",
    ("activations",),
    undefined=CONSTANT_ACTIVATIONS,
    source="standard; MATH.md 3",
)
def effective_dimension(activations: Float[np.ndarray, "N m"]) -> float:
    """(sum l)^2 / sum l^2 over the eigenvalues l of the covariance of the activations (N, m), in [1, m]; NaN when constant."""
    A = _centre(activations)
    squares = np.square(A).sum()
    gram = A.T @ A if A.shape[0] >= A.shape[1] else A @ A.T  # the same nonzero eigenvalues
    return float((squares / np.linalg.norm(gram)) ** 2) if squares > 0 else float("nan")


@register(
    "intrinsic_dimension",
    "intrinsic dimension (TwoNN)",
    ("activations",),
    undefined=FEW_ACTIVATIONS,
    source="Facco et al. 2017; MATH.md 3",
)
def intrinsic_dimension(activations: Float[np.ndarray, "N m"]) -> float:
    """Intrinsic dimension of the activations (N, m) by TwoNN (Facco et al. 2017).

    It is the slope, through the origin, of -ln(1 - F) against ln(r2 / r1): r1 and r2 are a point's distances to its two nearest
    neighbours, F the empirical distribution of r2 / r1; the tenth with the largest ratios is left out, as in the article.

    Points at distance zero from another are counted once. NaN when fewer than 10 distinct points remain or none has two
    neighbours apart.
    """
    from scipy.spatial.distance import pdist, squareform  # slow import, 0.4 s

    distinct = np.unique(_scale_down(np.asarray(activations, dtype=np.float64)), axis=0)
    if len(distinct) < 10:
        return float("nan")
    distances = squareform(pdist(distinct))
    np.fill_diagonal(distances, np.inf)
    first, second = np.partition(distances, 1, axis=1)[:, :2].T
    apart = first > 0  # squares of tiny differences may underflow
    ratios = np.sort(np.log(second[apart] / first[apart]))
    rank = np.arange(1, int(TWO_NN_SHARE * len(ratios)) + 1)
    kept, levels = ratios[: len(rank)], -np.log1p(-rank / max(len(ratios), 1))
    return float(kept @ levels / (kept @ kept)) if kept.any() else float("nan")


def _centre(values: Float[np.ndarray, "N m"]) -> Float64[np.ndarray, "N m"]:
    """Centre columns and normalise by a power of two, which no score sees, so that nothing overflows: (N, m) float64."""
    values = _scale_down(np.asarray(values, dtype=np.float64))
    centred = values - values.mean(axis=0)
    centred -= centred.mean(axis=0)  # remove the rounding of a mean far from 0
    centred[:, values.min(axis=0) == values.max(axis=0)] = 0.0  # rounding must not turn a constant into a signal
    return _scale_down(centred)


def _scale_down(values: Float64[np.ndarray, "N m"]) -> Float64[np.ndarray, "N m"]:
    exponent = int(np.frexp(np.abs(values).max(initial=0.0))[1])
    return np.asarray(np.ldexp(values, -exponent))


def _subtract_medians(values: Float[np.ndarray, "N m"]) -> Float64[np.ndarray, "N m"]:
    """Subtract medians, which are robust to outliers; the estimator is invariant to the origin."""
    values = _scale_down(np.asarray(values, dtype=np.float64))
    return _scale_down(values - np.median(values, axis=0))


def _off_diagonal_products(
    first: Float64[np.ndarray, "N p"], second: Float64[np.ndarray, "N q"]
) -> tuple[Float64[np.ndarray, "2 2"], Float64[np.ndarray, "2 N"]]:
    """Inner products (2, 2) and row sums (2, N) of the two Gram matrices without their diagonals, in blocks of rows."""
    products, rows = np.zeros((2, 2)), np.empty((2, len(first)))
    for start in range(0, len(first), GRAM_ROWS):
        block = slice(start, start + GRAM_ROWS)
        grams = np.stack([values[block] @ values.T for values in (first, second)])
        diagonal = np.arange(grams.shape[1])
        grams[:, diagonal, start + diagonal] = 0.0
        rows[:, block] = grams.sum(axis=2)
        flat = grams.reshape(2, -1)
        products += flat @ flat.T
    return products, rows
