"""Arrays of a study's results by net and data point, and the matching of nets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.studies.statistics.bootstrap import defined_means
from kagscope.studies.statistics.student import Array
from kagscope.tables.means import WHAT_KEYS, last_step
from kagscope.tables.schema import BOOKKEEPING, RESULT_COLUMNS

Indices = NDArray[np.int64]

REPLICATES = ("seed", "data_seed")  # repetitions of a setting, not settings
OWN_REFERENCE = ("cka_init", "kl_init")  # distances from the initial net
RATIO, DIFFERENCE, VALUE = "ratio", "difference", "value"


OUTCOMES = ("accuracy", "train_accuracy", "generalization_gap", "calibration_error")


def outcome_columns(runs: pd.DataFrame) -> list[str]:
    """Outcome columns that differ among the runs."""
    named = [name for name in runs.columns if name in OUTCOMES or name.startswith(("pgd_", "fgsm_"))]
    return [name for name in named if runs[name].nunique() > 1]


class Key(NamedTuple):
    """Identity of a measured quantity."""

    layer: str
    k: int
    selection: str
    score: str


@dataclass(frozen=True)
class Block:
    """Numbers measured at the same data points.

    Attributes:
        rows: (keys,) positions in :attr:`Nets.keys`.
        values: (keys, nets, points) float64, according to ``measure`` of the key; NaN where undefined or not measured.
        points: (points,) their indices, ascending.
        value, baseline: (keys, nets, points) as in the table.
        recorded: (keys, nets, points) whether the table has a row.
    """

    rows: Indices
    values: Array
    points: Indices = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    value: Array | None = None
    baseline: Array | None = None
    recorded: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Nets:
    """The trained nets of a study.

    Attributes:
        runs: one row per net, index 0 ... nets - 1, in the order of the study.
        axes: varied columns of ``runs``, without replicates.
        keys: one row per measured quantity: layer, k, selection, score; ``measure``: "ratio" (the numbers are log(value / initial
            value)), "difference" (value - initial value) or "value"; ``kind`` of selection, "outcome" for accuracies and the
            like; ``reason`` if nothing is defined, else "".
        blocks: the numbers, grouped by keys with equal data points.
    """

    runs: pd.DataFrame
    axes: tuple[str, ...]
    keys: pd.DataFrame
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, results: pd.DataFrame, runs: pd.DataFrame, varied: Sequence[str]) -> Nets:
        """Read each run's last step.

        A score is a ratio if it and its initial value are positive for every net and point of the study, else a
        difference; it is a plain value if it has no initial value or is a distance from the initial net.

        Raises:
            InputError: columns are missing.
        """
        missing = [name for name in RESULT_COLUMNS if name not in results.columns and name != "labels"]
        missing += [name for name in ("run", "seed", *varied) if name not in runs.columns]
        if missing:
            raise InputError(f"the tables of the study lack {', '.join(missing)}; see kagscope.tables.schema for what they need")
        runs = runs.reset_index(drop=True)
        row_of = {str(run): number for number, run in enumerate(runs["run"])}
        axes = tuple(name for name in varied if name not in REPLICATES)
        last = last_step(results)
        last = last[~last["score"].isin(BOOKKEEPING) & last["run"].astype(str).isin(list(row_of))].reset_index(drop=True)
        if last.empty:
            return cls(runs, axes, pd.DataFrame(columns=[*WHAT_KEYS, "measure", "kind", "reason"]), ())
        measures = _choose_measures(last)
        change = _change(last, _map_names(last["score"], measures.__getitem__))
        key: Indices = np.asarray(last.groupby(WHAT_KEYS, observed=True, sort=False).ngroup(), dtype=np.int64)
        net = _map_names(last["run"], row_of.__getitem__)
        first = np.unique(key, return_index=True)[1]
        keys = last.loc[first, WHAT_KEYS].astype({"layer": str, "selection": str, "score": str}).reset_index(drop=True)
        keys["measure"] = keys["score"].map(measures)
        keys["kind"] = keys["selection"].str.partition("(")[0]
        keys["reason"] = _key_reasons(last, key, np.isfinite(change), len(keys))
        value, baseline = (last[name].to_numpy(dtype=float) for name in ("value", "baseline"))
        blocks = _blocks(key, net, last["point"].to_numpy(dtype=np.int64), (change, value, baseline), len(runs))
        outcomes = outcome_columns(runs)
        if outcomes:
            numbers = runs[outcomes].to_numpy(dtype=float).T[:, :, None]
            blocks.append(Block(np.arange(len(keys), len(keys) + len(outcomes)), numbers))
            columns_of_outcome = {"layer": "", "k": 0, "selection": "", "measure": VALUE, "kind": "outcome", "reason": ""}
            keys = pd.concat([keys, pd.DataFrame({"score": outcomes} | columns_of_outcome)], ignore_index=True)
        return cls(runs, axes, keys, tuple(blocks))

    @property
    def labels(self) -> pd.DataFrame:
        """What each key is, as tables of tests begin: layer, k, selection, score, measure."""
        return self.keys[["layer", "k", "selection", "score", "measure"]]

    @property
    def families(self) -> pd.Series[str]:
        """Numbers that are tested together: those of selections of one kind, or the outcomes."""
        kinds = self.keys["kind"]
        return pd.Series(np.where(kinds == "outcome", "outcomes", "selections " + kinds), dtype=object)

    @cached_property
    def places(self) -> dict[Key, int]:
        """Index in :attr:`keys` of each key."""
        return {Key(*key): index for index, key in enumerate(self.keys[list(Key._fields)].itertuples(index=False))}

    def grid(self, key: Key, measure: str) -> Grid:
        """One quantity for every net: its "ratio" (value / initial value), "difference" or "value"."""
        index = self.places.get(key)
        for block in self.blocks:
            inside = np.flatnonzero(block.rows == (-1 if index is None else index))
            if len(inside) and block.value is not None and block.baseline is not None and block.recorded is not None:
                value, baseline, recorded = block.value[inside[0]], block.baseline[inside[0]], block.recorded[inside[0]]
                values = value if measure == VALUE else value - baseline
                if measure == RATIO:
                    values = np.divide(value, baseline, out=np.full(value.shape, np.nan), where=baseline != 0)
                return Grid(block.points, np.where(np.isfinite(values), values, np.nan), recorded)
        return Grid(np.zeros(0, np.int64), np.zeros((len(self.runs), 0)), np.zeros((len(self.runs), 0), dtype=bool))

    def take(self, which: Indices) -> Nets:
        """Select nets."""

        def part(values: Any) -> Any:
            return None if values is None else values[:, which]

        blocks = tuple(
            Block(b.rows, b.values[:, which], b.points, part(b.value), part(b.baseline), part(b.recorded)) for b in self.blocks
        )
        return Nets(self.runs.iloc[which].reset_index(drop=True), self.axes, self.keys, blocks)

    @property
    def means(self) -> Array:
        """(keys, nets) means over data points; NaN for a net without any defined value."""
        means = np.full((len(self.keys), len(self.runs)), np.nan)
        for block in self.blocks:
            means[block.rows] = defined_means(block.values)
        return means

    @cached_property
    def sizes(self) -> Array:
        """(keys,) magnitudes to which differences between nets are compared: the largest mean; 1 for changes in training."""
        largest = np.abs(np.nan_to_num(self.means)).max(axis=1, initial=0.0)
        return np.where(self.keys["measure"] == VALUE, largest, 1.0)

    def codes(self, names: Sequence[str]) -> Indices:
        """(nets,) index of the combination of these columns' values, in order of appearance."""
        if not names:
            return np.zeros(len(self.runs), dtype=np.int64)
        if tuple(names) not in self._codes:
            texts = self.runs[list(names)].astype(str)
            self._codes[tuple(names)] = np.asarray(texts.groupby(list(names), sort=False).ngroup(), dtype=np.int64)
        return self._codes[tuple(names)]

    @cached_property
    def _codes(self) -> dict[tuple[str, ...], Indices]:
        """Cache of :meth:`codes`."""
        return {}

    def pairs(self, axis: str, first: Any, second: Any, shared: Sequence[str]) -> Indices:
        """(pairs, 2) nets with either value of an axis that agree in the columns ``shared``."""
        block, values = self.codes(shared), self.runs[axis]
        partner = {int(block[net]): int(net) for net in np.flatnonzero(values == second)}
        pairs = [(int(net), partner[int(block[net])]) for net in np.flatnonzero(values == first) if int(block[net]) in partner]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def tied_axes(self, axis: str) -> list[str]:
        """Other axes that change together with ``axis``: each of its values has one value of theirs."""
        text = self.runs[[axis, *self.axes]].astype(str)
        text = text.loc[:, ~text.columns.duplicated()]
        return [name for name in self.axes if name != axis and (text.groupby(axis)[name].nunique() == 1).all()]

    def others(self, axis: str) -> list[str]:
        """Axes that must agree when values of ``axis`` are compared."""
        tied = self.tied_axes(axis)
        return [name for name in self.axes if name != axis and name not in tied]

    def levels(self, axis: str) -> list[Any]:
        """Values of an axis: numbers ascending, names in order of appearance."""
        values = list(pd.unique(self.runs[axis]))
        return sorted(values) if self.numeric(axis) else values

    @property
    def replicates(self) -> list[str]:
        """Columns that number repetitions: "seed", and "data_seed" if it varies."""
        return ["seed", *(name for name in REPLICATES[1:] if name in self.runs and self.runs[name].nunique() > 1)]

    def numeric(self, axis: str) -> bool:
        """Whether the values of an axis are numbers."""
        column = self.runs[axis]
        return bool(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column) and column.notna().all())


class Grid(NamedTuple):
    """One quantity for every net: data points (points,), values (nets, points) or NaN, and whether the table has a row."""

    points: Indices
    values: Array
    recorded: NDArray[np.bool_]


def _map_names(column: pd.Series[Any], of: Callable[[str], Any]) -> NDArray[Any]:
    """Apply ``of`` to each row's name, once per distinct name."""
    names = column.astype("category").cat.remove_unused_categories()
    return np.array([of(str(name)) for name in names.cat.categories])[names.cat.codes.to_numpy()]


def _choose_measures(last: pd.DataFrame) -> dict[str, str]:
    lowest = last[["value", "baseline"]].min(axis=1).groupby(last["score"], observed=True).min()
    compared = (last["value"].notna() & last["baseline"].notna()).groupby(last["score"], observed=True).any()
    measures = {str(name): RATIO if lowest[name] > 0 else DIFFERENCE for name in compared.index}
    return {name: VALUE if name in OWN_REFERENCE or not compared[name] else measure for name, measure in measures.items()}


def _change(last: pd.DataFrame, measure: NDArray[np.str_]) -> Array:
    value, baseline = (last[name].to_numpy(dtype=float) for name in ("value", "baseline"))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(value / baseline)
    change = np.where(measure == RATIO, ratio, np.where(measure == DIFFERENCE, value - baseline, value))
    return np.where(np.isfinite(change), change, np.nan)


def _key_reasons(last: pd.DataFrame, key: Indices, defined: NDArray[np.bool_], keys: int) -> list[str]:
    """Reasons why keys have no number, the most frequent in the table."""
    defined_keys = np.bincount(key, defined, minlength=keys) > 0
    reasons = last["reason"][~defined_keys[key]].astype(str).str.removeprefix("undefined: ")
    modes = reasons.groupby(key[~defined_keys[key]]).agg(lambda texts: texts.mode().iloc[0])
    return ["" if defined_keys[i] else modes.get(i) or "undefined in every net" for i in range(keys)]


def _blocks(key: Indices, net: Indices, point: Indices, columns: Sequence[Array], nets: int) -> list[Block]:
    """Fill one array for each distinct set of data points."""
    if not key.size:
        return []
    shift = int(point.min())
    span = int(point.max()) - shift + 1
    pairs, pair = np.unique(key * span + (point - shift), return_inverse=True)
    starts = np.searchsorted(pairs // span, np.arange(int(key.max()) + 1))
    sets: dict[bytes, list[int]] = {}
    for i, points in enumerate(np.split(pairs % span, starts[1:])):
        sets.setdefault(points.tobytes(), []).append(i)
    column = pair - starts[key]
    blocks = []
    for members in sets.values():
        rows = np.array(members, dtype=np.int64)
        position = np.full(starts.size, -1)
        position[rows] = np.arange(rows.size)
        inside = position[key] >= 0
        cells = position[key[inside]], net[inside], column[inside]
        shape = rows.size, nets, int(column[inside].max()) + 1
        change, value, baseline = np.full((3, *shape), np.nan)
        recorded = np.zeros(shape, dtype=bool)
        for array, numbers in zip((change, value, baseline), columns, strict=True):
            array[cells] = numbers[inside]
        recorded[cells] = True
        points = pairs[starts[rows[0]] : starts[rows[0]] + shape[2]] % span + shift
        blocks.append(Block(rows, change, points, value, baseline, recorded))
    return blocks
