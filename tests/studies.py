"""One small real study for every test that needs one: made once per session, by the code under test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from kagscope.studies.claims import evaluate_claims
from kagscope.studies.collect import Outcome
from kagscope.studies.config import GeometrySettings, StudySettings, settings_from
from kagscope.studies.execute.local import Failure, LocalExecutor, Report, Work
from kagscope.studies.reproduce import reproduce
from kagscope.studies.store import RunStore
from kagscope.studies.tables import CURVES, RESULTS, joined, whole_runs
from kagscope.tables.schema import CURVE_COLUMNS, RESULT_COLUMNS

GEOMETRY = GeometrySettings.for_inputs(
    64,
    points=6,
    visited_points=4,
    track_points=3,
    track_visited_points=2,
    rotation_points=2,
    rotations=4,
    k3_points=1,
    window_points=2,
    window_grid=3,
)


def small_settings(**changes: object) -> StudySettings:
    """Two widths, both trainings, two seeds, few points."""
    given: dict[str, object] = {"widths": (6, 8), "seeds": 2, "epochs": 3, "checkpoints": 3, "geometry": GEOMETRY}
    return StudySettings(**(given | changes))  # type: ignore[arg-type]


def make_small_study(folder: Path) -> Outcome:
    """Run it with two workers."""
    return reproduce(small_settings(), folder, executor=LocalExecutor(2))


def make_two_studies(folder: Path) -> tuple[Path, Path]:
    """Studies "short" and "long": nets 6 wide of both share weights at the start for two of their seeds, and differ in epochs."""
    geometry = {**GEOMETRY.model_dump(), "k": (1, 2), "layer_points": 20}
    common: dict[str, object] = {"trainings": ("standard",), "k": (1, 2), "checkpoints": 2}
    short = {"widths": (4, 6), "seeds": 2, "epochs": 1, "geometry": {**geometry, "points": 4}}
    long = {"widths": (6,), "seeds": 3, "epochs": 4, "geometry": geometry}
    for name, own in (("short", short), ("long", long)):
        with mock.patch("kagscope.studies.reproduce.collect", _tables_and_claims):
            reproduce(settings_from({**common, **own}), folder / name, executor=_Here())
    return folder / "short", folder / "long"


class _Here:
    """Runs tasks in this process."""

    workers = 1

    def run(self, tasks: Sequence[Any], work: Work, on_event: Report) -> list[Failure]:
        for task in tasks:
            work(task, on_event)
        return []


def _tables_and_claims(store: RunStore, run_ids: Sequence[str], on_event: Report = lambda event: None) -> Outcome:
    """What ``collect`` writes but its figures and page, which take most of its time."""
    whole, left_out = whole_runs(store, run_ids)
    results = joined(store, whole, "table.parquet", RESULTS, RESULT_COLUMNS)
    joined(store, whole, "curves.parquet", CURVES, CURVE_COLUMNS)
    claims = evaluate_claims(results, image_shape=(8, 8), resamples=200)
    (store.folder / "claims.json").write_text(json.dumps([claim.as_json() for claim in claims]))
    return Outcome(store.folder, store.folder / "report.html", claims, [], list(whole), left_out)
