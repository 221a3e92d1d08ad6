"""Reduce networks to one number per seed, the unit of evidence of the claims (``docs/claims.md``, "Units are seeds")."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kagscope.studies.nets import Grid, Indices, Key, Nets
from kagscope.studies.statistics.bootstrap import defined_means
from kagscope.studies.statistics.student import Array
from kagscope.tables.means import layers_of
from kagscope.tables.schema import TRAININGS

LAYER_SCORES = ("pr", "kl_uniform", "rr_pr", "rr_max", "rr_sampled", "zero_rows", "constant_units")
RESAMPLES = 2000


class Sample(NamedTuple):
    """Sample for one part: means over the nets of each seed.

    Attributes:
        values: (quantities, seeds, points), NaN where undefined; every seed has a defined value of every quantity.
        seeds: (seeds,) positions among all seeds of the evidence.
    """

    values: Array
    seeds: Indices


class Checkpoint(NamedTuple):
    """One recorded step of one net: PR ratio over all column pairs at the data points ``points`` (sorted)."""

    step: int
    accuracy: float
    points: Indices
    ratio: Array


@dataclass
class Notes:
    """Distinct remarks on a claim."""

    texts: dict[str, None] = field(default_factory=dict)
    undefined: int = 0

    def add(self, *texts: str) -> None:
        """Add sentences."""
        self.texts.update(dict.fromkeys(text for text in texts if text))

    def text(self) -> str:
        """All remarks in one line."""
        counted = [f"{self.undefined} undefined values left out"] if self.undefined else []
        return "; ".join([*self.texts, *counted])


@dataclass(frozen=True)
class Evidence:
    """The nets on which a claim is judged: trained on true labels, or the control.

    Attributes:
        nets: the nets at their last step.
        results: their rows of the results table.
        resamples: number of bootstrap resamples; 0 omits intervals.
    """

    nets: Nets
    results: pd.DataFrame
    resamples: int = RESAMPLES

    @cached_property
    def layers(self) -> list[str]:
        """Hidden layers in the order of the network."""
        return [
            name
            for name in layers_of(self.nets.keys)
            if name and self.nets.keys["score"][self.nets.keys["layer"] == name].isin(LAYER_SCORES).any()
        ]

    @cached_property
    def names(self) -> list[str]:
        """Ids of the runs."""
        return [str(name) for name in self.nets.runs["run"]]

    @cached_property
    def seed(self) -> Indices:
        """(nets,) seeds of the nets."""
        return self.nets.runs["seed"].to_numpy(dtype=np.int64)

    @cached_property
    def seeds(self) -> Indices:
        """All seeds, ascending."""
        return np.unique(self.seed)

    @cached_property
    def checkpoints(self) -> dict[tuple[str, str], list[Checkpoint]]:
        """Recorded steps of each layer and run, ascending."""
        results = self.results
        pr = results[(results["score"] == "pr") & (results["k"] == 2) & (results["selection"] == "all")]
        if pr.empty:
            return {}
        group = pr.groupby(["layer", "run", "step"], observed=True, sort=True).ngroup().to_numpy()
        order = np.lexsort((pr["point"].to_numpy(), group))
        starts = np.unique(group[order], return_index=True)[1]
        numbers = pr["point"].to_numpy(dtype=np.int64)[order], pr["ratio"].to_numpy(dtype=float)[order]
        first = pr.iloc[order[starts]]
        names = first["layer"].astype(str), first["run"].astype(str)
        moments = first["step"].to_numpy(dtype=np.int64).tolist(), first["accuracy"].to_numpy(dtype=float).tolist()
        result: dict[tuple[str, str], list[Checkpoint]] = {}
        for layer, run, *moment in zip(*names, *moments, *(np.split(values, starts[1:]) for values in numbers), strict=True):
            result.setdefault((layer, run), []).append(Checkpoint(*moment))
        return result

    def trainings(self) -> list[str]:
        """The trainings of the nets, the paper's first."""
        names = [str(name) for name in pd.unique(self.nets.runs["training"])]
        return sorted(names, key=lambda name: (TRAININGS.index(name) if name in TRAININGS else len(TRAININGS), name))

    def training(self, notes: Notes) -> str:
        """The training on which claims are judged, with a note if that is not the standard one."""
        name = next(iter(self.trainings()), "standard")
        if name != "standard":
            notes.add(f"judged on the {name} training: the study has no standard nets")
        return name

    def of_training(self, training: str) -> Indices:
        """Indices of the nets of one training."""
        return np.flatnonzero(self.nets.runs["training"].astype(str) == training)

    def pairs(self, axis: str, first: Any, second: Any) -> Indices:
        """(2, pairs) nets with either value of an axis that agree in seed and all other settings."""
        names = ["seed", *(name for name in self.nets.axes if name not in (axis, f"{axis}s"))]
        return self.nets.pairs(axis, first, second, names).T

    @cached_property
    def standard_and_augmented(self) -> Indices:
        """(2, pairs) standard and augmented nets that agree in seed and all other settings."""
        return self.pairs("training", "standard", "augmented")

    def widths(self, nets: Indices) -> list[int]:
        """Widths of the given nets, ascending."""
        return sorted({int(width) for width in self.nets.runs["width"].to_numpy()[nets]})

    def sample(self, keys: list[Key], measure: str, nets: Indices, notes: Notes) -> Sample:
        """Quantities of the same nets, at the data points where all are defined, averaged over each seed."""
        grids = [self.nets.grid(key, measure) for key in keys]
        values = stack_at_common_points([Grid(g.points, g.values[nets], g.recorded[nets]) for g in grids], notes)
        return self.average(values, nets, notes, f"{keys[0].score}, layer {keys[0].layer}")

    def average(self, values: Array, which: Indices, notes: Notes, quantity: str, but: str = "") -> Sample:
        """Means over the nets of each seed, with equal weight for every setting.

        Args:
            values: (quantities, nets, points), NaN where undefined.
            which: (nets,) indices of the nets.
            notes: notes to which omissions are added.
            quantity: its name, for the notes.
            but: an axis that is not part of a setting here, as the quantities compare along it.
        """
        setting = self.nets.codes([axis for axis in self.nets.axes if not but or axis not in (but, f"{but}s")])[which]
        seed = np.searchsorted(self.seeds, self.seed[which])
        defined = np.isfinite(values).any(axis=2).all(axis=0)
        present = np.zeros((int(setting.max(initial=-1)) + 1, self.seeds.size), dtype=bool)
        present[setting[defined], seed[defined]] = True
        seeds_present = present.any(axis=0)
        kept = 2 * present.sum(axis=1) >= max(int(seeds_present.sum()), 1)
        complete = present[kept].all(axis=0) & seeds_present if kept.any() else np.zeros(self.seeds.size, dtype=bool)
        if dropped := int((present.any(axis=1) & ~kept).sum()):
            notes.add(f"{quantity}: {dropped} settings left out, which fewer than half of the seeds have")
        if dropped := int((seeds_present & ~complete).sum()):
            notes.add(f"{quantity}: {dropped} of {int(seeds_present.sum())} seeds left out, which lack a setting")
        used = defined & complete[seed] & kept[setting]
        target = (np.cumsum(complete) - 1)[seed[used]], (np.cumsum(kept) - 1)[setting[used]]
        sums, counts = np.zeros((2, int(complete.sum()), int(kept.sum()), values.shape[0], values.shape[2]))
        chosen = np.moveaxis(values[:, used], 1, 0)
        np.add.at(sums, target, np.nan_to_num(chosen))
        np.add.at(counts, target, np.isfinite(chosen))
        means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        return Sample(defined_means(np.moveaxis(means, (0, 1, 2), (1, 3, 0))), np.flatnonzero(complete))


def stack_at_common_points(grids: list[Grid], notes: Notes) -> Array:
    """(quantities, nets, points) at the points of all grids, NaN where any is undefined, which is counted in ``notes``."""
    common = grids[0].points
    for grid in grids[1:]:
        common = np.intersect1d(common, grid.points)
    stack = np.stack([grid.values[:, np.searchsorted(grid.points, common)] for grid in grids])
    notes.undefined += sum(int((grid.recorded & ~np.isfinite(grid.values)).sum()) for grid in grids)
    return np.where(np.isfinite(stack).all(axis=0), stack, np.nan)
