"""Measure the networks of a run at every kept step, by every spec of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kagscope.base.errors import DataError
from kagscope.data import Dataset
from kagscope.loading.weights import load_state
from kagscope.measuring.compare import compare, curves, zero_row_threshold
from kagscope.measuring.observe import choose_points, observe
from kagscope.measuring.spec import MeasureSpec
from kagscope.measuring.state import WHOLE, State
from kagscope.pruning.change import prune_change, prune_change_exact
from kagscope.robustness import METHODS, adversarial_accuracy, expected_calibration_error
from kagscope.studies.config import RunConfig
from kagscope.studies.measure import ALONG, MAIN, RobustnessSettings
from kagscope.tables.means import token_means
from kagscope.tables.schema import CURVE_COLUMNS, RESULT_COLUMNS
from kagscope.training import TrainedNetwork


def inputs_of(dataset: Dataset) -> Tensor:
    """All test images as inputs of networks: (N, n) float32."""
    return torch.from_numpy(dataset.test_images.reshape(len(dataset.test_images), -1))


def read_checkpoints(file: Path) -> dict[int, dict[str, Tensor]]:
    """Stored weights of a run by step, in order. Raises :class:`DataError` if they cannot be read or are not a run's."""
    stored = load_state(file)
    if not stored or not all(key.partition("/")[0].isdecimal() for key in stored):
        raise DataError(f"{file}: holds no steps of a run (names such as 0/output.weight)")
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        step, _, name = key.partition("/")
        states.setdefault(int(step), {})[name] = tensor
    return dict(sorted(states.items()))


def network(run: RunConfig, weights: Mapping[str, Tensor]) -> nn.Module:
    """Network of a run with these weights, in eval mode."""
    (outputs,) = weights["output.bias"].shape
    model = run.training_settings().network(run.image_shape, outputs, run.seed)
    model.load_state_dict(weights)
    return model.eval()


def steps_of(name: str, steps: Sequence[int]) -> list[int]:
    """Kept steps at which the spec of this name is measured."""
    ends = sorted({steps[0], steps[-1]})
    return [step for step in steps if step not in ends] if name == ALONG else ends


class Measuring:
    """Measures networks of one data set; initial networks shared by several trainings are measured once."""

    def __init__(self, dataset: Dataset) -> None:
        self.inputs, self.labels = inputs_of(dataset), dataset.test_labels
        self._initial: dict[tuple[RunConfig, str], State] = {}

    def measure(
        self, run: RunConfig, net: TrainedNetwork, name: str, spec: MeasureSpec
    ) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """Rows of the results by the spec of this name (:data:`RESULT_COLUMNS`), and of :data:`MAIN` distributions
        (:data:`CURVE_COLUMNS`)."""
        initial = self._at_initialisation(run, net, spec)
        rows, lines = [], []
        for step in steps_of(name, net.steps):
            state = initial if step == 0 else self._observe(run, net, step, spec)
            table = token_means(compare(state, [initial]))
            if name == MAIN:
                lines.append(curves(state).assign(step=step))
                if step == net.steps[-1]:
                    table = pd.concat([table, self._prune(run, net, spec, state, initial)])
            rows.append(table.assign(step=step, epoch=step / net.steps_per_epoch, accuracy=net.accuracy[step]))
        names = {"run": run.run_id, "width": run.width, "training": run.training, "labels": run.labels, "seed": run.seed}
        return _concatenate(rows, names, RESULT_COLUMNS), _concatenate(lines, names, CURVE_COLUMNS) if lines else None

    def _prune(self, run: RunConfig, net: TrainedNetwork, spec: MeasureSpec, state: State, initial: State) -> pd.DataFrame:
        """Rows of the requested scores of the change by pruning."""
        if not spec.wants("prune_change", "prune_change_exact"):
            return pd.DataFrame()
        of_output = spec.layer_map == "output"  # rows are outputs of the net, not units of the layer
        if of_output or any(s.row_norms is None or s.drawn for s in state.measured.values()):  # or rows are missing
            full = spec.with_(scores=["constant_units"], k=1, max_rows=None, layer_map="input" if of_output else spec.layer_map)
            state, initial = self._observe(run, net, net.steps[-1], full), self._at_initialisation(run, net, full)
        norms = {layer: s.row_norms for layer, s in state.measured.items() if s.row_norms is not None}
        model = network(run, net.final)
        chosen = self.inputs[choose_points(len(self.inputs), len(next(iter(norms.values()))))]
        limits = {layer: zero_row_threshold(initial.measured[layer], state.spec.zero_row_quantile) for layer in norms}
        changes = {}
        if spec.wants("prune_change"):
            changes["prune_change"] = prune_change(model, chosen, norms, limits)
        if spec.wants("prune_change_exact"):
            changes["prune_change_exact"] = prune_change_exact(model, chosen, norms)
        fixed = {"layer": "", "k": 0, "selection": "all", "point": WHOLE, "exact": True, "reason": "", "stderr": 0.0}
        undefined = dict.fromkeys(("baseline", "ratio", "baseline_stderr"), np.nan)
        return pd.DataFrame([{**fixed, **undefined, "score": score, "value": value} for score, value in changes.items()])

    def _at_initialisation(self, run: RunConfig, net: TrainedNetwork, spec: MeasureSpec) -> State:
        key = (run.at_initialisation(seed=run.seed), spec.id)
        if key not in self._initial:
            self._initial[key] = self._observe(run, net, 0, spec)
        return self._initial[key]

    def _observe(self, run: RunConfig, net: TrainedNetwork, step: int, spec: MeasureSpec) -> State:
        return observe(network(run, net.checkpoints[step]), self.inputs, spec, labels=self.labels)


def _concatenate(tables: Sequence[pd.DataFrame], names: dict[str, Any], columns: dict[str, str]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True).assign(**names).astype(columns)[list(columns)]


def robustness(run: RunConfig, net: TrainedNetwork, dataset: Dataset, wanted: RobustnessSettings) -> dict[str, float]:
    """Calibration error and adversarial accuracies of the trained net, by name: "pgd_linf_0.1", "calibration_error", …"""
    model, inputs = network(run, net.final), inputs_of(dataset)
    with torch.no_grad():
        probabilities = torch.softmax(model(inputs).double(), dim=1).numpy()
    scores = {"calibration_error": expected_calibration_error(probabilities, dataset.test_labels)}
    chosen = choose_points(len(inputs), wanted.points)
    inputs, labels = inputs[chosen], torch.from_numpy(dataset.test_labels[chosen])
    for norm, radii in (("linf", wanted.linf), ("l2", wanted.l2)):
        for eps in radii:
            for method in METHODS:
                options = {"norm": norm, "method": method, "steps": wanted.steps, "restarts": wanted.restarts, "seed": run.seed}
                scores[f"{method}_{norm}_{eps:g}"] = adversarial_accuracy(model, inputs, labels, eps, **options)  # type: ignore[arg-type]
    return scores
