"""Observations as tables: each score beside that of the baselines, and the distributions behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from kagscope.base.errors import InputError
from kagscope.measuring.comparison import compare as compare_states
from kagscope.measuring.comparison import curves as curves_of
from kagscope.measuring.observe import LayerRecord, Observation
from kagscope.measuring.states import WHOLE, State


def compare(observation: Observation, initial: Iterable[Observation] | Observation | None, quantile: float) -> pd.DataFrame:
    """The tidy table: each score beside the mean of the same score of the baselines, at the same point and token.

    Args:
        observation: of the network.
        initial: one or several baselines, measured with the same settings; None or empty: no baseline.
        quantile: of a baseline's rows; rows at or below it count as zero rows (MATH.md section 3).

    Returns:
        Columns of :data:`kagscope.tables.schema.SCORE_COLUMNS`, with ``token`` after ``point`` where any layer has tokens.
        Skipped layers have one row, score "skipped", with the reason.
    """
    baselines = [initial] if isinstance(initial, Observation) else list(initial or [])
    parts = []
    for record in observation.layers:
        state = observation.states.get(record.name)
        if state is None:
            parts.append(_skipped(record))
            continue
        tables = [compare_states(state, _state(other, record.name), quantile) for other in baselines]
        table = _averaged(tables) if tables else compare_states(state, None, quantile)
        where = np.concatenate([observation.items[record.name], [[WHOLE, -1]]])  # the last one is that of a whole layer
        chosen = where[table["point"].to_numpy()]
        parts.append(table.assign(point=chosen[:, 0].astype("int32"), token=chosen[:, 1].astype("int32")))
    joined = pd.concat([part.astype({"layer": str, "selection": str, "score": str, "reason": str}) for part in parts])
    joined = joined.astype(dict.fromkeys(("layer", "selection", "score", "reason"), "category")).reset_index(drop=True)
    if (joined["token"] < 0).all():
        return joined.drop(columns="token")
    place = list(joined.columns).index("point") + 1
    columns = [name for name in joined.columns if name != "token"]
    return joined[[*columns[:place], "token", *columns[place:]]]


def curves(observation: Observation) -> pd.DataFrame:
    """Zipf curves of row means and histograms of minors of every layer (curve columns of :mod:`kagscope.tables.schema`)."""
    return pd.concat([curves_of(state) for state in observation.states.values()], ignore_index=True)


def units(observation: Observation, initial: Sequence[Observation], quantile: float) -> pd.DataFrame:
    """What each unit looks at (:meth:`kagscope.measuring.unit_statistics.Incoming.table`); empty where that was not kept.

    Zero rows are counted against each baseline's threshold, and the shares averaged, as in :func:`compare`.
    """
    found = []
    for layer, (sums, W) in observation.incoming.items():
        thresholds = [float(np.quantile(_state(other, layer).row_means[layer, 1], quantile)) for other in initial]
        found.append(sums.finish(layer, thresholds, W).table())
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _state(other: Observation, layer: str) -> State:
    if layer not in other.states:
        reason = next((record.reason for record in other.layers if record.name == layer), "it is not called there")
        raise InputError(f"layer {layer!r} could not be measured in the baseline: {reason}")
    return other.states[layer]


def _averaged(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean over baselines of the baseline's score, and of those scores of the network that are counted against it.

    Baselines in which a score is undefined at a point are left out of its mean there.
    """
    if len(tables) == 1:
        return tables[0]
    table = tables[0].copy()
    for name in ("value", "baseline"):
        every = np.stack([one[name].to_numpy() for one in tables])
        mean = np.nansum(every, axis=0) / np.maximum((~np.isnan(every)).sum(axis=0), 1)
        same = (every == every[0]).all(axis=0)  # the network's own scores, to the last bit
        table[name] = np.where(np.isnan(every).all(axis=0), np.nan, np.where(same, every[0], mean))
    table["ratio"] = table["value"] / table["baseline"].where(table["baseline"] != 0)
    table["reason"] = table["reason"].astype(str).where(table["value"].isna(), "")
    return table


def _skipped(record: LayerRecord) -> pd.DataFrame:
    nan = float("nan")
    row = {"layer": record.name, "k": 0, "selection": "all", "point": WHOLE, "score": "skipped", "value": nan, "baseline": nan}
    table = pd.DataFrame([row | {"ratio": nan, "stderr": nan, "exact": True, "reason": f"skipped: {record.reason}", "token": -1}])
    return table.astype({"k": "int8", "point": "int32", "token": "int32"})
