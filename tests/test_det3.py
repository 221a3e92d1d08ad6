"""3 x 3 determinants that plain and twofold products lose, against fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from battery import determinant
from kagscope.minors.det3 import TERMS, _parallel, careful_det3

det3: Any = careful_det3  # which Numba leaves untyped
is_parallel: Any = _parallel
KINDS: dict[str, Any] = {
    "Gaussian": lambda rng, A: A,
    "a row that the others add up to": lambda rng, A: np.stack([A[0], A[1], 0.1 * A[0] + 0.3 * A[1]]),
    "rows of a common direction": lambda rng, A: np.stack([A[0], 0.1 * A[0], 0.3 * A[0]]),
    "decimals": lambda rng, A: np.round(A, 1),
    "ones but for the last bits": lambda rng, A: 1 + 2.0**-52 * rng.integers(-3, 4, size=(3, 3)),
    "rows of very mixed scales": lambda rng, A: np.ldexp(np.stack([A[0], A[1], 3 * A[0]]), rng.integers(-300, 300, size=(3, 1))),
    "beyond the range on the way": lambda rng, A: np.ldexp(A, [[1000], [-900], [-200]]),
    "ones beside entries whose products vanish": lambda rng, A: rng.choice([1e-200, 1e-190, 1.0, 0.0], size=(3, 3)),
    "entries of mixed scales": lambda rng, A: np.ldexp(A, rng.integers(-100, 100, size=(3, 3))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_digit(kind: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        A = KINDS[kind](rng, rng.normal(size=(3, 3)))
        wanted = abs(determinant([[Fraction(x) for x in row] for row in A.tolist()]))
        found = Fraction(float(det3(A.copy(), np.empty(TERMS))))
        assert abs(found - wanted) <= wanted / 10**9 + Fraction(1, 10**320), A  # or below the range


def test_parallel_rows_and_columns_are_seen_before_all_products_are_added_up() -> None:
    for place in range(3):
        A = np.insert([[1.0, 2.0, 3.0], [-0.5, -1.0, -1.5]], place, [2.0, 7.0, 1.0], axis=0)
        assert is_parallel(A)
        assert is_parallel(A.T.copy())
    assert not is_parallel(np.array([[0.0, 1, 2], [0, 2, 5], [7, 1, 1]]))
