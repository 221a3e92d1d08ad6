"""Sums over the minors of diag(d) W for every d, from the moments of W by row subset (MATH.md 4.7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kagscope.minors.factored_kernels import pair_tops
from kagscope.minors.moments import SUMS
from kagscope.minors.routes.determinants import row_subsets
from kagscope.minors.threads import run_parts

FloatArray = NDArray[np.float64]


def _d_log_d(d: FloatArray) -> FloatArray:
    return d * np.log(np.where(d > 0, d, 1.0))


def entry_forms(table: FloatArray, d: FloatArray, wanted: frozenset[str]) -> dict[str, FloatArray]:
    """Sums (B,) for k = 1; ``table`` (5, m) by row, ``d`` (B, m) normalised and not negative."""
    sums = {"s1": d @ table[0], "s2": d**2 @ table[1], "s4": d**4 @ table[2]}
    if "entropy" in wanted:
        sums["entropy"] = d @ table[3] + _d_log_d(d) @ table[0]
    if "top" in wanted:
        sums["top"] = (d * table[4]).max(axis=1)
    return select_sums(sums, wanted)


def pair_forms(table: FloatArray, d: FloatArray, wanted: frozenset[str]) -> dict[str, FloatArray]:
    """Sums (B,) for k = 2; ``table`` (5, m (m - 1) / 2) by row pair, ``d`` (B, m) normalised and not negative."""
    m = d.shape[1]
    first, second = np.triu_indices(m, 1)

    def form(values: FloatArray, left: FloatArray, right: FloatArray) -> FloatArray:
        """1/2 sum_ij left_i values_ij right_j over the symmetric matrix of the row pairs."""
        matrix = np.zeros((m, m))
        matrix[first, second] = values
        matrix[second, first] = values
        return 0.5 * np.einsum("bi,bi->b", left @ matrix, right)

    sums = {}
    if wanted & {"s1", "entropy"}:
        sums["s1"] = form(table[0], d, d)
    if "s2" in wanted:
        sums["s2"] = form(table[1], d**2, d**2)
    if "s4" in wanted:
        sums["s4"] = form(table[2], d**4, d**4)
    if "entropy" in wanted:
        sums["entropy"] = form(table[3], d, d) + 2 * form(table[0], _d_log_d(d), d)
    if "top" in wanted:
        tops = np.zeros((m, m))
        tops[first, second] = tops[second, first] = table[4]
        sums["top"] = np.empty(len(d))
        rows = np.ascontiguousarray(d)
        step = 512
        run_parts(lambda part: pair_tops(tops, rows[part * step :][:step], sums["top"][part * step :][:step]), -(-len(d) // step))
    return select_sums(sums, wanted)


def triple_forms(table: FloatArray, d: FloatArray, wanted: frozenset[str]) -> dict[str, FloatArray]:
    """Sums (B,) for k = 3; ``table`` (5, C(m, 3)) by row triple, ``d`` (B, m) normalised and not negative."""
    triples = row_subsets(d.shape[1], 3)
    sums = {name: np.empty(len(d)) for name in SUMS if name in wanted or name == "s1"}
    step = max(1, 2**22 // max(len(triples), 1))
    for start in range(0, len(d), step):
        block = d[start : start + step]
        product = block[:, triples[:, 0]] * block[:, triples[:, 1]] * block[:, triples[:, 2]]
        rows = slice(start, start + step)
        sums["s1"][rows] = product @ table[0]
        if "s2" in wanted:
            sums["s2"][rows] = product**2 @ table[1]
        if "s4" in wanted:
            sums["s4"][rows] = product**4 @ table[2]
        if "entropy" in wanted:
            sums["entropy"][rows] = product @ table[3] + _d_log_d(product) @ table[0]
        if "top" in wanted:
            sums["top"][rows] = (product * table[4]).max(axis=1, initial=0.0)
    return select_sums(sums, wanted)


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
        sums = {"s1": w @ table[0], "s2": w**2 @ table[1], "s4": w**4 @ table[2], "top": (w * table[4]).max(initial=0.0)}
        sums["entropy"] = w @ table[3] + _d_log_d(w) @ table[0]
    sizes = powers[lost][products[lost] > 0] - 900 - k * shift
    if sizes.size and (int(sizes.max()) > -40 or not live.any()):
        sums = dict.fromkeys(sums, np.nan)
    finite = {name: np.atleast_1d(value if np.isfinite(value) else np.nan) for name, value in sums.items()}  # or beyond the range
    return select_sums(finite, wanted), shift


def select_sums(sums: dict[str, FloatArray], wanted: frozenset[str]) -> dict[str, FloatArray]:
    """The sums that were asked for; S1 stays beside the entropy, whose scale needs it."""
    return {name: sums[name] for name in SUMS if name in sums and (name in wanted or (name == "s1" and "entropy" in wanted))}
