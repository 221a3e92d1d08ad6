"""Checkpoints of one training run, measured alike: geometry by step, without the code that trained."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor, nn

from kagscope.errors import DataError, InputError, OutputError
from kagscope.files import atomic_path, atomic_write
from kagscope.jacobians.inputs import as_inputs
from kagscope.loading.checkpoints import find_checkpoints
from kagscope.measuring.baseline import baselines
from kagscope.measuring.observe import Observation, check_model, compare, curves, observe
from kagscope.measuring.report import Report
from kagscope.measuring.settings import MeasureSettings
from kagscope.measuring.summary import summarise
from kagscope.provenance import hardware, versions
from kagscope.weights import fitting, load_state

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIRST = "first"
FORMAT = 1
Weights = str | os.PathLike[str] | Mapping[str, Tensor] | nn.Module
Say = Callable[[str], None]


class Series:
    """Reports of the checkpoints of a run, from :func:`measure_series`.

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
                highest = rows.loc[rows["ratio"].idxmax()]
                last = rows.iloc[-1]
                said.append(
                    f"Layer {layer}: PR (k = 2) over the baseline's is {last['ratio']:.2f} at step {last['step']} and highest, "
                    f"{highest['ratio']:.2f}, at step {highest['step']}."
                )
        final = self.reports[self.steps[-1]].findings
        return [
            *said,
            *(note[:1].upper() + note[1:] + "." for note in self.notes),
            *(f"At the last step: {one}" for one in final),
        ]

    def plot(self, score: str = "pr", k: int = 2, selection: str = "all", ax: Axes | None = None) -> Axes:
        """A score over the baseline's (without one: the score) against the step, a line for each layer, 95% over points."""
        from kagscope.figures.series import plot_by_step

        return plot_by_step(self.summary(), score=score, k=k, selection=selection, ax=ax)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``table.parquet``, ``curves.parquet``, ``series.json`` and ``scores_by_step.png`` and ``.pdf`` into a folder.

        Raises:
            OutputError: the folder cannot be written, or holds something else.
        """
        from kagscope.figures.series import figure_by_step
        from kagscope.figures.style import save

        target = Path(folder)
        if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not (target / "series.json").is_file())):
            raise OutputError(f"{target} holds something else; choose a new or empty folder, or that of an earlier series")
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {target}: {error.strerror or error}; choose a folder that can be written") from error
        for name, table in (("table", self.table), ("curves", self.curves)):
            with atomic_path(target / f"{name}.parquet") as temporary:
                table.to_parquet(temporary, index=False)
        if len(self.reports) > 1:
            for suffix in ("png", "pdf"):
                save(figure_by_step(self.summary()), target / f"scores_by_step.{suffix}")
        names = ("layers", "settings", "notes", "provenance")
        reports = {str(step): {name: getattr(report, name) for name in names} for step, report in self.reports.items()}
        about = {"format": FORMAT, "left_out": self.left_out, "notes": self.notes, "reports": reports}
        atomic_write(target / "series.json", json.dumps(about, indent=1, allow_nan=False, default=str) + "\n")
        return target

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Series:
        """Read what :meth:`save` wrote. Raises :class:`DataError` where the folder is missing, damaged, or of a newer format."""
        source = Path(folder)
        try:
            about = json.loads((source / "series.json").read_text(encoding="utf-8"))
            if not isinstance(about["format"], int) or about["format"] > FORMAT:
                raise DataError(
                    f"{source}: series of format {about['format']}, this kagscope reads up to {FORMAT}; upgrade kagscope"
                )
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
        from kagscope.measuring.page import write_series_page

        return write_series_page(self, path)

    def __len__(self) -> int:
        return len(self.reports)

    def __repr__(self) -> str:
        steps = ", ".join(map(str, self.steps[:12])) + (", …" if len(self) > 12 else "")
        return "\n".join([f"{len(self)} checkpoints at steps {steps}", "", *(f"- {one}" for one in self.findings)])


def measure_series(
    model: nn.Module,
    checkpoints: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[int, Weights],
    inputs: Any,
    *,
    baseline: Any = FIRST,
    baseline_seeds: int | Sequence[int] = 3,
    labels: Any = None,
    points: int | None = None,
    progress: Say | None = None,
    **settings: Any,
) -> Series:
    """Measure the checkpoints of one training run at the same points, against the same baseline.

    Args:
        model: the architecture; its own weights are neither measured nor changed.
        checkpoints: files, or a pattern such as ``"run/step_*.safetensors"``, by the step in their names
            (:func:`kagscope.loading.find_checkpoints`); or weights by step: files, state dicts or models.
        inputs: see :func:`kagscope.measure`.
        baseline: "first" is the first checkpoint that can be measured; else as of :func:`kagscope.measure`.
        baseline_seeds: of "reinit".
        labels: (points,) classes, for kernel alignment.
        points: how many points to take, the first ones.
        progress: told of each checkpoint and layer.
        settings: ``layers``, ``layer_map``, ``k``, ``selections`` and the rest, see :func:`kagscope.measure`.

    Returns:
        A :class:`Series`. A checkpoint that is damaged, does not fit or has no finite Jacobian is left out and named there.

    Raises:
        InputError: a model, layer, input or option that cannot be used.
        DataError: no checkpoint could be read.
    """
    chosen = MeasureSettings(**{name: value for name, value in settings.items() if value is not None})
    check_model(model)
    tell = progress or (lambda text: None)
    found = as_inputs(inputs, points)
    labels = found.labels if labels is None or points is None else labels[:points]
    fed: Any = found.kwargs or found.args
    notes: list[str] = []
    options = {"labels": labels}

    def measured(module: nn.Module, weights: Mapping[str, Tensor] | None, what: str) -> Observation:
        return observe(module, fed, chosen, weights=weights, progress=lambda layer: tell(f"{what}: layer {layer}"), **options)

    before: list[Observation] = []
    if baseline != FIRST if isinstance(baseline, str) else True:
        others = baselines(model, baseline, baseline_seeds, notes)
        before = [measured(module, weights, "baseline") for module, weights in others]
    reports: dict[int, Report] = {}
    left_out: dict[str, str] = {}
    entries = _entries(checkpoints)
    for place, (step, name, given) in enumerate(entries, 1):
        since = time.perf_counter()
        try:
            weights = fitting(model, _state(given, notes.append), name, say=notes.append)
        except (DataError, InputError) as error:
            left_out[name] = str(error).removeprefix(f"{name}: ").removeprefix(f"{name} ")
            continue
        try:
            seen = measured(model, weights, f"step {step} ({place} of {len(entries)})")
        except InputError as error:
            if not reports:  # then it is not this checkpoint that is at fault
                raise
            left_out[name] = str(error)
            continue
        if baseline == FIRST and not before:
            before = [seen]
        about = {
            "model": type(model).__name__,
            "points": found.count,
            "baseline": f"step {next(iter(reports), step)}" if baseline == FIRST else _said(baseline),
            "weights": name,
            "seconds": round(time.perf_counter() - since, 3),
            "versions": versions(),
            "hardware": hardware(),
        }
        reports[step] = _report(seen, before, chosen, about)
    if not reports:
        raise DataError(f"no checkpoint could be measured: {'; '.join(f'{name}: {why}' for name, why in left_out.items())}")
    return Series(reports, left_out, list(dict.fromkeys(notes)))


def _entries(checkpoints: Any) -> list[tuple[int, str, Weights]]:
    """Step, name and weights of each checkpoint, by step."""
    if isinstance(checkpoints, Mapping):
        if not checkpoints or not all(isinstance(step, int) and not isinstance(step, bool) for step in checkpoints):
            raise InputError(f"checkpoints by step have the steps {list(checkpoints)[:5]!r}; expected at least one whole number")
        names = {
            step: str(given) if isinstance(given, str | os.PathLike) else f"step {step}" for step, given in checkpoints.items()
        }
        return [(step, names[step], checkpoints[step]) for step in sorted(checkpoints)]
    names_given = (
        checkpoints
        if isinstance(checkpoints, str)
        else Path(checkpoints)
        if isinstance(checkpoints, os.PathLike)
        else [Path(name) if isinstance(name, os.PathLike) else name for name in checkpoints]
    )
    return [(one.step, str(one.path), one.path) for one in find_checkpoints(names_given)]


def _state(given: Weights, say: Say) -> Mapping[str, Tensor]:
    if isinstance(given, nn.Module):
        return given.state_dict()
    if isinstance(given, Mapping):
        return given
    return load_state(given, say=say)


def _report(seen: Observation, before: list[Observation], settings: MeasureSettings, about: dict[str, Any]) -> Report:
    return Report(
        compare(seen, before, settings.zero_row_quantile),
        curves(seen),
        [curves(one) for one in before],
        layers=[record.as_json() for record in seen.layers],
        settings=settings.as_json(),
        notes=seen.notes,
        provenance=about,
    )


def _said(baseline: Any) -> str:
    if baseline is None:
        return "none"
    if isinstance(baseline, str | os.PathLike):
        return "networks initialised anew" if baseline == "reinit" else str(baseline)
    return "a model" if isinstance(baseline, nn.Module) else "a state dict"


def _stacked(tables: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Tables one under the other with their step in front; columns of text stay categories."""
    text = ("layer", "selection", "score", "reason", "curve", "network")
    parts = [table.astype({name: str for name in text if name in table.columns}) for table in tables.values()]
    steps = [step for step, table in tables.items() for _ in range(len(table))]
    joined = pd.concat(parts, ignore_index=True)
    joined = joined.astype({name: "category" for name in text if name in joined.columns})
    joined.insert(0, "step", pd.Series(steps, dtype="int64"))
    return joined
