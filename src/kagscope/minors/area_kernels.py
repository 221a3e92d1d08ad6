"""The area that two rows or columns span, to full precision; its square, S2 of the pair, and the derivative of that.

|x|^2 |y|^2 - (x y)^2 cancels where x and y are nearly parallel (MATH.md 4.1). With x_p the largest entry of x and
z_i = x_p y_i - x_i y_p, each to full precision, it is (|x|^2 |z|^2 - (x z)^2) / x_p^2; z, which has no entry p, is far from
parallel to x.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from kagscope.minors.det2 import KERNEL, det2


@njit(**KERNEL)
def spanned_area(x, y, z):  # type: ignore[no-untyped-def]
    """Area that x and y span, exactly 0 where they are parallel; ``z`` is workspace.

    All is scaled by largest entries, so that no square leaves the range.
    """
    p, high, low = 0, 0.0, 0.0
    for i in range(x.size):
        if abs(x[i]) > high:
            p, high = i, abs(x[i])
    if high == 0:
        return 0.0
    for i in range(x.size):
        z[i] = det2(x[p], y[p], x[i], y[i]) / high
        low = max(low, abs(z[i]))
    if low == 0:
        return 0.0
    xx = xz = zz = 0.0
    for i in range(x.size):
        a, b = x[i] / high, z[i] / low
        xx += a * a
        xz += a * b
        zz += b * b
    return math.sqrt(max(xx * zz - xz * xz, 0.0)) * low * high


@njit(**KERNEL)
def _pivot(x, y, z):  # type: ignore[no-untyped-def]
    """z over a power of two, that power, p, and |x|^2, x z, |z|^2."""
    p = 0
    for i in range(x.size):
        if abs(x[i]) > abs(x[p]):
            p = i
    top = 0.0
    for i in range(x.size):
        z[i] = det2(x[p], x[i], y[p], y[i])
        top = max(top, abs(z[i]))
    power = math.frexp(top)[1]
    half = power // 2
    down, rest = math.ldexp(1.0, -half), math.ldexp(1.0, half - power)
    xx = xz = zz = 0.0
    for i in range(x.size):
        z[i] = z[i] * down * rest
        xx += x[i] * x[i]
        xz += x[i] * z[i]
        zz += z[i] * z[i]
    return power, p, xx, xz, zz


@njit(**KERNEL)
def squares(lines, first, second, values, powers):  # type: ignore[no-untyped-def]
    """S2 of each pair is values 4^powers."""
    z = np.empty(lines.shape[1])
    for k in range(first.size):
        x = lines[first[k]]
        power, p, xx, xz, zz = _pivot(x, lines[second[k]], z)
        values[k] = max(xx * zz - xz * xz, 0.0) / (x[p] * x[p]) if zz > 0 else 0.0
        powers[k] = power


@njit(**KERNEL)
def add_gradient(lines, first, second, weights, gradient):  # type: ignore[no-untyped-def]
    """Add the derivative of ``weights`` times the values of :func:`squares`, whose powers are held fixed."""
    z = np.empty(lines.shape[1])
    for k in range(first.size):
        x, y, gx, gy = lines[first[k]], lines[second[k]], gradient[first[k]], gradient[second[k]]
        power, p, xx, xz, zz = _pivot(x, y, z)
        if zz > 0 and weights[k] != 0:
            factor = 2.0 * weights[k] / (x[p] * x[p])
            down = math.ldexp(1.0, -power)
            for i in range(x.size):
                w = (xx * z[i] - xz * x[i]) * down
                gx[i] += factor * (zz * x[i] - xz * z[i] - y[p] * w)
                gy[i] += factor * x[p] * w
