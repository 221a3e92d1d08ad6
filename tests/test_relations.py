"""Rank correlations across runs: against scipy, against residuals by hand, and a confounder that is held fixed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kagscope.studies.relations import _held, relations
from kagscope.studies.statistics.spearman import rank_correlations


@given(seed=st.integers(0, 10_000), n=st.integers(8, 40), held=st.integers(0, 3))
@settings(deadline=None)
def test_plain_and_partial(seed: int, n: int, held: int) -> None:
    values = np.random.default_rng(seed).normal(size=(n, 2 + held)).round(1)  # with ties
    plain, partial = rank_correlations(values[None])[:, 0]
    np.testing.assert_allclose(plain, stats.spearmanr(values[:, 0], values[:, 1]).statistic)
    ranks = stats.rankdata(values, axis=0)
    design = np.column_stack([np.ones(n), ranks[:, 2:]])
    a, b = (ranks[:, i] - design @ np.linalg.lstsq(design, ranks[:, i], rcond=None)[0] for i in (0, 1))
    np.testing.assert_allclose(partial, np.corrcoef(a, b)[0, 1], atol=1e-9)


def results_of(runs: pd.DataFrame, ratio: np.ndarray) -> pd.DataFrame:
    """A results table with one PR ratio per run."""
    own = {name: runs[name] for name in ("run", "training", "accuracy")} | {"width": 8, "seed": 0, "step": 1, "epoch": 1.0}
    what = {"layer": "1", "k": 2, "selection": "all", "point": 0, "score": "pr", "stderr": 0.0, "exact": True, "reason": ""}
    return pd.DataFrame(own | what | {"value": ratio, "baseline": 1.0, "ratio": ratio})


def test_what_the_study_varies_is_no_effect_of_geometry() -> None:
    rng = np.random.default_rng(0)
    n = 400
    training = rng.choice(["standard", "augmented"], n)
    drive = (training == "augmented") * 3.0
    runs = pd.DataFrame({"run": [f"r{i}" for i in range(n)], "training": training, "accuracy": drive + rng.normal(size=n)})
    results = results_of(runs, drive + rng.normal(size=n) + 10)
    (row,) = relations(results, runs, ["training"]).to_dict("records")
    assert row["rho"] > 0.5
    assert row["p_holm"] < 1e-6
    assert row["partial_low"] < 0 < row["partial_high"]
    assert relations(results[:7], runs[:7]).empty, "too few runs"


def test_names_enter_as_indicators() -> None:
    runs = pd.DataFrame({"data": ["a", "b", "c", "a"], "width": [1, 2, 3, 4], "seed": [0, 0, 0, 0]})
    made, held = _held(runs, ["data", "width", "seed"])
    assert held == ["held_data_b", "held_data_c", "held_width"]
    assert made["held_data_b"].tolist() == [0.0, 1.0, 0.0, 0.0]
