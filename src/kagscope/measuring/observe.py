"""One network measured at its layers: checks, Jacobians, scores. The network is as before afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from kagscope.base.errors import InputError
from kagscope.columns.layout import make_layout
from kagscope.columns.selections import check_layout
from kagscope.jacobians.compute import LayerJacobians
from kagscope.jacobians.inputs import Inputs, as_inputs
from kagscope.jacobians.layers import Call, find_layers, see_calls
from kagscope.jacobians.maps import LayerMap
from kagscope.jacobians.runner import Runner, Unmeasurable, untouched
from kagscope.measuring.checks import LOOK_AT, as_labels, check_devices, check_model, choose_runner, model_errors, verify
from kagscope.measuring.scoring import LayerScores
from kagscope.measuring.settings import MeasureSettings
from kagscope.measuring.states import State
from kagscope.measuring.unit_statistics import IncomingSums

Progress = Callable[[str], None]


@dataclass
class LayerRecord:
    """How one layer was measured.

    Attributes:
        name: as in the table.
        kind: class of the module.
        rows, columns: shape of its Jacobians; 0 where skipped.
        route: "factored", "forward mode", "reverse mode", "reverse mode, row by row".
        jacobians: how many.
        seconds: taken.
        notes: what a reader should know.
        reason: why it was skipped; "" where it was measured.
    """

    name: str
    kind: str
    rows: int = 0
    columns: int = 0
    route: str = ""
    jacobians: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return asdict(self)


@dataclass
class Observation:
    """What was measured of one network.

    Attributes:
        layers: a record for every layer asked for, measured or skipped.
        states: scores of each measured layer, by name; item i of a layer is ``items[name][i]``.
        items: (items, 2) int: data point and token (-1 where there are none), by layer.
        incoming: what each unit looks at, by layer, with the matrix that all points share (None where they share none).
        notes: what holds of the whole measurement.
    """

    layers: list[LayerRecord] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)
    items: dict[str, np.ndarray] = field(default_factory=dict)
    incoming: dict[str, tuple[IncomingSums, np.ndarray | None]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def observe(
    model: nn.Module,
    inputs: Any,
    settings: MeasureSettings,
    *,
    weights: Mapping[str, Tensor] | None = None,
    labels: Any = None,
    progress: Progress = lambda text: None,
) -> Observation:
    """Measure one network.

    Args:
        model: left as it is: mode, parameters, buffers, gradients, hooks, random state.
        inputs: see :func:`kagscope.measure`.
        settings: what to measure.
        weights: tensors that stand in for the model's own, by name.
        labels: (points,) integer classes, for kernel alignment.
        progress: told of each layer.

    Raises:
        InputError: a model, layer or input that cannot be used.
    """
    check_model(model)
    model = getattr(model, "_orig_mod", model)  # of torch.compile, whose graphs take no hooks
    found = as_inputs(inputs)
    labels = found.labels if labels is None else as_labels(labels, found.count)
    check_devices(model, found)
    paths, exact = find_layers(model, settings.layers)
    seen = Observation()
    with untouched(model, settings.mode):
        runner, fed = choose_runner(model, found, settings, weights, seen.notes)
        few = fed if settings.mode == "train" else fed.take(slice(0, LOOK_AT))
        with model_errors(few):
            separate = verify(runner, few, settings, seen.notes)
            calls = see_calls(runner, few, paths, exact)
        planned = [(call, _prepared(seen, call, runner, fed, settings, separate, call.path in exact)) for call in calls]
        for record, (call, jacobians) in zip(seen.layers, planned, strict=True):
            if jacobians is not None:
                progress(call.name)
                _layer(seen, record, jacobians, settings, labels, call.path in exact)
    if not seen.states:
        reasons = "; ".join(f"{record.name}: {record.reason}" for record in seen.layers)
        raise InputError(f"no layer could be measured ({reasons})")
    return seen


def _prepared(
    seen: Observation, call: Call, runner: Runner, inputs: Inputs, settings: MeasureSettings, separate: bool, named: bool
) -> LayerJacobians | None:
    """The layer's Jacobians to be; what can go wrong does so here, before the work at any layer. None: skipped."""
    record = LayerRecord(call.name, call.kind, reason=call.reason)
    seen.layers.append(record)
    jacobians = None
    if call.reason:
        return jacobians
    with _skipping(record, named):
        jacobians = LayerJacobians(
            LayerMap(runner, call, settings.layer_map),  # type: ignore[arg-type]
            inputs,
            settings.tokens,
            settings.max_rows,
            settings.memory_budget,
            separate,
            settings.mode == "train",
            settings.seed,
        )
        try:
            layout = make_layout(jacobians.frame.columns, settings.image_shape, settings.positions, settings.groups)
            check_layout(settings.selections, layout)
        except InputError as error:
            raise InputError(f"layer {call.name!r}: {error}") from None
    return jacobians


def _layer(
    seen: Observation,
    record: LayerRecord,
    jacobians: LayerJacobians,
    settings: MeasureSettings,
    labels: np.ndarray | None,
    named: bool,
) -> None:
    since = time.perf_counter()
    scores = LayerScores(record.name, jacobians.inputs.count * len(jacobians.frame.tokens), settings)
    items = []
    with _skipping(record, named):
        for batch in jacobians:
            scores.add(batch)
            items.append(np.stack([batch.points, batch.tokens], axis=1))
    if record.reason:
        return
    where = np.concatenate(items)
    seen.states[record.name] = scores.finish(None if labels is None else labels[where[:, 0]])
    seen.items[record.name] = where
    if scores.incoming.points:
        seen.incoming[record.name] = scores.incoming, scores.shared
    record.rows, record.columns = len(jacobians.frame.rows), jacobians.frame.columns
    record.route, record.jacobians, record.notes = jacobians.route, len(where), jacobians.notes
    record.seconds = time.perf_counter() - since


@contextmanager
def _skipping(record: LayerRecord, named: bool) -> Iterator[None]:
    """A layer that turns out to have no Jacobian is skipped with the reason, or where it was named, refused."""
    try:
        yield
    except Unmeasurable as error:
        if named:
            raise InputError(f"layer {record.name!r} ({record.kind}) cannot be measured: {error}") from None
        record.reason = str(error)
