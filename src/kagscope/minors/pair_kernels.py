"""The loops of :mod:`kagscope.minors.pair_draws`, compiled: sizes of all column pairs, visits to drawn ones."""

from __future__ import annotations

import numba as nb
import numpy as np

from kagscope.minors._numba import FRACTION, LN2, LOWEST_BIN, TWO_52, bits_of, float_of, fma, prefer_wide_vectors, split
from kagscope.minors.area_kernels import spanned_area
from kagscope.minors.det2 import KERNEL

CANCELS = 1e-4  # a difference below this share of its terms has lost four of its sixteen digits
EPSILON = 4e-16
LEAST_SHARE = 1e-12  # least share of S4 in S2^2 that is distinguished
LEAST = 1e-250  # squares of smaller numbers may underflow
UNIFORM = 0.2  # share of uniform draws: small minors are sampled, and weights stay bounded
OCTAVES = 16  # octaves of q distinguished below its largest: minors below 2^-10 of the mean count as near zero
FEW = 2  # times the draws: up to so many pairs are all taken, since draws with one value only cannot show others
BLOCK = 512  # pairs whose terms are gathered at a time
TOGETHER = 1024  # minors whose logarithms are taken at a time
ONE = np.uint64(1)


@nb.njit(**KERNEL)
def _gather(matrix, diagonal, pairs, first, second, both):  # type: ignore[no-untyped-def]
    """Entries of a flat (n * n) ``matrix`` at column pairs, and of its diagonal at the columns; unsigned, so none is checked."""
    n = np.uint64(diagonal.size)
    for p in range(both.size):
        a, b = np.uint64(pairs[p, 0]), np.uint64(pairs[p, 1])
        first[p], second[p], both[p] = diagonal[a], diagonal[b], matrix[a * n + b]


@nb.njit(**KERNEL)
def _gather_crosswise(matrix, n, pairs, left, right):  # type: ignore[no-untyped-def]
    """Entries of a flat (n * n) ``matrix`` at column pairs a, b and at b, a."""
    for p in range(left.size):
        a, b = np.uint64(pairs[p, 0]), np.uint64(pairs[p, 1])
        left[p], right[p] = matrix[a * n + b], matrix[b * n + a]


@nb.njit(**KERNEL)
def _squares(first, second, products, q, logs, hard):  # type: ignore[no-untyped-def]
    """q = sqrt(S2) and q ln q, and where S2 cancels or leaves the range, from squared lengths and inner products."""
    prefer_wide_vectors()
    for p in range(q.size):
        whole = first[p] * second[p]
        s2 = whole - products[p] * products[p]
        hard[p] = not (s2 >= CANCELS * whole) or not (whole > LEAST) or s2 == np.inf
        root = np.sqrt(s2 if s2 > 0 else 0.0)
        e, rest = split(root)
        q[p] = root
        logs[p] = root * fma(e, LN2, rest)


@nb.njit(**KERNEL)
def _quartics(first, second, squares, left, right, s4, rounding):  # type: ignore[no-untyped-def]
    """S4 and a bound on its rounding error, from sums of products of fourth powers."""
    prefer_wide_vectors()
    for p in range(s4.size):
        mixed = 4 * left[p] * right[p]
        whole = first[p] * second[p] + 3 * squares[p] * squares[p]
        s4[p] = whole - mixed if whole > mixed else 0.0
        rounding[p] = EPSILON * (whole + abs(mixed))


@nb.njit(**KERNEL)
def _shapes(q, s4, shapes):  # type: ignore[no-untyped-def]
    """q ln(S4 / S2^2), clipped: concentration of S2 (1 / N where N minors are equal, up to 1), correlated with S1 / q."""
    prefer_wide_vectors()
    for p in range(q.size):
        square = q[p] * q[p]
        share = s4[p] / (square * square)
        share = min(share, 1.0) if share > LEAST_SHARE else LEAST_SHARE
        e, rest = split(share)
        shapes[p] = q[p] * fma(e, LN2, rest)


@nb.njit(**KERNEL)
def pair_sizes(gram, p22, p31, diagonal, quartic, pairs, q, logs, shapes, s4, rounding, hard):  # type: ignore[no-untyped-def]
    """For column pairs (P, 2), q = sqrt(S2), q ln q into ``logs``, and S4, by (power) Grams (MATH.md 4.1, 4.2).

    ``gram``, ``p22``, ``p31`` flat (n * n), with the diagonals of the first two; (0,) for no S4, which ``shapes`` goes with
    (:func:`_shapes`). ``rounding`` (P,): a bound on the rounding of S4. ``hard`` (P,): where the difference for S2 cancels, or
    leaves the range. Each step is a separate loop over few arrays: LLVM does not vectorise a loop over many, since any two of
    them might overlap.
    """
    buffers = np.empty((5, BLOCK))
    for start in range(0, len(pairs), BLOCK):
        end = min(start + BLOCK, len(pairs))
        block, count = pairs[start:end], end - start
        first, second, both = buffers[0, :count], buffers[1, :count], buffers[2, :count]
        _gather(gram, diagonal, block, first, second, both)
        _squares(first, second, both, q[start:end], logs[start:end], hard[start:end])
        if p22.size > 0:
            left, right = buffers[3, :count], buffers[4, :count]
            _gather(p22, quartic, block, first, second, both)
            _gather_crosswise(p31, np.uint64(diagonal.size), block, left, right)
            _quartics(first, second, both, left, right, s4[start:end], rounding[start:end])
            _shapes(q[start:end], s4[start:end], shapes[start:end])


@nb.njit(**KERNEL)
def draw_probabilities(q, times, surely, chance, state):  # type: ignore[no-untyped-def]
    """Write the probability of each pair of size ``q`` (P,) in one draw into ``chance``; return how many are nonzero.

    Most of it is proportional to q; of :data:`UNIFORM` one half is uniform over pairs, one half over nonempty octaves of q below
    the largest, and within each over its pairs. ``surely``: pairs that ``times`` draws would include at least once are taken with
    certainty, and the rest redistributed. ``state`` (P,): 0 without a nonzero minor, 1 drawn at random, 2 certain.
    """
    exponents, counts, shares = np.empty(q.size, np.int16), np.empty(2048, np.int64), np.empty(OCTAVES + 1)
    for p in range(q.size):
        exponents[p] = np.int16(bits_of(q[p]) >> FRACTION)
        state[p] = 1 if q[p] > 0 else 0
    while True:
        counts[:] = 0
        left, total = 0, 0.0
        for p in range(q.size):
            if state[p] == 1:
                left += 1
                total += q[p]
                counts[exponents[p]] += 1
        if not left:
            return 0
        top = 2047
        while counts[top] == 0:
            top -= 1
        shares[:] = 0.0
        for exponent in range(top + 1):
            shares[min(top - exponent, OCTAVES)] += counts[exponent]
        octaves = 0
        for octave in range(OCTAVES + 1):
            octaves += shares[octave] > 0
        for octave in range(OCTAVES + 1):
            if shares[octave] > 0:
                shares[octave] = UNIFORM / 2 * (1.0 / left + 1.0 / (octaves * shares[octave]))
        certain, few, by_size = 0, left <= FEW * times, (1 - UNIFORM) / total
        for p in range(q.size):
            if state[p] == 1:
                chance[p] = by_size * q[p] + shares[min(top - exponents[p], OCTAVES)]
                if surely and (few or chance[p] * times >= 1):
                    state[p] = 2
                    certain += 1
        if not certain:
            return left


@nb.njit(**KERNEL)
def parallel_sizes(VT, pairs, known):  # type: ignore[no-untyped-def]
    """As :func:`pair_sizes`, where Grams cancel; q is exactly 0 where every minor is; ``VT`` (n, m) is the transpose."""
    z = np.empty(VT.shape[1])
    for p in range(len(pairs)):
        q = spanned_area(VT[pairs[p, 0]], VT[pairs[p, 1]], z)
        known[0, p] = q
        known[1, p] = q * np.log(q) if q > 0 else 0.0


@nb.njit(**KERNEL, fastmath={"reassoc", "nnan", "nsz"})
def _add(minors, weights, logs, slots, sums):  # type: ignore[no-untyped-def]
    """Add S1, S4, entropy of |minors| times their weights, none for 1, into ``sums``, and their largest and their least but 0.

    ``logs`` and, for a histogram, ``slots`` (else empty) have the same length. Reductions are of bits as integers, which sort
    like positive floats: LLVM does not vectorise the maximum of floats.
    """
    prefer_wide_vectors()
    if slots.size:
        for j in range(minors.size):
            e, p = split(minors[j])
            logs[j] = fma(e, LN2, p)
            slot = np.int64(bits_of(fma(8.0, e, np.floor(p * (8 / LN2))) - (LOWEST_BIN - 1) + 2.0**52) - TWO_52)
            slots[j] = 0 if minors[j] < 2.2250738585072014e-308 else slot
    else:
        for j in range(minors.size):
            e, p = split(minors[j])
            logs[j] = fma(e, LN2, p)
    s1 = s4 = entropy = 0.0
    top, least = np.uint64(0), ~np.uint64(0)
    if weights.size:
        for j in range(minors.size):
            t, tw = minors[j], minors[j] * weights[j]
            s1 += tw
            s4 += tw * t * t * t
            entropy += tw * logs[j]
            top, least = max(top, bits_of(t)), min(least, bits_of(t) - ONE)
    else:
        for j in range(minors.size):
            t = minors[j]
            s1 += t
            s4 += t * t * t * t
            entropy += t * logs[j]
            top, least = max(top, bits_of(t)), min(least, bits_of(t) - ONE)
    sums[0] += s1
    sums[1] += s4
    sums[2] += entropy
    sums[3] = max(sums[3], float_of(top))
    sums[4] = min(sums[4], float_of(least + ONE) if least + ONE else np.inf)


@nb.njit(nogil=True, cache=True)
def visit_pairs(VT, pairs, u, weights, cells, sums, hist):  # type: ignore[no-untyped-def]
    """Into ``sums`` (P, 5), S1, S4, entropy, top over row pairs of each column pair (P, 2), and their least minor that is not 0;
    into ``hist``, weighted counts.

    Rows are visited circularly, j and j + 1, j + 2, …, so that all loops have equal length. ``u`` (P, H) sorted uniform numbers
    draw H rows of each pair by their lengths, partly uniformly, and the pairs of these are visited; (P, 0): every row. ``hist``
    (cells, SLOTS) or (0, 0) for none.
    """
    prefer_wide_vectors()
    m = VT.shape[1]
    drawn = u.shape[1]
    length = drawn if drawn else m
    x, y, w = np.zeros(2 * length), np.zeros(2 * length), np.ones(2 * length)
    minors, logs, both = np.empty(TOGETHER + length), np.empty(TOGETHER + length), np.empty(TOGETHER + length if drawn else 0)
    keep = hist.shape[0] > 0
    slots, size = np.zeros(TOGETHER + length if keep else 0, dtype=np.int64), np.empty(m)
    last = length // 2
    for p in range(len(pairs)):
        a, b = VT[pairs[p, 0]], VT[pairs[p, 1]]
        if drawn:
            total = 0.0
            for i in range(m):
                size[i] = np.sqrt(a[i] * a[i] + b[i] * b[i])
                total += size[i]
            i, passed, chance = -1, 0.0, 0.0
            scale = np.sqrt(drawn * (drawn - 1.0))
            for h in range(drawn):
                while i + 1 < m and passed <= u[p, h]:
                    i += 1
                    chance = (1 - UNIFORM) * size[i] / total + UNIFORM / m
                    passed += chance
                x[h], y[h], w[h] = a[i], b[i], 1.0 / (chance * scale)
        else:
            for i in range(m):
                x[i], y[i] = a[i], b[i]
        for i in range(length):
            x[length + i], y[length + i], w[length + i] = x[i], y[i], w[i]
        pair_sums = sums[p]
        pair_sums[:] = 0.0
        pair_sums[4] = np.inf
        filled = 0
        for shift in range(1, last + 1):
            end = length if 2 * shift < length else last
            for j in range(end):
                k = j + shift
                c = x[k] * y[j]
                minors[filled + j] = abs(fma(x[j], y[k], -c) - fma(x[k], y[j], -c))  # to full precision, as det2
            if drawn:
                for j in range(end):
                    both[filled + j] = w[j] * w[j + shift]
            filled += end
            if filled >= TOGETHER or shift == last:
                _add(minors[:filled], both[:filled], logs, slots, pair_sums)
                if keep:
                    line = hist[cells[p]]
                    for j in range(filled):
                        line[slots[j]] += weights[p] * (both[j] if drawn else 1.0)
                filled = 0
