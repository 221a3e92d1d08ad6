"""The report of a measurement, at one step of training or at several: tables, findings, figures, files."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from kagscope.base.errors import InputError
from kagscope.base.files import atomic_write
from kagscope.base.messages import Finding, listing
from kagscope.measuring.findings import findings
from kagscope.measuring.overview import overview
from kagscope.measuring.report_files import read_folder, write_folder
from kagscope.tables.means import CONFIDENCE, WHAT_KEYS, summarise
from kagscope.tables.onset import find_onsets

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 40  # of an overview in every selection


class Report:
    """What :func:`kagscope.measure`, :func:`kagscope.measure_series` and :attr:`kagscope.Tracker.report` return.

    Attributes:
        table: tidy, one row per number: step (only of several), layer, k, selection, point (an index in the inputs as they were
            given; -1: the layer over many points), token (only where a layer has tokens), score, value, baseline, ratio, stderr,
            baseline_stderr, exact, reason (:mod:`kagscope.tables.schema`).
        curves: Zipf curves and histograms (:data:`kagscope.tables.schema.CURVE_COLUMNS` without those of runs, ``step`` only of
            several); ``network`` is "model" or "baseline".
        layers: one mapping for each layer asked for: name, kind, rows, columns, route, jacobians, wrt, seconds, notes, reason.
        settings: the :class:`~kagscope.measuring.spec.MeasureSpec` as plain values.
        notes, provenance: how it was measured.
        units: what each unit looks at (:meth:`kagscope.measuring.unit_statistics.UnitSums.table`); empty where that was not
            kept; of several steps those of the last.
        left_out: checkpoints and files that could not be read or measured, and why.
        thinned: steps at which a tracker was due to measure and did not, to stay under its limit on overhead.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        curves: pd.DataFrame,
        *,
        layers: Sequence[Mapping[str, Any]],
        settings: Mapping[str, Any],
        notes: Sequence[str] = (),
        provenance: Mapping[str, Any] | None = None,
        units: pd.DataFrame | None = None,
        left_out: Mapping[str, str] | None = None,
        thinned: Sequence[int] = (),
    ) -> None:
        self.table, self.curves = table, curves
        self.units = pd.DataFrame() if units is None else units
        self.layers = [dict(layer) for layer in layers]
        self.settings, self.notes, self.provenance = dict(settings), list(notes), dict(provenance or {})
        self.left_out, self.thinned = dict(left_out or {}), list(thinned)

    # -- reading -----------------------------------------------------------------------------------------------------------------

    @property
    def steps(self) -> list[int]:
        """Steps of training that were measured; empty where only one network was."""
        return [int(step) for step in np.unique(self.table["step"])] if "step" in self.table.columns else []

    def at(self, step: int) -> Report:
        """The report of one of several steps. Raises :class:`InputError` if that step was not measured."""
        if step not in self.steps:
            raise InputError(f"step {step} was not measured; measured were {', '.join(map(str, self.steps)) or 'no steps'}")
        table, curves = (frame[frame["step"] == step].drop(columns="step") for frame in (self.table, self.curves))
        facts = {name: getattr(self, name) for name in ("layers", "settings", "notes", "provenance")}
        units = self.units if step == self.steps[-1] else None
        return Report(table.reset_index(drop=True), curves.reset_index(drop=True), units=units, **facts)

    def summary(self, confidence: float = CONFIDENCE) -> pd.DataFrame:
        """Means over points with intervals; see :func:`kagscope.tables.means.summarise`."""
        return self._summary if confidence == CONFIDENCE else summarise(self.table, confidence=confidence)

    @cached_property
    def _summary(self) -> pd.DataFrame:
        return summarise(self.table)

    @property
    def findings(self) -> list[Finding]:
        """Plain sentences, each with a code and its numbers: what stands out, what is undefined or sampled, what to distrust."""
        return findings(self.table, self.layers, self.notes, self.provenance, self.left_out, self.thinned)

    @property
    def skipped(self) -> dict[str, str]:
        """Layers that could not be measured, and why."""
        return {str(layer["name"]): str(layer["reason"]) for layer in self.layers if layer["reason"]}

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
            InputError: nothing of that kind was measured, or at fewer than two steps.
        """
        if len(self.steps) < 2:
            raise InputError("an onset needs measurements at two steps or more; see kagscope.measure_series and kagscope.Tracker")
        summary = self.summary(confidence)
        return find_onsets(_select(summary if k else main_order(summary), score=score, layer=layer, k=k, selection=selection))

    def compare(self, other: Report) -> pd.DataFrame:
        """This report beside another of the same layers: means over the points that both have.

        Args:
            other: measured with the same selections; layers are matched by name.

        Returns:
            layer, k, selection, score, points, value, other, ratio (mean over points of value / other), ratio_low, ratio_high
            (95%, over points), exact.

        Raises:
            InputError: the reports have no score in common.
        """
        keys = [*WHAT_KEYS, *(name for name in ("step", "point", "token") if name in self.table and name in other.table)]
        text = dict.fromkeys(("layer", "selection", "score"), str)
        left, right = (report.table[[*keys, "value", "stderr", "exact"]].astype(text) for report in (self, other))
        both = left.merge(right, on=keys, suffixes=("", "_other"))
        if both.empty:
            raise InputError(
                f"the reports have nothing in common: layers {', '.join(self._names())} against {', '.join(other._names())}; "
                "compare reports of the same layers, selections and points"
            )
        ratio = both["value"] / both["value_other"].where(both["value_other"] != 0)
        errors = both["stderr_other"]
        exact = both["exact"] & both["exact_other"]
        frame = both.assign(baseline=both["value_other"], baseline_stderr=errors, ratio=ratio, exact=exact, reason="")
        summary = summarise(frame).rename(columns={"baseline": "other"})
        step = ["step"] if "step" in summary else []
        return summary[[*step, *WHAT_KEYS, "points", "value", "other", "ratio", "ratio_low", "ratio_high", "exact"]]

    def __repr__(self) -> str:
        lines = [self.headline, "", self.overview().to_string(index=False), *self._hidden_note(), ""]
        return "\n".join([*lines, *(f"- {sentence}" for sentence in self.findings)])

    def _hidden_note(self) -> list[str]:
        """A note on selections that were measured but are not in the overview."""
        measured = [str(selection) for selection in pd.unique(self.table["selection"]) if selection]
        shown = self.overview().get("columns", pd.Series(["all"])).tolist()
        if not (hidden := [selection for selection in measured if selection not in shown]):
            return []
        named = [selection for selection in hidden if not selection.startswith("window(")]
        if windows := len(hidden) - len(named):
            named.append(f"{windows} windows" if windows > 1 else hidden[-1])
        return [f"(also measured: {listing(named)}; .summary() has all of them)"]

    def _repr_html_(self) -> str:
        table = self.overview().to_html(index=False, border=0, escape=True)
        items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.findings)
        return f"<p>{html.escape(self.headline)}</p>{table}<ul>{items}</ul>"

    @property
    def headline(self) -> str:
        """What was measured, in one line."""
        facts, steps = self.provenance, self.steps
        measured = sum(not layer["reason"] for layer in self.layers)
        if facts.get("matrices"):
            matrices = "1 matrix" if measured == 1 else f"{measured} matrices"
            named = f"{facts['model']}: " if facts["model"] != matrices else ""
            return f"{named}{matrices}, baseline {facts['baseline']}, {facts['seconds']:.3g} s"
        course = f"steps {', '.join(map(str, steps[:12]))}{', …' if len(steps) > 12 else ''}, " if steps else ""
        return (
            f"{facts.get('model', 'model')}: {course}{measured} of {len(self.layers)} layers, {facts.get('points', '?')} points, "
            f"map {self.settings.get('layer_map', 'input')}, baseline {facts.get('baseline', 'none')}, "
            f"{facts.get('seconds', 0):.3g} s"
        )

    def overview(self) -> pd.DataFrame:
        """The main scores as text, in every selection but windows; only over all columns if there are too many rows."""
        summary = self.summary()
        summary = summary[~summary["selection"].astype(str).str.startswith("window(")]
        if int((summary["score"] == "pr").sum()) <= MOST_ROWS:
            return overview(summary)
        whole = summary["selection"] == "all"
        orders = summary["k"][whole & (summary["score"] == "pr")].unique()
        return overview(summary[whole | ~summary["k"].isin(orders)])

    # -- figures -----------------------------------------------------------------------------------------------------------------

    def plot(
        self,
        score: str = "pr",
        *,
        layer: str | Sequence[str] | None = None,
        k: int | None = None,
        selection: str = "all",
        measure: str = "ratio",
        ax: Axes | None = None,
    ) -> Axes:
        """A score against the step of training: a line per layer with its 95% interval over points, its onset marked.

        Args:
            score: name of a score.
            layer: name or names; None for all.
            k: order of the minors; 2 where it was measured, else the largest.
            selection: canonical string.
            measure: "ratio" (over the baseline's) or "value".
            ax: where to draw; a new figure by default.

        Raises:
            InputError: nothing of that kind was measured.
        """
        from kagscope.figures.steps import plot_by_step

        if not self.steps:
            raise InputError("one network has no steps to draw; plot_layers and plot_scales draw one measurement")
        summary = self.summary() if k else main_order(self.summary())
        chosen = _select(summary, score=score, layer=layer, k=k, selection=selection)
        onsets = find_onsets(chosen) if measure == "ratio" else None
        order = int(chosen["k"].iloc[0])
        return plot_by_step(chosen, score=score, k=order, selection=selection, measure=measure, onsets=onsets, ax=ax)

    def plot_scales(self, score: str = "pr", k: int | None = None, axis: str = "ball", ax: Axes | None = None) -> Axes:
        """A score over the baseline's against ball radius or minimum distance ("apart"), a line for each layer.

        Here as below ``k`` is 2 by default where the score was measured for it, else the largest order.
        """
        from kagscope.figures.scales import plot_scales

        return plot_scales(self._last_summary(), score=score, k=self._order(k, score), axis=axis, ax=ax)

    def plot_layers(self, score: str = "pr", k: int | None = None, selection: str = "all", ax: Axes | None = None) -> Axes:
        """A score of every layer, beside the baseline's; also of one that is not about minors, such as "effective_rank"."""
        from kagscope.figures.layers import plot_layers

        return plot_layers(self._last_summary(), score=score, k=self._order(k, score), selection=selection, ax=ax)

    def plot_depth(self, score: str = "pr", k: int | None = None, selection: str = "all", ax: Axes | None = None) -> Axes:
        """A score against depth, block by block, of the model and of its baseline, with intervals over points and tokens.

        Args:
            score: name of a score, also of one that is not about minors, such as "axis_alignment".
            k: order of the minors; 2 where the score was measured for it, else the largest.
            selection: canonical string.
            ax: where to draw; a new figure by default.
        """
        from kagscope.figures.layers import plot_depth

        return plot_depth(self._last_summary(), score=score, k=self._order(k, score), selection=selection, ax=ax)

    def plot_zipf(self, layer: str | None = None, k: int | None = None, ax: Axes | None = None) -> Axes:
        """Row means of the k-minor matrix by falling rank, model and baseline."""
        from kagscope.figures.distributions import plot_zipf

        return plot_zipf(self._last().curves, layer=layer, k=self._curve_order(k), ax=ax)

    def plot_histogram(self, layer: str | None = None, k: int | None = None, ax: Axes | None = None) -> Axes:
        """Sizes of the k-minors, model and baseline, at the points where every minor was looked at."""
        from kagscope.figures.distributions import plot_minor_histogram

        return plot_minor_histogram(self._last().curves, layer=layer, k=self._curve_order(k), ax=ax)

    def plot_tokens(self, layer: str | None = None, score: str = "pr", k: int | None = None, ax: Axes | None = None) -> Axes:
        """A score over the baseline's against the token, with 95% intervals over points."""
        from kagscope.figures.layers import plot_tokens

        return plot_tokens(self._last().table, layer=layer, score=score, k=self._order(k, score), ax=ax)

    # -- files -------------------------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``table.parquet``, ``curves.parquet``, ``units.parquet`` and ``report.json`` into a folder, made if need be.

        Raises:
            OutputError: the folder cannot be written, or holds something else.
        """
        return write_folder(folder, self)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the folder is missing, damaged, no report, or of a newer format.
        """
        return cls(**read_folder(folder))

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as CSV, at once or not at all. Raises :class:`OutputError`."""
        atomic_write(path, self.table.to_csv(index=False))
        return Path(path)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the self-contained page that studies have too, of this one model.

        Raises:
            DataError: nothing was measured.
            OutputError: the page cannot be written.
        """
        from kagscope.measuring.page import write_page

        return write_page(self, path)

    # -- within ------------------------------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        return [str(layer["name"]) for layer in self.layers]

    def _order(self, k: int | None, score: str) -> int:
        """The order given, or the score's main order. Raises :class:`InputError` if it was not measured."""
        return k if k is not None else int(_select(main_order(self._last_summary()), score=score)["k"].iloc[0])

    def _curve_order(self, k: int | None) -> int:
        orders = {int(order) for order in self._last().curves["k"].unique()}
        return k if k is not None else 2 if 2 in orders or not orders else max(orders)

    def _last(self) -> Report:
        return self.at(self.steps[-1]) if self.steps else self

    def _last_summary(self) -> pd.DataFrame:
        summary = self.summary()
        return summary[summary["step"] == self.steps[-1]].drop(columns="step") if self.steps else summary


def main_order(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of each score for its main order: 2 if measured, else the largest."""
    largest = summary.groupby("score", observed=True)["k"].transform("max")
    has_two = (summary["k"] == 2).groupby(summary["score"], observed=True).transform("any")
    return summary[summary["k"] == largest.where(~has_two, 2)]


def _select(summary: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """Select rows by values of columns. Raises :class:`InputError` if there are none."""
    keep = np.ones(len(summary), dtype=bool)
    for name, values in wanted.items():
        if values is not None:
            keep &= summary[name].isin([values] if isinstance(values, (str, int)) else list(values)).to_numpy()
    if not keep.any():
        request = ", ".join(f"{name}={value!r}" for name, value in wanted.items() if value is not None)
        available = "; ".join(f"{name}: {', '.join(str(value) for value in pd.unique(summary[name]))}" for name in WHAT_KEYS)
        raise InputError(f"nothing was measured for {request}; there is {available}")
    return summary[keep]
