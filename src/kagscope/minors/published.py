"""The scores as the authors' code samples them, for comparison with ours (MATH.md section 3, last paragraph)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.minors._input import MatrixLike, Values, as_matrices, check_k, check_seed, device_of, to_device
from kagscope.minors.random_rotations import random_orthogonal
from kagscope.minors.routes.determinants import Minors
from kagscope.minors.scaling import normalise

Array = NDArray[np.float64]

ROTATIONS = 5
LOST = 1e-8  # largest minor of a rotated matrix over the product of its columns' lengths below which it may be rounding
FEW_ROWS = 256  # rows up to which rotations are cached
DRAWS = 8  # independent draws of minors and rotations for a standard error


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
        InputError: a matrix that cannot be used, a ``k`` for which it has no minors, or ``samples`` below 1.
    """
    matrices, batched = as_matrices(J)
    _, m, n = matrices.shape
    k = check_k(k, m, n)
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 1:
        raise InputError(f"samples={samples!r}, expected a number of minors, such as 500")
    draws = [_draw(m, n, k, samples, np.random.default_rng(check_seed(seed)))]
    scores_by_matrix = np.array([_scores(matrix, draws)[0] for matrix in normalise(matrices, k)[0]]).reshape(-1, 3)
    names = ("pr", "kl", "rr")
    if not batched:
        return dict(zip(names, scores_by_matrix[0].tolist(), strict=True))
    scores: dict[str, Values] = to_device(dict(zip(names, scores_by_matrix.T, strict=True)), device_of(J))
    return scores


def drawn_rotation_ratio(J: Array, k: int, samples: int, seed: int) -> tuple[Array, Array]:
    """``rr`` of :func:`published_scores`, the mean over :data:`DRAWS` independent draws, and its standard error; both (B,).

    J (B, m, n) float64; NaN where all minors of a draw are zero.
    """
    _, m, n = J.shape
    draws = (_few_draws if m <= FEW_ROWS else _draws)(m, n, k, samples, seed)
    ratios = np.array([_scores(matrix, draws)[:, 2] for matrix in normalise(J, k)[0]]).reshape(-1, DRAWS)
    return ratios.mean(axis=1), ratios.std(axis=1, ddof=1) / np.sqrt(DRAWS)


class _Draw(NamedTuple):
    """(samples, k) rows and columns of drawn minors, and (ROTATIONS, m, m) rotations."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    turns: Array


def _draw(m: int, n: int, k: int, samples: int, rng: np.random.Generator) -> _Draw:
    rows, columns = (_argsmallest(rng.random((samples, size)), k) for size in (m, n))
    return _Draw(rows, columns, random_orthogonal(m, ROTATIONS, rng))


def _argsmallest(values: Array, k: int) -> NDArray[np.int64]:
    """(rows, k) indices of the k smallest of each row, ascending: like a sort of whole rows, in a tenth of the time."""
    smallest = np.argpartition(values, k - 1, axis=1)[:, :k]
    return np.take_along_axis(smallest, np.argsort(np.take_along_axis(values, smallest, axis=1), axis=1), axis=1)


def _draws(m: int, n: int, k: int, samples: int, seed: int) -> list[_Draw]:
    rng = np.random.default_rng(seed)
    return [_draw(m, n, k, samples, rng) for _ in range(DRAWS)]


_few_draws = lru_cache(maxsize=8)(_draws)  # shared by the layers of all networks of a study


def _scores(J: Array, draws: list[_Draw]) -> Array:
    """(draws, 3) pr, kl and rr; NaN where every drawn minor is zero."""
    all_minors, scores = Minors(J, draws[0].rows.shape[1]), np.full((len(draws), 3), np.nan)
    for row, draw in zip(scores, draws, strict=True):
        minors = all_minors.of(draw.rows, draw.columns)
        total = float(minors.sum())
        if total > 0:
            p = minors[minors > 0] / total
            row[0] = np.sqrt((p**2).sum())
            row[1] = np.log(minors.size) + (p * np.log(p)).sum()
            row[2] = _ratio(J, draw, float(minors.max()))
    return scores


def _ratio(J: Array, draw: _Draw, largest: float) -> float:
    """The largest drawn minor over the mean of the largest of the same minors of QJ; NaN if rotations lose their digits."""
    samples, k = draw.rows.shape
    if k == len(J):
        return 1.0  # there is one row set, whose minors no rotation changes
    inside = J.T[draw.columns].swapaxes(1, 2)  # (samples, m, k)
    few = J.size <= 8 * samples * k**2  # rotating all of J costs less than rotating what is drawn of it
    largest_turned = [
        _sizes((turn @ J)[draw.rows[:, :, None], draw.columns[:, None]] if few else turn[draw.rows] @ inside).max()
        for turn in draw.turns
    ]
    mean = np.mean(largest_turned)
    return largest / float(mean) if mean > LOST * np.linalg.norm(inside, axis=1).prod(axis=1).max() else np.nan


def _sizes(blocks: Array) -> Array:
    """|det| of each block of (samples, k, k)."""
    if blocks.shape[-1] == 1:
        return np.abs(blocks[:, 0, 0])
    if blocks.shape[-1] == 2:  # five times faster than a decomposition
        return np.abs(blocks[:, 0, 0] * blocks[:, 1, 1] - blocks[:, 0, 1] * blocks[:, 1, 0])
    return np.abs(np.linalg.det(blocks))
