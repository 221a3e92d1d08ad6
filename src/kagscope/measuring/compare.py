"""Compare a network's state with those of its baselines: rows of the tidy table, and distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from kagscope.base.errors import InputError
from kagscope.base.reasons import OTHER_MINORS, SKIPPED
from kagscope.measuring.drawn import score_layer, score_row_means, select_groups
from kagscope.measuring.state import WHOLE, Key, LayerRecord, LayerState, State, Values
from kagscope.minors.moment_scores import find_mismatch, mean_position
from kagscope.minors.moments import Moments
from kagscope.minors.threads import one_blas_thread
from kagscope.registry import Score
from kagscope.tables.schema import SCORE_COLUMNS

ZIPF_RANKS = 200
Scores = dict[Key, Values]
Columns = dict[str, np.ndarray]  # of a table: as long as each other
Line = tuple[np.ndarray, np.ndarray]  # x and y of a curve


@one_blas_thread()
def compare(state: State, initials: Sequence[State] = ()) -> pd.DataFrame:
    """Tidy table of each score and the mean of the baselines' scores at the same point and token.

    Args:
        state: state of the network.
        initials: states of the baselines, measured with the same spec at the same inputs; if empty, baselines are undefined and
            scores that need them (zero rows, ``kl_init``, ``cka_init``) are left out.

    Returns:
        Columns of :data:`kagscope.tables.schema.SCORE_COLUMNS`, with ``token`` after ``point`` if any layer has tokens; rows of
        a score are ordered by point and token. Skipped layers have one row, score "skipped", with the reason.

    Raises:
        InputError: a layer that could not be measured in a baseline.
    """
    parts: list[Columns] = []
    for record in state.layers:
        if record.name not in state.measured:
            parts.append(_skipped_row(record))
            continue
        measured = state.measured[record.name]
        share = state.spec.zero_row_quantile
        tables = [
            _layer_columns(measured, layer_state(other, record.name), state.spec.score_records, share) for other in initials
        ]
        columns = _average(tables) if tables else _make_columns(measured.scores, {})
        if columns:  # empty if none of the requested scores exists for this map
            point, token = np.concatenate([measured.items, [[WHOLE, -1]]])[columns.pop("item")].T  # the last: a whole layer
            order = np.lexsort((token, point, columns.pop("row_of")))
            columns |= {"layer": np.full(len(order), record.name, dtype=object), "point": point, "token": token}
            parts.append({name: column[order] for name, column in columns.items()})
    kinds = SCORE_COLUMNS
    if any((part["token"] >= 0).any() for part in parts):
        kinds = {name: kind for key in SCORE_COLUMNS for name, kind in _with_token(key)}
    return pd.DataFrame({name: _typed_column([part[name] for part in parts], kind) for name, kind in kinds.items()})


def _typed_column(parts: list[np.ndarray], kind: str) -> np.ndarray | pd.Series[Any]:
    """One column of the table; categories are sorted, so that the bits do not depend on earlier measurements."""
    values = np.concatenate(parts) if parts else np.zeros(0)
    if kind != "category":
        return values.astype(kind)
    codes, names = pd.factorize(values.astype(object), sort=True)
    return pd.Series(pd.Categorical.from_codes(codes, pd.Index(names, dtype="str")))


def _with_token(name: str) -> list[tuple[str, str]]:
    column = (name, SCORE_COLUMNS[name])
    return [column, ("token", "int32")] if name == "point" else [column]


def layer_state(other: State, layer: str) -> LayerState:
    """A layer's state in a baseline. Raises :class:`InputError` with the reason if it could not be measured there."""
    if layer not in other.measured:
        reason = next((record.reason for record in other.layers if record.name == layer), "it is not called there")
        raise InputError(f"layer {layer!r} could not be measured in the baseline: {reason}")
    return other.measured[layer]


def zero_row_threshold(initial: LayerState, share: float, groups: np.ndarray | None = None) -> float:
    """Threshold for zero rows: a quantile of the baseline's row means (of some groups)."""
    return float(np.quantile(select_groups(initial.drawn, initial.row_means[1], groups), share))


def _layer_columns(state: LayerState, initial: LayerState, scores: Sequence[Score], share: float) -> Columns:
    key = (*(score.name for score in scores), share)
    if key not in initial.against_itself:  # one network at initialisation is compared with many
        initial.against_itself[key] = _against_baseline(initial, initial, scores, share)
    itself = initial.against_itself[key]
    against = itself if state is initial else _against_baseline(state, initial, scores, share)
    return _make_columns(state.scores | against, initial.scores | itself)


def _against_baseline(state: LayerState, initial: LayerState, scores: Sequence[Score], share: float) -> Scores:
    """The scores that need a baseline."""
    results: Scores = {}
    for score in scores:
        if not score.against_baseline:
            continue
        if score.is_of("initial_moments"):
            for key, moments in state.enumerated.items():
                if pairs := _pair_batches(moments, initial.enumerated.get(key, [])):
                    whole = _compare_moments(score, pairs)
                    results[*key, score.name] = initial.mask_noise(key[0], state.mask_noise(key[0], whole))
        elif score.is_of("row_means"):
            for k, means in state.row_means.items():
                count = partial(_count_zero_rows, score, share)
                counted = Values.of(np.arange(len(means)), *score_row_means(state, k, count, initial), state.drawn is None)
                results[k, "all", score.name] = initial.mask_noise(k, state.mask_noise(k, counted))
        else:
            available = {
                "row_norms": state.row_norms,
                "output_slopes": state.output_slopes,
                "activations": state.activations,
                "initial_activations": initial.activations,
                "threshold": _unit_threshold(score, initial, share),
            }
            result = score_layer(state, score, available, partial(zero_row_threshold, initial, share))
            if result is not None:
                results[0, "all", score.name] = result
    return results


def _compare_moments(score: Score, pairs: list[tuple[Moments, Moments]]) -> Values:
    """A score of two networks' moments, item by item; NaN if they are of other minors."""
    items = np.arange(sum(len(batch) for batch, _ in pairs))
    if mismatch := next((words for pair in pairs if (words := find_mismatch(*pair))), None):
        reason = OTHER_MINORS.format(own=mismatch[0], other=mismatch[1])
        return Values.of(items, np.full(len(items), np.nan), np.nan, reason=reason)
    values = np.concatenate([score.function(*pair) for pair in pairs])
    stderr = np.concatenate([score.error(*pair) for pair in pairs]) if score.error else np.nan
    return Values.of(items, values, stderr, all(side.are_exact(score.moments) for pair in pairs for side in pair))


def _count_zero_rows(score: Score, share: float, means: np.ndarray, initial: np.ndarray) -> np.ndarray:
    """Score of row means, with the quantile of the baseline's row means as threshold."""
    return np.asarray(score.function(means, float(np.quantile(initial, share))))


def _pair_batches(measured: list[Moments], before: list[Moments]) -> list[tuple[Moments, Moments]]:
    """Pair batches of the same items of two networks, item by item if they were batched differently."""
    if [len(batch) for batch in measured] != [len(batch) for batch in before]:
        measured, before = _split_batches(measured), _split_batches(before)
    return [(replace(a, batched=True), replace(b, batched=True)) for a, b in zip(measured, before, strict=False)]


def _split_batches(batches: list[Moments]) -> list[Moments]:
    return [batch[index] for batch in batches for index in range(len(batch))]


def _unit_threshold(score: Score, initial: LayerState, share: float) -> float | None:
    if score.is_of("output_slopes"):
        return None if initial.output_slopes is None else float(np.quantile(initial.output_slopes, share))
    return zero_row_threshold(initial, share) if 1 in initial.row_means else None


def _make_columns(measured: Scores, baseline: Scores) -> Columns:
    """One row per score and item. The ratio is exactly 1 if trained equals initial, undefined over a zero baseline."""
    if not measured:
        return {}
    keys, values = list(measured), list(measured.values())
    row_of = np.repeat(np.arange(len(keys)), [len(score.values) for score in values])
    value = np.concatenate([score.values for score in values])
    pairs = [_align_baseline(score.items, baseline.get(key)) for key, score in measured.items()]
    before, before_stderr = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = np.where(before != 0, value / before, np.nan)
    k, selection, score = (np.array(columns, dtype=object)[row_of] for columns in zip(*keys, strict=True))
    return {
        "row_of": row_of,
        "k": k,
        "selection": selection,
        "score": score,
        "item": np.concatenate([score.items for score in values]),
        "value": value,
        "baseline": before,
        "ratio": ratio,
        "stderr": np.concatenate([score.stderr for score in values]),
        "baseline_stderr": before_stderr,
        "exact": np.array([score.exact for score in values])[row_of],
        "reason": np.where(np.isnan(value), np.concatenate([score.reason for score in values]), ""),
    }


def _align_baseline(items: np.ndarray, before: Values | None) -> tuple[np.ndarray, np.ndarray]:
    """Values and sampling errors of the baseline (0 if exact) at ``items``; NaN if not measured."""
    if before is None:
        return np.full(len(items), np.nan), np.full(len(items), np.nan)
    stderr = np.zeros_like(before.stderr) if before.exact else before.stderr
    if np.array_equal(before.items[: len(items)], items):
        return before.values[: len(items)], stderr[: len(items)]
    both = pd.DataFrame({"value": before.values, "stderr": stderr}, index=before.items).reindex(items)
    return both["value"].to_numpy(), both["stderr"].to_numpy()


def _average(tables: list[Columns]) -> Columns:
    """Average over baselines: their scores, and the scores of the network that depend on a baseline.

    Baselines in which a score is undefined at an item are left out of the mean there. The error of the mean includes sampling
    and the differences between baselines.
    """
    if len(tables) == 1:
        return tables[0]
    columns = dict(tables[0])
    for name in ("value", "baseline"):
        stacked = np.stack([table[name] for table in tables])
        mean = np.nansum(stacked, axis=0) / np.maximum((~np.isnan(stacked)).sum(axis=0), 1)
        same = (stacked == stacked[0]).all(axis=0)  # the network's own scores, to the last bit
        columns[name] = np.where(np.isnan(stacked).all(axis=0), np.nan, np.where(same, stacked[0], mean))
    before, errors = (np.stack([table[name] for table in tables]) for name in ("baseline", "baseline_stderr"))
    columns["baseline_stderr"] = np.sqrt(((errors**2).mean(axis=0) + before.var(axis=0, ddof=1)) / len(tables))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        columns["ratio"] = np.where(columns["baseline"] != 0, columns["value"] / columns["baseline"], np.nan)
    columns["reason"] = np.where(np.isnan(columns["value"]), columns["reason"], "")
    return columns


def _skipped_row(record: LayerRecord) -> Columns:
    numbers = dict.fromkeys(("value", "baseline", "ratio", "stderr", "baseline_stderr"), float("nan"))
    named = {"layer": record.name, "k": 0, "selection": "all", "point": WHOLE, "token": -1, "score": "skipped"}
    reason = SKIPPED.format(reason=record.reason)
    return {name: np.array([value]) for name, value in {**named, **numbers, "exact": True, "reason": reason}.items()}


def unit_table(state: State, initials: Sequence[State]) -> pd.DataFrame:
    """Statistics of units (:meth:`kagscope.measuring.unit_statistics.UnitSums.table`); empty if not kept.

    Zero rows are counted against each baseline's threshold, and the shares averaged, as in :func:`compare`.
    """
    parts = []
    for layer, measured in state.measured.items():
        if measured.units is not None:
            others = [layer_state(other, layer) for other in initials]
            thresholds = [zero_row_threshold(other, state.spec.zero_row_quantile) for other in others if 1 in other.row_means]
            table = measured.units.table(layer, thresholds, measured.shared)
            parts.append(table if measured.drawn is None else table.assign(unit=measured.drawn.rows))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def curves(state: State, initials: Sequence[State] = ()) -> pd.DataFrame:
    """Distributions averaged over items: Zipf curves of row means, histograms of minors.

    Returns:
        Columns layer, k, selection, curve, x, y of :data:`kagscope.tables.schema.CURVE_COLUMNS` and ``network``: "model", or
        "baseline" for the mean over the baselines.
    """
    parts = [_state_curves(state).assign(network="model")]
    if initials:
        stacked = pd.concat([_state_curves(other) for other in initials])
        keys = ["layer", "k", "selection", "curve", "x"]
        mean = stacked.groupby(keys, as_index=False, sort=False)["y"].sum()
        parts.append(mean.assign(y=mean["y"] / len(initials), network="baseline"))
    return pd.concat(parts, ignore_index=True)


def _state_curves(state: State) -> pd.DataFrame:
    curves: dict[tuple[str, int, str, str], Line] = {}
    for layer, measured in state.measured.items():
        curves |= {(layer, k, "all", "zipf"): _zipf(means) for k, means in measured.row_means.items()}
        curves |= {(layer, *key, "histogram"): _histogram(batches) for key, batches in measured.enumerated.items()}
    names = ["layer", "k", "selection", "curve"]
    if not curves:
        return pd.DataFrame(columns=[*names, "x", "y"])
    index = np.repeat(np.arange(len(curves)), [len(x) for x, _ in curves.values()])
    table = pd.DataFrame(list(curves), columns=names).take(index).reset_index(drop=True)
    table["x"], table["y"] = (np.concatenate(axis) for axis in zip(*curves.values(), strict=True))
    return table


def _zipf(means: np.ndarray) -> Line:
    """Row means over their overall mean, by rank, at up to ``ZIPF_RANKS`` geometric ranks that include the first and last."""
    falling = -np.sort(-means, axis=1)
    overall = falling.mean(axis=1, keepdims=True)
    mean = np.divide(falling, overall, out=np.zeros_like(falling), where=overall > 0).mean(axis=0)
    ranks = np.unique(np.geomspace(1, len(mean), min(ZIPF_RANKS, len(mean))).round().astype(int))
    return ranks.astype(float), mean[ranks - 1]


def _histogram(batches: list[Moments]) -> Line:
    """Fractions in bins of log2(M / mean M), 1/8 wide; the mean is rounded to a bin, exact zeros are at -inf."""
    bin_indices, shares = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    zeros_share, measured = 0.0, 0
    for moments in _split_batches(batches):
        position = float(mean_position(moments)[0])
        if np.isnan(position):
            continue
        measured += 1
        first, counts, zeros = moments.histogram
        index = np.flatnonzero(counts)
        bin_indices.append(int(first) - round(position) + index)
        shares.append(np.asarray(counts, dtype=float)[index] / float(moments.count))
        zeros_share += float(zeros) / moments.count
    bins, index_of = np.unique(np.concatenate(bin_indices), return_inverse=True)
    sums = np.zeros(len(bins))
    np.add.at(sums, index_of, np.concatenate(shares))
    return np.append(-np.inf, bins / 8), np.append(zeros_share, sums) / max(measured, 1)
