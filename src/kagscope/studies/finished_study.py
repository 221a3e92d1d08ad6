"""A study to be compared with others: its name and the properties in which it may differ."""

from __future__ import annotations

import json
import os
from functools import cached_property
from typing import Any

import pandas as pd

from kagscope.studies.opened import Study
from kagscope.studies.record import main_specs
from kagscope.studies.setting_tables import runs_table


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
