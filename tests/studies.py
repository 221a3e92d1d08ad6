"""One small real study for every test that needs one: made once per session, by the code under test."""

from __future__ import annotations

from pathlib import Path

from kagscope.studies.collect import Outcome
from kagscope.studies.config import GeometrySettings, StudySettings
from kagscope.studies.executors import LocalExecutor
from kagscope.studies.reproduce import reproduce

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
