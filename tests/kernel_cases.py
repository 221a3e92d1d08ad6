"""Truth files, brute force and hypothesis strategies for the tests of the kernels."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kagscope.minors.routes import routes_of_kind
from kagscope.minors.threads import limit_threads

TRUTH = Path(__file__).resolve().parents[2] / "shared" / "oracles" / "truth"


def truth_cases() -> list[Any]:
    """One pytest parameter per truth file, or a skipped one where they are absent."""
    files = sorted(TRUTH.glob("*.json"))
    if not files:
        return [pytest.param(None, marks=pytest.mark.skip(reason="no ../shared/oracles/truth beside the repository"))]
    return [pytest.param(file, id=file.stem) for file in files]


def read_truth(file: Path) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """Matrix, squared distances and positions of its columns are turned into keyword arguments by :func:`selected`."""
    record = json.loads(file.read_text())
    matrix = np.array([[float.fromhex(x) for x in row] for row in record["matrix_hex"]])
    return matrix, np.array(record["positions"], dtype=float), record["truth"]


def selected(positions: np.ndarray, selection: dict[str, Any]) -> dict[str, Any]:
    """``columns=`` and ``pairs=`` of a truth file's selection."""
    squared = ((positions[:, None] - positions[None]) ** 2).sum(axis=-1)
    match selection["kind"]:
        case "ball":
            return {"pairs": squared <= selection["radius"] ** 2}
        case "apart":
            return {"pairs": squared >= selection["distance"] ** 2}
        case "shell":
            return {"pairs": (squared >= selection["low"] ** 2) & (squared < selection["high"] ** 2)}
        case "window":
            return {"columns": ((positions - np.array(selection["center"])) ** 2).sum(axis=1) <= selection["radius"] ** 2}
    return {}


def fractions(J: np.ndarray) -> list[list[Fraction]]:
    return [[Fraction(float(x)) for x in row] for row in J]


def det(rows: list[list[Fraction]]) -> Fraction:
    if len(rows) == 1:
        return rows[0][0]
    terms = ((-1) ** j * rows[0][j] * det([r[:j] + r[j + 1 :] for r in rows[1:]]) for j in range(len(rows)))
    return sum(terms, Fraction(0))


def minors(J: np.ndarray, k: int) -> list[list[Fraction]]:
    """Exact |minors|, one list per row subset."""
    F = fractions(J)
    sets = list(combinations(range(J.shape[1]), k))
    return [[abs(det([[F[r][c] for c in C] for r in R])) for C in sets] for R in combinations(range(J.shape[0]), k)]


def relative_error(got: float, want: Fraction) -> float:
    """Infinite where 0 is wanted and something else was got."""
    if want == 0:
        return 0.0 if got == 0 else float("inf")
    return float(abs(Fraction(float(got)) - want) / want)


def matrices(max_rows: int = 5, max_columns: int = 8, min_rows: int = 1, min_columns: int = 1) -> st.SearchStrategy[np.ndarray]:
    """Small whole numbers (many ties, parallels and zeros), ordinary numbers, and numbers over 40 orders of magnitude."""
    shapes = st.tuples(st.integers(min_rows, max_rows), st.integers(min_columns, max_columns))
    whole = st.integers(-3, 3).map(float)
    ordinary = st.floats(-4, 4, allow_subnormal=False, width=32)
    wild = st.tuples(st.floats(-1, 1, allow_subnormal=False, width=32), st.integers(-60, 60)).map(
        lambda pair: float(np.ldexp(*pair))
    )
    return shapes.flatmap(
        lambda shape: st.one_of(*(arrays(np.float64, shape, elements=kind) for kind in (whole, ordinary, wild)))
    )


def with_threads(count: int, work: Callable[[], Any]) -> Any:
    """``work()`` on so many threads."""
    with limit_threads(count):
        return work()


def without_formulas() -> Any:
    """A context in which the chooser knows no formulas, so that it draws."""
    return mock.patch(
        "kagscope.minors.routes.auto.routes_of_kind",
        lambda kind, *device: () if kind == "formula" else routes_of_kind(kind, *device),
    )
