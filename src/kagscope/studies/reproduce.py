"""The main job: train, measure and judge the paper's claims, from settings to a report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from kagscope.data import NAMES, load
from kagscope.errors import InputError, KagscopeError
from kagscope.studies.collect import Outcome, collect
from kagscope.studies.config import RunConfig, StudySettings
from kagscope.studies.executors import Executor, Failure, LocalExecutor, Report, usable_cores
from kagscope.studies.runs import run_task, tasks_for
from kagscope.studies.store import RunStore


class RunsFailed(KagscopeError):
    """Some runs ended with an error; finished ones are kept."""

    def __init__(self, failures: list[Failure], folder: Path) -> None:
        first = failures[0]
        runs = sum(len(failure.task.runs) for failure in failures)
        super().__init__(
            f"{runs} run{'s' * (runs != 1)} failed, the first {first.task.runs[0].run_id}: {first.message}; "
            f"finished runs are kept in {folder}, the same command goes on from there"
        )
        self.failures = failures


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
        on_event: told of progress: ``{"kind": "plan", "runs", "finished", "workers"}``, the events of
            :func:`kagscope.studies.runs.run_task`, of :func:`kagscope.studies.collect.collect`, and ``{"kind": "note", "text"}``.
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
    names = [run.run_id for run in runs]
    study = {
        "command": command(settings, out),
        "data": settings.data,
        "image_shape": list(dataset.image_shape),
        "settings": settings.model_dump(mode="json"),
        "runs": names,
    }
    store = RunStore.open(out, study, settings.study_fingerprint(dataset.fingerprint()))
    store.clear_leftovers()
    missing = [run for run in runs if not store.is_complete(run.run_id)]
    chosen = executor if executor is not None else LocalExecutor(usable_cores())
    on_event({"kind": "plan", "runs": len(runs), "finished": len(runs) - len(missing), "workers": chosen.workers})
    if missing:
        _compile(on_event)
        tasks = tasks_for(missing, Path(out).resolve(), _absolute(settings.data), chosen.workers)
        failures = chosen.run(tasks, run_task, on_event)
        if failures:
            raise RunsFailed(failures, Path(out))
    return collect(store, names, on_event)


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


def _absolute(data: str) -> str:
    """Workers may start in another folder; a name stays a name."""
    path = Path(data).expanduser()
    return data if data in NAMES else str(path.resolve())


def _compile(on_event: Report) -> None:
    """Compile the kernels once, before several workers would each do it."""
    from kagscope.minors import warm_up

    warm_up(lambda text: on_event({"kind": "note", "text": text}))
