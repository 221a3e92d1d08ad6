"""Recompute moments of selections whose minors are so far below the matrix's largest that sums underflow."""

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
LEAST = 2.0**-900  # normalised sum below which some of its terms have lost digits
BELOW = "the minors lie too far below the largest of the matrix to be told"


def recompute_lost(task: Task, moments: Moments) -> Moments:
    """Recompute the moments where a sum is below :data:`LEAST`, or entries are cut, without every minor being zero.

    Minors are enumerated with their own scale; if that would take too long, these sums are NaN with unknown errors.
    """
    sums = [moments.sums[name] for name in POWERS if name in moments.sums]
    low = (
        np.any([np.abs(values) < LEAST for values in sums], axis=0)
        if sums and task.minors
        else np.zeros(len(moments), dtype=bool)
    )
    low |= _has_cut_entries(task.inside)
    inside = task.inside.given
    lost = np.array([index for index in np.flatnonzero(low) if not rank_below(on_host(inside[index]), task.k)], dtype=np.int64)
    if not lost.size:
        return moments
    if task.count is None or task.minors * len(lost) > AUTO_SECONDS * RATES["determinants"]:
        new = {name: _set_at(values, lost, np.nan) for name, values in moments.sums.items()}
        drawn = {name: _set_at(values, lost, np.nan) for name, values in moments.replicates.items()}
        unknown = {name: _set_at(moments.are_unknown({name}), lost, True) for name in (*moments.sums, *moments.unknown)}
        plan = moments.plan and replace(moments.plan, notes=(*moments.plan.notes, f"{BELOW} in {len(lost)} matrices: undefined"))
        return replace(moments, sums=new, replicates=drawn, unknown=unknown, plan=plan)
    redone = Determinants().run_rescaled(replace(task, matrices=Matrices(task.matrices.given[lost], task.k), wanted=EVERY_MOMENT))
    return replace(
        moments,
        exponent=_set_at(moments.exponent, lost, redone.exponent),
        sums={name: _set_at(values, lost, redone.sums[name]) for name, values in moments.sums.items()},
        bins=None if moments.bins is None or redone.bins is None else _replace_bins(moments.bins, lost, redone.bins),
        replicates={name: _set_at(values, lost, redone.sums[name][:, None]) for name, values in moments.replicates.items()},
        unknown={name: _set_at(flags, lost, False) for name, flags in moments.unknown.items()},
    )


def _has_cut_entries(matrices: Matrices) -> NDArray[np.bool_]:
    """(B,) whether normalising by minors far below the products of entries cuts digits of entries in these minors."""
    if matrices.on_device or not matrices.far:
        return np.zeros(matrices.shape[0], dtype=bool)
    sizes = np.abs(matrices.normalised)
    return ((sizes < TINY) & (matrices.given != 0)).any(axis=(1, 2)) & (sizes.max(axis=(1, 2), initial=0.0) >= 1)


def _set_at(values: NDArray[Any], index: NDArray[np.int64], new: Any) -> NDArray[Any]:
    values = values.copy()
    values[index] = new
    return values


def _replace_bins(bins: Bins, index: NDArray[np.int64], new: Bins) -> Bins:
    """Replace the bins of some matrices."""
    width = max(bins.counts.shape[1], new.counts.shape[1])
    current, other = (np.pad(b.counts, ((0, 0), (0, width - b.counts.shape[1]))) for b in (bins, new))
    counts, first, zeros = (
        _set_at(a.astype(np.result_type(a, b)), index, b)
        for a, b in ((current, other), (bins.first, new.first), (bins.zeros, new.zeros))
    )
    if bins.replicates is None:
        return Bins(first, counts, zeros)
    whole = np.concatenate([other, new.zeros[:, None]], axis=1)[:, None]
    drawn = np.pad(bins.replicates[:, :, :-1], ((0, 0), (0, 0), (0, width - bins.counts.shape[1])))
    return Bins(first, counts, zeros, _set_at(np.concatenate([drawn, bins.replicates[:, :, -1:]], axis=2), index, whole))
