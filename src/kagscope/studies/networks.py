"""The networks of a run: how they are trained, and what is measured of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from kagscope.data import Dataset
from kagscope.measuring.comparison import as_rows, compare, curves
from kagscope.measuring.geometry import Probe, choose_points, measure_state
from kagscope.measuring.states import WHOLE, State, Values
from kagscope.pruning.change import change_without_constant_units
from kagscope.robustness import METHODS, adversarial_accuracy, expected_calibration_error
from kagscope.studies.config import RobustnessSettings, RunConfig
from kagscope.tables.schema import BOOKKEEPING, CURVE_COLUMNS, RESULT_COLUMNS
from kagscope.training import Augmentation, TrainedNetwork, TrainingSettings
from kagscope.training.models import mlp
from kagscope.wanted import PRUNE_SCORES, wants


def training_settings(run: RunConfig) -> TrainingSettings:
    """How ``run`` is trained."""
    return TrainingSettings(
        hidden=run.widths,
        activation=run.activation,
        epochs=run.epochs,
        batch_size=run.batch_size,
        learning_rate=run.learning_rate,
        weight_decay=run.weight_decay,
        augmentation=Augmentation(run.rotation, run.translation, run.scale) if run.training == "augmented" else None,
        checkpoints=run.checkpoints,
        optimizer=run.optimizer,
        momentum=run.momentum,
        init=run.init,
        init_scale=run.init_scale,
        schedule=run.schedule,
    )


def robustness(run: RunConfig, net: TrainedNetwork, dataset: Dataset, asked: RobustnessSettings) -> dict[str, float]:
    """Calibration error and adversarial accuracies of the trained net, by name: "pgd_linf_0.1", "calibration_error", …"""
    model = _network(run, dataset, net, net.steps[-1]).eval()
    every = torch.from_numpy(dataset.test_images.reshape(len(dataset.test_images), -1))
    with torch.no_grad():
        probabilities = torch.softmax(model(every).double(), dim=1).numpy()
    found = {"calibration_error": expected_calibration_error(probabilities, dataset.test_labels)}
    chosen = choose_points(len(every), asked.points)
    inputs, labels = every[chosen], torch.from_numpy(dataset.test_labels[chosen])
    for norm, radii in (("linf", asked.linf), ("l2", asked.l2)):
        for eps in radii:
            for method in METHODS:
                options = {"norm": norm, "method": method, "steps": asked.steps, "restarts": asked.restarts, "seed": run.seed}
                found[f"{method}_{norm}_{eps:g}"] = adversarial_accuracy(model, inputs, labels, eps, **options)  # type: ignore[arg-type]
    return found


def measure_initial(run: RunConfig, net: TrainedNetwork, dataset: Dataset) -> State:
    """The state of an untrained net, which every training of this seed starts from."""
    return measure_state(_network(run, dataset, net, 0), probe_of(run, dataset), run.geometry, full=True)


def measure_run(run: RunConfig, net: TrainedNetwork, dataset: Dataset, initial: State) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The results rows and the curves of one run: everything at initialisation and after training, sums in between."""
    plan, probe = run.geometry, probe_of(run, dataset)
    inputs, quantile = probe.inputs, plan.zero_row_quantile
    last = net.steps[-1]
    tables: list[pd.DataFrame] = []
    distributions: list[pd.DataFrame] = []
    for step in net.steps:
        model = _network(run, dataset, net, step)
        full = step in (0, last)
        state = initial if step == 0 else measure_state(model, probe, plan, full=full)
        rows = [compare(state, initial, quantile)]
        if full and wants(plan.scores, *PRUNE_SCORES):
            some = inputs[choose_points(len(inputs), plan.layer_points)]
            rows.append(_without_constant_units(model, some, state, initial, quantile))
        if full:
            distributions.append(curves(state).assign(step=step))
        asked = pd.concat(rows)
        if plan.scores is not None:
            asked = asked[asked["score"].isin([*plan.scores, *BOOKKEEPING])]
        tables.append(asked.assign(step=step, epoch=step / net.steps_per_epoch, accuracy=net.accuracy[step]))
    names: dict[str, Any] = {"run": run.run_id, "width": run.width, "training": run.training, "seed": run.seed}
    results = pd.concat(tables, ignore_index=True).assign(**names)
    curve_table = pd.concat(distributions, ignore_index=True).assign(**names)
    return results.astype(RESULT_COLUMNS)[list(RESULT_COLUMNS)], curve_table.astype(CURVE_COLUMNS)[list(CURVE_COLUMNS)]


def _without_constant_units(
    model: nn.Sequential, inputs: torch.Tensor, state: State, initial: State, quantile: float
) -> pd.DataFrame:
    """Rows ``prune_change`` (rows at or below the threshold of the initial net count as zero) and ``prune_change_exact``."""
    thresholds = {layer: float(np.quantile(initial.row_means[layer, 1], quantile)) for layer in state.row_norms}
    changes = {
        ("", 0, "all", score): Values.of([WHOLE], change_without_constant_units(model, inputs, state.row_norms, limits))
        for score, limits in (("prune_change", thresholds), ("prune_change_exact", None))
    }
    return as_rows(changes, {})


def probe_of(run: RunConfig, dataset: Dataset) -> Probe:
    inputs = torch.from_numpy(dataset.test_images.reshape(len(dataset.test_images), -1))
    return Probe(inputs, dataset.test_labels, choose_points(len(inputs), run.geometry.points), dataset.image_shape)


def _network(run: RunConfig, dataset: Dataset, net: TrainedNetwork, step: int) -> nn.Sequential:
    model = mlp(dataset.n_inputs, run.widths, dataset.n_classes, run.activation, run.init, run.init_scale, seed=run.seed)
    model.load_state_dict(net.checkpoints[step])
    return model
