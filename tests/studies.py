"""Small real studies for every test that needs one: made once per session, by the code under test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from kagscope.base.validation import validate
from kagscope.figures.write import FAMILIES
from kagscope.studies.claims import evaluate_claims
from kagscope.studies.collect import Outcome
from kagscope.studies.execute.base import Failure, OnEvent, Work, attempt
from kagscope.studies.file import StudyFile
from kagscope.studies.study import run_study

MEASURE: dict[str, Any] = {
    "k": [1, 2, 3],
    "checkpoints": 3,
    "points": 6,
    "exact_minors": 6 * 28 * 2016.0,  # of all points of the wider nets
    "rel_error": 0.02,  # of triples five times that
    "rotation_points": 2,
    "rotations": 4,
    "triple_points": 1,
    "window_points": 2,
    "window_map": 3,
    "samples": 200,
    "unit_points": 200,
    "along": {"points": 3},
}


class Here:
    """Runs tasks in this process."""

    workers = 1

    def run(self, tasks: Sequence[Any], work: Work, on_event: OnEvent) -> list[Failure]:
        return [failure for task in tasks if (failure := attempt(task, work, on_event))]


def small_study(
    *,
    widths: Sequence[int] = (6, 8),
    trainings: Sequence[str] = ("standard", "augmented"),
    seeds: int = 2,
    claims: bool = True,
    measure: dict[str, Any] | None = None,
    **run: Any,
) -> StudyFile:
    """Two widths, both trainings, two seeds, few points, tested for the claims."""
    grid = {"width": list(widths), "training": list(trainings), "seed": {"count": seeds}}
    values = {"name": "small", "claims": claims, "run": {"epochs": 3} | run, "grid": grid, "measure": MEASURE | (measure or {})}
    return validate(StudyFile, values)


@contextmanager
def shown_figures(count: int) -> Iterator[None]:
    """The first so many figures of a study, in place of all."""
    with ExitStack() as stack:
        for module in ("figures.write", "report.page"):
            stack.enter_context(mock.patch(f"kagscope.{module}.FAMILIES", FAMILIES[:count]))
        yield


def make_small_study(folder: Path) -> Outcome:
    """Run it in this process."""
    with mock.patch("kagscope.studies.present.study_drawings", return_value={}):
        return run_study(small_study(), folder, executor=Here())


def make_two_studies(folder: Path) -> tuple[Path, Path]:
    """Studies "short" and "long": nets 6 wide of both share weights at the start for two of their seeds, and differ in epochs."""
    few = {"k": [1, 2], "checkpoints": 2, "samples": 20, "unit_points": 20, "window_map": 0}
    common: dict[str, Any] = {"trainings": ["standard"]}
    short = small_study(**common, widths=(4, 6), epochs=1, measure=few | {"points": 4})
    long = small_study(**common, widths=(6,), seeds=3, epochs=4, measure=few)
    with mock.patch("kagscope.studies.collect.evaluate_claims", partial(evaluate_claims, resamples=200)):
        for name, study in (("short", short), ("long", long)):
            run_study(study, folder / name, executor=Here(), pictures=False)
    return folder / "short", folder / "long"
