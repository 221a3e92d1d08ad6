"""Scores of MATH.md section 3 that are functions of a Jacobian itself, one short function each.

They return a float for one matrix and a (B,) array for a batch (a tensor on the same device for a batch on CUDA).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from kagscope.base.errors import InputError
from kagscope.base.reasons import ALL_ZERO, FEW_COLUMNS, NOT_SEEN, ZERO_JACOBIAN
from kagscope.columns.layout import real_array
from kagscope.minors._input import MatrixLike, Values, as_matrices, as_numpy, check_k, device_of, to_device
from kagscope.minors.moment_scores import FloatArray, quotient
from kagscope.minors.published import drawn_rotation_ratio
from kagscope.minors.random_rotations import max_rotation_ratio
from kagscope.minors.rank import dependent
from kagscope.minors.routes.determinants import minor_matrix, row_subsets
from kagscope.minors.row_means import row_means
from kagscope.minors.scaling import normalise, times_power_of_two
from kagscope.minors.underflow import LEAST
from kagscope.registry import register


@register(
    "axis_alignment",
    "axis alignment",
    ("jacobian",),
    undefined=ZERO_JACOBIAN,
    source="canonical alignment of the authors' 2026 talk, our formula; MATH.md 3",
)
def axis_alignment(J: MatrixLike) -> Values:
    """Mean over the nonzero rows of max_a |J_ia| / ||J_i||_2: 1 when every row looks along one axis.

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.

    Returns:
        float, or (B,) array for a batch; NaN where J = 0. The authors' 2026 talk, our formula.
    """
    matrices, batched = as_matrices(J)
    largest = np.abs(matrices).max(axis=2)
    scaled, _ = normalise(matrices.reshape(-1, 1, matrices.shape[2]))  # row by row, so that nothing overflows or underflows
    norms = np.linalg.norm(scaled[:, 0], axis=1).reshape(largest.shape)
    aligned = np.abs(scaled).max(axis=(1, 2)).reshape(largest.shape) / np.where(norms > 0, norms, 1.0)
    rows = (largest > 0).sum(axis=1)
    return _per_matrix(quotient(aligned.sum(axis=1), rows.astype(np.float64)), batched, J)


@register("effective_rank", "effective rank", ("spectrum",), undefined=ZERO_JACOBIAN, source="standard; MATH.md 3")
def effective_rank_of(spectrum: Float64[np.ndarray, "batch r"]) -> Float64[np.ndarray, " batch"]:
    """exp(entropy of s^2 / sum s^2), of a :func:`spectrum`."""
    p = spectrum / spectrum.sum(axis=1, keepdims=True)
    logs = np.log(np.where(p > 0, p, 1.0))
    return np.asarray(np.exp(-(p * logs).sum(axis=1)))


@register("stable_rank", "stable rank", ("spectrum",), undefined=ZERO_JACOBIAN, source="standard; MATH.md 3")
def stable_rank_of(spectrum: Float64[np.ndarray, "batch r"]) -> Float64[np.ndarray, " batch"]:
    """sum s^2 / max s^2, of a :func:`spectrum`."""
    return np.asarray(spectrum.sum(axis=1))


@register(
    "sv_participation", "singular-value participation", ("spectrum",), undefined=ZERO_JACOBIAN, source="standard; MATH.md 3"
)
def sv_participation_of(spectrum: Float64[np.ndarray, "batch r"]) -> Float64[np.ndarray, " batch"]:
    """(sum s^2)^2 / sum s^4, of a :func:`spectrum`."""
    return np.asarray(spectrum.sum(axis=1) ** 2 / (spectrum**2).sum(axis=1))


def effective_rank(J: MatrixLike) -> Values:
    """exp(entropy of s^2 / sum s^2) over the singular values s of J (MATH.md section 3).

    It measures how many directions J has, weighted by their size.

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.

    Returns:
        float, or (B,) array for a batch, between 1 and min(m, n); NaN where J = 0.
    """
    return _score_spectrum(effective_rank_of, J)


def stable_rank(J: MatrixLike) -> Values:
    """sum s^2 / max s^2 over the singular values s of J (MATH.md section 3).

    It measures how many directions of J are as strong as the strongest.

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.

    Returns:
        float, or (B,) array for a batch, between 1 and min(m, n); NaN where J = 0.
    """
    return _score_spectrum(stable_rank_of, J)


def sv_participation(J: MatrixLike) -> Values:
    """(sum s^2)^2 / sum s^4 over the singular values s of J (MATH.md section 3).

    It measures how many directions J has, between the effective and the stable rank.

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.

    Returns:
        float, or (B,) array for a batch, between 1 and min(m, n); NaN where J = 0.
    """
    return _score_spectrum(sv_participation_of, J)


def spectrum(J: MatrixLike) -> Float64[np.ndarray, "batch r"]:
    """(B, min(m, n)) squared singular values of J over their largest, rising; NaN where J = 0.

    They are eigenvalues of the smaller Gram matrix: 40 times faster than the singular values of 64 x 784, and scores, which
    weight by s^2, incur an absolute error of rounding size only.
    """
    matrices, _ = as_matrices(J)
    scale = np.abs(matrices).max(axis=(1, 2))
    scaled = matrices / np.where(scale > 0, scale, 1.0)[:, None, None]
    wide = scaled if scaled.shape[1] <= scaled.shape[2] else scaled.swapaxes(1, 2)
    squares = np.maximum(np.linalg.eigvalsh(wide @ wide.swapaxes(1, 2)), 0.0)
    return quotient(squares, squares[:, -1:])


@register(
    "rr_max",
    "rotation ratio of maximum",
    ("jacobian", "rotations", "seed"),
    orders=(2,),
    undefined=ALL_ZERO,
    source="code of arXiv 2511.21626, its maximum over all minors; MATH.md 3",
    limit="rotation_points",
)
def rotation_ratio_of_max(
    J: Float64[np.ndarray, "batch m n"], rotations: int, seed: int
) -> tuple[Float64[np.ndarray, " batch"], Float64[np.ndarray, " batch"]]:
    """top(J) / E_Q top(QJ) of 2-minors, Q uniform on O(m), and its standard error over ``rotations`` Q; (B,) both."""
    ratios = [max_rotation_ratio(matrix, 2, rotations=rotations, seed=seed) for matrix in J]
    value, stderr = np.array(ratios, dtype=np.float64).reshape(-1, 2).T
    return value, stderr


@register(
    "rr_sampled",
    "rotation ratio of drawn minors",
    ("jacobian", "drawn_minors", "seed"),
    orders=(2,),
    undefined=NOT_SEEN,
    source="code of arXiv 2511.21626; MATH.md 3",
    limit="rotation_points",
)
def rotation_ratio_of_drawn(
    J: Float64[np.ndarray, "batch m n"], drawn_minors: int, seed: int
) -> tuple[Float64[np.ndarray, " batch"], Float64[np.ndarray, " batch"]]:
    """Largest drawn 2-minor over its mean under rotation, as the authors' code draws both, and its error; (B,) both."""
    return drawn_rotation_ratio(J, 2, drawn_minors, seed)


@register(
    "zero_rows",
    "zero rows",
    ("row_means", "threshold"),
    orders=(1, 2, 3),
    source="arXiv 2509.12326, section 3, and the authors' 2026 talk; MATH.md 3",
    fraction=True,
)
def share_of_zero_rows(row_means: Float64[np.ndarray, "points rows"], threshold: float) -> Float64[np.ndarray, " points"]:
    """(P,) share of the rows of the k-minor matrix whose mean is at most ``threshold``."""
    return np.asarray((row_means <= threshold).mean(axis=1))


@register("zero_rows_exact", "rows exactly zero", ("row_means",), orders=(1, 2, 3), source="MATH.md 3", fraction=True)
def share_of_rows_exactly_zero(row_means: Float64[np.ndarray, "points rows"]) -> Float64[np.ndarray, " points"]:
    """(P,) share of the rows of the k-minor matrix that are zero."""
    return np.asarray((row_means == 0).mean(axis=1))


def zero_rows(J: MatrixLike, k: int = 1, threshold: Any = 0.0) -> Values:
    """Fraction of the rows of the k-minor matrix whose mean over all columns is at most ``threshold`` (arXiv 2509.12326,
    section 3).

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.
        k: order of the minors, 1 to 3.
        threshold: a mean, in the units of the minors; 0 counts rows that are exactly zero. Usually the 1 % quantile of
            :func:`row_means` of the untrained network. A float, or one per matrix of the batch.

    Returns:
        float, or (B,) array for a batch.
    """
    matrices = as_numpy(J, "J")
    means = np.atleast_2d(row_means(matrices, k))
    expected = f"expected a number of at least 0, or one for each of the {len(means)} matrices"
    try:
        limit = real_array(threshold)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"threshold cannot be read as real numbers ({str(error).splitlines()[0]}), {expected}") from error
    if limit.ndim > 1 or limit.size not in (1, len(means)) or not (limit >= 0).all():
        least = limit.min(initial=np.inf)
        given = f"threshold={threshold!r}" if limit.ndim == 0 else f"threshold has shape {limit.shape} with {least} the least"
        raise InputError(f"{given}, {expected}")
    return _per_matrix((means <= limit.reshape(-1, 1)).mean(axis=1), matrices.ndim == 3, J)


@register(
    "column_divergence",
    "column divergence",
    ("jacobian",),
    orders=(1,),
    undefined=FEW_COLUMNS,
    source="arXiv 2509.12326; MATH.md 3",
    limit="divergence_points",
)
def column_divergence(J: MatrixLike, k: int = 1) -> Values:
    """Mean over ordered column pairs of the KL divergence between columns of the k-minor matrix, each normalised to 1.

    Both columns are mixed with 2^-20 of a uniform one, so that units used by one column only contribute finitely (arXiv
    2509.12326).

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.
        k: order of the minors; the k-minor matrix must have at most 2^26 entries.

    Returns:
        float in nats, or (B,) array; zero columns are left out, and NaN is returned if fewer than two remain.
    """
    matrices, batched = as_matrices(J)
    check_k(k, *matrices.shape[1:])
    return _per_matrix(np.array([_column_divergence(matrix, k) for matrix in matrices]), batched, J)


def _column_divergence(matrix: FloatArray, k: int) -> float:
    columns = np.minimum(np.frexp(np.abs(matrix).max(axis=0))[1], 0).astype(np.int64)  # scaled up only: no entry overflows
    even = times_power_of_two(matrix, -columns)  # a common factor of a column of minors, which normalisation removes
    minors = minor_matrix(even, k, int(normalise(even[None], k)[1][0]))
    sets = row_subsets(matrix.shape[1], k)
    low = np.flatnonzero(minors.max(axis=0) < LEAST)
    for index in low[~dependent(even, sets[low])] if k > 1 else ():  # each with its own scale
        block = even[:, sets[index]]
        minors[:, index] = minor_matrix(block, k, int(normalise(block[None], k)[1][0]))[:, 0]
    largest = minors.max(axis=0)
    columns = minors[:, largest > 0] / largest[largest > 0]
    count = columns.shape[1]
    if count < 2:
        return float("nan")
    p = columns / columns.sum(axis=0)
    p = (1 - 2.0**-20) * p + 2.0**-20 / len(p)
    logs = np.log(p)
    block = (p * logs).sum()  # sum over pairs of sum_r p ln p - p ln q; the diagonal contributes 0
    cross = (p.sum(axis=1) * logs.sum(axis=1)).sum()
    return float((count * block - cross) / (count * (count - 1)))


def numerical_ranks(J: Float64[np.ndarray, "batch m n"], roundoff: float, at_most: int) -> Int[np.ndarray, " batch"]:
    """(B,) numerical ranks up to ``at_most`` of matrices (B, m, n): singular values above max(m, n) u times the first.

    Nonzero rows are first scaled to equal length (by powers of two), so that small rows do not reduce the rank; ``roundoff`` is
    u. A rule of thumb, not a bound (MATH.md 3). Minors of higher order than the rank are rounding noise.
    """
    lengths = np.abs(J).max(axis=2)
    scaled = times_power_of_two(J, -np.frexp(lengths)[1].astype(np.int64)[..., None])
    wide = scaled if J.shape[1] <= J.shape[2] else scaled.swapaxes(1, 2)
    squares = np.linalg.eigvalsh(wide @ wide.swapaxes(1, 2))[:, ::-1][:, :at_most]
    tolerance = max(J.shape[1:]) * roundoff
    # squares resolve nothing below the root of the roundoff: these few matrices need their singular values
    unsure = (squares > 0).any(axis=1) & (squares[:, -1] <= max(1e-12, 4 * tolerance) ** 2 + 1e-12 * squares[:, 0])
    values = np.sqrt(np.maximum(squares, 0.0))
    if unsure.any():
        values[unsure] = np.linalg.svd(scaled[unsure], compute_uv=False)[:, : values.shape[1]]
    return np.asarray((values > tolerance * values[:, :1]).sum(axis=1))


def _score_spectrum(score: Callable[[FloatArray], FloatArray], J: MatrixLike) -> Values:
    matrices, batched = as_matrices(J)
    return _per_matrix(score(spectrum(matrices)), batched, J)


def _per_matrix(values: FloatArray, batched: bool, J: Any) -> Any:
    """A float for one matrix, an array for a batch, or a tensor on its device for a batch on a GPU."""
    return to_device(values, device_of(J)) if batched else float(values[0])
