"""One task of a study: train the seeds of a setting together, measure each network, store each run."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import pandas as pd
import torch

from kagscope.base.errors import DataError, InputError
from kagscope.base.provenance import versions
from kagscope.data import NAMES, Dataset, load
from kagscope.data.functions import is_function
from kagscope.data.variants import degraded
from kagscope.loading.weights import save_weights
from kagscope.measuring.states import State
from kagscope.minors.threads import limit_threads
from kagscope.studies.config import RunConfig
from kagscope.studies.execute.local import DEVICE, Report
from kagscope.studies.networks import measure_initial, measure_run, robustness, training_settings
from kagscope.studies.reuse import Earlier, earlier, earlier_runs, still_to_measure, together
from kagscope.studies.store import RunStore
from kagscope.studies.tables import write_run_table
from kagscope.training import TrainedNetwork, train

TASKS_PER_WORKER = 2
SEEDS_TOGETHER = 16  # at most: more save nothing, take memory, and are lost together when their worker is killed
LOOK_AGAIN = 1.0  # seconds between looks at runs that another driver computes


@dataclass(frozen=True)
class Task:
    """Runs of the same networks at initialisation, by every training and some seeds, and where they belong."""

    folder: Path
    data: str
    runs: tuple[RunConfig, ...]


def tasks_for(missing: Sequence[RunConfig], folder: Path, workers: int) -> list[Task]:
    """Missing runs as tasks, the widest first so that no long one is left for the end; at least two for each worker if possible.

    Trainings that start from the same networks stay together: those are measured once.
    """
    families: dict[RunConfig, dict[int, list[RunConfig]]] = {}
    for run in missing:
        families.setdefault(run.at_initialisation(seed=0), {}).setdefault(run.seed, []).append(run)
    pieces = -(-TASKS_PER_WORKER * workers // max(len(families), 1))
    tasks = [
        Task(folder, data_source(family.data), tuple(run for seed in seeds for run in by_seed[seed]))
        for family, by_seed in families.items()
        for seeds in _split(list(by_seed), max(pieces, -(-len(by_seed) // SEEDS_TOGETHER)))
    ]
    return sorted(tasks, key=lambda task: (-task.runs[0].width, -len(task.runs)))


def data_source(data: str) -> str:
    """Where workers, which may start in another folder, find the data; a name stays a name."""
    return data if data in NAMES or is_function(data) else str(Path(data).expanduser().resolve())


def _split(seeds: list[int], pieces: int) -> Iterator[list[int]]:
    size = -(-len(seeds) // min(pieces, len(seeds)))
    for start in range(0, len(seeds), size):
        yield seeds[start : start + size]


def settings_of(runs: Sequence[RunConfig]) -> list[list[RunConfig]]:
    """Runs grouped by setting: those that differ in their seed alone, which are trained together."""
    groups: list[list[RunConfig]] = []
    for run in runs:
        for group in groups:
            if group[0].same_setting(run):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


@lru_cache(maxsize=1)
def _data(source: str) -> Dataset:
    return load(source, progress=False)


def run_task(task: Task, report: Report) -> None:
    """Train, measure and store the runs of ``task``, telling of its progress.

    Events: ``{"kind": "train", "task", "done", "total"}``, ``{"kind": "measure", "run"}``, ``{"kind": "run", "run", "accuracy",
    "train_seconds", "geometry_seconds"}``.

    Raises:
        DataError: the data changed since the study began.
        OutputError: the store cannot be written.
    """
    store = RunStore(task.folder)
    if _data(task.data).fingerprint() != task.runs[0].data_fingerprint:
        raise DataError(f"{task.data} changed since this study began; start a new one with another --out")
    initial: dict[RunConfig, State] = {}
    leases = store.leases
    with limit_threads(1):
        for group in settings_of(task.runs):
            waiting = list(group)
            while waiting:
                waiting = [run for run in waiting if not store.is_complete(run.run_id)]
                with leases.claimed([run.run_id for run in waiting]) as mine:
                    claimed = [run for run in waiting if run.run_id in mine]
                    _run_group(store, task.data, [run for run in claimed if not store.is_complete(run.run_id)], initial, report)
                waiting = [run for run in waiting if run not in claimed]
                if waiting:  # another driver on this store is at work on them
                    time.sleep(LOOK_AGAIN)


def _run_group(store: RunStore, data: str, group: list[RunConfig], initial: dict[RunConfig, State], report: Report) -> None:
    """Train the seeds of one setting side by side, measure and store each; where that fails, each seed alone, to tell which.

    Networks that the store holds already, measured for other numbers, are not trained again.
    """
    known = _known(store, data, group)
    for run in [run for run in group if run in known]:
        _measure(store, run, known[run].net, _dataset(data, run), initial, 0.0, report, known[run])
    group = [run for run in group if run not in known]
    if not group:
        return
    dataset = _dataset(data, group[0])
    name = group[0].run_id
    began = time.perf_counter()
    try:
        nets = train(
            dataset,
            training_settings(group[0]),
            [run.seed for run in group],
            device=training_device(),
            on_progress=lambda done, total, info: report({"kind": "train", "task": name, "done": done, "total": total}),
        )
    except InputError as error:  # it diverged
        if len(group) > 1:
            for run in group:
                _run_group(store, data, [run], initial, report)
            return
        _failed(store, group[0], error, report)
        return
    train_seconds = (time.perf_counter() - began) / len(nets)
    for run, net in zip(group, nets, strict=True):
        _measure(store, run, net, dataset, initial, train_seconds, report)


def _dataset(data: str, run: RunConfig) -> Dataset:
    return degraded(_data(data), run.train_size, run.label_noise, run.data_seed)


def _known(store: RunStore, data: str, group: Sequence[RunConfig]) -> dict[RunConfig, Earlier]:
    """What the store holds of the networks of a group, measured for other numbers."""
    names = earlier_runs(store)
    there = {run: names[run.training_fingerprint()] for run in group if names and run.training_fingerprint() in names}
    images = len(_dataset(data, group[0]).train_labels) if there else 0
    found = {run: earlier(store, name, training_settings(run), images) for run, name in there.items()}
    return {run: known for run, known in found.items() if known is not None}


def _measure(
    store: RunStore,
    run: RunConfig,
    net: TrainedNetwork,
    dataset: Dataset,
    initial: dict[RunConfig, State],
    train_seconds: float,
    report: Report,
    known: Earlier | None = None,
) -> None:
    """Measure one network and store the run; what is known of it is not measured again."""
    report({"kind": "measure", "run": run.run_id})
    began = time.perf_counter()
    todo = run if known is None else still_to_measure(run, known)
    try:
        tables = None if todo is None else _tables(todo, net, dataset, initial)
    except InputError as error:
        _failed(store, run, error, report)
        return
    if known is not None and todo is not run:
        tables = together(run, known, tables)
    assert tables is not None
    facts = {
        "accuracy": net.accuracy[net.steps[-1]],
        "train_accuracy": net.train_accuracy,
        "train_seconds": train_seconds,
        "geometry_seconds": time.perf_counter() - began,
        "device": training_device(),
        "versions": versions(),
    }
    if run.robustness is not None:
        same = known is not None and known.run.robustness == run.robustness
        facts["robustness"] = known.robustness if known and same else robustness(run, net, dataset, run.robustness)
    store.publish(run.run_id, partial(_write, run, net, tables), facts)
    shown = {key: facts[key] for key in ("accuracy", "train_seconds", "geometry_seconds")}
    report({"kind": "run", "run": run.run_id, **shown})


def _tables(
    run: RunConfig, net: TrainedNetwork, dataset: Dataset, initial: dict[RunConfig, State]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    start = run.at_initialisation(seed=run.seed)
    if start not in initial:
        initial[start] = measure_initial(run, net, dataset)
    return measure_run(run, net, dataset, initial[start])


def training_device() -> str:
    """Where this worker trains: the CPU, or the GPU that was set aside for it. Raises :class:`InputError` where there is none."""
    device = os.environ.get(DEVICE, "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("a GPU was set aside for each run, but torch finds none here; leave out --gpus-per-run")
    return device


def _failed(store: RunStore, run: RunConfig, error: Exception, report: Report) -> None:
    store.fail(run.run_id, str(error), traceback.format_exc())
    report({"kind": "failed", "run": run.run_id, "error": str(error)})


def _write(run: RunConfig, net: TrainedNetwork, tables: tuple[pd.DataFrame, pd.DataFrame], folder: Path) -> None:
    weights = {f"{step}/{key}": tensor for step, state in net.checkpoints.items() for key, tensor in state.items()}
    (folder / "config.json").write_text(run.model_dump_json(indent=1) + "\n")
    save_weights(folder / "weights.safetensors", weights)
    for name, table in zip(("table", "curves"), tables, strict=True):
        write_run_table(table, folder / f"{name}.parquet")
