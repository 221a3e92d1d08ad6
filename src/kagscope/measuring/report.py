"""What was measured of a model: tables, sentences, figures, files."""

from __future__ import annotations

import html
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kagscope.base.errors import DataError, InputError
from kagscope.base.files import atomic_write
from kagscope.measuring import folders
from kagscope.measuring.overview import brief
from kagscope.measuring.summary import KEYS, findings, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = ("layers", "settings", "notes", "provenance")


class Report:
    """The measurement of one model, from :func:`kagscope.measure`.

    Attributes:
        table: tidy: layer, k, selection, point (-1: the layer over all points), token (only where a layer has tokens), score,
            value, baseline, ratio, stderr, exact, reason.
        curves: Zipf curves and histograms (:data:`kagscope.tables.schema.CURVE_COLUMNS` without those of runs); ``network``
            is "model" or "baseline".
        layers: one mapping for each layer asked for: name, kind, rows, columns, route, jacobians, seconds, notes, reason.
        settings, notes, provenance: how it was measured.
        units: what each unit looks at (:meth:`kagscope.measuring.unit_statistics.Incoming.table`); empty where that was not kept.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        curves: pd.DataFrame,
        baseline_curves: Sequence[pd.DataFrame] = (),
        *,
        layers: Sequence[Mapping[str, Any]],
        settings: Mapping[str, Any],
        notes: Sequence[str],
        provenance: Mapping[str, Any],
        units: pd.DataFrame | None = None,
    ) -> None:
        self.table = table
        parts = [curves if "network" in curves.columns else curves.assign(network="model")]
        if baseline_curves:
            keys = ["layer", "k", "selection", "curve", "x"]
            every = pd.concat(baseline_curves).groupby(keys, as_index=False, sort=False)["y"].sum()
            parts.append(every.assign(y=every["y"] / len(baseline_curves), network="baseline"))
        self.curves = pd.concat(parts, ignore_index=True)
        self.layers = [dict(one) for one in layers]
        self.units = pd.DataFrame() if units is None else units
        self.settings, self.notes, self.provenance = dict(settings), list(notes), dict(provenance)

    # -- reading -----------------------------------------------------------------------------------------------------------------

    def summary(self) -> pd.DataFrame:
        """Means over points with 95% intervals; see :func:`kagscope.measuring.summary.summarise`."""
        return summarise(self.table)

    @property
    def findings(self) -> list[str]:
        """Plain sentences: what stands out, what is skipped, undefined or sampled, what to distrust."""
        return findings(self.table, self.layers, self.notes, self.provenance)

    @property
    def skipped(self) -> dict[str, str]:
        """Layers that could not be measured, and why."""
        return {str(one["name"]): str(one["reason"]) for one in self.layers if one["reason"]}

    def compare(self, other: Report) -> pd.DataFrame:
        """This report beside another of the same layers: means over the points that both have.

        Args:
            other: measured with the same selections; layers are matched by name.

        Returns:
            layer, k, selection, score, points, value, other, ratio (mean over points of value / other), ratio_low, ratio_high
            (95%, over points).

        Raises:
            InputError: the reports have no score in common.
        """
        keys = [*KEYS, "point", *(["token"] if "token" in self.table and "token" in other.table else [])]
        text = dict.fromkeys(("layer", "selection", "score"), str)
        left, right = (one.table[[*keys, "value", "stderr", "exact"]].astype(text) for one in (self, other))
        both = left.merge(right, on=keys, suffixes=("", "_other"))
        if both.empty:
            raise InputError(
                f"the reports have nothing in common: layers {', '.join(self._names())} against {', '.join(other._names())}; "
                "compare reports of the same layers, selections and points"
            )
        ratio = both["value"] / both["value_other"].where(both["value_other"] != 0)
        frame = both.assign(baseline=both["value_other"], ratio=ratio, exact=both["exact"] & both["exact_other"], reason="")
        found = summarise(frame).rename(columns={"baseline": "other"})
        return found[[*KEYS, "points", "value", "other", "ratio", "ratio_low", "ratio_high", "exact"]]

    def __repr__(self) -> str:
        lines = [self._headline(), "", self._brief().to_string(index=False), ""]
        return "\n".join([*lines, *(f"- {sentence}" for sentence in self.findings)])

    def _repr_html_(self) -> str:
        table = self._brief().to_html(index=False, border=0, escape=True)
        items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.findings)
        return f"<p>{html.escape(self._headline())}</p>{table}<ul>{items}</ul>"

    # -- figures -----------------------------------------------------------------------------------------------------------------

    def plot_scales(self, score: str = "pr", k: int = 2, axis: str = "ball", ax: Axes | None = None) -> Axes:
        """A score over the baseline's against ball radius or minimum distance ("apart"), a line for each layer."""
        from kagscope.figures.measured import plot_scales

        return plot_scales(self.summary(), score=score, k=k, axis=axis, ax=ax)

    def plot_layers(self, score: str = "pr", k: int = 2, selection: str = "all", ax: Axes | None = None) -> Axes:
        """A score of every layer, beside the baseline's."""
        from kagscope.figures.measured import plot_layers

        return plot_layers(self.summary(), score=score, k=k, selection=selection, ax=ax)

    def plot_zipf(self, layer: str | None = None, k: int = 2, ax: Axes | None = None) -> Axes:
        """Row means of the k-minor matrix by falling rank, model and baseline."""
        from kagscope.figures.distributions import plot_zipf

        return plot_zipf(self.curves, layer=layer, k=k, ax=ax)

    def plot_histogram(self, layer: str | None = None, k: int = 2, ax: Axes | None = None) -> Axes:
        """Sizes of the k-minors, model and baseline, at the points where every minor was looked at."""
        from kagscope.figures.distributions import plot_minor_histogram

        return plot_minor_histogram(self.curves, layer=layer, k=k, ax=ax)

    def plot_tokens(self, layer: str | None = None, score: str = "pr", k: int = 2, ax: Axes | None = None) -> Axes:
        """A score over the baseline's against the token, with 95% intervals over points."""
        from kagscope.figures.measured import plot_tokens

        return plot_tokens(self.table, layer=layer, score=score, k=k, ax=ax)

    # -- files -------------------------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``table.parquet``, ``curves.parquet``, ``units.parquet`` and ``report.json`` into a folder, made if need be.

        Raises:
            OutputError: the folder cannot be written, or holds something else.
        """
        target = folders.prepared(folder, "report")
        tables = {"table": self.table, "curves": self.curves} | ({} if self.units.empty else {"units": self.units})
        if self.units.empty:
            (target / "units.parquet").unlink(missing_ok=True)  # of an earlier report
        folders.write(target, "report", tables, {name: getattr(self, name) for name in PARTS})
        return target

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Report:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the folder is missing, damaged, no report, or of a newer format.
        """
        source = Path(folder)
        try:
            about = folders.read_about(source, "report")
            table, curves = (pd.read_parquet(source / f"{name}.parquet") for name in ("table", "curves"))
            units = pd.read_parquet(source / "units.parquet") if (source / "units.parquet").exists() else None
            return cls(table, curves, **{name: about[name] for name in PARTS}, units=units)
        except DataError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{source}: no report, or a damaged one ({error}); expected a folder that Report.save wrote"
            ) from error

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as CSV, at once or not at all. Raises :class:`OutputError`."""
        stream = io.StringIO()
        self.table.to_csv(stream, index=False)
        atomic_write(path, stream.getvalue())
        return Path(path)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the self-contained page that studies have too, of this one model. Raises :class:`OutputError`."""
        from kagscope.report.measured import write_page

        return write_page(self, path)

    # -- within ------------------------------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        return [str(one["name"]) for one in self.layers]

    def _headline(self) -> str:
        about = self.provenance
        measured = sum(not one["reason"] for one in self.layers)
        return (
            f"{about.get('model', 'model')}: {measured} of {len(self.layers)} layers, {about.get('points', '?')} points, "
            f"map {self.settings.get('layer_map', 'input')}, baseline {about.get('baseline', 'none')}, "
            f"{about.get('seconds', 0):.3g} s"
        )

    def _brief(self) -> pd.DataFrame:
        """Over all columns; where those were not measured, every selection."""
        summary = self.summary()
        whole = summary["selection"] == "all"
        return brief(summary[whole] if (whole & (summary["score"] == "pr")).any() else summary)
