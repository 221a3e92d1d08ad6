"""Running a study: open its store, compute what is missing, collect what is there. ``reproduce`` is one such study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kagscope.base.errors import KagscopeError, OutputError
from kagscope.studies.collect import Outcome
from kagscope.studies.config import RunConfig
from kagscope.studies.execute.local import Executor, Failure, LocalExecutor, Report
from kagscope.studies.growing import Growing
from kagscope.studies.plan import task_memory
from kagscope.studies.resources import usable_cores, usable_memory
from kagscope.studies.runs import run_task, tasks_for
from kagscope.studies.store import RunStore

Collect = Callable[[RunStore, Sequence[str], Report], Outcome]


class RunsFailed(KagscopeError):
    """Some runs ended with an error; finished ones are kept."""

    def __init__(self, failed: dict[str, str], folder: Path, failures: Sequence[Failure] = ()) -> None:
        first, message = next(iter(failed.items()))
        count = len(failed)
        super().__init__(
            f"{count} run{'s' * (count != 1)} failed, the first {first}: {message}; "
            f"finished runs are kept in {folder}, the same command goes on from there"
        )
        self.failed, self.failures = failed, list(failures)


@dataclass(frozen=True)
class Study:
    """What a store holds.

    Attributes:
        record: content of ``study.json``.
        fingerprint: what makes it this study and no other.
        runs: every run, those of one setting next to each other.
        extendable: whether a later study of the same fingerprint may have other runs.
        images: training images of each data set by name, from which memory is estimated.
    """

    record: dict[str, Any]
    fingerprint: str
    runs: list[RunConfig]
    extendable: bool = False
    images: dict[str, int] = field(default_factory=dict)


def run_study(
    study: Study,
    out: str | Path,
    collect: Collect,
    *,
    executor: Executor | None = None,
    on_event: Report = lambda event: None,
    retry_failed: bool = True,
) -> Outcome:
    """Compute the missing runs of a study, then collect; what was finished before is used again.

    Args:
        study: what to run.
        out: new, empty, or the folder of this very study.
        collect: makes tables and figures of the finished runs.
        executor: where to run; default every core of this machine.
        on_event: told of progress: ``{"kind": "plan", "runs", "finished", "workers"}``, the events of
            :func:`kagscope.studies.runs.run_task` and of ``collect``, and ``{"kind": "note", "text"}``.
        retry_failed: whether runs that failed before are tried again.

    Raises:
        OutputError: ``out`` cannot be used, and is left untouched; or it cannot be written any more, as when the disk is full.
        RunsFailed: some runs failed now and ``collect`` was not reached: nothing finished, or a study that needs all its runs.
    """
    names = [run.run_id for run in study.runs]
    store = RunStore.open(out, {**study.record, "runs": names}, study.fingerprint, extend=study.extendable)
    store.clear_leftovers()
    before = store.failures()
    missing = [run for run in study.runs if not store.is_complete(run.run_id)]
    todo = [run for run in missing if retry_failed or run.run_id not in before]
    for run in todo:
        store.forget_failure(run.run_id)
    chosen = executor if executor is not None else LocalExecutor(usable_cores(), by_default=True)
    if isinstance(chosen, LocalExecutor) and chosen.by_default:
        chosen = _within_memory(chosen, todo, study.images, on_event)
    plan = {"runs": len(names), "finished": len(names) - len(missing), "failed_before": len(missing) - len(todo)}
    on_event({"kind": "plan", **plan, "workers": chosen.workers})
    failures: list[Failure] = []
    if todo:
        _compile(on_event)
        try:
            failures = chosen.run(tasks_for(todo, Path(out).resolve(), chosen.workers), run_task, Growing(store, names, on_event))
        finally:
            store.clear_leftovers()  # of workers that died, or were stopped by Ctrl-C
        for failure in failures:
            if failure.stops:  # no fault of its runs: they wait until the same command is given again
                raise OutputError(failure.message)
            _remember(store, failure)
    failed = {name: error for name, error in store.failures().items() if name in set(names)}
    if failed and (not study.extendable or not any(store.run_folder(name).is_dir() for name in names)):
        raise RunsFailed(failed, Path(out), failures)
    return collect(store, names, on_event)


def _remember(store: RunStore, failure: Failure) -> None:
    """A task that ended with an error: those of its runs that are not there have failed."""
    for run in failure.task.runs:
        if not store.run_folder(run.run_id).is_dir() and run.run_id not in store.failures():
            store.fail(run.run_id, failure.message, failure.traceback)


def _within_memory(executor: LocalExecutor, todo: Sequence[RunConfig], images: dict[str, int], on_event: Report) -> LocalExecutor:
    """As many workers as memory is free for."""
    free = usable_memory()
    if not todo or free is None:
        return executor
    each = max(task_memory(run, images.get(run.data, 0)) for run in todo)
    fit = max(1, int(free / each))
    if fit >= executor.workers:
        return executor
    text = f"{fit} at a time instead of {executor.workers}: a worker takes about {each / 2**30:.1f} GiB, and {free / 2**30:.1f}"
    on_event({"kind": "note", "text": f"{text} GiB of memory are free (--workers overrides this)"})
    return replace(executor, workers=fit)


def _compile(on_event: Report) -> None:
    """Compile the kernels once, before several workers would each do it."""
    from kagscope.minors import warm_up

    warm_up(lambda text: on_event({"kind": "note", "text": text}))
