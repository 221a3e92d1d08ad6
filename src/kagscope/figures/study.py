"""Tables behind the figures of a study: means over the data points of each network, and over networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kagscope.tables.means import RUN_KEYS, WHAT_KEYS, layers_of, require_columns, summarise
from kagscope.tables.schema import BOOKKEEPING

SETTING = ("width", "training")


def net_means(results: pd.DataFrame) -> pd.DataFrame:
    """Means over the data points of each network at each step.

    Args:
        results: the ``results`` table of :mod:`kagscope.tables.schema`, or what this function returned (returned unchanged).

    Returns:
        As :func:`~kagscope.tables.means.summarise`, with test accuracy added as the score "accuracy" of no
        layer (``layer`` ""), and rows that describe the measurement keep their values.

    Raises:
        InputError: columns are missing.
    """
    if "points" in results.columns:
        return results
    require_columns(
        results, [*RUN_KEYS, "accuracy", *WHAT_KEYS, "point", "value", "baseline", "ratio", "stderr", "exact"], "results"
    )
    means = summarise(results)
    bookkeeping = results[results["score"].isin(BOOKKEEPING)]
    accuracy = results.drop_duplicates(["run", "step"]).assign(layer="", k=0, selection="all", score="accuracy", exact=True)
    plain = pd.concat([bookkeeping, accuracy.assign(value=accuracy["accuracy"])]).reindex(columns=means.columns)
    nothing = {name: np.nan for name in means.columns if name.startswith(("baseline", "ratio", "difference"))}
    plain = plain.assign(**nothing, stderr=0.0, points=1, no_ratio=0, undefined=0, reason="")
    text = dict.fromkeys(("layer", "selection", "score"), str)
    return pd.concat([means.astype(text), plain.astype(text)], ignore_index=True).astype({"exact": bool})


def study_means(results: pd.DataFrame, by: Sequence[str] = SETTING) -> pd.DataFrame:
    """Means over networks with 95% intervals, for each step, layer, k, selection and score.

    Args:
        results: the ``results`` table, :func:`net_means` of it, or what this function returned (returned unchanged).
        by: columns that distinguish settings.

    Raises:
        InputError: columns are missing.
    """
    return results if "runs" in results.columns else summarise(net_means(results), over="runs", by=[*by, "step"])


def first_layer(table: pd.DataFrame) -> str:
    """The first layer with a name; "" is the whole network."""
    return next((name for name in layers_of(table) if name), "")
