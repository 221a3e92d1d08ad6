"""The scores as the authors' code samples them, to be held against ours (MATH.md section 3, last paragraph)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.minors._input import MatrixLike, Values, as_matrices, check_k, device_of, placed
from kagscope.minors.rotated import random_orthogonal
from kagscope.minors.scaling import normalise

Array = NDArray[np.float64]

ROTATIONS = 5


def published_scores(J: MatrixLike, k: int = 2, samples: int = 500, seed: int = 0) -> dict[str, Values]:
    """PR, KL and RR of drawn minors, as the code of arXiv 2511.21626 computes them (MATH.md section 3, last paragraph).

    Rows and columns of each minor are drawn uniformly, with the same draws for every matrix of a batch. ``pr`` is
    sqrt(sum M^2) / sum M over the drawn minors, so about sqrt(N / samples) times ours; ``kl`` is their divergence from uniform
    in nats, whose mean is ours but for a bias that falls with ``samples``; ``rr`` is the largest of them over the mean of the
    largest of the same minors of QJ, over five random rotations Q: another number than our ``rr_max``, whose maxima are over
    all minors.

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.
        k: order of the minors.
        samples: minors drawn; the authors' code draws 300 to 500.
        seed: of the draws and rotations.

    Returns:
        "pr", "kl", "rr": float; (B,) arrays for a batch (tensors on the device of J if that is CUDA); NaN where every drawn
        minor is zero.

    Raises:
        InputError: a matrix or ``k`` that minors do not have; ``samples`` below 1.
    """
    matrices, batched = as_matrices(J)
    _, m, n = matrices.shape
    k = check_k(k, m, n)
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 1:
        raise InputError(f"samples={samples!r}, expected a number of minors, such as 500")
    rng = np.random.default_rng(seed)
    rows, columns = (np.argsort(rng.random((samples, size)), axis=1)[:, :k] for size in (m, n))
    turns = random_orthogonal(m, ROTATIONS, rng)
    found = np.array([_scores(one, rows, columns, turns) for one in normalise(matrices, k)[0]]).reshape(-1, 3)
    names = ("pr", "kl", "rr")
    if not batched:
        return dict(zip(names, found[0].tolist(), strict=True))
    scores: dict[str, Values] = placed(dict(zip(names, found.T, strict=True)), device_of(J))
    return scores


def _scores(J: Array, rows: NDArray[np.int64], columns: NDArray[np.int64], turns: Array) -> tuple[float, float, float]:
    minors = _minors(J, rows, columns)
    total = float(minors.sum())
    if total == 0:
        return (np.nan,) * 3
    p = minors[minors > 0] / total
    turned = np.mean([_minors(turn @ J, rows, columns).max() for turn in turns])
    return float(np.sqrt((p**2).sum())), float(np.log(minors.size) + (p * np.log(p)).sum()), float(minors.max() / turned)


def _minors(J: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
    return np.abs(np.linalg.det(J[rows[:, :, None], columns[:, None, :]]))
