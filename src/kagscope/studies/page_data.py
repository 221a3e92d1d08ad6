"""Data for the page in addition to scores: mean images, labels of measured points, and units of one net per setting."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open

from kagscope.base.errors import KagscopeError
from kagscope.base.files import atomic_write
from kagscope.data import load_local
from kagscope.measuring.compare import unit_table
from kagscope.measuring.observe import choose_points, observe
from kagscope.measuring.spec import MeasureSpec
from kagscope.measuring.state import State
from kagscope.studies.config import RunConfig
from kagscope.studies.measure import LAYERS
from kagscope.studies.networks import network, read_checkpoints
from kagscope.studies.record import CONFIG, WEIGHTS, main_specs
from kagscope.studies.store import RunStore

KEYS = ("run", "width", "training")
FOLDER = "data"  # in a study's folder: <start of the data's fingerprint>.safetensors
MAX_CLASSES = 20  # with mean images
ENTRIES = 1_200_000  # of rows of units, about as many as a page shows; further nets are left out
MAX_UNITS = 256  # shown per layer


class Probe(NamedTuple):
    """One data set on the page: measured points (P,), their inputs (P, n), labels (P,), mean images (H, W), (classes, H, W).

    Mean images are means over the channels too.
    """

    points: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray
    mean: np.ndarray
    class_means: np.ndarray


def page_data(store: RunStore, runs: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Further provenance for :func:`kagscope.report.write_report`: ``configs``, ``labels``, ``pictures`` and ``units``.

    Args:
        store: Run store of the study.
        runs: ids of complete runs, in order.
        settings: setting (without the seed) by run id; units are shown for the first run of each.

    Entries that need the data are omitted if these are neither on this machine nor in the study's folder.
    """
    configs = {run: json.loads((store.run_folder(run) / CONFIG).read_text()) for run in runs}
    specs = main_specs(store.study)
    provenance: dict[str, Any] = {"configs": {run: config | {"measured": specs[run]} for run, config in configs.items()}}
    probes: dict[str, Probe | None] = {}
    for run, config in configs.items():
        fingerprint = str(config["data_fingerprint"])
        if fingerprint not in probes:
            probes[fingerprint] = _probe(store.folder, RunConfig(**config), int(specs[run]["points"]))
    if len(probes) == 1 and (probe := next(iter(probes.values()))) is not None:
        provenance["labels"] = dict(zip(probe.points.tolist(), probe.labels.tolist(), strict=True))
        provenance["pictures"] = {"mean": probe.mean, "classes": dict(enumerate(probe.class_means))}
    first = {str(settings[run]): run for run in reversed(runs)}
    provenance["units"], entries = {}, 0
    initial: dict[Any, State] = {}
    for run in [run for run in runs if first[str(settings[run])] == run]:
        config, probe = RunConfig(**configs[run]), probes[str(configs[run]["data_fingerprint"])]
        if probe is None or config.architecture != "mlp":  # units of others do not see the whole image
            continue
        units = _units(store, run, config, probe, float(specs[run]["zero_row_quantile"]), initial)
        entries += probe.inputs.shape[1] * sum(min(len(layer_units), MAX_UNITS) for _, layer_units in units.groupby("layer"))
        if provenance["units"] and entries > ENTRIES:
            break
        provenance["units"][run] = units
    return provenance


def settings_of_runs(results: pd.DataFrame) -> dict[str, tuple[int, str]]:
    """Width and training, which identify settings on the page, by run id."""
    rows = results.drop_duplicates("run")
    return {str(run): (int(width), str(training)) for run, width, training in zip(*(rows[name] for name in KEYS), strict=True)}


def _units(
    store: RunStore, run: str, config: RunConfig, probe: Probe, quantile: float, initial: dict[Any, State]
) -> pd.DataFrame:
    """Units of a trained net at the measured points; zero rows by the threshold of the same net at initialisation.

    ``initial`` caches the states of initial networks shared by trainings.
    """
    spec = MeasureSpec(layers=LAYERS, k=1, scores=["zero_rows"], zero_row_quantile=quantile)
    states = list(read_checkpoints(store.run_folder(run) / WEIGHTS).values())
    shared, inputs = (config.at_initialisation(config.seed), quantile), torch.from_numpy(probe.inputs)
    if shared not in initial:
        initial[shared] = observe(network(config, states[0]), inputs, spec)
    return unit_table(observe(network(config, states[-1]), inputs, spec), [initial[shared]])


def _probe(folder: Path, run: RunConfig, count: int) -> Probe | None:
    """Read from the study's folder, else make from the data, if on this machine, and store in the folder."""
    file = folder / FOLDER / f"{run.data_fingerprint[:16]}.safetensors"
    try:
        with safe_open(file, framework="np") as stored:
            kept = Probe(*(stored.get_tensor(name) for name in Probe._fields))
        if kept.inputs.shape == (len(kept.points), run.n_inputs) and len(kept.points) == count:
            return kept
    except (OSError, SafetensorError):
        pass
    made = _load_probe(run, count)
    if made is not None:
        _store_probe(file, made)
    return made


def _load_probe(run: RunConfig, count: int) -> Probe | None:
    try:
        data = load_local(run.data)
    except KagscopeError:
        return None
    if data is None or data.fingerprint() != run.data_fingerprint:
        return None
    points = choose_points(len(data.test_images), count)
    labels = data.test_labels
    classes: Iterable[int] = range(data.n_classes if 1 < data.n_classes <= MAX_CLASSES and data.test_targets is None else 0)
    means = [_mean_image(data.test_images[labels == label]) for label in classes if (labels == label).any()]
    return Probe(
        points,
        data.test_images[points].reshape(len(points), -1),
        labels[points],
        _mean_image(data.test_images),
        np.stack(means) if means and len(means) == len(list(classes)) else np.zeros((0, *run.image_shape[-2:]), dtype=np.float32),
    )


def _mean_image(images: np.ndarray) -> np.ndarray:
    """(H, W) mean over images and colour channels."""
    return np.asarray(images.mean(axis=(0, 1) if images.ndim == 4 else 0))


def _store_probe(file: Path, probe: Probe) -> None:
    from safetensors.numpy import save

    try:
        file.parent.mkdir(exist_ok=True)
    except OSError:
        return  # the page does not need it; writing the report will raise the error
    atomic_write(file, save({name: np.ascontiguousarray(array) for name, array in probe._asdict().items()}))
