"""Run a study: open its store, compute missing runs, collect the results."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kagscope.base.errors import KagscopeError, OutputError
from kagscope.base.provenance import digest
from kagscope.data import Dataset, load
from kagscope.studies.claims.parts import too_few
from kagscope.studies.collect import Outcome, analyse, gather_tables
from kagscope.studies.execute.base import Event, Executor, Failure, OnEvent
from kagscope.studies.execute.kernels import compile_kernels
from kagscope.studies.execute.local import LocalExecutor
from kagscope.studies.execute.second_process import second_process
from kagscope.studies.file import StudyFile, list_jobs
from kagscope.studies.measure import Job
from kagscope.studies.plan import task_memory
from kagscope.studies.present import begin_figures, present
from kagscope.studies.record import measured_files
from kagscope.studies.resources import usable_cores, usable_memory
from kagscope.studies.runs import run_task, tasks_for
from kagscope.studies.setting_tables import run_names
from kagscope.studies.statistics.permutation import fewest_pairs
from kagscope.studies.store import RunStore
from kagscope.studies.tables import CURVES, RESULTS, find_finished_runs, join, read_joined_runs
from kagscope.tables.schema import ALPHA

MANY = 30  # runs from which a second process for figures pays, as it takes three seconds to start
STATES = ("done", "running", "failed", "damaged", "missing")


class RunsFailed(KagscopeError):
    """Some runs failed; finished ones are kept."""

    def __init__(self, failed: dict[str, str], folder: Path, failures: Sequence[Failure] = (), first: str = "") -> None:
        run, message = next(iter(failed.items()))
        count = len(failed)
        super().__init__(
            f"{count} run{'s' * (count != 1)} failed, the first {f'{first} ({run})' if first else run}: {message}; "
            f"finished runs are kept in {folder}, the same command goes on from there"
        )
        self.failed, self.failures = failed, list(failures)


@dataclass(frozen=True)
class PlannedStudy:
    """A study file and its runs, with those of one setting next to each other.

    Attributes:
        file: the study file.
        jobs: runs and their measurements.
        images, classes: training images and classes of each data set by name, for estimates of time and memory.
    """

    file: StudyFile
    jobs: tuple[Job, ...]
    images: dict[str, int]
    classes: dict[str, int]

    def record(self, command: str) -> dict[str, Any]:
        """Content of ``study.json``; ``command`` runs the study again."""
        kinds = {job.files: job.measurements.record for job in self.jobs}
        places = {files: index for index, files in enumerate(kinds)}
        runs = {job.run.run_id: places[job.files] for job in self.jobs}
        settings = json.loads(self.file.model_dump_json())
        record = {"name": self.file.name, "claims": self.file.claims, "command": command, "settings": settings}
        return {**record, "measured": list(kinds.values()), "runs": runs}

    def remark(self) -> str:
        """Warning, before the study runs, about claims that its number of seeds cannot decide; or ""."""
        settings: dict[str, set[int]] = {}
        for job in self.jobs:
            settings.setdefault(job.run.model_dump_json(exclude={"seed", "data_seed"}), set()).add(job.run.seed)
        seed_count = max(map(len, settings.values()))
        if seed_count >= fewest_pairs(ALPHA):
            return ""
        if self.file.claims:
            return f"no claim can be decided: {too_few(seed_count)} (in each setting)"
        seeds = f"{seed_count} seed{'s' * (seed_count != 1)} in a setting"
        if seed_count == 1:
            return f"{seeds}: nothing will say how much nets of equal settings differ"
        return f"{seeds}: tests of so few assume normality; to say how geometry goes with accuracy takes {fewest_pairs(ALPHA)}"

    @property
    def fingerprint(self) -> str:
        """Identity of the study: its name, so that it may grow; if claims are tested, every run as well."""
        runs = [(job.run.run_id, job.files) for job in self.jobs] if self.file.claims else []
        return digest(["study", self.file.name, runs])


def plan_study(file: StudyFile, *, progress: bool = False) -> PlannedStudy:
    """Load the data of a study and list its runs, without writing. Raises :class:`InputError` or :class:`DataError`."""
    sets: dict[str, Dataset] = {name: load(name, progress=progress) for name in sorted(file.data_names())}
    return PlannedStudy(
        file,
        tuple(list_jobs(file, sets)),
        {name: len(dataset.train_labels) for name, dataset in sets.items()},
        {name: dataset.n_classes for name, dataset in sets.items()},
    )


def command(path: str | Path, out: str | Path, overrides: Sequence[str] = ()) -> str:
    """Command line that runs a study file."""
    changed = [word for override in overrides for word in ("--set", override)]
    return shlex.join(["kagscope", "study", "run", str(path), *changed, "--out", str(out)])


def run_study(
    file: StudyFile,
    out: str | Path,
    *,
    command: str = "",
    executor: Executor | None = None,
    on_event: OnEvent = lambda event: None,
    retry_failed: bool = True,
    pictures: bool = True,
    progress: bool = False,
) -> Outcome:
    """Compute the runs of a study that are missing in ``out``, then collect the results; finished runs are reused.

    Args:
        file: the study.
        out: a new or empty folder, or that of the same study.
        command: command that runs it again, for the record; by default ``kagscope study run`` with its name.
        executor: where to run; by default all cores of this machine.
        on_event: called with progress: ``{"kind": "plan", "runs", "finished", "workers", "names"}`` (of each run, see
            :func:`~kagscope.studies.setting_tables.run_names`), the events of
            :func:`kagscope.studies.runs.run_task` and of :func:`conclude`, and
            ``{"kind": "note", "text"}``.
        retry_failed: try runs again that failed before.
        pictures: also make figures and the page.
        progress: show a progress bar while downloading.

    Raises:
        InputError, DataError: a file or data cannot be used; raised before anything is written.
        OutputError: ``out`` cannot be used and is left untouched, or can no longer be written, for instance on a full disk.
        RunsFailed: some runs failed and no tables were made, as none finished or the study tests claims, which need all runs.
    """
    study = plan_study(file, progress=progress)
    record = study.record(command or shlex.join(["kagscope", "study", "run", file.name, "--out", str(out)]))
    store = RunStore.open(out, record, study.fingerprint, extend=not file.claims)
    store.clear_leftovers()
    jobs = {job.run.run_id: job for job in study.jobs}  # equivalent values give the same run
    before, names = store.failures(), list(jobs)
    missing = [job for name, job in jobs.items() if not store.is_complete(name, job.files)]
    todo = [job for job in missing if retry_failed or job.run.run_id not in before]
    for job in todo:
        store.forget_failure(job.run.run_id)
    chosen = executor if executor is not None else LocalExecutor(usable_cores(), by_default=True)
    if isinstance(chosen, LocalExecutor) and chosen.by_default:
        chosen = _limit_workers(chosen, todo, study.images, on_event)
    called = run_names([job.run for job in jobs.values()])
    plan = {"runs": len(names), "finished": len(names) - len(missing), "failed_before": len(missing) - len(todo)}
    on_event({"kind": "plan", **plan, "workers": chosen.workers, "names": called})
    if remark := study.remark():
        on_event({"kind": "note", "text": remark})
    failures: list[Failure] = []
    if todo:
        compile_kernels(lambda text: on_event({"kind": "note", "text": text}))
        try:
            failures = chosen.run(tasks_for(todo, Path(out).resolve(), chosen.workers), run_task, Growing(store, names, on_event))
        finally:
            store.clear_leftovers()  # of workers that died or were stopped by Ctrl-C
        for failure in failures:
            if failure.stops:  # not due to its runs, which wait until the same command is given again
                raise OutputError(failure.message)
            _remember(store, failure)
    failed = {name: error for name, error in store.failures().items() if name in set(names)}
    if failed and (file.claims or not any(store.run_folder(name).is_dir() for name in names)):
        raise RunsFailed(failed, Path(out), failures, ", ".join(called[next(iter(failed))]))
    return conclude(store, on_event, pictures=pictures, workers=chosen.workers)


def conclude(
    store: RunStore,
    on_event: OnEvent = lambda event: None,
    *,
    pictures: bool = True,
    follow: int | None = None,
    workers: int = 1,
) -> Outcome:
    """Make tables and claims of a store's finished runs, and with ``pictures`` figures and page: the end of :func:`run_study`.

    During a study, ``follow`` makes a page that reloads itself after so many seconds. With several ``workers`` a second process
    draws figures of many runs concurrently; files are the same.
    """
    if not pictures:
        return analyse(store, gather_tables(store, on_event), on_event).outcome
    several = min(workers, usable_cores()) > 1 and len(store.folders()) >= MANY
    with second_process(several, "kagscope.figures.write") as second:
        gathered = gather_tables(store, on_event)
        pictured = begin_figures(store, gathered, second)
        return present(store, gathered, analyse(store, gathered, on_event), pictured, second, on_event, follow)


@dataclass(frozen=True)
class Status:
    """State of each run of a store, in the study's order: one of :data:`STATES`, with the errors of failed ones."""

    states: dict[str, str]
    errors: dict[str, str]

    def counts(self) -> dict[str, int]:
        """Number of runs in each state."""
        counts = Counter(self.states.values())
        return {state: counts[state] for state in STATES}


def status(store: RunStore) -> Status:
    """Find which runs are done, running, failed, damaged or missing, checking every file against its checksum."""
    failures, running, folders = store.failures(), set(store.leases.running()), store.folders()
    states: dict[str, str] = {}
    for run_id, measured in measured_files(store.study).items():
        checked = store.check(run_id) if run_id in folders else None
        if checked is not None and checked.damage:
            states[run_id] = "damaged"
        elif checked is not None and checked.files.issuperset(measured.files):
            states[run_id] = "done"
        else:
            states[run_id] = "running" if run_id in running else "failed" if run_id in failures else "missing"
    return Status(states, {run_id: failures[run_id] for run_id, state in states.items() if state == "failed"})


def _remember(store: RunStore, failure: Failure) -> None:
    """Record a failed task: those of its runs that are not stored have failed."""
    for job in failure.task.jobs:
        name = job.run.run_id
        if not store.is_complete(name, job.files) and name not in store.failures():
            store.fail(name, failure.message, failure.traceback)


def _limit_workers(executor: LocalExecutor, todo: Sequence[Job], images: dict[str, int], on_event: OnEvent) -> LocalExecutor:
    """Limit the number of workers by free memory."""
    free = usable_memory()
    if not todo or free is None:
        return executor
    size = max(task_memory(job, images.get(job.run.data, 0)) for job in todo)
    fit = max(1, int(free / size))
    if fit >= executor.workers:
        return executor
    text = f"{fit} at a time instead of {executor.workers}: a worker takes about {size / 2**30:.1f} GiB, and {free / 2**30:.1f}"
    on_event({"kind": "note", "text": f"{text} GiB of memory are free (--workers overrides this)"})
    return replace(executor, workers=fit)


AT_LEAST = 256  # runs joined at a time, at least


class Growing:
    """Passes events on, and joins the runs whenever they have grown by a quarter and by :data:`AT_LEAST`.

    Each join reads the last joined file and writes all of it again: geometric growth makes the cost per run the same
    for any number of runs. A failed join does not fail the study, which joins once more at its end.
    """

    def __init__(self, store: RunStore, names: Sequence[str], on_event: OnEvent) -> None:
        self._store, self._names, self._on_event = store, names, on_event
        folders = store.folders() & set(names)
        joined_before = read_joined_runs(store, CURVES) & folders  # in the table that is written last
        self._held, self._new = len(joined_before), len(folders - joined_before)

    def __call__(self, event: Event) -> None:
        self._on_event(event)
        if event["kind"] != "run":
            return
        self._new += 1
        if self._new >= max(AT_LEAST, self._held // 4):
            self._held, self._new = self._held + self._new, 0
            with contextlib.suppress(KagscopeError):
                self._join()

    def _join(self) -> None:
        finished, _ = find_finished_runs(self._store, self._names)
        join(self._store, finished, RESULTS)
        join(self._store, finished, CURVES)
