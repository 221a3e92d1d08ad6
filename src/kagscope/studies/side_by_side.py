"""Several finished studies as one, with a column ``study`` that is compared, tested and drawn like any other axis."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from kagscope.base.errors import InputError
from kagscope.base.files import atomic_path
from kagscope.base.messages import Finding, listing
from kagscope.studies.inference.comparisons import comparisons
from kagscope.studies.nets import Nets
from kagscope.studies.opened import Study
from kagscope.studies.record import main_specs
from kagscope.studies.setting_tables import labels_of, runs_table, varied_axes
from kagscope.studies.side_by_side_findings import side_by_side_findings
from kagscope.tables.means import WHAT_KEYS, last_step, layers_of
from kagscope.tables.schema import CURVE_COLUMNS, RESULT_COLUMNS

AXIS = "study"


class FinishedStudy(Study):
    """A study to be compared with others.

    Attributes:
        name: its name among the others.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str) -> None:
        super().__init__(folder)
        self.name = name

    @property
    def record(self) -> dict[str, Any]:
        """Content of ``study.json``."""
        return self._store.study

    @cached_property
    def settings(self) -> pd.DataFrame:
        """A row for each finished run, see :func:`~kagscope.studies.setting_tables.runs_table`."""
        return runs_table(self._store, self.runs)

    @cached_property
    def verdicts(self) -> dict[str, str]:
        """Verdict by claim; empty if the study tests none."""
        try:
            claims = json.loads((self.folder / "claims.json").read_text())
            return {str(claim["id"]): str(claim["verdict"]) for claim in claims}
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    @cached_property
    def measured(self) -> dict[str, str]:
        """Settings with which its nets were measured."""
        spec = main_specs(self.record)[self.runs[0]]
        return {key: str(value) for key, value in (spec | spec["budget"]).items() if key != "budget"}

    @cached_property
    def versions(self) -> dict[str, str]:
        """Library versions of its runs."""
        return {name: str(version) for name, version in self._store.manifest(self.runs[0])["versions"].items()}


@dataclass(frozen=True)
class SideBySide:
    """Studies as one, from :func:`compare_studies`.

    Attributes:
        studies: the studies in the given order; all others are compared with the first.
        runs: runs of all studies, with a column ``study``; ids are "study: run".
        axes: columns of ``runs`` that vary, ``study`` first, without the seed.
        table: rows of :func:`~kagscope.studies.inference.comparisons.comparisons` along ``study``.
        tied: axes that change with the study, whose effects cannot be separated from it.
    """

    studies: tuple[FinishedStudy, ...]
    runs: pd.DataFrame
    axes: tuple[str, ...]
    table: pd.DataFrame
    tied: tuple[str, ...]

    @cached_property
    def findings(self) -> list[Finding]:
        """Findings and caveats."""
        return side_by_side_findings(self.studies, self.runs, self.axes, self.tied, self.table)

    def as_json(self) -> list[dict[str, Any]]:
        """Rows over all columns, as JSON values (without NaN)."""
        main = self.table[self.table["selection"].isin(["all", ""])]
        rows: list[dict[str, Any]] = json.loads(main.to_json(orient="records", double_precision=15))
        return rows

    def write(self, page: str | os.PathLike[str], numbers: str | os.PathLike[str]) -> Path:
        """Write the page (HTML) and the table (CSV), both or neither. Raises :class:`~kagscope.base.errors.OutputError`."""
        from kagscope.report.comparison import comparison_section
        from kagscope.report.page import render_report

        first, *others = self.studies
        shapes = {str(shape) for shape in self.runs["image_shape"]}
        labels = labels_of(self.runs, [name for name in self.axes if name != AXIS and name not in self.tied])
        labels = {run: f"{study}: {labels[run]}" for run, study in zip(self.runs["run"], self.runs[AXIS], strict=True)}
        results, curves = (
            (table := _join(self.studies, name)).assign(training=table["run"].map(labels)).astype(columns)[list(columns)]
            for name, columns in (("table", RESULT_COLUMNS), ("curves", CURVE_COLUMNS))
        )
        text = render_report(
            results=results,
            curves=curves,
            claims=[],
            provenance={
                "title": f"{', '.join(study.name for study in others)} compared with {first.name}",
                "summary": " compared with ".join(f"{len(study.runs)} networks of {study.name}" for study in (*others, first))
                + ". Intervals are 95% intervals over networks (seeds). In the charts, names such as "
                f"“{others[-1].name}: …” begin with the study that a network belongs to.",
                "findings": self.findings,
                "exhibits": [comparison_section(self.table, AXIS, Path(numbers).name)],
                "without": ["claims", "units"],
                "figures": (),
                "elsewhere": True,
                "configs": {str(row["run"]): _configured_values(row) for row in self.runs.to_dict("records")},
                "image_shape": list(self.runs["image_shape"].iloc[0]) if len(shapes) == 1 else None,
                "versions": {study.name: study.versions for study in self.studies},
                "config": {study.name: study.record.get("settings", {}) for study in self.studies},
                "command": "\n".join(str(study.record.get("command", "")) for study in self.studies),
            },
        )
        with atomic_path(Path(page)) as temporary:
            temporary.write_text(text, encoding="utf-8")
            with atomic_path(Path(numbers)) as other:
                other.write_text(self.table.to_csv(index=False), encoding="utf-8")
        return Path(page)


def compare_studies(*folders: str | os.PathLike[str]) -> SideBySide:
    """Compare studies; their folders are only read.

    All runs form one table with a column ``study``, an axis like any other: networks are paired if they share the seed
    and all other axes, and axes that change with the study are listed as such. If the studies use the same data, scores
    are compared at the test images common to all.

    Args:
        folders: folders of studies, which may still be running. All others are compared with the first.

    Returns:
        A :class:`SideBySide`: ``table`` (a row for each layer, k, selection and score), ``runs``, ``findings``, ``write``.

    Raises:
        DataError: a folder is not a study, is of another version, or has no finished run.
        InputError: fewer than two folders, a repeated one, or studies with no score in common.
    """
    paths = [Path(folder) for folder in folders]
    studies = tuple(FinishedStudy(path, name) for path, name in zip(paths, folder_names(paths), strict=True))
    runs = pd.concat(
        [study.settings.assign(study=study.name, run=_prefix_runs(study, study.settings["run"])) for study in studies]
    )
    runs = _name_data(runs.reset_index(drop=True))
    varied = [AXIS, *varied_axes(runs)]
    results = _shared_rows(_join(studies, "table"), runs["data"].nunique() == 1)
    if results.empty:
        layers = [f"{study.name} (layers {', '.join(filter(None, layers_of(study.table))) or 'none'})" for study in studies]
        raise InputError(
            f"{' and '.join(layers)} have no score of the same layer, order and selection in common; compare studies that "
            "measure the same"
        )
    nets = Nets.of(results, runs, varied)
    _check_shared(nets, studies)
    return SideBySide(studies, runs, nets.axes, comparisons(nets, [AXIS]), tuple(nets.tied_axes(AXIS)))


def folder_names(folders: Sequence[Path]) -> list[str]:
    """Distinct names of folders: the last parts of their paths.

    Raises:
        InputError: fewer than two folders, or a repeated one.
    """
    resolved = [folder.resolve() for folder in folders]
    if len(folders) < 2:
        raise InputError(f"{len(folders)} folders were given; give two studies or more to compare")
    for index, folder in enumerate(resolved):
        if folder in resolved[:index]:
            same = f"{folders[resolved.index(folder)]} and {folders[index]}"
            raise InputError(f"{same} are the same folder; give two studies to compare, or one to rebuild its report")
    depth = 1
    while len({path.parts[-depth:] for path in resolved}) < len(resolved):
        depth += 1
    return [os.path.join(*path.parts[-depth:]) for path in resolved]


def _prefix_runs(study: FinishedStudy, runs: pd.Series[Any]) -> pd.Series[str]:
    return f"{study.name}: " + runs.astype(str)


def _join(studies: Sequence[FinishedStudy], name: str) -> pd.DataFrame:
    """A table of all studies, with text in place of categories."""
    tables = []
    for study in studies:
        table: pd.DataFrame = getattr(study, name)
        text = {name: str for name in table if isinstance(table[name].dtype, pd.CategoricalDtype)}
        tables.append(table.astype(text).assign(study=study.name, run=_prefix_runs(study, table["run"])))
    return pd.concat(tables, ignore_index=True)


def _shared_rows(results: pd.DataFrame, same_data: bool) -> pd.DataFrame:
    """Rows of trained nets for quantities measured in every study, at common images if the data are the same."""
    trained = last_step(results)
    keys = [*WHAT_KEYS, "point"] if same_data else WHAT_KEYS
    return trained[trained.groupby(keys, observed=True)[AXIS].transform("nunique") == results[AXIS].nunique()]


def _check_shared(nets: Nets, studies: Sequence[FinishedStudy]) -> None:
    """Raise :class:`InputError` if an axis has no value in common with the first study."""
    for axis in nets.others(AXIS):
        values = [list(dict.fromkeys(nets.runs.loc[nets.runs[AXIS] == study.name, axis].astype(str))) for study in studies]
        for study, theirs in zip(studies[1:], values[1:], strict=True):
            if not set(theirs) & set(values[0]):
                names = f"{studies[0].name} and {study.name}"
                raise InputError(
                    f"{names} have no setting in common: {axis} is {listing(values[0], 5)} in the first and {listing(theirs, 5)} "
                    "in the second; compare studies that share at least one"
                )


def _name_data(runs: pd.DataFrame) -> pd.DataFrame:
    """Make ``data`` identify the content: different contents of the same name are distinguished by fingerprints."""
    contents = runs.groupby("data")["data_fingerprint"].transform("nunique")
    marked = runs["data"] + " (" + runs["data_fingerprint"].str[:8] + ")"
    runs = runs.assign(data=runs["data"].where(contents == 1, marked))
    return runs.assign(data=runs.groupby("data_fingerprint")["data"].transform("first"))


def _configured_values(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Values of a run that are set."""
    return {str(name): value for name, value in row.items() if isinstance(value, (list, tuple)) or value == value}
