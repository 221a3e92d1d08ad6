"""Reports of tracked trainings, from measurements in memory or from a history folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kagscope.measuring.report import Report
from kagscope.measuring.spec import MeasureSpec
from kagscope.measuring.state import WHOLE
from kagscope.tracking.history import History
from kagscope.tracking.parts import Part, join_measurements, merge_sessions
from kagscope.tracking.start import baseline_phrase


def load_report(folder: str | os.PathLike[str]) -> Report:
    """The report of a history folder, without the network. Raises :class:`DataError`."""
    history = History.existing(folder)
    parts, damaged = history.read()
    settings, trajectory = history.settings(), merge_sessions(parts)
    points = {int(point) for part in trajectory for point in part.table["point"].unique()} - {WHOLE}
    baseline = baseline_phrase(settings.get("baseline"))
    provenance = {"model": "a network in training", "points": len(points), "baseline": baseline}
    spec = {name: value for name, value in settings.items() if name in MeasureSpec.model_fields}
    return report_of(trajectory, damaged, (), spec, provenance)


def report_of(
    parts: Sequence[Part],
    damaged: Sequence[str],
    pending: Sequence[int],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Report:
    """One report of all measurements: ``damaged`` ones are named, ``pending`` steps were due and skipped."""
    curves = pd.DataFrame(columns=["step", "layer", "k", "selection", "curve", "x", "y", "network"])
    return Report(
        join_measurements(parts),
        curves,
        layers=parts[-1].layers if parts else (),
        settings=settings,
        notes=notes,
        provenance=provenance,
        left_out=dict(text.split(" is ", 1) for text in damaged),
        thinned=sorted({step for part in parts for step in part.thinned} | set(pending)),
    )
