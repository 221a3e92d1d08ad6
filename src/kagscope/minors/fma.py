"""2 x 2 determinants to full relative precision, for compiled kernels."""

from __future__ import annotations

from typing import Any

from numba import njit, types
from numba.extending import intrinsic

# Division by zero gives infinity, as in NumPy, instead of a branch that stops vectorisation. No fastmath: where two equal
# products are subtracted the result must be exactly 0, which contraction to multiply-adds would break.
KERNEL: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@intrinsic
def _fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


fma: Any = _fma  # numba passes the typing context itself, which its own annotations do not say


@njit(**KERNEL)
def det2(a: float, b: float, c: float, d: float) -> float:
    """a d - b c within two units in the last place, and 0 exactly when it is 0 (Kahan)."""
    w = b * c
    return fma(a, d, -w) - fma(b, c, -w)
