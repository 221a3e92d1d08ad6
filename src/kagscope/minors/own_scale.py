"""Selections whose minors lie so far below the largest of their matrix that sums leave the range: again, on their own scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagscope.minors.histograms import Bins
from kagscope.minors.moments import Moments
from kagscope.minors.plan import AUTO_SECONDS, RATES
from kagscope.minors.rank import rank_below
from kagscope.minors.routes.determinants import Determinants
from kagscope.minors.scaling import on_host
from kagscope.minors.task import EVERY_MOMENT, Matrices, Task

POWERS = ("s1", "s2", "s4", "top")
TINY = float(np.finfo(np.float64).tiny)
LEAST = 2.0**-900  # of a normalised sum: below, some of what it consists of has lost digits
BELOW = "the minors lie too far below the largest of the matrix to be told"


def mended(task: Task, found: Moments) -> Moments:
    """The moments of a task, found again where a sum is below :data:`LEAST`, or entries are cut, without every minor being zero.

    Minor by minor, on a scale of their own; where that would take too long these sums are NaN, their errors not known.
    """
    sums = [found.sums[name] for name in POWERS if name in found.sums]
    low = (
        np.any([np.abs(values) < LEAST for values in sums], axis=0) if sums and task.minors else np.zeros(len(found), dtype=bool)
    )
    low |= _cut(task.inside)
    inside = task.inside.given
    lost = np.array([one for one in np.flatnonzero(low) if not rank_below(on_host(inside[one]), task.k)], dtype=np.int64)
    if not lost.size:
        return found
    if task.count is None or task.minors * len(lost) > AUTO_SECONDS * RATES["determinants"]:
        new = {name: _placed(values, lost, np.nan) for name, values in found.sums.items()}
        drawn = {name: _placed(values, lost, np.nan) for name, values in found.replicates.items()}
        unknown = {name: _placed(found.are_unknown({name}), lost, True) for name in (*found.sums, *found.unknown)}
        plan = found.plan and replace(found.plan, notes=(*found.plan.notes, f"{BELOW} in {len(lost)} matrices: undefined"))
        return replace(found, sums=new, replicates=drawn, unknown=unknown, plan=plan)
    part = Determinants().on_own_scale(replace(task, matrices=Matrices(task.matrices.given[lost], task.k), wanted=EVERY_MOMENT))
    return replace(
        found,
        exponent=_placed(found.exponent, lost, part.exponent),
        sums={name: _placed(values, lost, part.sums[name]) for name, values in found.sums.items()},
        bins=None if found.bins is None or part.bins is None else _joined(found.bins, lost, part.bins),
        replicates={name: _placed(values, lost, part.sums[name][:, None]) for name, values in found.replicates.items()},
        unknown={name: _placed(flags, lost, False) for name, flags in found.unknown.items()},
    )


def _cut(matrices: Matrices) -> NDArray[np.bool_]:
    """(B,) where the scale of minors far below the products of entries takes digits from entries that such minors consist of."""
    if matrices.on_device or not matrices.far:
        return np.zeros(matrices.shape[0], dtype=bool)
    sizes = np.abs(matrices.normalised)
    return ((sizes < TINY) & (matrices.given != 0)).any(axis=(1, 2)) & (sizes.max(axis=(1, 2), initial=0.0) >= 1)


def _placed(values: NDArray[Any], where: NDArray[np.int64], new: Any) -> NDArray[Any]:
    values = values.copy()
    values[where] = new
    return values


def _joined(bins: Bins, where: NDArray[np.int64], new: Bins) -> Bins:
    """``bins`` with those of some matrices in place of theirs."""
    width = max(bins.counts.shape[1], new.counts.shape[1])
    own, other = (np.pad(one.counts, ((0, 0), (0, width - one.counts.shape[1]))) for one in (bins, new))
    counts, first, zeros = (
        _placed(a.astype(np.result_type(a, b)), where, b)
        for a, b in ((own, other), (bins.first, new.first), (bins.zeros, new.zeros))
    )
    if bins.replicates is None:
        return Bins(first, counts, zeros)
    whole = np.concatenate([other, new.zeros[:, None]], axis=1)[:, None]
    drawn = np.pad(bins.replicates[:, :, :-1], ((0, 0), (0, 0), (0, width - bins.counts.shape[1])))
    return Bins(first, counts, zeros, _placed(np.concatenate([drawn, bins.replicates[:, :, -1:]], axis=2), where, whole))
