"""Made-up studies: a results and a runs table with numbers of the test's choice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from kagscope.studies.nets import Nets
from kagscope.tables.schema import RESULT_COLUMNS

DEFAULTS = {"data": "digits", "training": "standard", "width": 8, "seed": 0, "accuracy": 0.9}


def runs_of(axes: dict[str, Sequence[Any]], seeds: int) -> pd.DataFrame:
    """A full grid: one row per combination and seed."""
    rows = [dict(zip(axes, values, strict=True)) | {"seed": seed} for *values, seed in product(*axes.values(), range(seeds))]
    table = pd.DataFrame([DEFAULTS | row for row in rows])
    return table.assign(run=[f"run{place}" for place in range(len(table))])


def results_of(runs: pd.DataFrame, logs: np.ndarray, scores: Sequence[str] | None = None) -> pd.DataFrame:
    """Trained over initial is exp(logs) at each point; (scores, runs, points), NaN for undefined. Initial values are 2."""
    count, _nets, _points = logs.shape
    score, run, point = (index.ravel() for index in np.indices(logs.shape))
    names = np.array(scores if scores is not None else [f"s{place}" for place in range(count)])
    ratio = np.exp(logs.ravel())
    table = pd.DataFrame(
        {name: runs[name].to_numpy()[run] for name in ("run", "width", "training", "seed", "accuracy")}
        | {"step": 5, "epoch": 1.0, "layer": "1", "k": 2, "selection": "all", "point": point, "score": names[score]}
        | {"value": 2 * ratio, "baseline": 2.0, "ratio": ratio, "stderr": 0.0, "baseline_stderr": 0.0, "exact": True}
        | {"labels": "true"}
    )
    table["reason"] = np.where(table["value"].isna(), "undefined: every minor is zero", "")
    return table.astype(RESULT_COLUMNS)


def nets_of(runs: pd.DataFrame, logs: np.ndarray, axes: Sequence[str], scores: Sequence[str] | None = None) -> Nets:
    return Nets.of(results_of(runs, logs, scores), runs, [*axes, "seed"])
