"""The main job: train, measure and judge the paper's claims, from settings to a report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from kagscope.base.errors import InputError
from kagscope.data import load
from kagscope.studies.collect import Outcome, collect
from kagscope.studies.config import RunConfig, StudySettings
from kagscope.studies.execute.local import Executor, Report
from kagscope.studies.study import Study, run_study


def reproduce(
    settings: StudySettings,
    out: str | Path,
    *,
    executor: Executor | None = None,
    on_event: Report = lambda event: None,
    progress: bool = False,
) -> Outcome:
    """Run the study and write its report into ``out``; finished runs found there are used again.

    Args:
        settings: what to vary and to measure.
        out: new, empty, or the folder of this very study.
        executor: where to run; default every core of this machine.
        on_event: told of progress, see :func:`kagscope.studies.study.run_study`.
        progress: show a bar while downloading.

    Returns:
        Claims, findings and where everything is.

    Raises:
        InputError: settings that do not fit the data.
        DataError: unknown or damaged data.
        OutputError: ``out`` cannot be used; it is left untouched.
        RunsFailed: some runs failed; the others are stored.
    """
    dataset = load(settings.data, progress=progress)
    settings = settings.resolved(dataset.n_inputs)
    runs = list(settings.runs(dataset.fingerprint(), dataset.image_shape))
    _check_fit(runs[0], len(dataset.train_labels), len(dataset.test_labels))
    study = {
        "command": command(settings, out),
        "data": settings.data,
        "image_shape": list(dataset.image_shape),
        "settings": settings.model_dump(mode="json"),
    }
    fingerprint = settings.study_fingerprint(dataset.fingerprint())
    images = {settings.data: len(dataset.train_labels)}
    return run_study(Study(study, fingerprint, runs, images=images), out, collect, executor=executor, on_event=on_event)


def command(settings: StudySettings, out: str | Path) -> str:
    """The command line that runs this study again."""
    words = ["kagscope", "reproduce", "--data", settings.data, "--out", str(out), "--widths", ",".join(map(str, settings.widths))]
    given: dict[str, Any] = {
        "depth": settings.depth,
        "activation": settings.activation,
        "seeds": settings.seeds,
        "epochs": settings.epochs,
        "batch-size": settings.batch_size,
        "learning-rate": settings.learning_rate,
        "weight-decay": settings.weight_decay,
        "checkpoints": settings.checkpoints,
    }
    for name, value in given.items():
        words += [f"--{name}", str(value)]
    words += ["--k", ",".join(map(str, settings.k))]
    if settings.points is not None:
        words += ["--points", str(settings.points)]
    if len(settings.trainings) == 1:
        words += ["--training", settings.trainings[0]]
    return shlex.join(words)


def _check_fit(run: RunConfig, train_images: int, test_images: int) -> None:
    if run.batch_size > train_images:
        raise InputError(
            f"batch_size is {run.batch_size}, but there are {train_images} training images; use a smaller --batch-size"
        )
    if run.geometry.points > test_images:
        raise InputError(f"points is {run.geometry.points}, but there are {test_images} test images; use fewer --points")
