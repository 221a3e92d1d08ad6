"""One task of a study: train the seeds of a setting together, measure each network, store each run."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from kagscope.base.errors import DataError, InputError
from kagscope.base.provenance import versions
from kagscope.data import NAMES, Dataset, load
from kagscope.data.functions import is_function
from kagscope.data.modular import is_modular
from kagscope.data.users import is_users
from kagscope.data.variants import degrade
from kagscope.loading.weights import save_weights
from kagscope.minors.threads import limit_threads
from kagscope.studies.config import RunConfig
from kagscope.studies.execute.base import DEVICE, OnEvent
from kagscope.studies.measure import MAIN, Job
from kagscope.studies.networks import Measuring, read_checkpoints, robustness
from kagscope.studies.record import CONFIG, WEIGHTS, curves_file, robustness_file, table_file
from kagscope.studies.store import RunStore
from kagscope.studies.tables import write_run_table
from kagscope.training import TrainedNetwork, train

TASKS_PER_WORKER = 2
SEEDS_TOGETHER = 16  # maximum; more save no time, take memory, and are lost together if their worker is killed
LOOK_AGAIN = 1.0  # seconds between checks of runs that another driver computes


@dataclass(frozen=True)
class Task:
    """Runs with the same initial networks, over trainings and some seeds, and the folder of their study."""

    folder: Path
    data: str
    jobs: tuple[Job, ...]


def tasks_for(missing: Sequence[Job], folder: Path, workers: int) -> list[Task]:
    """Divide missing runs into tasks, the widest first, as long ones should not be last; at least two per worker if possible.

    Trainings that start from the same networks are kept together, so that these are measured once.
    """
    families: dict[RunConfig, dict[int, list[Job]]] = {}
    for job in missing:
        families.setdefault(job.run.at_initialisation(seed=0), {}).setdefault(job.run.seed, []).append(job)
    pieces = -(-TASKS_PER_WORKER * workers // max(len(families), 1))
    tasks = [
        Task(folder, data_source(family.data), tuple(job for seed in seeds for job in by_seed[seed]))
        for family, by_seed in families.items()
        for seeds in _split(list(by_seed), max(pieces, -(-len(by_seed) // SEEDS_TOGETHER)))
    ]
    return sorted(tasks, key=lambda task: (-task.jobs[0].run.width, -len(task.jobs)))


def data_source(data: str) -> str:
    """Name of the data, or absolute path for workers, which may start in another folder."""
    file, colon, function = data.rpartition(":") if is_users(data) and not Path(data).exists() else (data, "", "")
    named = data in NAMES or is_function(data) or is_modular(data) or (colon and not file.endswith(".py"))
    return data if named else f"{Path(file).expanduser().resolve()}{colon}{function}"


def _split(seeds: list[int], pieces: int) -> Iterator[list[int]]:
    size = -(-len(seeds) // min(pieces, len(seeds)))
    for start in range(0, len(seeds), size):
        yield seeds[start : start + size]


def group_by_setting(jobs: Sequence[Job]) -> list[list[Job]]:
    """Group jobs that differ only in their seed, which are trained together."""
    groups: list[list[Job]] = []
    for job in jobs:
        for group in groups:
            if group[0].run.same_setting(job.run):
                group.append(job)
                break
        else:
            groups.append([job])
    return groups


@lru_cache(maxsize=1)
def _data(source: str) -> Dataset:
    return load(source, progress=False)


def run_task(task: Task, report: OnEvent) -> None:
    """Train, measure and store the runs of ``task``, reporting progress.

    Events: ``{"kind": "train", "run", "seeds", "done", "total"}`` (the first of ``seeds`` runs trained together),
    ``{"kind": "measure", "run"}``, ``{"kind": "run", "run", "accuracy", "train_seconds", "geometry_seconds"}``.

    Raises:
        DataError: the data have changed since the study began.
        OutputError: the store cannot be written.
    """
    store, dataset = RunStore(task.folder), _data(task.data)
    if dataset.fingerprint() != task.jobs[0].run.data_fingerprint:
        raise DataError(f"{task.data} changed since this study began; start a new one with another --out")
    worker = _Worker(store, dataset, Measuring(dataset), report)
    with limit_threads(1):
        for group in group_by_setting(task.jobs):
            waiting = list(group)
            while waiting:
                waiting = [job for job in waiting if not store.is_complete(job.run.run_id, job.files)]
                with store.leases.acquire([job.run.run_id for job in waiting]) as names:
                    mine = [job for job in waiting if job.run.run_id in names]
                    worker.compute([job for job in mine if not store.is_complete(job.run.run_id, job.files)])
                waiting = [job for job in waiting if job.run.run_id not in names]
                if waiting:  # for runs that another driver on this store computes
                    time.sleep(LOOK_AGAIN)


@dataclass(frozen=True)
class _Worker:
    store: RunStore
    dataset: Dataset
    measuring: Measuring
    report: OnEvent

    def compute(self, group: list[Job]) -> None:
        """Train the seeds of one setting together, measure and store each; stored networks are not trained again."""
        new = []
        for job in group:
            name = job.run.run_id
            if self.store.is_complete(name):
                net, present = load_network(self.store, job.run), self.store.check(name).files
                self._measure(job, net, present, self.store.add, self.store.manifest(name))
            else:
                new.append(job)
        self._train(new)

    def _train(self, group: list[Job]) -> None:
        """Train all seeds together; if that fails, each seed alone, to find which."""
        if not group:
            return
        first, began = group[0].run, time.perf_counter()
        try:
            nets = train(
                degrade(self.dataset, first.train_size, first.label_noise, first.data_seed),
                first.training_settings(),
                [job.run.seed for job in group],
                device=training_device(),
                donors=load(data_source(first.first_layer_data), progress=False) if first.first_layer_data else None,
                on_progress=lambda done, total, info: self.report(
                    {"kind": "train", "run": first.run_id, "seeds": len(group), "done": done, "total": total}
                ),
            )
        except InputError as error:  # diverged
            if len(group) > 1:
                for job in group:
                    self._train([job])
                return
            self._record_failure(first, error)
            return
        seconds = (time.perf_counter() - began) / len(nets)
        for job, net in zip(group, nets, strict=True):
            facts = {
                "accuracy": net.accuracy[net.steps[-1]],
                "accuracy_at": {str(step): net.accuracy[step] for step in net.steps},
                "train_accuracy": net.train_accuracy,
                "steps_per_epoch": net.steps_per_epoch,
                "train_seconds": seconds,
                "device": training_device(),
                "versions": versions(),
            }
            self._measure(job, net, (), self.store.publish, facts)

    def _measure(
        self, job: Job, net: TrainedNetwork, present: Collection[str], store: Callable[..., None], facts: dict[str, Any]
    ) -> None:
        """Measure what is not ``present``, and store it with ``facts`` of the run."""
        run, measured = job
        self.report({"kind": "measure", "run": run.run_id})
        began = time.perf_counter()
        missing = [name for name, spec in measured.specs.items() if not _files(name, spec.id) <= set(present)]
        attacks = measured.robustness if measured.robustness and robustness_file(measured.robustness.id) not in present else None
        try:
            tables = {name: self.measuring.measure(run, net, name, measured.specs[name]) for name in missing}
            attacked = robustness(run, net, self.dataset, attacks) if attacks else {}
        except InputError as error:
            self._record_failure(run, error)
            return
        seconds = facts.get("geometry_seconds", 0.0) + time.perf_counter() - began

        def write(folder: Path) -> None:
            if not present:
                (folder / CONFIG).write_text(run.model_dump_json(indent=1) + "\n")
                weights = {f"{step}/{key}": value for step, state in net.checkpoints.items() for key, value in state.items()}
                save_weights(folder / WEIGHTS, weights)
            for name, (rows, curves) in tables.items():
                spec_id = measured.specs[name].id
                _write(rows, folder / table_file(spec_id))
                if curves is not None:
                    _write(curves, folder / curves_file(spec_id))
            if attacks:
                file = folder / robustness_file(attacks.id)
                file.parent.mkdir()
                file.write_text(json.dumps(attacked, indent=1) + "\n")

        store(run.run_id, write, facts | {"geometry_seconds": seconds})
        shown = {"accuracy": facts["accuracy"], "train_seconds": facts["train_seconds"], "geometry_seconds": seconds}
        self.report({"kind": "run", "run": run.run_id, **shown})

    def _record_failure(self, run: RunConfig, error: Exception) -> None:
        self.store.fail(run.run_id, str(error), traceback.format_exc())
        self.report({"kind": "failed", "run": run.run_id, "error": str(error)})


def _files(name: str, spec_id: str) -> set[str]:
    return {table_file(spec_id), *([curves_file(spec_id)] if name == MAIN else [])}


def _write(table: pd.DataFrame, file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    write_run_table(table, file)


def load_network(store: RunStore, run: RunConfig) -> TrainedNetwork:
    """Load the network of a finished run, with its weights and accuracy at every kept step.

    Raises:
        DataError: its weights cannot be read, or its manifest is damaged.
    """
    states = read_checkpoints(store.run_folder(run.run_id) / WEIGHTS)
    try:
        manifest = store.manifest(run.run_id)
        accuracy = {int(step): float(value) for step, value in manifest["accuracy_at"].items()}
        facts = manifest["train_accuracy"], manifest["steps_per_epoch"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"the manifest of run {run.run_id} is damaged ({error}); remove the run, and compute it again") from error
    return TrainedNetwork(run.seed, run.training_settings(), states, accuracy, {}, *facts)


def training_device() -> str:
    """Device on which this worker trains: the CPU, or its reserved GPU. Raises :class:`InputError` if that is missing."""
    device = os.environ.get(DEVICE, "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("a GPU was set aside for each run, but torch finds none here; leave out --gpus-per-run")
    return device
