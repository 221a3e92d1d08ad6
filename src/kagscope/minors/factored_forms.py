"""Sums over the minors of diag(d) W for every d, from the moments of W by row subset (MATH.md 4.7).

Factors d are NumPy arrays, or for k = 1 and 2 tensors on the device where thousands of d already lie; sums come back as arrays,
which :class:`kagscope.minors.moments.Moments` places again when they are read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagscope.minors._input import is_torch, to_device
from kagscope.minors.factored_kernels import pair_tops
from kagscope.minors.moments import SUMS
from kagscope.minors.routes.determinants import row_subsets
from kagscope.minors.scaling import on_host
from kagscope.minors.threads import run_parts

FloatArray = NDArray[np.float64]


def entry_forms(table: FloatArray, d: Any, wanted: frozenset[str]) -> dict[str, FloatArray]:
    """Sums (B,) for k = 1; ``table`` (5, m) by row, ``d`` (B, m) normalised and not negative."""
    return _select(_weighted_sums(to_device(table, d.device) if is_torch(d) else table, d, wanted), wanted)


def pair_forms(table: FloatArray, d: Any, wanted: frozenset[str]) -> dict[str, FloatArray]:
    """Sums (B,) for k = 2; ``table`` (5, m (m - 1) / 2) by row pair, ``d`` (B, m) normalised and not negative."""
    m = d.shape[1]
    first, second = np.triu_indices(m, 1)

    def symmetric(values: FloatArray) -> Any:
        matrix = np.zeros((m, m))
        matrix[first, second] = matrix[second, first] = values
        return to_device(matrix, d.device) if is_torch(d) else matrix

    def form(values: FloatArray, left: Any, right: Any) -> Any:
        """1/2 sum_ij left_i values_ij right_j over the symmetric matrix of the row pairs."""
        return 0.5 * ((left @ symmetric(values)) * right).sum(1)

    sums = {}
    if wanted & {"s1", "entropy"}:
        sums["s1"] = form(table[0], d, d)
    if "s2" in wanted:
        sums["s2"] = form(table[1], d**2, d**2)
    if "s4" in wanted:
        sums["s4"] = form(table[2], d**4, d**4)
    if "entropy" in wanted:
        sums["entropy"] = form(table[3], d, d) + 2 * form(table[0], _x_log_x(d), d)
    if "top" in wanted:
        sums["top"] = _largest_products(symmetric(table[4]), d)
    return _select(sums, wanted)


def triple_forms(table: FloatArray, d: FloatArray, wanted: frozenset[str]) -> dict[str, FloatArray]:
    """Sums (B,) for k = 3; ``table`` (5, C(m, 3)) by row triple, ``d`` (B, m) normalised and not negative."""
    i, j, h = row_subsets(d.shape[1], 3).T
    step = max(1, 2**22 // len(i))
    blocks = [d[start : start + step] for start in range(0, len(d), step)]
    parts = [_weighted_sums(table, block[:, i] * block[:, j] * block[:, h], wanted) for block in blocks]
    return _select({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, wanted)


def mixed_forms(
    table: FloatArray, lost: NDArray[np.intp], exponents: NDArray[np.int64], d: FloatArray, k: int, wanted: frozenset[str]
) -> tuple[dict[str, FloatArray], int]:
    """Sums (1,) for one d (m,) of scales so mixed that its products leave the range, and the power of two they were divided by.

    ``table`` (5, C(m, k)) is of rows over 2^exponents (m,): row set by row set, the largest product that counts brought near 1.
    NaN where row sets that have lost their digits in it, though their minors are no more than 2^-900 there, may show.
    """
    sets = row_subsets(len(d), k)
    fraction, power = np.frexp(d)
    products, powers = fraction[sets].prod(axis=1), (power.astype(np.int64) + exponents)[sets].sum(axis=1)
    live = (products > 0) & (table[0] > 0)
    sizes = powers[live] + np.frexp(products[live] * table[0, live])[1] if live.any() else np.zeros(1, dtype=np.int64)
    shift = int(-(-int(sizes.max()) // k))
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        w = np.where(live, np.ldexp(products, np.where(live, powers - k * shift, 0)), 0.0)
        sums = _weighted_sums(table, w[None], wanted)
    sizes = powers[lost][products[lost] > 0] - 900 - k * shift
    if sizes.size and (int(sizes.max()) > -40 or not live.any()):
        sums = dict.fromkeys(sums, np.full(1, np.nan))
    finite = {name: np.where(np.isfinite(value), value, np.nan) for name, value in sums.items()}  # or beyond the range
    return _select(finite, wanted), shift


def _weighted_sums(table: Any, w: Any, wanted: frozenset[str]) -> dict[str, Any]:
    """Sums (B,) over row sets whose minors are multiplied by ``w`` (B, sets), not negative; ``table`` (5, sets)."""
    sums = {"s1": w @ table[0]}
    if "s2" in wanted:
        sums["s2"] = w**2 @ table[1]
    if "s4" in wanted:
        sums["s4"] = w**4 @ table[2]
    if "entropy" in wanted:
        sums["entropy"] = w @ table[3] + _x_log_x(w) @ table[0]
    if "top" in wanted:
        sums["top"] = (w * table[4]).amax(1) if is_torch(w) else (w * table[4]).max(axis=1, initial=0.0)
    return sums


def _x_log_x(x: Any) -> Any:
    return x.xlogy(x) if is_torch(x) else x * np.log(np.where(x > 0, x, 1.0))


def _largest_products(tops: Any, d: Any) -> Any:
    """(B,) largest d_i d_j tops_ij; ``tops`` (m, m) symmetric, 0 on the diagonal."""
    if is_torch(d):
        best = d.new_zeros(d.shape)
        for i, row in enumerate(tops):
            best = best.maximum(d[:, i : i + 1] * row)
        return (best * d).amax(1)
    largest, rows, step = np.empty(len(d)), np.ascontiguousarray(d), 512
    run_parts(lambda part: pair_tops(tops, rows[part * step :][:step], largest[part * step :][:step]), -(-len(d) // step))
    return largest


def _select(sums: dict[str, Any], wanted: frozenset[str]) -> dict[str, FloatArray]:
    """The sums that were asked for; S1 stays beside the entropy, whose scale needs it."""
    kept = (name for name in SUMS if name in sums and (name in wanted or (name == "s1" and "entropy" in wanted)))
    return {name: on_host(sums[name]) for name in kept}
