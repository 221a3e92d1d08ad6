"""What was measured along a training: its table, intervals, onsets and picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kagscope.base.errors import InputError
from kagscope.tables.onset import find_onsets
from kagscope.tracking.history import History
from kagscope.tracking.parts import Part, join, one_trajectory
from kagscope.tracking.summary import CONFIDENCE, KEYS, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE_SCORES = {"pr": "pr", "kl": "kl_uniform"}


@dataclass(frozen=True)
class Trajectory:
    """Measurements of one network along its training, by step.

    Attributes:
        parts: the measurements.
        damaged: files of the history that could not be read, each with what is wrong.
        pending: due steps that were left out since the last measurement.
    """

    parts: tuple[Part, ...]
    damaged: tuple[str, ...] = ()
    pending: tuple[int, ...] = ()

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Trajectory:
        """Read a history folder, without the network.

        Raises:
            DataError: the folder holds no history, or one of a newer version. Damaged measurements are left out and named in
                ``damaged``.
        """
        parts, damaged = History.existing(folder).read()
        return cls(tuple(one_trajectory(parts)), tuple(damaged))

    @property
    def steps(self) -> list[int]:
        """Steps that were measured."""
        return [part.step for part in self.parts]

    @property
    def thinned(self) -> list[int]:
        """Due steps that were not measured, to stay under the limit on overhead."""
        return sorted({step for part in self.parts for step in part.thinned} | set(self.pending))

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per number: ``step``, ``epoch``, then the columns of a measured model (:mod:`kagscope.tables.schema`) and
        ``baseline_stderr``. ``table.attrs`` holds ``thinned`` and ``damaged``."""
        table = join(self.parts)
        table.attrs = {"thinned": self.thinned, "damaged": list(self.damaged)}
        return table

    def summary(self, confidence: float = CONFIDENCE) -> pd.DataFrame:
        """Mean ratios over points with intervals, by step; see :func:`~kagscope.tracking.summary.summarise`."""
        return self._summary if confidence == CONFIDENCE else summarise(self.table, confidence)

    @cached_property
    def _summary(self) -> pd.DataFrame:
        return summarise(self.table)

    def onset(
        self,
        score: str | Sequence[str] | None = "pr",
        layer: str | Sequence[str] | None = None,
        *,
        k: int | None = None,
        selection: str | None = None,
        confidence: float = CONFIDENCE,
    ) -> pd.DataFrame:
        """First step at which a ratio leaves the baseline's interval; see :func:`~kagscope.tables.onset.find_onsets`.

        Args:
            score: name or names; None for all.
            layer: name or names; None for all.
            k: order of the minors; None: 2 where the score was measured for it, else the largest.
            selection: canonical string; None for all.
            confidence: of both intervals.

        Returns:
            One row per layer, k, selection and score; ``step`` is None where it never happens, and ``reason`` says why.

        Raises:
            InputError: nothing of that kind was measured.
        """
        summary = self.summary(confidence)
        return find_onsets(
            self._chosen(summary if k else _main_order(summary), score=score, layer=layer, k=k, selection=selection)
        )

    def plot(
        self,
        score: str = "pr",
        *,
        layer: str | Sequence[str] | None = None,
        k: int | None = None,
        selection: str = "all",
        ax: Axes | None = None,
    ) -> Axes:
        """Mean ratio of ``score`` to the baseline against the step: a line per layer with its 95% interval over points, onset
        marked.

        Args:
            score: name of a score with a ratio.
            layer: name or names; None for all.
            k: order of the minors; 2 where it was measured, else the largest.
            selection: canonical string.
            ax: where to draw; a new figure by default.

        Raises:
            InputError: nothing of that kind was measured.
        """
        from kagscope.figures.series import plot_by_step

        summary = self.summary() if k else _main_order(self.summary())
        chosen = self._chosen(summary, score=score, layer=layer, k=k, selection=selection)
        return plot_by_step(
            chosen, score=score, k=int(chosen["k"].iloc[0]), selection=selection, onsets=find_onsets(chosen), ax=ax
        )

    @property
    def findings(self) -> list[str]:
        """Plain sentences: where each layer's PR stands, since when it differs from the baseline's, what to distrust."""
        from kagscope.tracking.findings import findings

        return findings(self)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the self-contained page. Raises :class:`OutputError`, or :class:`DataError` where nothing was measured yet."""
        from kagscope.report.measured import write_trajectory_page

        return write_trajectory_page(self, path)

    @property
    def headline(self) -> dict[str, float]:
        """Of PR and KL, as far as measured, the ratio at the last step of the layer in which it is furthest from 1."""
        return {name: ratio for name, (_, ratio) in self._furthest().items()}

    @property
    def line(self) -> str:
        """The last measurement in a few words, for a progress bar: the ratios furthest from 1 and the first onset."""
        shown = [f"{name.upper()} x{ratio:.2f} (layer {layer})" for name, (layer, ratio) in self._furthest().items()]
        chosen = _main_order(self._summary)
        onsets = find_onsets(chosen[chosen["score"].isin(LINE_SCORES.values())])["step"].dropna()
        shown += [f"onset {min(onsets)}"] if len(onsets) else []
        return " | ".join(shown)

    def _furthest(self) -> dict[str, tuple[str, float]]:
        """Short name of a score to layer and ratio."""
        found: dict[str, tuple[str, float]] = {}
        if not self.parts:
            return found
        last = _main_order(self._summary[(self._summary["step"] == self.steps[-1]) & (self._summary["ratio"] > 0)])
        for name, score in LINE_SCORES.items():
            rows = last[last["score"] == score]
            if len(rows):
                place = int(np.argmax(np.abs(np.log(rows["ratio"].to_numpy(float)))))
                found[name] = str(rows["layer"].iloc[place]), float(rows["ratio"].iloc[place])
        return found

    def _chosen(self, summary: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
        """The rows whose columns hold one of the values wanted. Raises :class:`InputError` when none of it was measured."""
        keep = np.ones(len(summary), dtype=bool)
        for name, values in wanted.items():
            if values is not None:
                keep &= summary[name].isin([values] if isinstance(values, (str, int)) else list(values)).to_numpy()
        if not keep.any():
            asked = ", ".join(f"{name}={value!r}" for name, value in wanted.items() if value is not None)
            there = "; ".join(f"{name}: {', '.join(str(one) for one in pd.unique(summary[name]))}" for name in KEYS)
            raise InputError(f"nothing was measured for {asked}; there is {there}")
        return summary[keep]


def _main_order(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of each score for the order that stands for it: 2 where it was measured, else the largest."""
    largest = summary.groupby("score", observed=True)["k"].transform("max")
    has_two = (summary["k"] == 2).groupby(summary["score"], observed=True).transform("any")
    return summary[summary["k"] == largest.where(~has_two, 2)]
