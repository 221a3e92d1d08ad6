"""What was measured along a training run: reports by step, their tables, sentences, figures, files."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kagscope.base.errors import DataError
from kagscope.base.files import atomic_write
from kagscope.measuring import folders
from kagscope.measuring.report import PARTS, Report
from kagscope.measuring.summary import summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Series:
    """Reports of the checkpoints of a run, from :func:`kagscope.measure_series`.

    Attributes:
        reports: a :class:`~kagscope.measuring.report.Report` for each step, in order.
        left_out: checkpoints that could not be read or measured, and why.
        notes: what was chosen on the way, such as which part of a checkpoint was taken.
    """

    def __init__(self, reports: Mapping[int, Report], left_out: Mapping[str, str], notes: Sequence[str] = ()) -> None:
        self.reports, self.left_out, self.notes = dict(reports), dict(left_out), list(notes)

    @property
    def steps(self) -> list[int]:
        return list(self.reports)

    @property
    def table(self) -> pd.DataFrame:
        """The tables of all steps, with ``step`` (int64) as the first column."""
        return _stacked({step: report.table for step, report in self.reports.items()})

    @property
    def curves(self) -> pd.DataFrame:
        """Zipf curves and histograms of all steps, with ``step``; ``network`` is "model" or "baseline"."""
        return _stacked({step: report.curves for step, report in self.reports.items()})

    def summary(self) -> pd.DataFrame:
        """Means over points with 95% intervals, as of a report, with ``step`` as the first column."""
        return _stacked({step: summarise(report.table) for step, report in self.reports.items()})

    @property
    def findings(self) -> list[str]:
        """Where PR is highest along the steps, what was left out, and what is said of the last checkpoint."""
        said = [f"{name} was left out: {reason}." for name, reason in self.left_out.items()]
        summary = self.summary()
        chosen = summary[(summary["score"] == "pr") & (summary["k"] == 2) & (summary["selection"] == "all")]
        for layer, rows in chosen.groupby("layer", observed=True, sort=False):
            rows = rows[rows["ratio"].notna()]
            if len(rows) > 1:
                highest, last = rows.iloc[int(rows["ratio"].argmax())], rows.iloc[-1]
                said.append(
                    f"Layer {layer}: PR (k = 2) over the baseline's is {last['ratio']:.2f} at step {last['step']} and highest, "
                    f"{highest['ratio']:.2f}, at step {highest['step']}."
                )
        last_step = self.steps[-1]
        said += [f"{note}." for note in self.notes]
        return [*said, *(f"Step {last_step}: {one}" for one in self.reports[last_step].findings)]

    def plot(self, score: str = "pr", k: int = 2, selection: str = "all", measure: str = "ratio", ax: Axes | None = None) -> Axes:
        """A score ("ratio": over the baseline's, or "value") against the step, a line for each layer, 95% over points."""
        from kagscope.figures.series import plot_by_step

        return plot_by_step(self.summary(), score=score, k=k, selection=selection, measure=measure, ax=ax)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``table.parquet``, ``curves.parquet``, ``series.json`` and ``scores_by_step.png`` and ``.pdf`` into a folder.

        Raises:
            OutputError: the folder cannot be written, or holds something else.
        """
        from kagscope.figures.series import figure_by_step
        from kagscope.figures.style import save

        target = folders.prepared(folder, "series")
        if len(self.reports) > 1:
            for suffix in ("png", "pdf"):
                save(figure_by_step(self.summary()), target / f"scores_by_step.{suffix}")
        reports = {str(step): {name: getattr(report, name) for name in PARTS} for step, report in self.reports.items()}
        about = {"left_out": self.left_out, "notes": self.notes, "reports": reports}
        folders.write(target, "series", {"table": self.table, "curves": self.curves}, about)
        return target

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Series:
        """Read what :meth:`save` wrote. Raises :class:`DataError` where the folder is missing, damaged, or of a newer format."""
        source = Path(folder)
        try:
            about = folders.read_about(source, "series")
            tables = [pd.read_parquet(source / f"{name}.parquet") for name in ("table", "curves")]
            reports = {}
            for step, of_step in about["reports"].items():
                table, lines = (one[one["step"] == int(step)].drop(columns="step").reset_index(drop=True) for one in tables)
                reports[int(step)] = Report(table, lines, **of_step)
            return cls(reports, about["left_out"], about["notes"])
        except DataError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{source}: no series, or a damaged one ({error}); expected a folder that Series.save wrote"
            ) from error

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as CSV, at once or not at all. Raises :class:`OutputError`."""
        stream = io.StringIO()
        self.table.to_csv(stream, index=False)
        atomic_write(path, stream.getvalue())
        return Path(path)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the self-contained page of the series. Raises :class:`OutputError`."""
        from kagscope.report.measured import write_series_page

        return write_series_page(self, path)

    def __len__(self) -> int:
        return len(self.reports)

    def __repr__(self) -> str:
        steps = ", ".join(map(str, self.steps[:12])) + (", …" if len(self) > 12 else "")
        return "\n".join([f"{len(self)} checkpoints at steps {steps}", "", *(f"- {one}" for one in self.findings)])


def _stacked(tables: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Tables one under the other with their step in front; columns of text stay categories."""
    text = ("layer", "selection", "score", "reason", "curve", "network")
    parts = [table.astype({name: str for name in text if name in table.columns}) for table in tables.values()]
    steps = [step for step, table in tables.items() for _ in range(len(table))]
    joined = pd.concat(parts, ignore_index=True)
    joined = joined.astype({name: "category" for name in text if name in joined.columns})
    joined.insert(0, "step", pd.Series(steps, dtype="int64"))
    return joined
