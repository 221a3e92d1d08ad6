"""2 x 2 determinants to full relative precision, for compiled kernels."""

from __future__ import annotations

from typing import Any

from numba import njit

from kagscope.minors._numba import fma

# Division by zero gives infinity, as in NumPy, instead of a branch that stops vectorisation. No fastmath: where two equal
# products are subtracted the result must be exactly 0, which contraction to multiply-adds would break.
KERNEL: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**KERNEL)
def det2(a: float, b: float, c: float, d: float) -> float:
    """a d - b c within two units in the last place, and 0 exactly when it is 0 (Kahan)."""
    w = b * c
    return fma(a, d, -w) - fma(b, c, -w)
