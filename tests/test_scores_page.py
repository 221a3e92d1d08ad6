"""docs/scores.md shows what the code gives."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

import kagscope as kag

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "make_score_pictures.py"


def test_the_tables_of_the_page_are_what_the_script_makes() -> None:
    script = runpy.run_path(str(SCRIPT))
    page = script["PAGE"].read_text()
    assert script["filled"](page) == page, "the tables differ: run python docs/make_score_pictures.py and look at what changed"


def test_the_divergence_of_columns_of_exact_zeros_is_undefined() -> None:
    """Once LAPACK's rounding stood for the 3-minors of a matrix of whole numbers and rank two."""
    rng = np.random.default_rng(0)
    J = rng.integers(-3, 4, size=(6, 2)) @ rng.integers(-3, 4, size=(2, 5)).astype(float)
    assert kag.zero_rows(J, 3) == 1.0
    assert np.isnan(kag.column_divergence(J, 3))
