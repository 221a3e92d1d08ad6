"""One task of a study: train the seeds of one setting together, measure each network, store each run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from kagscope.comparison import compare, curves, pruned
from kagscope.data import Dataset, load
from kagscope.errors import DataError
from kagscope.geometry import Probe, choose_points, measure_state
from kagscope.minors.threads import limit_threads
from kagscope.models import mlp, save_weights
from kagscope.provenance import versions
from kagscope.schema import CURVE_COLUMNS, RESULT_COLUMNS
from kagscope.studies.config import RunConfig
from kagscope.studies.executors import Report
from kagscope.studies.store import RunStore
from kagscope.training import Augmentation, TrainedNetwork, TrainingSettings, train


@dataclass(frozen=True)
class Task:
    """Runs that differ in their seed alone, and where they belong."""

    folder: Path
    data: str
    runs: tuple[RunConfig, ...]


def tasks_for(missing: Sequence[RunConfig], folder: Path, data: str, workers: int) -> list[Task]:
    """Missing runs as tasks, the widest first so that no long one is left for the end; split where workers would stand idle."""
    settings: list[list[RunConfig]] = []
    for run in missing:
        if settings and settings[-1][0].same_setting(run):
            settings[-1].append(run)
        else:
            settings.append([run])
    settings.sort(key=lambda group: -group[0].width)
    pieces = -(-workers // max(len(settings), 1))
    return [Task(folder, data, tuple(part)) for group in settings for part in _split(group, pieces)]


def _split(group: list[RunConfig], pieces: int) -> Iterator[list[RunConfig]]:
    size = -(-len(group) // min(pieces, len(group)))
    for start in range(0, len(group), size):
        yield group[start : start + size]


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
    dataset = _data(task.data)
    config = task.runs[0]
    if dataset.fingerprint() != config.data_fingerprint:
        raise DataError(f"{task.data} changed since this study began; start a new one with another --out")
    name = config.run_id
    began = time.perf_counter()
    with limit_threads(1):
        nets = train(
            dataset,
            training_settings(config),
            [run.seed for run in task.runs],
            on_progress=lambda done, total, info: report({"kind": "train", "task": name, "done": done, "total": total}),
        )
        train_seconds = (time.perf_counter() - began) / len(nets)
        for run, net in zip(task.runs, nets, strict=True):
            report({"kind": "measure", "run": run.run_id})
            began = time.perf_counter()
            table, distributions = measure_run(run, net, dataset)
            geometry_seconds = time.perf_counter() - began

            def write(
                folder: Path,
                run: RunConfig = run,
                net: TrainedNetwork = net,
                table: pd.DataFrame = table,
                distributions: pd.DataFrame = distributions,
            ) -> None:
                (folder / "config.json").write_text(run.model_dump_json(indent=1) + "\n")
                save_weights(
                    folder / "weights.safetensors",
                    {f"{step}/{key}": w for step, state in net.checkpoints.items() for key, w in state.items()},
                )
                table.to_parquet(folder / "table.parquet", compression="zstd", index=False)
                distributions.to_parquet(folder / "curves.parquet", compression="zstd", index=False)

            facts = {
                "accuracy": net.accuracy[net.steps[-1]],
                "train_accuracy": net.train_accuracy,
                "train_seconds": train_seconds,
                "geometry_seconds": geometry_seconds,
                "versions": versions(),
            }
            store.publish(run.run_id, write, facts)
            report(
                {
                    "kind": "run",
                    "run": run.run_id,
                    **{key: facts[key] for key in ("accuracy", "train_seconds", "geometry_seconds")},
                }
            )


def training_settings(run: RunConfig) -> TrainingSettings:
    """How ``run`` is trained."""
    return TrainingSettings(
        hidden=run.widths,
        activation=run.activation,
        epochs=run.epochs,
        batch_size=run.batch_size,
        learning_rate=run.learning_rate,
        weight_decay=run.weight_decay,
        augmentation=Augmentation() if run.training == "augmented" else None,
        checkpoints=run.checkpoints,
    )


def measure_run(run: RunConfig, net: TrainedNetwork, dataset: Dataset) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The results rows and the curves of one run: everything at initialisation and after training, sums in between."""
    plan = run.geometry
    inputs = torch.from_numpy(dataset.test_images.reshape(len(dataset.test_images), -1))
    probe = Probe(inputs, dataset.test_labels, choose_points(len(inputs), plan.points), dataset.image_shape)
    quantile = plan.zero_row_quantile
    last = net.steps[-1]
    initial = measure_state(_network(run, dataset, net, 0), probe, plan, full=True)
    tables: list[pd.DataFrame] = []
    distributions: list[pd.DataFrame] = []
    for step in net.steps:
        model = _network(run, dataset, net, step)
        full = step in (0, last)
        state = initial if step == 0 else measure_state(model, probe, plan, full=full)
        rows = [compare(state, initial, quantile)]
        if full:
            rows.append(pruned(model, inputs[choose_points(len(inputs), plan.layer_points)], state, initial, quantile))
            distributions.append(curves(state).assign(step=step))
        tables.append(pd.concat(rows).assign(step=step, epoch=step / net.steps_per_epoch, accuracy=net.accuracy[step]))
    names: dict[str, Any] = {"run": run.run_id, "width": run.width, "training": run.training, "seed": run.seed}
    results = pd.concat(tables, ignore_index=True).assign(**names)
    curve_table = pd.concat(distributions, ignore_index=True).assign(**names)
    return results.astype(RESULT_COLUMNS)[list(RESULT_COLUMNS)], curve_table.astype(CURVE_COLUMNS)[list(CURVE_COLUMNS)]


def _network(run: RunConfig, dataset: Dataset, net: TrainedNetwork, step: int) -> nn.Sequential:
    model = mlp(dataset.n_inputs, run.widths, dataset.n_classes, run.activation, seed=run.seed)
    model.load_state_dict(net.checkpoints[step])
    return model
