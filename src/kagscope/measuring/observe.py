"""Measure the layers of one network: the only code that forms Jacobians and computes scores. The network is left unchanged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from kagscope.base.errors import InputError
from kagscope.base.progress import Tell, silent
from kagscope.columns.layout import make_layout
from kagscope.columns.selections import check_layout
from kagscope.jacobians.compute import LayerJacobians
from kagscope.jacobians.forward import positional_parameters, unwrap
from kagscope.jacobians.inputs import Inputs, as_inputs
from kagscope.jacobians.layers import ACTIVATIONS, ELEMENTWISE, Call, find_calls, find_layers
from kagscope.jacobians.maps import LayerMap
from kagscope.jacobians.model_checks import (
    ALONE,
    LOOK_AT,
    check_devices,
    check_model,
    mixes_in_large_batches,
    model_errors,
    verify,
)
from kagscope.jacobians.runner import Runner, Unmeasurable
from kagscope.jacobians.untouched import untouched
from kagscope.measuring.checks import as_labels, choose_runner, input_warnings
from kagscope.measuring.cost import Shape, forecast, layer_seconds
from kagscope.measuring.scoring import LayerScores
from kagscope.measuring.spec import MeasureSpec, spec_from
from kagscope.measuring.state import LayerRecord, State
from kagscope.minors.threads import one_blas_thread

NO_ACTIVATIONS = (
    "no activation is a module of this model (a function such as torch.relu is none), so that its layers with weights were "
    "measured, each without the function after it"
)

DIAGONAL = "an elementwise function, whose Jacobian is diagonal in every network; measure the module that holds it"


def observe(
    model: nn.Module,
    inputs: Any,
    spec: MeasureSpec,
    *,
    weights: Mapping[str, Tensor] | None = None,
    labels: Any = None,
    progress: Tell = silent,
    networks: int = 0,
) -> State:
    """Measure one network.

    Args:
        model: left unchanged: mode, parameters, buffers, gradients, hooks, random state.
        inputs: all inputs, see :func:`kagscope.measure`; the spec says at how many of them Jacobians are formed.
        spec: what to measure.
        weights: tensors that replace the model's own, by name.
        labels: (count,) integer classes of all inputs, for kernel alignment; by default those of a loader.
        progress: called with each layer and the fraction done.
        networks: number of networks that will be measured in all, for an estimate of the time; 0: no estimate.

    Raises:
        InputError: A model, layer or input cannot be used.
    """
    check_model(model)
    if spec.window_map and spec.image_shape is None:
        raise InputError(
            f"window_map is {spec.window_map}, but nothing says where columns lie in an image; pass image_shape=(height, width)"
        )
    model = unwrap(model)
    given = as_inputs(inputs, spec.points, model).with_respect_to(spec.wrt, positional_parameters(model))
    if spec.layer_map == "input":
        given = replace(given, wrt=given.variable_key())  # resolved here, where the number of points is known
    labels = given.labels if labels is None else as_labels(labels, given.count)
    check_devices(model, given)
    paths, exact = find_layers(model, spec.layers, spec.layer_map)
    order = choose_points(given.count)
    state = State(spec, notes=[*given.notes, *input_warnings(given)])
    if spec.layers is None and not any(isinstance(module, ACTIVATIONS) for module in model.modules()):
        state.notes.append(NO_ACTIVATIONS)
    with untouched(model, spec.mode):
        runner, fed = choose_runner(model, given.take(order), spec, weights, state.notes)
        measured = fed.take(slice(0, max(fed.count_up_to(spec.points), _unit_points(fed, spec))))
        few = measured if spec.mode == "train" else fed.take(slice(0, LOOK_AT))
        with model_errors(few):
            separate = verify(runner, few, paths, spec.mode, state.notes, given.cast(runner.dtype))
            if not separate and spec.mode == "eval":
                used = fed.take(slice(0, max(measured.count, _samples(spec))))
                separate = mixes_in_large_batches(runner, used, paths, spec.budget.memory_budget)
                state.notes += [ALONE] if separate else []
            calls = find_calls(runner, few, paths, exact)
        planned = [(call, _prepare(state, call, runner, measured, spec, separate, call.path in exact)) for call in calls]
        shapes = [None if jacobians is None else _shape(jacobians, fed, spec) for _, jacobians in planned]
        seconds = [0.0 if shape is None else layer_seconds(*shape[:3], spec, shape[3]) for shape in shapes]
        if networks and (text := _estimate([shape for shape in shapes if shape], spec, networks)):
            progress(text)
        for index, (record, (call, jacobians)) in enumerate(zip(state.layers, planned, strict=True)):
            if jacobians is not None:

                def tell(share: float, name: str = call.name, index: int = index) -> None:
                    progress(name, (sum(seconds[:index]) + share * seconds[index]) / sum(seconds))

                _measure_layer(state, record, jacobians, fed, order, labels, spec, call.path in exact, tell)
    if not state.measured:
        reasons = "; ".join(f"{record.name}: {record.reason}" for record in state.layers)
        raise InputError(f"no layer could be measured ({reasons})")
    return state


def _unit_points(inputs: Inputs, spec: MeasureSpec) -> int:
    """Number of points for scores of units, if the budget sets one."""
    if spec.budget.unit_points is None or not any(score.is_of("row_norms", "output_slopes") for score in spec.score_records):
        return 0
    return inputs.count_up_to(spec.budget.unit_points)


def _samples(spec: MeasureSpec) -> int:
    """Number of inputs for scores of representations; 0 if there are none to compute."""
    return spec.budget.samples if spec.layer_map != "output" and any(s.is_of("activations") for s in spec.score_records) else 0


def _shape(jacobians: LayerJacobians, inputs: Inputs, spec: MeasureSpec) -> Shape:
    """Rows, columns and number of a layer's Jacobians, and bytes moved by the passes of one."""
    frame = jacobians.frame
    items = len(frame.tokens) * inputs.count_up_to(spec.points)
    return frame.units, frame.columns, items, jacobians.bytes_moved / len(frame.tokens)


def _estimate(shapes: list[Shape], spec: MeasureSpec, networks: int) -> str:
    quick_options = {name: getattr(spec, name) for name in ("k", "image_shape", "scores")}
    return forecast(shapes, spec, spec_from("quick", quick_options), networks) if shapes else ""


def _prepare(
    state: State, call: Call, runner: Runner, inputs: Inputs, spec: MeasureSpec, separate: bool, named: bool
) -> LayerJacobians | None:
    """Prepare a layer's Jacobians, so that errors are raised before any layer is measured; None if it is skipped."""
    variables = {"block": f"input of {call.name}", "output": call.name}
    wrt = variables.get(spec.layer_map) or (inputs.name(inputs.variable_key()) if spec.wrt is None else spec.wrt)
    record = LayerRecord(call.name, call.kind, wrt=wrt, reason=call.reason)
    state.layers.append(record)
    jacobians = None
    if call.reason:
        return jacobians
    with _skip_unmeasurable(record, named):
        jacobians = LayerJacobians(
            LayerMap(runner, call, spec.layer_map),  # type: ignore[arg-type]
            inputs,
            spec.tokens,
            spec.budget.max_rows,
            spec.budget.memory_budget,
            separate,
            spec.mode == "train",
            spec.seed,
            max(spec.k),
        )
        try:
            layout = make_layout(jacobians.frame.columns, spec.image_shape, spec.positions, spec.groups)
            check_layout(spec.selections, layout)
        except InputError as error:
            raise InputError(f"layer {call.name!r}: {error}") from None
        if spec.layer_map == "block" and isinstance(runner.model.get_submodule(call.path), ELEMENTWISE):
            jacobians.notes.append(DIAGONAL)
    return jacobians


def _measure_layer(
    state: State,
    record: LayerRecord,
    jacobians: LayerJacobians,
    inputs: Inputs,
    order: np.ndarray,
    labels: np.ndarray | None,
    spec: MeasureSpec,
    named: bool,
    tell: Callable[[float], None],
) -> None:
    """Measure one layer; ``inputs`` are all inputs, in the order ``order``."""
    since = time.perf_counter()
    tokens = len(jacobians.frame.tokens)
    points = order[: inputs.count_up_to(spec.points)]
    has_tokens = jacobians.has_tokens
    items = np.stack([np.repeat(points, tokens), np.tile(jacobians.frame.tokens if has_tokens else (-1,), len(points))], axis=1)
    scores = LayerScores(record.name, items, spec, jacobians.roundoff, jacobians.drawn)
    with _skip_unmeasurable(record, named):
        seen = 0
        tell(0.0)
        for batch in jacobians:
            seen += len(batch.points)
            batch = replace(batch, points=order[batch.points])
            with one_blas_thread():
                scores.update(batch, more=min(len(batch.points), max(0, seen - len(items))))
            tell(min(1.0, seen / len(items)))
        activations, sample = _activations(jacobians, inputs, spec)
    if record.reason:
        return
    sample_labels = None if labels is None or sample is None else np.repeat(labels[order[sample]], tokens)
    with one_blas_thread():
        state.measured[record.name] = scores.compute(activations, sample_labels)
    record.rows, record.columns = len(jacobians.frame.rows), jacobians.frame.columns
    record.route, record.jacobians, record.notes = jacobians.route, len(items), jacobians.notes
    record.seconds = time.perf_counter() - since


def _activations(jacobians: LayerJacobians, inputs: Inputs, spec: MeasureSpec) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The layer's outputs at up to ``budget.samples`` inputs, and the indices of those inputs; None if not needed."""
    if not _samples(spec):
        return None, None
    limit = max(1, spec.budget.samples // len(jacobians.frame.tokens))
    # in train mode a point's output depends on the batch that is measured
    sample = jacobians.inputs if spec.mode == "train" else inputs.take(slice(0, limit))
    return jacobians.values(sample), np.arange(sample.count)


@contextmanager
def _skip_unmeasurable(record: LayerRecord, named: bool) -> Iterator[None]:
    """Skip a layer without a Jacobian and record the reason, or raise if the layer was requested by name."""
    try:
        yield
    except Unmeasurable as error:
        if named:
            raise InputError(f"layer {record.name!r} ({record.kind}) cannot be measured: {error}") from None
        record.reason = str(error)


def choose_points(count: int, wanted: int | None = None) -> np.ndarray:
    """Draw ``wanted`` of ``count`` points without replacement, int64, the same for every network; any prefix is a sample.

    None returns all of them in random order.
    """
    return np.random.default_rng(0).permutation(count)[:wanted]
