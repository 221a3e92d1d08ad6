"""The loops of :mod:`kagscope.minors.routes.triple_draws`, compiled: volumes of column triples, and sums over their rows."""

from __future__ import annotations

import numpy as np
from numba import njit

from kagscope.minors._numba import FRACTION, LN2, LOWEST_BIN, TWO_52, bits_of, float_of, fma, prefer_wide_vectors, split
from kagscope.minors.det2 import KERNEL

EIGHTHS = 8 / float(np.log(2.0))  # bins of log2 in a unit of the natural logarithm
FRACTIONS, ONE = np.uint64((1 << 52) - 1), np.uint64(0x3FF << 52)  # bits of a float64: its fraction, and 1.0
FLOOR = 1e-12  # least squared volume over squared lengths used in drawing, so that rounding hides no triple
OCTAVES = 128  # of volumes, the last one of all that are smaller
HASH = np.uint64(0x9E3779B97F4A7C15)  # by which numbers of pairs are mixed
UNLIKE = 2.0**20  # times the smallest of three vectors: if the largest is longer, they are brought to one size
ROUNDING = 2e-15  # minor over the product of the lengths of its rows that rounding alone produces


@njit(**KERNEL)
def _row(x, y, u, base, lengths, roots, squares, sizes):  # type: ignore[no-untyped-def]
    """Volumes of triples a, b, c for many c, their squares, and the squared products of the lengths.

    ``x``, ``y`` cosines of the columns c with a and b, ``u`` of a with b; ``base`` product of the lengths of these two.
    """
    prefer_wide_vectors()
    rest = 1.0 - u * u
    for c in range(x.size):
        over = y[c] - u * x[c]
        square = rest * (1.0 - x[c] * x[c]) - over * over
        square = square if square > 0.0 else 0.0
        size = base * lengths[c]
        sizes[c] = size * size
        squares[c] = size * size * square
        roots[c] = size * np.sqrt(square if square > FLOOR else FLOOR)


@njit(**KERNEL)
def times_logarithm(x, products):  # type: ignore[no-untyped-def]
    """x log2 x with a coarse (within 0.01), fast logarithm, sufficient for a control variate. x > 0 and normal."""
    prefer_wide_vectors()
    for c in range(x.size):
        bits = bits_of(x[c])
        f = float_of((bits & FRACTIONS) | ONE) - 1.0
        products[c] = x[c] * (float_of((bits >> FRACTION) | TWO_52) - (2.0**52 + 1023) + f * fma(-0.34, f, 1.34))


@njit(**KERNEL)
def _gather_cells(table, first, second, cells):  # type: ignore[no-untyped-def]
    """Cells of triples by the classes of their second and third pair; unsigned, so that indices are not checked."""
    kinds = np.uint64(table.shape[0])
    flat = table.reshape(table.size)
    for c in range(cells.size):
        cells[c] = flat[np.uint64(first[c]) * kinds + np.uint64(second[c])]


@njit(**KERNEL)
def _scatter(cells, roots, logs, squares, sizes, local):  # type: ignore[no-untyped-def]
    """Five sums by cell, in two alternating copies, since an addition waits for the previous one to the same address."""
    for c in range(cells.size):
        sums = local[c & 1, np.uint64(cells[c])]
        sums[0] += roots[c]
        sums[1] += logs[c]
        sums[2] += squares[c]
        sums[3] += squares[c] * squares[c]
        sums[4] += sizes[c]


@njit(**KERNEL, inline="always")
def _octave(volume, top):  # type: ignore[no-untyped-def]
    """Octave of a volume, counted down from that of 2^top."""
    return min(max(top + np.int64(1023) - np.int64(bits_of(volume) >> FRACTION), 0), OCTAVES - 1)


@njit(**KERNEL)
def sum_volumes(cosines, lengths, classes, table, a0, a1, top, octaves, volumes, sums):  # type: ignore[no-untyped-def]
    """Of each pair a < b, a in [a0, a1), sums over its triples a < b < c by cell, and those over all.

    ``cosines`` (n, n) of the columns and ``lengths`` (n,); ``classes`` (n, n) of pairs; ``table`` (D, D, D) cell of a triple by
    the classes of ab, ac, bc, the last that of triples in no selection; ``volumes`` (2 or 3, cells, pairs in lexicographic order)
    of volumes v, of v^4, and of what ``octaves`` (cells, octaves) has for the octave of v below 2^top, unless it is empty;
    ``sums`` (cells, 5) of v, :func:`times_logarithm` of v, v^2, v^4 and the squared product of the lengths.
    """
    n, cells = lengths.size, volumes.shape[1]
    buffers, places, local = np.empty((4, n)), np.empty(n, table.dtype), np.zeros((2, cells, 6))
    for a in range(a0, a1):
        pair = a * n - a * (a + 1) // 2
        for b in range(a + 1, n):
            if classes[a, b] > 0:
                roots, logs, squares, sizes = buffers[0, b + 1 :], buffers[1, b + 1 :], buffers[2, b + 1 :], buffers[3, b + 1 :]
                base = lengths[a] * lengths[b]
                _row(cosines[a, b + 1 :], cosines[b, b + 1 :], cosines[a, b], base, lengths[b + 1 :], roots, squares, sizes)
                times_logarithm(roots, logs)
                _gather_cells(table[classes[a, b]], classes[a, b + 1 :], classes[b, b + 1 :], places[b + 1 :])
                local[:] = 0.0
                _scatter(places[b + 1 :], roots, logs, squares, sizes, local)
                if octaves.size:
                    for c in range(roots.size):
                        own = np.uint64(places[b + 1 + c])
                        local[c & 1, own, 5] += octaves[own, np.uint64(_octave(roots[c], top))]
                for cell in range(cells):
                    volumes[0, cell, pair] = local[0, cell, 0] + local[1, cell, 0]
                    volumes[1, cell, pair] = local[0, cell, 3] + local[1, cell, 3]
                    if octaves.size:
                        volumes[2, cell, pair] = local[0, cell, 5] + local[1, cell, 5]
                    for power in range(5):
                        sums[cell, power] += local[0, cell, power] + local[1, cell, power]
            pair += 1


@njit(**KERNEL)
def count_octaves(cosines, lengths, classes, table, step, top, counts):  # type: ignore[no-untyped-def]
    """``counts`` (cells, octaves): triples by the octave of their volume below 2^top, about, from one pair in ``step``."""
    n = lengths.size
    buffers, places = np.empty((3, n)), np.empty(n, table.dtype)
    pair = np.uint64(0)
    for a in range(n):
        for b in range(a + 1, n):
            if classes[a, b] > 0 and ((pair * HASH) >> np.uint64(32)) % np.uint64(step) == 0:
                roots, squares, sizes = buffers[0, b + 1 :], buffers[1, b + 1 :], buffers[2, b + 1 :]
                base = lengths[a] * lengths[b]
                _row(cosines[a, b + 1 :], cosines[b, b + 1 :], cosines[a, b], base, lengths[b + 1 :], roots, squares, sizes)
                _gather_cells(table[classes[a, b]], classes[a, b + 1 :], classes[b, b + 1 :], places[b + 1 :])
                for c in range(roots.size):
                    counts[places[b + 1 + c], _octave(roots[c], top)] += step
            pair += np.uint64(1)


@njit(**KERNEL)
def accumulate(volumes, counts, shares):  # type: ignore[no-untyped-def]
    """Running totals over the pairs of each cell, in place of ``volumes[0]``: of p v + q v^4 + r count, as draw_thirds has it;
    and of ``volumes[2]``, if there is one.
    """
    for cell in range(volumes.shape[1]):
        total, p, q, r = 0.0, shares[0, cell], shares[1, cell], shares[2, cell]
        for pair in range(volumes.shape[2]):
            total += p * volumes[0, cell, pair] + q * volumes[1, cell, pair] + r * counts[cell, pair]
            if volumes.shape[0] > 2:
                total += volumes[2, cell, pair]
            volumes[0, cell, pair] = total


@njit(**KERNEL)
def count_triples(classes, table, counts):  # type: ignore[no-untyped-def]
    """``counts`` (cells, pairs): triples a < b < c of each pair a < b by cell."""
    n = classes.shape[0]
    places = np.empty(n, table.dtype)
    pair = 0
    for a in range(n):
        for b in range(a + 1, n):
            if classes[a, b] > 0:
                _gather_cells(table[classes[a, b]], classes[a, b + 1 :], classes[b, b + 1 :], places[b + 1 :])
                for c in range(b + 1, n):
                    counts[places[c], pair] += 1
            pair += 1


@njit(**KERNEL)
def draw_thirds(cosines, lengths, classes, table, first, second, cell, rest, shares, top, octaves, third, chance):  # type: ignore[no-untyped-def]
    """``third`` column of each draw and its ``chance``: where the running total over c passes ``rest``.

    A triple of volume v counts p v + q v^4 + r with p, q, r in ``shares`` (3, cells), and what ``octaves`` (cells, octaves) has
    for the octave of v below 2^top, unless it is empty.
    """
    n = lengths.size
    roots, squares, sizes, places = np.empty(n), np.empty(n), np.empty(n), np.empty(n, table.dtype)
    for d in range(first.size):
        a, b = first[d], second[d]
        base = lengths[a] * lengths[b]
        _row(cosines[a], cosines[b], cosines[a, b], base, lengths, roots, squares, sizes)
        _gather_cells(table[classes[a, b]], classes[a], classes[b], places)
        passed, wanted = 0.0, cell[d]
        for c in range(b + 1, n):
            if places[c] == wanted:
                weight = shares[0, wanted] * roots[c] + shares[1, wanted] * squares[c] * squares[c] + shares[2, wanted]
                if octaves.size:
                    weight += octaves[wanted, _octave(roots[c], top)]
                passed += weight
                third[d], chance[d, 0], chance[d, 1] = c, weight, roots[c]
                if passed > rest[d]:
                    break


@njit(**KERNEL, fastmath={"reassoc", "nnan", "nsz"})
def _minors(rows, scale, lengths, i, j, start, M, logs, slots, out):  # type: ignore[no-untyped-def]
    """Sums S1, S2, S4, entropy and top of ``scale`` times |minors| of rows i, j and every row from ``start`` on, into ``out``.

    ``M``, ``logs``, ``slots`` (m,) take the minors, their logarithms, and places in a histogram of kernels.
    """
    prefer_wide_vectors()
    x, y, z = rows[0], rows[1], rows[2]
    p = y[i] * z[j] - z[i] * y[j]
    q = z[i] * x[j] - x[i] * z[j]
    r = x[i] * y[j] - y[i] * x[j]
    least = ROUNDING * lengths[i] * lengths[j]
    for h in range(start, x.size):
        t = abs(p * x[h] + q * y[h] + r * z[h])
        M[h] = scale * t if t > least * lengths[h] else 0.0
    for h in range(start, x.size):
        e, f = split(M[h])
        logs[h] = fma(e, LN2, f)
        slot = np.int64(fma(8.0, e, np.floor(f * EIGHTHS)) - (LOWEST_BIN - 1))
        slots[h] = 0 if M[h] < 2.2250738585072014e-308 else slot
    s1 = s2 = s4 = entropy = 0.0
    top = np.uint64(0)
    for h in range(start, x.size):
        t = M[h]
        s1 += t
        s2 += t * t
        s4 += t * t * t * t
        entropy += t * logs[h]
        top = max(top, bits_of(t))  # of bits as integers: LLVM does not vectorise the maximum of floats
    out[0], out[1], out[2], out[3], out[4] = s1, s2, s4, entropy, float_of(top)


@njit(**KERNEL)
def _pick(sizes, skip, u):  # type: ignore[no-untyped-def]
    """An index drawn half in proportion to ``sizes``, half uniformly, never ``skip``; and 1 / its probability."""
    m = sizes.size
    total = 0.0
    for i in range(m):
        total += sizes[i]
    open_ = m if skip < 0 else m - 1
    if total <= 0:
        i = min(int(u * open_), open_ - 1)
        return (i + 1 if 0 <= skip <= i else i), float(open_)
    mean = total / open_
    target, passed, last = 2.0 * u * total, 0.0, -1
    for i in range(m):
        if i != skip:
            passed += sizes[i] + mean
            last = i
            if passed > target:
                break
    return last, 2.0 * total / (sizes[last] + mean)


@njit(**KERNEL, fastmath={"reassoc", "contract"})
def _fourth_powers(rows, terms, coefficients, work):  # type: ignore[no-untyped-def]
    """Sum of the fourth powers of all minors of three columns: of orthonormalised ones by the quartic form, times volume^4."""
    prefer_wide_vectors()
    m = rows.shape[1]
    volume = 1.0
    for a in range(3):
        for h in range(m):
            work[a, h] = rows[a, h]
        for _ in range(2):
            for b in range(a):
                dot = 0.0
                for h in range(m):
                    dot += work[a, h] * work[b, h]
                for h in range(m):
                    work[a, h] -= dot * work[b, h]
        square = 0.0
        for h in range(m):
            square += work[a, h] * work[a, h]
        if square <= 0:
            return 0.0
        volume *= np.sqrt(square)
        scale = 1.0 / np.sqrt(square)
        for h in range(m):
            work[a, h] *= scale
    T = np.zeros((3, 3, 3))
    for a in range(3):
        for b in range(3):
            for c in range(b, 3):
                x, y, z = work[a], work[b], work[c]
                total = 0.0
                for h in range(m):
                    total += x[h] * x[h] * y[h] * z[h]
                T[a, b, c] = T[a, c, b] = total
    total = 0.0
    for t in range(coefficients.size):
        value = coefficients[t]
        for f in range(3):
            value *= T[terms[t, f, 0], terms[t, f, 1], terms[t, f, 2]]
        total += value
    return max(total, 0.0) * volume**4


@njit(**KERNEL)
def _even_out(rows):  # type: ignore[no-untyped-def]
    """Bring three vectors of very unlike sizes to one, by powers of two; what minors are then to be multiplied by.

    Left so, all minors would look like rounding beside the largest vector's entries.
    """
    sizes, scale = np.zeros(3), 1.0
    for a in range(3):
        for h in range(rows.shape[1]):
            sizes[a] = max(sizes[a], abs(rows[a, h]))
    if sizes.min() * UNLIKE >= sizes.max() or sizes.min() == 0:
        return scale
    for a in range(3):
        factor = 2.0 ** np.floor(np.log2(sizes[a]))
        scale *= factor
        for h in range(rows.shape[1]):
            rows[a, h] /= factor
    return scale


@njit(**KERNEL)
def sum_rows(V, columns, weights, cells, u, whole, terms, coefficients, sums, hist):  # type: ignore[no-untyped-def]
    """Into ``sums`` (draws, 5) those of the minors of each drawn column triple: S1, S2, S4, entropy, top.

    ``V`` (n, m) the columns; ``whole``: over all row triples; else over rows i, j drawn half by volume, half uniformly, and
    every third row, with ``u`` (draws, times, 2) uniform numbers; S4 is exact even then. ``hist`` (cells, slots) or (0, 0)
    collects ``weights`` times the minors.
    """
    m, times = V.shape[1], u.shape[1]
    rows, lengths, sizes = np.empty((3, m)), np.empty(m), np.empty(m)
    M, logs, slots, out, work = np.empty(m), np.empty(m), np.empty(m, np.int64), np.empty(5), np.empty((3, m))
    counted = hist.shape[0] > 0
    for d in range(columns.shape[0]):
        for a in range(3):
            for h in range(m):
                rows[a, h] = V[columns[d, a], h]
        x, y, z = rows[0], rows[1], rows[2]
        scale = _even_out(rows)
        for h in range(m):
            lengths[h] = np.sqrt(x[h] * x[h] + y[h] * y[h] + z[h] * z[h])
        if whole:
            for i in range(m):
                for j in range(i + 1, m):
                    _minors(rows, scale, lengths, i, j, j + 1, M, logs, slots, out)
                    for row in range(4):
                        sums[d, row] += out[row]
                    sums[d, 4] = max(sums[d, 4], out[4])
                    if counted:
                        for h in range(j + 1, m):
                            hist[cells[d], slots[h]] += weights[d]
            continue
        for draw in range(times):
            i, weight = _pick(lengths, -1, (draw + u[d, draw, 0]) / times)
            for j in range(m):
                p = y[i] * z[j] - z[i] * y[j]
                q = z[i] * x[j] - x[i] * z[j]
                r = x[i] * y[j] - y[i] * x[j]
                sizes[j] = np.sqrt(p * p + q * q + r * r)
            j, more = _pick(sizes, i, u[d, draw, 1])
            weight *= more / (6 * times)
            _minors(rows, scale, lengths, i, j, 0, M, logs, slots, out)
            for row in (0, 1, 3):
                sums[d, row] += weight * out[row]
            sums[d, 4] = max(sums[d, 4], out[4])
            if counted:
                for h in range(m):
                    if h != i and h != j:
                        hist[cells[d], slots[h]] += weight * weights[d]
        sums[d, 2] = _fourth_powers(rows, terms, coefficients, work) * scale**4
