"""The loops of :mod:`kagscope.minors.routes.volume_draws`, compiled: columns and rows drawn by their residual lengths."""

from __future__ import annotations

import numpy as np
from numba import njit

from kagscope.minors.det2 import KERNEL

UNIFORM = 0.1  # added to residual lengths, as a share of their mean: small volumes are sampled too, and weights stay bounded
LOST = 1e-15  # error of the residual of a row, over its length
FLOOR = 4 * float(np.finfo(np.float64).eps)  # residuals over lengths below this are rounding, and drawn uniformly


@njit(**KERNEL, fastmath={"reassoc", "contract"})
def _project_away(R, lengths, whole, open_, a):  # type: ignore[no-untyped-def]
    """Project vector a, of positive length, out of every open vector; twice, since the first coefficient has an error.

    ``lengths`` (n,) of the residuals, at least :data:`FLOOR` times the ``whole`` ones: rounding may leave 0 by chance.
    """
    q = R[a] / lengths[a]
    for b in range(R.shape[0]):
        if open_[b] and lengths[b] > 0:
            for _ in range(2):
                dot = 0.0
                for i in range(q.size):
                    dot += R[b, i] * q[i]
                for i in range(q.size):
                    R[b, i] -= dot * q[i]
            square = 0.0
            for i in range(q.size):
                square += R[b, i] * R[b, i]
            lengths[b] = max(np.sqrt(square), FLOOR * whole[b])


@njit(**KERNEL)
def _search(lengths, more, open_, target):  # type: ignore[no-untyped-def]
    """The open vector where the running total of lengths, each plus ``more``, passes the target."""
    passed, last = 0.0, -1
    for b in range(lengths.size):
        if open_[b] and lengths[b] > 0:
            last = b
            passed += lengths[b] + more
            if passed > target:
                break
    return last


@njit(**KERNEL)
def _total_weight(lengths, more, open_):  # type: ignore[no-untyped-def]
    """Total of the open vectors' lengths with the addition, and the addition to each: ``more`` times their mean."""
    total, count = 0.0, 0
    for b in range(lengths.size):
        if open_[b] and lengths[b] > 0:
            total += lengths[b]
            count += 1
    return total * (1 + more), more * total / max(count, 1)


@njit(**KERNEL)
def _close_dead_ends(allowed, open_, others):  # type: ignore[no-untyped-def]
    """Close vectors with fewer than ``others`` compatible open ones: they complete no set, but would waste draws."""
    for b in range(open_.size):
        beside = 0
        for c in range(open_.size if open_[b] else 0):
            if open_[c] and allowed[b, c]:
                beside += 1
                if beside == others:
                    break
        open_[b] &= beside >= others


@njit(**KERNEL)
def draw_sets(V, lengths, allowed, uniform, u, columns, weights):  # type: ignore[no-untyped-def]
    """Fill ``columns`` (units, fan, k) and ``weights`` (units, fan), 0 where no set was found.

    The sum over a unit of weight times f(set) estimates the sum of f over all sets, without bias: a weight is the chance of an
    order among those of its own set, over the chance of being drawn in it, over fan.
    ``V`` (n, d) vectors, ``lengths`` (n,) theirs; ``allowed`` (n, n), or (0, 0) where any two may be combined; ``uniform``:
    open columns are drawn uniformly instead of by residual; ``u`` (units, k) uniform numbers.
    """
    units, fan, k = columns.shape
    n = V.shape[0]
    R, sizes, open_, first = np.empty_like(V), np.empty((k, n)), np.empty(n, np.bool_), lengths > 0
    totals, more = np.empty(k), np.empty(k)
    if allowed.shape[0] > 0:
        _close_dead_ends(allowed, first, k - 1)
    for p in range(units):
        for b in range(n):
            sizes[0, b], open_[b] = lengths[b], first[b]
            for i in range(0 if uniform else V.shape[1]):
                R[b, i] = V[b, i]
        complete = True
        for step in range(k):
            size = sizes[step]
            totals[step], more[step] = _total_weight(size, 0.0 if uniform else UNIFORM, open_)
            if totals[step] <= 0:
                complete = False
                break
            if step == k - 1:
                for f in range(fan):
                    columns[p, f, step] = _search(size, more[step], open_, (u[p, step] + f) / fan * totals[step])
                break
            a = _search(size, more[step], open_, u[p, step] * totals[step])
            for f in range(fan):
                columns[p, f, step] = a
            open_[a] = False
            for b in range(n):
                sizes[step + 1, b] = size[b]
            if allowed.shape[0] > 0:
                for b in range(n):
                    open_[b] &= allowed[a, b]
                _close_dead_ends(allowed, open_, k - step - 2)
            if not uniform:
                _project_away(R, sizes[step + 1], lengths, open_, a)
        for f in range(fan):
            weights[p, f] = 1.0 / fan if complete else 0.0
            for step in range(k):
                if not complete:
                    columns[p, f, step] = step
                else:
                    probability = 0.0  # probability of this column coming next, over that among the set's own
                    for later in range(step, k):
                        if sizes[step, columns[p, f, later]] > 0:
                            probability += sizes[step, columns[p, f, later]] + more[step]
                    weights[p, f] *= totals[step] / probability


@njit(**KERNEL)
def _add(M, weight, seen, hist, edges):  # type: ignore[no-untyped-def]
    """Add one minor to the sums S1, S2, S4, entropy, top and the histogram."""
    if hist.size > 0:  # slot 0 is for zero, then the eighths of powers of two
        hist[np.searchsorted(edges, M, side="right")] += weight
    if M > 0:
        seen[0] += weight * M
        seen[1] += weight * M * M
        seen[2] += weight * M * M * M * M
        seen[3] += weight * M * np.log(M)
        seen[4] = max(seen[4], M)


@njit(**KERNEL)
def draw_rows(J, columns, uniform, u, edges, sums, hist):  # type: ignore[no-untyped-def]
    """Into ``sums`` (P, 6) and ``hist`` (P, slots or 0), estimates of the sums over row sets for each column set (P, k).

    k - 1 rows are drawn one after another by their residuals in the k columns (``uniform``: uniformly), with every row as the
    last: ``u`` (P, draws, k - 1) uniform numbers. Columns are first scaled to equal size, or residuals of rows would be dominated
    by rounding in the largest column. The last sum bounds the rounding error of S1.
    """
    P, draws, before = u.shape
    m, k = J.shape[0], before + 1
    A, R, length, open_ = np.empty((m, k)), np.empty((m, k)), np.empty(m), np.empty(m, np.bool_)
    size, chances, drawn, ones = np.empty(m), np.empty((before, m)), np.empty(before, np.int64), np.ones(m)
    totals, more = np.empty(before), np.empty(before)
    for p in range(P):
        scale = 1.0
        for j in range(k):
            largest = 0.0
            for i in range(m):
                largest = max(largest, abs(J[i, columns[p, j]]))
            size_of_column = 2.0 ** np.floor(np.log2(largest)) if largest > 0 else 1.0
            scale *= size_of_column
            for i in range(m):
                A[i, j] = J[i, columns[p, j]] / size_of_column
        for i in range(m):
            square = 0.0
            for j in range(k):
                square += A[i, j] * A[i, j]
            length[i] = np.sqrt(square)
        for draw in range(draws):
            for i in range(m):
                size[i], open_[i] = length[i], True
                for j in range(k):
                    R[i, j] = A[i, j]
            volume, slack = scale, 0.0
            for step in range(before):
                chances[step] = ones if uniform else size
                totals[step], more[step] = _total_weight(chances[step], 0.0 if uniform else UNIFORM, open_)
                if totals[step] <= 0:
                    volume = -1.0
                    break
                a = _search(chances[step], more[step], open_, u[p, draw, step] * totals[step])
                drawn[step] = a
                slack = slack * size[a] + (volume + slack) * LOST * length[a]
                volume *= size[a]
                open_[a] = False
                if size[a] > 0:
                    _project_away(R, size, length, open_, a)
                for i in range(m):
                    if size[i] <= 1e-14 * length[i]:  # only rounding is left
                        size[i] = 0.0
            for i in range(m):
                if open_[i] and volume >= 0:
                    weight = 1.0 / draws
                    for step in range(before):
                        probability = chances[step, i] + more[step] if chances[step, i] > 0 else 0.0
                        for later in range(step, before):
                            probability += chances[step, drawn[later]] + more[step] if chances[step, drawn[later]] > 0 else 0.0
                        weight *= totals[step] / probability
                    _add(volume * size[i], weight, sums[p], hist[p], edges)
                    sums[p, 5] += weight * (slack * size[i] + (volume + slack) * LOST * length[i])
