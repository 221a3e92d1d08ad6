"""A study as it stands on disk, read without writing anything into its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kagscope.studies.record import main_specs
from kagscope.studies.setting_tables import runs_table
from kagscope.studies.store import RunStore
from kagscope.studies.tables import CURVES, RESULTS, no_runs_error, read_without_writing, whole_runs


@dataclass(frozen=True)
class FinishedStudy:
    """A study as it stands.

    Attributes:
        name: what it is called beside the others.
        store: its folder.
        runs: a row for each finished run, see :func:`~kagscope.studies.setting_tables.runs_table`.
        results, curves: tables of :mod:`kagscope.tables.schema`.
        left_out: runs that are not in them, and why.
        verdicts: on the claims, by claim; empty where the study tests none.
        measured: how its nets were measured, value by value.
        versions: of the libraries that its runs were computed with.
    """

    name: str
    store: RunStore
    runs: pd.DataFrame
    results: pd.DataFrame
    curves: pd.DataFrame
    left_out: dict[str, str]
    verdicts: dict[str, str]
    measured: dict[str, str]
    versions: dict[str, str]

    @classmethod
    def read(cls, folder: Path, name: str) -> FinishedStudy:
        """Read a study, which may still be running.

        Raises:
            DataError: the folder is no study, one of another version, or without any finished run.
        """
        store = RunStore.existing(folder)
        whole, left_out = whole_runs(store)
        if not whole:
            raise no_runs_error(store, left_out)
        results, curves = read_without_writing(store, whole, RESULTS), read_without_writing(store, whole, CURVES)
        first = next(iter(whole))
        spec = main_specs(store.study)[first]
        measured = {key: str(value) for key, value in (spec | spec["budget"]).items() if key != "budget"}
        versions = {part: str(version) for part, version in store.manifest(first)["versions"].items()}
        runs = runs_table(store, list(whole))
        return cls(name, store, runs, results, curves, left_out, _verdicts(store), measured, versions)


def _verdicts(store: RunStore) -> dict[str, str]:
    try:
        claims = json.loads((store.folder / "claims.json").read_text())
        return {str(claim["id"]): str(claim["verdict"]) for claim in claims}
    except (OSError, ValueError, TypeError, KeyError):
        return {}
