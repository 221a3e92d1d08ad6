"""From the tidy results table to arrays of nets by data points, one for every layer, order, selection and score.

Nets are told apart by ``run`` and stand in one order, whatever the order of the table's rows, so that a seed fixes every draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.columns.selections import parse_selection
from kagscope.studies.statistics.bootstrap import Strata, net_means
from kagscope.studies.statistics.student import Array
from kagscope.tables.means import layers_of
from kagscope.tables.schema import RESULT_COLUMNS, TRAININGS

Measure = Literal["ratio", "difference", "value", "baseline"]
Indices = NDArray[np.int64]

LAYER_SCORES = ("pr", "kl_uniform", "rr_pr", "rr_max", "zero_rows", "zero_rows_exact", "constant_units")
SCORES = (*LAYER_SCORES, "prune_change", "column_subsets")


class Key(NamedTuple):
    """What was measured."""

    layer: str
    k: int
    selection: str
    score: str


class Block(NamedTuple):
    """The rows of one key at each net's last step, columns aligned."""

    net: Indices
    point: Indices
    value: Array
    baseline: Array
    ratio: Array

    def measure(self, name: Measure) -> Array:
        """The measure of each row; not finite where it is undefined."""
        return self.value - self.baseline if name == "difference" else np.asarray(getattr(self, name))


class Checkpoint(NamedTuple):
    """One recorded step of one net: PR ratio over all column pairs at the data points ``points`` (sorted)."""

    step: int
    accuracy: float
    points: Indices
    ratio: Array


@dataclass(frozen=True)
class Sample:
    """Evidence for one test.

    Attributes:
        values: (quantities, nets, points) float64, NaN where not measured or undefined; every net has
            a defined value of every quantity.
        nets: (nets,) indices of the nets; of the standard one where a "net" is a pair.
        strata: (nets,) width of each net: the setting it belongs to.
        undefined: how many recorded values were undefined and left out.
        notes: what else was left out.
    """

    values: Array
    nets: Indices
    strata: Strata
    undefined: int
    notes: tuple[str, ...]

    @property
    def means(self) -> Array:
        """(quantities, nets) means over data points."""
        return net_means(self.values)

    @property
    def size(self) -> int:
        """Number of nets."""
        return int(self.nets.size)


class Evidence:
    """What the claims need of a results table.

    Args:
        results: The table of :mod:`kagscope.tables.schema`; text columns may be categories or strings, rows in any order.

    Attributes:
        runs: Run ids, sorted by training, width, seed.
        width, training, seed, last_step: One entry per net, in the order of ``runs``.
        layers: Hidden layers in the order of the network.

    Raises:
        InputError: not a table, or columns are missing.
    """

    def __init__(self, results: pd.DataFrame) -> None:
        if not isinstance(results, pd.DataFrame):
            raise InputError(f"results must be a pandas DataFrame, got {type(results).__name__}; give the table of a study")
        missing = [column for column in RESULT_COLUMNS if column not in results.columns]
        if missing:
            raise InputError(f"the results table lacks {', '.join(missing)}; see kagscope.tables.schema")
        run_codes, names = _codes(results["run"])
        step = results["step"].to_numpy(dtype=np.int64)
        order = self._describe_nets(results, run_codes, names, step)
        net = order[run_codes]
        score_codes, scores = _codes(results["score"])
        selection_codes, selections = _codes(results["selection"])
        selections = [_canonical(name) for name in selections]
        wanted = np.array([name in SCORES for name in scores] + [False])[score_codes]
        wanted &= np.array([not name.startswith("window") for name in selections] + [False])[selection_codes]
        rows = np.flatnonzero(wanted & (net >= 0))
        chosen = results.iloc[rows]
        table = pd.DataFrame(
            {
                "layer": chosen["layer"].astype(str).to_numpy(),
                "k": chosen["k"].to_numpy(dtype=np.int64),
                "selection": np.array(selections, dtype=object)[selection_codes[rows]],
                "score": np.array(scores, dtype=object)[score_codes[rows]],
                "net": net[rows],
                "step": step[rows],
                "point": chosen["point"].to_numpy(dtype=np.int64),
            }
            | {column: chosen[column].to_numpy(dtype=np.float64) for column in ("value", "baseline", "ratio", "accuracy")}
        )
        last = table[table["step"].to_numpy() == self.last_step[table["net"].to_numpy()]]
        self.blocks: dict[Key, Block] = {
            Key(str(key[0]), int(key[1]), str(key[2]), str(key[3])): Block(
                *(part[name].to_numpy() for name in ("net", "point", "value", "baseline", "ratio"))
            )
            for key, part in last.groupby(["layer", "k", "selection", "score"], sort=True)
        }
        measured = {key.layer for key in self.blocks if key.score in LAYER_SCORES and key.layer}
        self.layers = [name for name in layers_of(table) if name in measured]
        self._checkpoints = self._follow(table)

    def _describe_nets(self, results: pd.DataFrame, run_codes: Indices, names: list[str], step: Indices) -> Indices:
        """Set the description of each net; returns the net's index by run code (-1 for a code without rows, and last)."""
        count = len(names)
        last = np.full(count + 1, -1, dtype=np.int64)
        np.maximum.at(last, run_codes, step)
        width, seed = np.zeros((2, count + 1), dtype=np.int64)
        width[run_codes] = results["width"].to_numpy(dtype=np.int64)
        seed[run_codes] = results["seed"].to_numpy(dtype=np.int64)
        training_codes, trainings = _codes(results["training"])
        training = np.full(count + 1, -1, dtype=np.int64)
        training[run_codes] = training_codes
        present = [code for code in range(count) if last[code] >= 0 and training[code] >= 0]
        present.sort(key=lambda code: (_training_order(trainings[training[code]]), width[code], seed[code], names[code]))
        self.runs = [names[code] for code in present]
        self.width, self.seed, self.last_step = width[present], seed[present], last[present]
        self.training = [trainings[training[code]] for code in present]
        order = np.full(count + 1, -1, dtype=np.int64)
        order[present] = np.arange(len(present))
        return order

    @staticmethod
    def _follow(table: pd.DataFrame) -> dict[tuple[str, int], list[Checkpoint]]:
        pr = table[(table["score"] == "pr") & (table["k"] == 2) & (table["selection"] == "all")]
        pr = pr.sort_values(["layer", "net", "step", "point"], kind="stable")
        found: dict[tuple[str, int], list[Checkpoint]] = {}
        for key, part in pr.groupby(["layer", "net", "step"], sort=True):
            layer, net, step = cast(tuple[str, int, int], key)
            checkpoint = Checkpoint(
                int(step), float(part["accuracy"].iloc[0]), part["point"].to_numpy(), part["ratio"].to_numpy()
            )
            found.setdefault((str(layer), int(net)), []).append(checkpoint)
        return found

    def nets(self, training: str, width: int | None = None) -> Indices:
        """Indices of the nets of one training, and of one width if given."""
        chosen = [i for i, name in enumerate(self.training) if name == training and (width is None or self.width[i] == width)]
        return np.array(chosen, dtype=np.int64)

    def judged_training(self) -> tuple[str, list[str]]:
        """The training on which claims are judged, and a note where that is not the standard one."""
        if "standard" in self.training or not self.training:
            return "standard", []
        return self.training[0], [f"judged on the {self.training[0]} training: the study has no standard nets"]

    def widths(self, training: str) -> list[int]:
        """Widths of one training, ascending."""
        return sorted({int(width) for width in self.width[self.nets(training)]})

    def checkpoints(self, layer: str, net: int) -> list[Checkpoint]:
        """Recorded steps of one net, ascending."""
        return self._checkpoints.get((layer, net), [])

    def selections(self, kind: str, score: str = "pr", k: int = 2) -> dict[float, str]:
        """Size of each ball or apart ("ball(7)" -> 7.0) that was measured in any layer, ascending."""
        names = {key.selection for key in self.blocks if key.score == score and key.k == k}
        sizes = {_size(name): name for name in names if name.startswith(f"{kind}(")}
        return dict(sorted(sizes.items()))

    def grid(self, key: Key, measure: Measure, nets: Indices) -> tuple[Indices, Array, int]:
        """Data points (points,), values (nets, points) with NaN where not measured or undefined, and how many were undefined."""
        block = self.blocks.get(key)
        if block is None:
            return np.zeros(0, dtype=np.int64), np.full((nets.size, 0), np.nan), 0
        position = np.full(len(self.runs), -1)
        position[nets] = np.arange(nets.size)
        inside = position[block.net] >= 0
        values = block.measure(measure)[inside]
        points, column = np.unique(block.point[inside], return_inverse=True)
        grid = np.full((nets.size, points.size), np.nan)
        grid[position[block.net[inside]], column] = np.where(np.isfinite(values), values, np.nan)
        return points, grid, int((~np.isfinite(values)).sum())

    def sample(self, keys: Sequence[Key], measure: Measure, nets: Indices) -> Sample:
        """Several quantities of the same nets at the data points where all of them are defined."""
        grids = [self.grid(key, measure, nets) for key in keys]
        common = grids[0][0]
        for points, _, _ in grids[1:]:
            common = np.intersect1d(common, points)
        stack = np.stack([grid[:, np.searchsorted(points, common)] for points, grid, _ in grids])
        stack = np.where(np.isfinite(stack).all(axis=0), stack, np.nan)
        what = f"{keys[0].score}, layer {keys[0].layer}" if keys[0].layer else keys[0].score
        return settle(stack, nets, self.width[nets], sum(count for _, _, count in grids), what)

    def settings_left_out(self, training: str) -> list[str]:
        """A note on settings with fewer than two seeds."""
        small = [width for width in self.widths(training) if self.nets(training, width).size < 2]
        if not small:
            return []
        return [f"left out, fewer than two seeds: width {', '.join(map(str, small))} ({training})"]


def settle(values: Array, nets: Indices, strata: Strata, undefined: int, what: str) -> Sample:
    """Leave out nets without a defined value, then settings with fewer than two nets, and say so."""
    notes = []
    defined = np.isfinite(values).any(axis=2).all(axis=0)
    if nets.size and not defined.all():
        notes.append(f"{what}: {int((~defined).sum())} of {nets.size} nets without a defined value")
    widths, counts = np.unique(strata[defined], return_counts=True)
    keep = defined & np.isin(strata, widths[counts >= 2])
    return Sample(values[:, keep], nets[keep], np.asarray(strata[keep], dtype=np.int64), undefined, tuple(notes))


def _codes(column: pd.Series[Any]) -> tuple[Indices, list[str]]:
    """Codes (-1 for missing) and the names they stand for."""
    category = column if isinstance(column.dtype, pd.CategoricalDtype) else column.astype("category")
    return np.asarray(category.cat.codes, dtype=np.int64), [str(name) for name in category.cat.categories]


def _canonical(name: str) -> str:
    try:
        return str(parse_selection(name))
    except InputError:  # a named list of subsets: no claim looks at it
        return name


def _size(name: str) -> float:
    return float(name.partition("(")[2].rstrip(")"))


def _training_order(name: str) -> tuple[int, str]:
    return (TRAININGS.index(name) if name in TRAININGS else len(TRAININGS), name)


def other_trainings(evidence: Evidence, judged: str) -> Iterator[str]:
    """The trainings in the table that are not judged."""
    seen = dict.fromkeys(evidence.training)
    return (name for name in seen if name != judged)
