"""Tests and intervals of a study from a file: trained against initial, group against group, trends over numbers.

``docs/studies_statistics.md`` describes each table and the choice of each test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from kagscope.base.messages import Finding
from kagscope.studies.inference.comparisons import comparisons
from kagscope.studies.inference.findings import findings_of_tests
from kagscope.studies.inference.trained import trained_against_initial
from kagscope.studies.inference.trends import trends
from kagscope.studies.nets import Nets

__all__ = ["Inference", "infer"]


class Inference(NamedTuple):
    """The three tables and their findings."""

    trained: pd.DataFrame
    comparisons: pd.DataFrame
    trends: pd.DataFrame
    findings: list[Finding]

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by the names of their files."""
        return {"trained_vs_initial": self.trained, "comparisons": self.comparisons, "trends": self.trends}


def infer(results: pd.DataFrame, runs: pd.DataFrame, varied: Sequence[str]) -> Inference:
    """Run all tests of a study. Seeds of all draws are fixed, so equal tables give equal numbers.

    Args:
        results: the ``results`` table of :mod:`kagscope.tables.schema`.
        runs: the study's runs table, one row per run in the order of the study.
        varied: the columns of ``runs`` that the study varies, with or without "seed".
    """
    nets = Nets.of(results, runs, varied)
    tables = trained_against_initial(nets), comparisons(nets), trends(nets)
    return Inference(*tables, findings_of_tests(*tables))
