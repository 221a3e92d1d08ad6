"""``kagscope study``: from a study file to runs, their state, and what comes of them."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kagscope.data import Dataset, load
from kagscope.studies.collect import Outcome, collect
from kagscope.studies.config import RunConfig
from kagscope.studies.execute.local import Executor, Report
from kagscope.studies.file import StudyFile, configs
from kagscope.studies.gather import gather
from kagscope.studies.store import RunStore
from kagscope.studies.study import Collect, Study, run_study

KIND = "study file"
STATES = ("done", "running", "failed", "damaged", "missing")


def load_data(study: StudyFile, *, progress: bool = False) -> dict[str, Dataset]:
    """The data sets that a study names. Raises :class:`InputError` or :class:`DataError`."""
    return {name: load(name, progress=progress) for name in sorted({values.data for values in study.values()})}


def study_of(file: StudyFile, runs: list[RunConfig], path: str | Path, out: str | Path, overrides: Sequence[str] = ()) -> Study:
    """The study of a file. A folder belongs to a study by its name, so that the file may grow."""
    changed = [word for override in overrides for word in ("--set", override)]
    record = {
        "kind": KIND,
        "name": file.name,
        "command": shlex.join(["kagscope", "study", "run", str(path), *changed, "--out", str(out)]),
        "settings": json.loads(file.model_dump_json()),
    }
    return Study(record, hashlib.sha256(f"{KIND}:{file.name}".encode()).hexdigest(), runs, extendable=True)


def run_file(
    file: StudyFile,
    path: str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    executor: Executor | None = None,
    on_event: Report = lambda event: None,
    retry_failed: bool = False,
    progress: bool = False,
) -> Outcome:
    """Compute the runs of a study file that ``out`` does not hold yet, and write tables, figures and report.

    ``path`` and ``overrides`` (``key=value``) are where the file came from; they enter the command that the study records.

    Raises:
        InputError, DataError: a file or data that cannot be used, said before anything is written.
        OutputError: ``out`` holds something else or cannot be written.
        RunsFailed: every run failed.
    """
    datasets = load_data(file, progress=progress)
    runs = configs(file, datasets)
    images = {name: len(dataset.train_labels) for name, dataset in datasets.items()}
    study = replace(study_of(file, runs, path, out, overrides), images=images)
    return run_study(study, out, gather, executor=executor, on_event=on_event, retry_failed=retry_failed)


def collector(store: RunStore) -> Collect:
    """What makes tables and figures of a store: that of study files, or that of ``reproduce``."""
    return gather if store.study.get("kind") == KIND else collect


@dataclass(frozen=True)
class Status:
    """The state of each run of a store, in the study's order: one of :data:`STATES`, with the error of a failed one."""

    states: dict[str, str]
    errors: dict[str, str]

    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        found = Counter(self.states.values())
        return {state: found[state] for state in STATES}


def status(store: RunStore, run_ids: Sequence[str] | None = None) -> Status:
    """What is done, running, failed, damaged and missing. Checks every file against its checksum."""
    failures, running = store.failures(), set(store.leases.running())
    states: dict[str, str] = {}
    for run_id in run_ids if run_ids is not None else store.study["runs"]:
        if store.run_folder(run_id).is_dir():
            states[run_id] = "damaged" if store.damage(run_id) else "done"
        else:
            states[run_id] = "running" if run_id in running else "failed" if run_id in failures else "missing"
    return Status(states, {run_id: failures[run_id] for run_id, state in states.items() if state == "failed"})
