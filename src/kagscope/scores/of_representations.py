"""Scores of a hidden representation over many data points, from activations, not minors (MATH.md section 3, second table)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Int

from kagscope.base.errors import InputError
from kagscope.base.reasons import CONSTANT_ACTIVATIONS, FEW_ACTIVATIONS
from kagscope.registry import register

GRAM_ROWS = 128  # of a matrix of scalar products at a time: they stay in the cache
LOST = 1e-10  # of the terms that a self-similarity is a difference of, below which it may be rounding
TWO_NN_SHARE = 0.9  # of the points, those with the smaller ratios of distances (Facco et al. 2017)


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
    cross, own_a, own_b = (np.linalg.norm(x.T @ y) for x, y in ((A, B), (A, A), (B, B)))
    return float(cross**2 / (own_a * own_b)) if own_a * own_b > 0 else float("nan")


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
    products, rows = _hollow_products(_from_medians(first), _from_medians(second))
    n = len(first)
    # unbiased estimates of HSIC (Song et al. 2012), of both with themselves and with each other, times n (n - 3)
    total = rows.sum(axis=1)
    hsic = products + np.outer(total, total) / ((n - 1) * (n - 2)) - 2.0 / (n - 2) * rows @ rows.T
    own = np.diag(hsic)
    if (own <= LOST * (n - 3) / n * np.diag(products)).any():
        return float("nan")
    return float(hsic[0, 1] / np.sqrt(own[0] * own[1]))


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
    gram = A.T @ A if A.shape[0] >= A.shape[1] else A @ A.T  # of the same eigenvalues, but for zeros
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

    The slope, through the origin, of -ln(1 - F) against ln(r2 / r1): r1 and r2 are the distances of a point from its two nearest
    neighbours, F their empirical distribution; the tenth of the points with the largest ratios is left out, as in the article.

    Points at distance zero from another are counted once. NaN when fewer than 10 distinct points remain or none has two
    neighbours apart.
    """
    from scipy.spatial.distance import pdist, squareform  # takes 0.4 s to load

    distinct = np.unique(_scaled(np.asarray(activations, dtype=np.float64)), axis=0)
    if len(distinct) < 10:
        return float("nan")
    distances = squareform(pdist(distinct))
    np.fill_diagonal(distances, np.inf)
    first, second = np.partition(distances, 1, axis=1)[:, :2].T
    apart = first > 0  # squares of the smallest differences may underflow
    ratios = np.sort(np.log(second[apart] / first[apart]))
    rank = np.arange(1, int(TWO_NN_SHARE * len(ratios)) + 1)
    kept, levels = ratios[: len(rank)], -np.log1p(-rank / max(len(ratios), 1))
    return float(kept @ levels / (kept @ kept)) if kept.any() else float("nan")


def _centre(values: Float[np.ndarray, "N m"]) -> Float64[np.ndarray, "N m"]:
    """Centred columns, (N, m) float64, times a power of two, which every score ignores: no sum or square under- or overflows."""
    values = _scaled(np.asarray(values, dtype=np.float64))
    centred = values - values.mean(axis=0)
    centred -= centred.mean(axis=0)  # what rounding left of a mean far from 0
    centred[:, values.min(axis=0) == values.max(axis=0)] = 0.0  # a rounded mean must not make a constant look like a signal
    return _scaled(centred)


def _scaled(values: Float64[np.ndarray, "N m"]) -> Float64[np.ndarray, "N m"]:
    exponent = int(np.frexp(np.abs(values).max(initial=0.0))[1])
    return np.asarray(np.ldexp(values, -exponent))


def _from_medians(values: Float[np.ndarray, "N m"]) -> Float64[np.ndarray, "N m"]:
    """Columns less their medians, which no outlier draws away: the estimator takes any origin off."""
    values = _scaled(np.asarray(values, dtype=np.float64))
    return _scaled(values - np.median(values, axis=0))


def _hollow_products(
    first: Float64[np.ndarray, "N p"], second: Float64[np.ndarray, "N q"]
) -> tuple[Float64[np.ndarray, "2 2"], Float64[np.ndarray, "2 N"]]:
    """Of the two matrices of scalar products without diagonal: their scalar products with themselves and each other, and sums
    of their rows; some rows of them at a time."""
    products, rows = np.zeros((2, 2)), np.empty((2, len(first)))
    for start in range(0, len(first), GRAM_ROWS):
        some = slice(start, start + GRAM_ROWS)
        grams = np.stack([one[some] @ one.T for one in (first, second)])
        places = np.arange(grams.shape[1])
        grams[:, places, start + places] = 0.0
        rows[:, some] = grams.sum(axis=2)
        flat = grams.reshape(2, -1)
        products += flat @ flat.T
    return products, rows
