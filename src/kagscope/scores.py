"""Every score of MATH.md section 3 that is a function of moments or of the matrix itself; one short function each.

Scores of moments return a float for one matrix and a (B,) array for a batch, a tensor on the device of a batch given on CUDA;
where S1 = 0 they are undefined: NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kagscope.errors import InputError, UndefinedScore
from kagscope.minors._input import as_matrices, as_numpy, check_k, check_positive, device_of, is_torch, placed

if TYPE_CHECKING:
    from kagscope.minors.moments import Moments

FloatArray = NDArray[np.float64]
LN2 = float(np.log(2.0))


def participation_ratio(moments: Moments) -> Any:
    """sqrt(S2) / S1, in [1/sqrt(N), 1]: higher is more concentrated (arXiv 2511.21626 and the authors' code)."""
    s1, s2 = moments.normalised("s1"), moments.normalised("s2")
    return moments.out(_ratio(np.sqrt(s2), s1))


def pr_normalized(moments: Moments) -> Any:
    """S1^2 / (N S2), in [1/N, 1]: 1 is uniform (arXiv 2509.12326; the physics convention)."""
    s1, s2 = moments.normalised("s1"), moments.normalised("s2")
    return moments.out(_ratio((s1 / max(moments.count, 1)) * s1, s2))


def effective_minors(moments: Moments) -> Any:
    """S1^2 / S2: how many minors carry the mass."""
    s1, s2 = moments.normalised("s1"), moments.normalised("s2")
    return moments.out(_ratio(s1**2, s2))


def ipr(moments: Moments) -> Any:
    """S2^2 / S4: participation with probabilities M^2 / S2."""
    s2, s4 = moments.normalised("s2"), moments.normalised("s4")
    return moments.out(_ratio(s2**2, s4))


def kl_uniform(moments: Moments) -> Any:
    """ln N + E / S1 - ln S1: divergence of p = M / S1 from uniform, 0 where all minors are equal (arXiv 2511.21626 code)."""
    s1, entropy = moments.normalised("s1"), moments.normalised("entropy")
    safe = np.where(s1 > 0, s1, 1.0)
    value = np.log(float(max(moments.count, 1))) + entropy / safe - np.log(safe)
    return moments.out(np.where(s1 > 0, value, np.nan))


def near_zero(moments: Moments, eps: float = 2.0**-10) -> Any:
    """Fraction of minors with M <= eps * mean M, exact zeros included (arXiv 2410.08451: the spike at zero).

    Read from the histogram, log-linear inside the one bin that the threshold cuts; :func:`near_zero_error` is that bin's share.
    """
    return moments.out(_near_zero(moments, eps)[0])


def near_zero_error(moments: Moments, eps: float = 2.0**-10) -> Any:
    """Share of the minors in the bin that the threshold of :func:`near_zero` cuts: a bound on its error."""
    return moments.out(_near_zero(moments, eps)[1])


def _near_zero(moments: Moments, eps: float) -> tuple[FloatArray, FloatArray]:
    check_positive("eps", eps, "minors up to eps times their mean count as near zero")
    bins = _bins(moments)
    position = np.log2(eps) * 8 + _mean_position(moments) - bins.first  # in bins from the first one
    value, error = np.full(len(moments), np.nan), np.full(len(moments), np.nan)
    for row, counts in enumerate(bins.counts):
        if not np.isfinite(position[row]):
            continue
        whole = int(np.floor(np.clip(position[row], -1, len(counts))))
        below = float(counts[: max(whole, 0)].sum()) + float(bins.zeros[row])
        cut = float(counts[whole]) if 0 <= whole < len(counts) else 0.0
        value[row] = (below + cut * (position[row] - whole)) / moments.count if cut else below / moments.count
        error[row] = cut / moments.count
    return value, error


def kl_init(moments: Moments, initial: Moments) -> Any:
    """KL divergence of the distribution of log2(M / mean M) from the initial one, in nats (MATH.md 3 and 4.6).

    Bins of 1/8; each count is split between the two bins that it falls in after division by the mean; exact zeros have a bin
    of their
    own; both are smoothed by +1/2 a count a bin. Zero for the same moments, and unchanged when a matrix is scaled, up to that
    split.
    """
    if len(moments) != len(initial):
        raise InputError(f"kl_init of {len(moments)} matrices against {len(initial)}; give the same number of each")
    value = np.full(len(moments), np.nan)
    for row in range(len(moments)):
        left, right = _centred(moments, row), _centred(initial, row)
        if left is None or right is None:
            continue
        first = min(left[0], right[0])
        width = max(left[0] + len(left[1]), right[0] + len(right[1])) - first
        p, q = (_smoothed(part, first, width, zeros) for part, zeros in ((left, left[2]), (right, right[2])))
        value[row] = float((p * np.log(p / q)).sum())
    return moments.out(value)


def _centred(moments: Moments, row: int) -> tuple[int, FloatArray, float] | None:
    """First bin, counts over log2(M / mean M) and exact zeros of one matrix; None where S1 = 0."""
    bins = _bins(moments)
    mean = _mean_position(moments)[row]
    if not np.isfinite(mean):
        return None
    used = np.flatnonzero(bins.counts[row])
    counts = bins.counts[row, used[0] : used[-1] + 1].astype(np.float64)
    shift = float(bins.first[row] + used[0] - mean)
    whole = int(np.floor(shift))
    share = shift - whole
    split = np.zeros(len(counts) + 1)
    split[:-1] = counts * (1 - share)
    split[1:] += counts * share
    return whole, split, float(bins.zeros[row])


def _smoothed(part: tuple[int, FloatArray, float], first: int, width: int, zeros: float) -> FloatArray:
    counts = np.full(width + 1, 0.5)
    counts[part[0] - first : part[0] - first + len(part[1])] += part[1]
    counts[-1] += zeros
    return counts / counts.sum()


def _bins(moments: Moments) -> Any:
    if moments.bins is None:
        raise UndefinedScore('this score reads the histogram, which was not computed; ask for it with moments="all"')
    return moments.bins


def _mean_position(moments: Moments) -> FloatArray:
    """(B,) 8 log2(mean M), the position of the mean in bins; NaN where S1 = 0."""
    s1 = moments.normalised("s1")
    with np.errstate(divide="ignore", invalid="ignore"):
        position = 8 * (np.log2(s1) - np.log2(float(max(moments.count, 1))) + moments.k * moments.exponent)
    return np.where(s1 > 0, position, np.nan)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """numerator / denominator, NaN where the denominator is 0."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1.0), np.nan)


# -- scores of the matrix itself -------------------------------------------------------------------------------------------------


def axis_alignment(J: Any) -> Any:
    """Mean over the nonzero rows of max_a |J_ia| / ||J_i||_2: 1 when every row looks along one axis.

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.

    Returns:
        float, or (B,) array for a batch; NaN where J = 0. The authors' 2026 talk, our formula.
    """
    matrices, batched = as_matrices(J)
    largest = np.abs(matrices).max(axis=2)
    safe = np.where(largest > 0, largest, 1.0)
    norms = safe * np.sqrt(((matrices / safe[..., None]) ** 2).sum(axis=2))
    aligned = np.where(largest > 0, largest / np.where(norms > 0, norms, 1.0), 0.0)
    rows = (largest > 0).sum(axis=1)
    return _per_matrix(_ratio(aligned.sum(axis=1), rows.astype(np.float64)), batched, J)


def spectral_scores(J: Any) -> dict[str, Any]:
    """``effective_rank``, ``stable_rank`` and ``sv_participation`` at the price of one; each as its own function returns it."""
    values, batched = _spectrum(J)
    total = values.sum(axis=1)
    p = values / total[:, None]
    logs = np.log(np.where(p > 0, p, 1.0))
    found = {
        "effective_rank": np.exp(-(p * logs).sum(axis=1)),
        "stable_rank": total,
        "sv_participation": total**2 / (values**2).sum(axis=1),
    }
    return {name: _per_matrix(value, batched, J) for name, value in found.items()}


def effective_rank(J: Any) -> Any:
    """exp(entropy of s^2 / sum s^2) over the singular values s; NaN where J = 0."""
    return spectral_scores(J)["effective_rank"]


def stable_rank(J: Any) -> Any:
    """sum s^2 / max s^2 over the singular values s; NaN where J = 0."""
    return spectral_scores(J)["stable_rank"]


def sv_participation(J: Any) -> Any:
    """(sum s^2)^2 / sum s^4 over the singular values s; NaN where J = 0."""
    return spectral_scores(J)["sv_participation"]


def _spectrum(J: Any) -> tuple[FloatArray, bool]:
    """(B, min(m, n)) squared singular values of J over their largest, rising; NaN where J = 0.

    Eigenvalues of the smaller Gram matrix: 40 times faster than the singular values of 64 x 784, and the scores, which weigh by
    s^2, see an absolute error of rounding size only.
    """
    matrices, batched = as_matrices(J)
    scale = np.abs(matrices).max(axis=(1, 2))
    scaled = matrices / np.where(scale > 0, scale, 1.0)[:, None, None]
    wide = scaled if scaled.shape[1] <= scaled.shape[2] else scaled.swapaxes(1, 2)
    squares = np.maximum(np.linalg.eigvalsh(wide @ wide.swapaxes(1, 2)), 0.0)
    return _ratio(squares, squares[:, -1:]), batched


def zero_rows(J: Any, k: int = 1, threshold: Any = 0.0) -> Any:
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
    from kagscope.minors.rows import row_means

    matrices = as_numpy(J, "J")
    means = np.atleast_2d(row_means(matrices, k))
    limit = np.asarray(threshold.detach().cpu() if is_torch(threshold) else threshold, dtype=np.float64)
    if limit.ndim > 1 or limit.size not in (1, len(means)) or not (limit >= 0).all():
        raise InputError(
            f"threshold={threshold!r}, expected a number of at least 0, or one for each of the {len(means)} matrices"
        )
    return _per_matrix((means <= limit.reshape(-1, 1)).mean(axis=1), matrices.ndim == 3, J)


def column_divergence(J: Any, k: int = 1) -> Any:
    """Mean over ordered column pairs of the KL divergence between columns of the k-minor matrix, each normalised to 1.

    Both columns are smoothed by 2^-20 of a uniform one, so that units which only one column uses count, finitely (arXiv
    2509.12326).

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.
        k: order of the minors; the k-minor matrix must have at most 2^26 entries.

    Returns:
        float in nats, or (B,) array; NaN where fewer than two columns are nonzero. Columns that are zero are left out.
    """
    from kagscope.minors.bruteforce import minor_matrix

    matrices, batched = as_matrices(J)
    check_k(k, *matrices.shape[1:])
    return _per_matrix(np.array([_column_divergence(minor_matrix(matrix, k)) for matrix in matrices]), batched, J)


def _column_divergence(minors: FloatArray) -> float:
    largest = minors.max(axis=0)
    columns = minors[:, largest > 0] / largest[largest > 0]
    count = columns.shape[1]
    if count < 2:
        return float("nan")
    p = columns / columns.sum(axis=0)
    p = (1 - 2.0**-20) * p + 2.0**-20 / len(p)
    logs = np.log(p)
    own = (p * logs).sum()  # sum over pairs of sum_r p ln p - p ln q, the diagonal adding nothing
    cross = (p.sum(axis=1) * logs.sum(axis=1)).sum()
    return float((count * own - cross) / (count * (count - 1)))


def _per_matrix(values: FloatArray, batched: bool, J: Any) -> Any:
    """A float for one matrix, an array for a batch, a tensor on its device for one given on a GPU."""
    return placed(values, device_of(J)) if batched else float(values[0])
