"""Correlations within settings: against counting by hand, the level of the test, and too few seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from inference_cases import results_of, runs_of
from kagscope.studies.findings import relation_findings
from kagscope.studies.nets import Nets
from kagscope.studies.relations import relations

AXES: dict[str, Sequence[Any]] = {"width": [8, 16], "training": ["standard", "augmented"]}


def related(geometry: np.ndarray, accuracy: np.ndarray, seeds: int) -> pd.DataFrame:
    """Relations of the scores "pr" and "rr_pr" (2, runs) with accuracy (runs,)."""
    runs = runs_of(AXES, seeds).assign(accuracy=accuracy)
    nets = Nets.of(results_of(runs, geometry[:, :, None], ["pr", "rr_pr"]), runs, [*AXES, "seed"])
    return relations(nets, ("pr", "rr_pr"))


def test_what_the_study_varies_brings_nothing_together() -> None:
    rng = np.random.default_rng(0)
    drive = np.repeat([0.0, 1.0, 2.0, 3.0], 5)
    table = related(drive + 0.1 * rng.normal(size=(2, 20)), drive + 0.1 * rng.normal(size=20), 5)
    assert (table["rho"].abs() < 0.6).all()
    assert (table["p_joint"] > 0.05).all()
    assert (table[["n", "settings"]] == [5, 4]).all(axis=None)


def test_correlation_and_p_against_counting() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 4, 5)), rng.normal(size=(4, 5))
    y += x[0]
    row = related(x.reshape(2, -1), y.ravel(), 5).iloc[0]
    a, b = (values - values.mean(axis=1, keepdims=True) for values in (x[0], y))
    assert row["rho"] == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    sums = [abs((a * b[:, list(order)]).sum()) for order in permutations(range(5))]
    assert row["p_value"] == pytest.approx(np.mean(np.array(sums) >= sums[0] - 1e-12))
    assert row["p_least"] == 1 / 120


def test_a_relation_that_is_there_is_found_and_named() -> None:
    rng = np.random.default_rng(2)
    luck = rng.normal(size=20)
    table = related(np.stack([luck, rng.normal(size=20)]), 0.5 + 0.01 * luck, 5)
    count, strongest = relation_findings(table)
    assert dict(count.numbers) == {"differ": 1, "tested": 2}
    assert (strongest.numbers["score"], strongest.numbers["outcome"]) == ("pr", "accuracy")
    assert relation_findings(table.assign(p_joint=0.2))[-1].numbers["differ"] == 0


def test_fewer_than_five_seeds_say_nothing() -> None:
    table = related(np.random.default_rng(0).normal(size=(2, 16)), np.arange(16.0), 4)
    assert table["p_value"].isna().all()
    assert "4 seeds cannot reach p < 0.05; 5 can" in table["reason"].iloc[0]
    assert [one.code for one in relation_findings(table)] == ["relations_undecided"]


@pytest.mark.slow
@pytest.mark.parametrize("interacting", [False, True])
@pytest.mark.parametrize("shared", [0.0, 1.0], ids=["nets independent", "nets of a seed related"])
def test_level_where_geometry_and_outcome_are_independent_given_the_setting(interacting: bool, shared: float) -> None:
    rng = np.random.default_rng(7)
    sets, wrong = 400, 0
    for _ in range(sets):
        settings = rng.normal(0, 3, (3, 4, 1))  # drive geometry and outcome alike
        settings[2] = settings[0]
        scale = np.exp(rng.normal(0, 0.5, (3, 4, 1))) if interacting else 1.0
        values = settings + scale * (rng.normal(size=(3, 4, 5)) + shared * rng.normal(size=(3, 1, 5)))
        wrong += int((related(values[:2].reshape(2, -1), values[2].ravel(), 5)["p_joint"] < 0.05).any())
    assert 0.01 * sets <= wrong <= 0.075 * sets
