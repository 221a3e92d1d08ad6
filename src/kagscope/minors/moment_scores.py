"""Scores of MATH.md section 3 that are functions of moments: one short function each.

They return a float for one matrix and a (B,) array for a batch (a tensor on its device if that is CUDA); NaN where S1 = 0,
where they are undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from math import gcd, log, log2
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from kagscope.base.errors import InputError, UndefinedScore
from kagscope.base.reasons import ALL_ZERO
from kagscope.minors._input import Values, check_positive
from kagscope.minors.plan import Estimate
from kagscope.minors.replicates import ROUNDING, dominated_by_few, jackknife_error
from kagscope.minors.threads import one_blas_thread
from kagscope.registry import Function, Score, all_scores, register

if TYPE_CHECKING:
    from kagscope.minors.moments import Moments

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
LN2 = float(np.log(2.0))
WITHIN = 1e-290, 1e290  # within this range S1 in its own units, and its means, keep their digits
SPREAD = 7.0  # bins: width of the kernel that smooths histograms for kl_init, 7 / 8 of an octave
_places = np.arange(-4 * int(SPREAD), 4 * int(SPREAD) + 1) / SPREAD
BELL = np.exp(-0.5 * _places**2) / np.exp(-0.5 * _places**2).sum()
BLOCK = 64  # bins smoothed at once, from twice as many: the kernel is no wider
BELLS = np.stack([np.roll(np.pad(BELL, (0, 2 * BLOCK - len(BELL))), shift_by) for shift_by in range(BLOCK)], axis=1)


def _score(name: str, label: str, moments: tuple[str, ...], source: str, **facts: Any) -> Callable[[Function], Function]:
    """:func:`register` a function of these moments alone, of any order, undefined where every minor is zero."""
    return register(name, label, ("moments",), moments=moments, source=source, orders=None, undefined=ALL_ZERO, **facts)


@_score("pr", "participation ratio (PR)", ("s1", "s2"), "arXiv 2511.21626 and its code; MATH.md 3", symbol="PR")
def participation_ratio(moments: Moments) -> Values:
    """sqrt(S2) / S1, in [1/sqrt(N), 1]: higher is more concentrated (arXiv 2511.21626 and the authors' code)."""
    s1, s2 = moments.normalised("s1"), moments.normalised("s2")
    return moments.out(quotient(np.sqrt(s2), s1))


@_score("pr_normalized", "normalised PR", ("s1", "s2"), "arXiv 2509.12326; MATH.md 3", fraction=True)
def pr_normalized(moments: Moments) -> Values:
    """S1^2 / (N S2), in [1/N, 1]: 1 is uniform (arXiv 2509.12326; the physics convention)."""
    s1, s2 = moments.normalised("s1"), moments.normalised("s2")
    shift = max(moments.count.bit_length() - 1000, 0)  # beyond the range of floats
    return moments.out(quotient(np.ldexp(s1 / max(moments.count >> shift, 1), -shift) * s1, s2))


@_score("effective_minors", "effective number of minors", ("s1", "s2"), "MATH.md 3")
def effective_minors(moments: Moments) -> Values:
    """S1^2 / S2: how many minors carry the mass."""
    s1, s2 = moments.normalised("s1"), moments.normalised("s2")
    return moments.out(quotient(s1**2, s2))


@_score("ipr", "inverse participation ratio", ("s2", "s4"), "standard; MATH.md 3")
def ipr(moments: Moments) -> Values:
    """S2^2 / S4: participation with probabilities M^2 / S2."""
    s2, s4 = moments.normalised("s2"), moments.normalised("s4")
    return moments.out(quotient(s2**2, s4))


@_score("kl_uniform", "KL from uniform", ("s1", "entropy"), "code of arXiv 2511.21626; MATH.md 3", symbol="KL")
def kl_uniform(moments: Moments) -> Values:
    """ln N + E / S1 - ln S1: divergence of p = M / S1 from uniform, 0 where all minors are equal (arXiv 2511.21626 code)."""
    s1, entropy = moments.normalised("s1"), moments.normalised("entropy")
    safe = np.where(s1 > 0, s1, 1.0)
    value = log(max(moments.count, 1)) + entropy / safe - np.log(safe)
    return moments.out(np.where(s1 > 0, value, np.nan))


@_score(
    "near_zero",
    "near-zero minors",
    ("s1", "histogram"),
    "arXiv 2410.08451; MATH.md 3",
    error=lambda moments: near_zero_error(moments),
    fraction=True,
)
def near_zero(moments: Moments, eps: float = 2.0**-10) -> Values:
    """Fraction of minors with M <= eps * mean M, exact zeros included (arXiv 2410.08451: the spike at zero).

    Read from the histogram, log-linear within the bin that the threshold cuts; :func:`near_zero_error` is that bin's share.
    """
    return moments.out(_near_zero(moments, eps)[0])


def near_zero_error(moments: Moments, eps: float = 2.0**-10) -> Values:
    """Error of :func:`near_zero`: the share of the minors in the bin that the threshold cuts, with the error of sampling.

    NaN where no draw met such a minor, or all draws the same share of them (exact zeros, say): that does not prove that there
    are no others.
    """
    (value, share), needs = _near_zero(moments, eps), ("s1", "histogram")
    drawn = jackknife(lambda left: _near_zero(left, eps)[0], needs, moments)
    known = drawn > ROUNDING * value
    return moments.out(np.hypot(share, drawn if moments.are_exact(needs) else np.where(known, drawn, np.nan)))


@_score("top", "largest minor", ("top",), "MATH.md 2")
def top(moments: Moments) -> Values:
    """max M, the largest absolute minor."""
    return moments.top


@register(
    "rr_pr",
    "rotation ratio of PR",
    ("moments", "haar_s1"),
    moments=("s1",),
    orders=None,
    undefined=ALL_ZERO,
    source="ours, closed form; MATH.md 4.5",
    error=lambda moments, haar_s1: rotation_ratio_error(moments, haar_s1),
)
def rotation_ratio_of_pr(moments: Moments, haar_s1: Estimate) -> FloatArray:
    """E_Q[S1(QJ)] / S1(J), Q uniform on O(m): above 1 where J is axis-aligned; NaN where S1 itself leaves the range."""
    s1 = np.atleast_1d(np.asarray(moments.s1))
    return np.asarray(haar_s1.value) / np.where((s1 > WITHIN[0]) & (s1 < WITHIN[1]), s1, np.nan)


def rotation_ratio_error(moments: Moments, haar_s1: Estimate) -> FloatArray:
    """Standard error of :func:`rotation_ratio_of_pr`, from those of S1 and of the Haar mean where they were sampled."""
    s1, error = (np.atleast_1d(np.asarray(values)) for values in (moments.s1, moments.stderr["s1"]))
    of_s1 = np.where(error == 0, 0.0, rotation_ratio_of_pr(moments, haar_s1) * error)
    return np.asarray(np.hypot(np.asarray(haar_s1.stderr), of_s1) / np.where((s1 > WITHIN[0]) & (s1 < WITHIN[1]), s1, np.inf))


def _near_zero(moments: Moments, eps: float) -> tuple[FloatArray, FloatArray]:
    check_positive("eps", eps, "minors up to eps times their mean count as near zero")
    bins = _bins(moments)
    position = np.log2(eps) * 8 + mean_position(moments) - bins.first  # in bins from the first one
    defined, rows, width = np.isfinite(position), np.arange(len(moments)), bins.counts.shape[1]
    whole = np.floor(np.clip(np.where(defined, position, -1), -1, width)).astype(np.int64)
    totals = np.zeros((len(moments), width + 2))
    np.cumsum(bins.counts, axis=1, out=totals[:, 1:-1])
    totals[:, -1] = totals[:, -2]
    below = totals[rows, np.maximum(whole, 0)]
    cut = np.where(whole >= 0, totals[rows, whole + 1] - below, 0.0)
    count = max(moments.count, 1)
    value = (below + bins.zeros + cut * np.where(cut > 0, position - whole, 0.0)) / count
    return np.where(defined, value, np.nan), np.where(defined, cut / count, np.nan)


@register(
    "kl_init",
    "KL from initial shape",
    ("moments", "initial_moments"),
    moments=("s1", "histogram"),
    orders=None,
    undefined=ALL_ZERO,
    source="wording of arXiv 2511.21626; MATH.md 3 and 4.6",
    error=lambda moments, initial: kl_init_error(moments, initial),
)
def kl_init(moments: Moments, initial: Moments) -> Values:
    """KL divergence of the distribution of log2(M / mean M) from the initial one, in nats (MATH.md 3 and 4.6).

    Bins of 1/8; each count is split between the two bins that it falls in after division by the mean, and smoothed over 7/8 of
    an octave, so that where minors take few values their positions within bins matter little; exact zeros have a bin of their
    own; 1/2 is added to each count. Zero for identical moments; within 0.02 of zero when one matrix is rescaled.

    Args:
        moments: of the trained network's Jacobians, with ``s1`` and ``histogram`` (``moments="all"``).
        initial: the same for as many Jacobians of the network at initialisation.

    Returns:
        float, or (B,) array for a batch; NaN where every minor of either side is zero.

    Raises:
        InputError: the two differ in the number of matrices or minors, in order or in selection.
        UndefinedScore: moments without ``s1`` or ``histogram``.
    """
    if (mismatch := find_mismatch(moments, initial)) is not None:
        raise InputError(f"kl_init of {mismatch[0]} against {mismatch[1]}; give moments of the same minors")
    left, right = _centre(moments), _centre(initial)
    first = np.minimum(left.first, right.first)
    width = np.maximum(left.first + left.width, right.first + right.width) - first
    p, q = (_smooth(side, first, width) for side in (left, right))
    terms = p * np.log(np.divide(p, q, out=np.ones_like(p), where=q > 0))
    return moments.out(np.where(left.defined & right.defined, terms.sum(axis=1), np.nan))


def find_mismatch(*both: Moments) -> tuple[str, str] | None:
    """The first property, in words, that forbids comparing two moments because it differs; None if nothing does."""
    facts = [(len(m), m.k, m.plan and m.plan.selection, m.count) for m in both]
    if None in (facts[0][2], facts[1][2]):  # the selection of a sum of moments is unknown
        facts = [(matrices, k, "", count) for matrices, k, _, count in facts]
    names = ("{} matrices", "minors of order {}", "minors over {}", "{} minors")
    mismatches = ((what.format(a), what.format(b)) for what, a, b in zip(names, *facts, strict=True) if a != b)
    return next(mismatches, None)


def kl_init_error(moments: Moments, initial: Moments) -> Values:
    """Standard error of :func:`kl_init` where either side was sampled, else 0; errors of shared draws cancel."""
    return moments.out(jackknife(kl_init, ("s1", "histogram"), moments, initial))


def jackknife(function: Callable[..., Any], needs: Collection[str], *moments: Moments) -> FloatArray:
    """(B,) jackknife standard error of a score of several moments: one group of replicates is left out of all in turn.

    NaN where the error of a moment in ``needs`` is unknown, or few groups dominate that of the score.
    """
    if all(m.are_exact(needs) for m in moments):
        return np.zeros(len(moments[0]))
    unknown = np.any([m.are_unknown(needs) for m in moments], axis=0)
    if unknown.all():
        return np.full(len(moments[0]), np.nan)
    groups = gcd(*(m.groups(needs) for m in moments))
    values = np.asarray(function(*(m.leave_one_out(needs, groups) for m in moments))).reshape(-1, groups)
    error = np.hypot(jackknife_error(values.T), _error_of_count(function, moments))
    return np.where(unknown | dominated_by_few(values), np.nan, error)


def _error_of_count(function: Callable[..., Any], moments: Sequence[Moments]) -> FloatArray | float:
    """(B,) standard error of a score of several moments where the number of minors, the same for all, is itself an estimate."""
    relative = [m.count_error for m in moments]
    if not any(relative):
        return 0.0
    step = max(np.nan_to_num(relative, nan=0.01))
    low, high = (
        np.asarray(function(*(replace(m, count=round(m.count * (1 + change)), batched=True, device=None) for m in moments)))
        for change in (-step, step)
    )
    error = np.abs(high - low) / 2
    return np.where(np.isnan(relative).any() & (error > 0), np.nan, error)


class _CentredHistogram(NamedTuple):
    """Histograms of a batch over log2(M / mean M), each with its own first bin and width; undefined where S1 = 0.

    Attributes:
        first, width: (B,) first bin in use, and number of bins.
        counts: (B, W) from the first bin on.
        zeros: (B,) exact zeros.
        defined: (B,) whether S1 > 0.
    """

    first: IntArray
    width: IntArray
    counts: FloatArray
    zeros: FloatArray
    defined: NDArray[np.bool_]


def _centre(moments: Moments) -> _CentredHistogram:
    bins, mean = _bins(moments), mean_position(moments)
    padded = np.pad(bins.counts, ((0, 0), (0, 1))).astype(np.float64)
    used, last = padded != 0, padded.shape[1] - 1
    defined = np.isfinite(mean) & used.any(axis=1)
    begin = np.where(defined, used.argmax(axis=1), 0)
    width = np.where(defined, last + 2 - used[:, ::-1].argmax(axis=1) - begin, 0)
    shift = np.where(defined, bins.first + begin - mean, 0.0)
    whole = np.floor(shift).astype(np.int64)
    shift_by = begin[:, None] + np.arange(int(width.max(initial=0)))
    counts_in_use = np.take_along_axis(padded, np.minimum(shift_by, last), axis=1) * defined[:, None]
    share = (shift - whole)[:, None]
    counts = counts_in_use * (1 - share)
    counts[:, 1:] += counts_in_use[:, :-1] * share
    return _CentredHistogram(whole, width, counts, np.asarray(bins.zeros, dtype=np.float64), defined)


def _smooth(histogram: _CentredHistogram, first: IntArray, width: IntArray) -> FloatArray:
    """(B, W) smoothed shares of ``width`` bins from ``first`` on, zeros last, with 1/2 added to each count."""
    most, wide, bell = int(width.max(initial=0)), histogram.counts.shape[1], len(BELL)
    blocks = -(-(most + bell) // BLOCK)
    padded = np.zeros((len(first), max(BLOCK * (blocks + 1), most + wide + bell)))
    positions = np.arange(wide) + np.where(histogram.defined, histogram.first - first, 0)[:, None] + bell - 1
    np.put_along_axis(padded, positions, histogram.counts, axis=1)
    windows = sliding_window_view(padded, 2 * BLOCK, axis=1)[:, : BLOCK * blocks : BLOCK]
    with one_blas_thread():
        spread = (windows.reshape(-1, 2 * BLOCK) @ BELLS).reshape(len(first), -1)[:, : most + bell]
    spread += 0.5
    spread *= np.arange(most + bell) < (width + bell - 1)[:, None]
    spread[:, -1] = histogram.zeros + 0.5
    return np.asarray(spread / spread.sum(axis=1, keepdims=True))


def of_moments() -> list[Score]:
    """The registered scores that are functions of moments alone."""
    return [score for score in all_scores() if score.takes == ("moments",)]


def _bins(moments: Moments) -> Any:
    if moments.bins is None:
        raise UndefinedScore('this score reads the histogram, which was not computed; ask for it with moments="all"')
    return moments.bins


def mean_position(moments: Moments) -> FloatArray:
    """(B,) 8 log2(mean M), the position of the mean in bins; NaN where S1 = 0."""
    s1 = moments.normalised("s1")
    with np.errstate(divide="ignore", invalid="ignore"):
        position = 8 * (np.log2(s1) - log2(max(moments.count, 1)) + moments.k * moments.exponent)
    return np.where(s1 > 0, position, np.nan)


def quotient(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """numerator / denominator, NaN where the denominator is 0."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1.0), np.nan)
