"""A network's state beside those of its baselines: rows of the tidy table, and the distributions behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from kagscope.base.errors import InputError
from kagscope.base.reasons import OTHER_MINORS, SKIPPED
from kagscope.measuring.drawn import of_row_means, of_row_norms, rows_of, unknown_score
from kagscope.measuring.state import WHOLE, Key, LayerRecord, LayerState, State, Values
from kagscope.minors.moment_scores import mean_position, unlike
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
    """The tidy table: each score beside the mean of the same score of the baselines, at the same point and token.

    Args:
        state: of the network.
        initials: of the baselines, measured with the same spec at the same inputs; empty: baselines are undefined, and what is
            told only against them (zero rows, ``kl_init``, ``cka_init``) is left out.

    Returns:
        Columns of :data:`kagscope.tables.schema.SCORE_COLUMNS`, with ``token`` after ``point`` where any layer has tokens; rows
        of a score by point and token.
        Skipped layers have one row, score "skipped", with the reason.

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
        tables = [_layer_columns(measured, layer_state(other, record.name), state.spec.asked, share) for other in initials]
        columns = _average(tables) if tables else _columns(measured.scores, {})
        if columns:  # else nothing that was asked for can be told of this map
            point, token = np.concatenate([measured.items, [[WHOLE, -1]]])[columns.pop("item")].T  # the last: a whole layer
            order = np.lexsort((token, point, columns.pop("row_of")))
            columns |= {"layer": np.full(len(order), record.name, dtype=object), "point": point, "token": token}
            parts.append({name: column[order] for name, column in columns.items()})
    kinds = SCORE_COLUMNS
    if any((part["token"] >= 0).any() for part in parts):
        kinds = {name: kind for key in SCORE_COLUMNS for name, kind in _with_token(key)}
    return pd.DataFrame({name: _typed([part[name] for part in parts], kind) for name, kind in kinds.items()})


def _typed(parts: list[np.ndarray], kind: str) -> np.ndarray | pd.Series[Any]:
    """One column of a table; categories in their own order, so that what was measured before changes no bit."""
    values = np.concatenate(parts) if parts else np.zeros(0)
    if kind != "category":
        return values.astype(kind)
    codes, names = pd.factorize(values.astype(object), sort=True)
    return pd.Series(pd.Categorical.from_codes(codes, pd.Index(names, dtype="str")))


def _with_token(name: str) -> list[tuple[str, str]]:
    own = (name, SCORE_COLUMNS[name])
    return [own, ("token", "int32")] if name == "point" else [own]


def layer_state(other: State, layer: str) -> LayerState:
    """The state of a layer of a baseline. Raises :class:`InputError` where it could not be measured there, with the reason."""
    if layer not in other.measured:
        reason = next((record.reason for record in other.layers if record.name == layer), "it is not called there")
        raise InputError(f"layer {layer!r} could not be measured in the baseline: {reason}")
    return other.measured[layer]


def zero_row_threshold(initial: LayerState, share: float, groups: np.ndarray | None = None) -> float:
    """At or below which a row counts as zero: a quantile of the baseline's row means (of some groups)."""
    return float(np.quantile(rows_of(initial.drawn, initial.row_means[1], groups), share))


def _layer_columns(state: LayerState, initial: LayerState, asked: Sequence[Score], share: float) -> Columns:
    key = (*(one.name for one in asked), share)
    if key not in initial.against_itself:  # one network at initialisation is compared with many
        initial.against_itself[key] = _against_baseline(initial, initial, asked, share)
    itself = initial.against_itself[key]
    own = itself if state is initial else _against_baseline(state, initial, asked, share)
    return _columns(state.scores | own, initial.scores | itself)


def _against_baseline(state: LayerState, initial: LayerState, asked: Sequence[Score], share: float) -> Scores:
    """The scores that need a baseline."""
    found: Scores = {}
    for one in asked:
        if not one.against_baseline:
            continue
        if one.is_of("initial_moments"):
            for key, moments in state.visited.items():
                pairs = _side_by_side(moments, initial.visited.get(key, []))
                apart = next((words for pair in pairs if (words := unlike(*pair))), None)
                if apart is not None:
                    nothing = np.full(sum(len(own) for own, _ in pairs), np.nan)
                    reason = OTHER_MINORS.format(own=apart[0], other=apart[1])
                    found[*key, one.name] = Values.of(np.arange(len(nothing)), nothing, np.nan, reason=reason)
                elif pairs:
                    values = np.concatenate([one.function(*pair) for pair in pairs])
                    stderr = np.concatenate([one.error(*pair) for pair in pairs]) if one.error else np.nan
                    exact = all(side.are_exact(one.moments) for pair in pairs for side in pair)
                    whole = Values.of(np.arange(len(values)), values, stderr, exact)
                    found[*key, one.name] = initial.undefined_where_noise(key[0], state.undefined_where_noise(key[0], whole))
        elif one.is_of("row_means"):
            for k, means in state.row_means.items():
                score = partial(_counted_rows, one, share)
                counted = Values.of(np.arange(len(means)), *of_row_means(state, k, score, initial), state.drawn is None)
                found[k, "all", one.name] = initial.undefined_where_noise(k, state.undefined_where_noise(k, counted))
        elif state.drawn is not None and one.is_of("row_norms", "output_slopes"):
            if one.is_of("output_slopes") and state.output_slopes is not None:
                found[0, "all", one.name] = unknown_score(state.drawn, [WHOLE])
            elif one.is_of("row_norms") and state.row_norms is not None and 1 in initial.row_means:
                limit = partial(zero_row_threshold, initial, share)
                found[0, "all", one.name] = Values.of([WHOLE], *of_row_norms(state, one, limit), False, one.undefined)
        else:
            own = {
                "row_norms": state.row_norms,
                "output_slopes": state.output_slopes,
                "activations": state.activations,
                "initial_activations": initial.activations,
                "threshold": _unit_threshold(one, initial, share),
            }
            if all(own[name] is not None for name in one.takes):
                value = one.function(*(own[name] for name in one.takes))
                found[0, "all", one.name] = Values.of([WHOLE], value, reason=one.undefined)
    return found


def _counted_rows(one: Score, share: float, means: np.ndarray, initial: np.ndarray) -> np.ndarray:
    """A score of row means against the quantile of the baseline's."""
    return np.asarray(one.function(means, float(np.quantile(initial, share))))


def _side_by_side(own: list[Moments], before: list[Moments]) -> list[tuple[Moments, Moments]]:
    """Batches of the same items of two networks; one item at a time where they were not batched alike."""
    if [len(one) for one in own] != [len(one) for one in before]:
        own, before = _singles(own), _singles(before)
    return [(replace(a, batched=True), replace(b, batched=True)) for a, b in zip(own, before, strict=False)]


def _singles(batches: list[Moments]) -> list[Moments]:
    return [batch[place] for batch in batches for place in range(len(batch))]


def _unit_threshold(one: Score, initial: LayerState, share: float) -> float | None:
    if one.is_of("output_slopes"):
        return None if initial.output_slopes is None else float(np.quantile(initial.output_slopes, share))
    return zero_row_threshold(initial, share) if 1 in initial.row_means else None


def _columns(measured: Scores, baseline: Scores) -> Columns:
    """One row per score and item. The ratio is exactly 1 where trained equals initial, undefined over a zero baseline."""
    if not measured:
        return {}
    keys, scores = list(measured), list(measured.values())
    row_of = np.repeat(np.arange(len(keys)), [len(one.values) for one in scores])
    value = np.concatenate([one.values for one in scores])
    pairs = [_at(one.items, baseline.get(key)) for key, one in measured.items()]
    before, before_stderr = (np.concatenate(part) for part in zip(*pairs, strict=True))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = np.where(before != 0, value / before, np.nan)
    k, selection, score = (np.array(part, dtype=object)[row_of] for part in zip(*keys, strict=True))
    return {
        "row_of": row_of,
        "k": k,
        "selection": selection,
        "score": score,
        "item": np.concatenate([one.items for one in scores]),
        "value": value,
        "baseline": before,
        "ratio": ratio,
        "stderr": np.concatenate([one.stderr for one in scores]),
        "baseline_stderr": before_stderr,
        "exact": np.array([one.exact for one in scores])[row_of],
        "reason": np.where(np.isnan(value), np.concatenate([one.reason for one in scores]), ""),
    }


def _at(items: np.ndarray, before: Values | None) -> tuple[np.ndarray, np.ndarray]:
    """The baseline and its sampling error (0 where exact) at ``items``; NaN where it was not measured."""
    if before is None:
        return np.full(len(items), np.nan), np.full(len(items), np.nan)
    stderr = np.zeros_like(before.stderr) if before.exact else before.stderr
    if np.array_equal(before.items[: len(items)], items):
        return before.values[: len(items)], stderr[: len(items)]
    both = pd.DataFrame({"value": before.values, "stderr": stderr}, index=before.items).reindex(items)
    return both["value"].to_numpy(), both["stderr"].to_numpy()


def _average(tables: list[Columns]) -> Columns:
    """Mean over baselines of the baseline's score, and of those scores of the network that are counted against it.

    Baselines in which a score is undefined at an item are left out of its mean there. The error of the mean is that of sampling
    and of how much the baselines differ.
    """
    if len(tables) == 1:
        return tables[0]
    columns = dict(tables[0])
    for name in ("value", "baseline"):
        every = np.stack([one[name] for one in tables])
        mean = np.nansum(every, axis=0) / np.maximum((~np.isnan(every)).sum(axis=0), 1)
        same = (every == every[0]).all(axis=0)  # the network's own scores, to the last bit
        columns[name] = np.where(np.isnan(every).all(axis=0), np.nan, np.where(same, every[0], mean))
    before, errors = (np.stack([one[name] for one in tables]) for name in ("baseline", "baseline_stderr"))
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
    """What each unit looks at (:meth:`kagscope.measuring.unit_statistics.UnitSums.table`); empty where that was not kept.

    Zero rows are counted against each baseline's threshold, and the shares averaged, as in :func:`compare`.
    """
    found = []
    for layer, measured in state.measured.items():
        if measured.units is not None:
            others = [layer_state(other, layer) for other in initials]
            thresholds = [zero_row_threshold(other, state.spec.zero_row_quantile) for other in others if 1 in other.row_means]
            table = measured.units.table(layer, thresholds, measured.shared)
            found.append(table if measured.drawn is None else table.assign(unit=measured.drawn.rows))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def curves(state: State, initials: Sequence[State] = ()) -> pd.DataFrame:
    """Distributions averaged over the items where they were found: Zipf curves of row means, histograms of the sizes of minors.

    Returns:
        Columns layer, k, selection, curve, x, y of :data:`kagscope.tables.schema.CURVE_COLUMNS` and ``network``: "model", or
        "baseline" for the mean over the baselines.
    """
    parts = [_curves_of(state).assign(network="model")]
    if initials:
        every = pd.concat([_curves_of(other) for other in initials])
        keys = ["layer", "k", "selection", "curve", "x"]
        mean = every.groupby(keys, as_index=False, sort=False)["y"].sum()
        parts.append(mean.assign(y=mean["y"] / len(initials), network="baseline"))
    return pd.concat(parts, ignore_index=True)


def _curves_of(state: State) -> pd.DataFrame:
    curves: dict[tuple[str, int, str, str], Line] = {}
    for layer, measured in state.measured.items():
        curves |= {(layer, k, "all", "zipf"): _zipf(means) for k, means in measured.row_means.items()}
        curves |= {(layer, *key, "histogram"): _histogram(found) for key, found in measured.visited.items()}
    names = ["layer", "k", "selection", "curve"]
    if not curves:
        return pd.DataFrame(columns=[*names, "x", "y"])
    which = np.repeat(np.arange(len(curves)), [len(x) for x, _ in curves.values()])
    table = pd.DataFrame(list(curves), columns=names).take(which).reset_index(drop=True)
    table["x"], table["y"] = (np.concatenate(one) for one in zip(*curves.values(), strict=True))
    return table


def _zipf(means: np.ndarray) -> Line:
    """Row means over their overall mean, by rank; thinned to at most ``ZIPF_RANKS`` geometric ranks, the first and last kept."""
    falling = -np.sort(-means, axis=1)
    overall = falling.mean(axis=1, keepdims=True)
    mean = np.divide(falling, overall, out=np.zeros_like(falling), where=overall > 0).mean(axis=0)
    ranks = np.unique(np.geomspace(1, len(mean), min(ZIPF_RANKS, len(mean))).round().astype(int))
    return ranks.astype(float), mean[ranks - 1]


def _histogram(found: list[Moments]) -> Line:
    """Fractions in bins of log2(M / mean M), 1/8 wide; the mean is rounded to a bin, exact zeros stand at -inf."""
    places, shares = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    none, measured = 0.0, 0
    for one in _singles(found):
        position = float(mean_position(one)[0])
        if np.isnan(position):
            continue
        measured += 1
        first, counts, zeros = one.histogram
        index = np.flatnonzero(counts)
        places.append(int(first) - round(position) + index)
        shares.append(np.asarray(counts, dtype=float)[index] / float(one.count))
        none += float(zeros) / one.count
    bins, which = np.unique(np.concatenate(places), return_inverse=True)
    sums = np.zeros(len(bins))
    np.add.at(sums, which, np.concatenate(shares))
    return np.append(-np.inf, bins / 8), np.append(none, sums) / max(measured, 1)
