"""One network measured at its layers: checks, Jacobians, scores. The network is as before afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kagscope.comparison import compare as compare_states
from kagscope.comparison import curves as curves_of
from kagscope.errors import InputError
from kagscope.geometry import WHOLE, State
from kagscope.jacobians.compute import LayerJacobians
from kagscope.jacobians.inputs import Inputs, as_inputs
from kagscope.jacobians.layers import Call, find_layers, see_calls
from kagscope.jacobians.maps import LayerMap
from kagscope.jacobians.runner import Runner, Unmeasurable, tensor_of, untouched
from kagscope.layout import make_layout
from kagscope.measuring.scoring import LayerScores
from kagscope.measuring.settings import MeasureSettings
from kagscope.selections import check_layout

Progress = Callable[[str], None]
LOOK_AT = 8  # points of the passes that only look at the model
AGREE = {torch.float64: 1e-9, None: 1e-3}  # of a point alone with the same point in a batch, relative


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
        notes: what holds of the whole measurement.
    """

    layers: list[LayerRecord] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)
    items: dict[str, np.ndarray] = field(default_factory=dict)
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
    labels = found.labels if labels is None else _as_labels(labels, found.count)
    _check_devices(model, found)
    paths, exact = find_layers(model, settings.layers)
    seen = Observation()
    with untouched(model, settings.mode):
        runner, fed = _runner(model, found, settings, weights, seen.notes)
        few = fed if settings.mode == "train" else fed.take(slice(0, LOOK_AT))
        with _model_errors(few):
            separate = _verify(runner, few, settings, seen.notes)
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


def compare(observation: Observation, initial: Iterable[Observation] | Observation | None, quantile: float) -> pd.DataFrame:
    """The tidy table: each score beside the mean of the same score of the baselines, at the same point and token.

    Args:
        observation: of the network.
        initial: one or several baselines, measured with the same settings; None or empty: no baseline.
        quantile: of a baseline's rows; rows at or below it count as zero rows (MATH.md section 3).

    Returns:
        Columns of :data:`kagscope.schema.SCORE_COLUMNS`, with ``token`` after ``point`` where any layer has tokens. Skipped
        layers have one row, score "skipped", with the reason.
    """
    baselines = [initial] if isinstance(initial, Observation) else list(initial or [])
    parts = []
    for record in observation.layers:
        state = observation.states.get(record.name)
        if state is None:
            parts.append(_skipped(record))
            continue
        tables = [compare_states(state, _state(other, record.name), quantile) for other in baselines]
        table = _averaged(tables) if tables else compare_states(state, None, quantile)
        where = np.concatenate([observation.items[record.name], [[WHOLE, -1]]])  # the last one is that of a whole layer
        chosen = where[table["point"].to_numpy()]
        parts.append(table.assign(point=chosen[:, 0].astype("int32"), token=chosen[:, 1].astype("int32")))
    joined = pd.concat([part.astype({"layer": str, "selection": str, "score": str, "reason": str}) for part in parts])
    joined = joined.astype(dict.fromkeys(("layer", "selection", "score", "reason"), "category")).reset_index(drop=True)
    if (joined["token"] < 0).all():
        return joined.drop(columns="token")
    place = list(joined.columns).index("point") + 1
    columns = [name for name in joined.columns if name != "token"]
    return joined[[*columns[:place], "token", *columns[place:]]]


def curves(observation: Observation) -> pd.DataFrame:
    """Zipf curves of row means and histograms of minors of every layer (curve columns of :mod:`kagscope.schema`)."""
    return pd.concat([curves_of(state) for state in observation.states.values()], ignore_index=True)


def _state(other: Observation, layer: str) -> State:
    if layer not in other.states:
        reason = next((record.reason for record in other.layers if record.name == layer), "it is not called there")
        raise InputError(f"layer {layer!r} could not be measured in the baseline: {reason}")
    return other.states[layer]


def _averaged(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean over baselines of the baseline's score, and of those scores of the network that are counted against it.

    Baselines in which a score is undefined at a point are left out of its mean there.
    """
    if len(tables) == 1:
        return tables[0]
    table = tables[0].copy()
    for name in ("value", "baseline"):
        every = np.stack([one[name].to_numpy() for one in tables])
        mean = np.nansum(every, axis=0) / np.maximum((~np.isnan(every)).sum(axis=0), 1)
        same = (every == every[0]).all(axis=0)  # the network's own scores, to the last bit
        table[name] = np.where(np.isnan(every).all(axis=0), np.nan, np.where(same, every[0], mean))
    table["ratio"] = table["value"] / table["baseline"].where(table["baseline"] != 0)
    table["reason"] = table["reason"].astype(str).where(table["value"].isna(), "")
    return table


def _skipped(record: LayerRecord) -> pd.DataFrame:
    nan = float("nan")
    row = {"layer": record.name, "k": 0, "selection": "all", "point": WHOLE, "score": "skipped", "value": nan, "baseline": nan}
    table = pd.DataFrame([row | {"ratio": nan, "stderr": nan, "exact": True, "reason": f"skipped: {record.reason}", "token": -1}])
    return table.astype({"k": "int8", "point": "int32", "token": "int32"})


def check_model(model: Any) -> None:
    """Raise :class:`InputError` for what is no module, or one that cannot run."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model is {type(model).__name__}; expected a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("model is a TorchScript module, which takes no hooks; give the Python module it was made from")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise InputError(f"parameter {name!r} is not initialised yet; call the lazy model once before measuring it")
        if tensor.device.type == "meta":
            raise InputError(
                f"{name!r} is on the meta device and has no values; load weights, or model.to_empty(device='cpu') first"
            )


def _check_devices(model: nn.Module, inputs: Inputs) -> None:
    devices = {str(tensor.device) for tensor in [*model.parameters(), *model.buffers()]}
    for place, value in inputs.tensors().items():
        if devices and str(value.device) not in devices:
            there = " and ".join(sorted(devices))
            raise InputError(
                f"inputs {place!r} are on {value.device}, the model is on {there}; move one of them, such as x.to('{there}')"
            )


def _runner(
    model: nn.Module, inputs: Inputs, settings: MeasureSettings, weights: Mapping[str, Tensor] | None, notes: list[str]
) -> tuple[Runner, Inputs]:
    """A runner and inputs in float64 where the model can take it, else in its own dtype."""
    wanted = torch.float64 if settings.precision == "float64" else None
    runner = Runner(model, wanted, settings.seed, weights)
    fed = inputs.cast(wanted)
    few = slice(0, None if settings.mode == "train" else LOOK_AT)
    if wanted is None:
        with _model_errors(fed), torch.no_grad():
            runner(fed.take(few))
        return runner, fed
    try:
        with torch.no_grad():
            runner(fed.take(few))
    except Exception as error:
        own = Runner(model, None, settings.seed, weights)
        with _model_errors(inputs), torch.no_grad():
            own(inputs.cast(None).take(few))  # if this fails too, its message is the one to read
        notes.append(f"computed in the model's own precision, since float64 failed ({_short(error)})")
        return own, inputs.cast(None)
    return runner, fed


@contextmanager
def _model_errors(inputs: Inputs) -> Iterator[None]:
    """What a forward pass raises, as an error that says with which inputs."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        shapes = ", ".join(f"{place}: {tuple(value.shape)} {value.dtype}" for place, value in inputs.tensors().items())
        raise InputError(f"the model cannot be called with these inputs ({shapes}): {_short(error)}") from error


def _verify(runner: Runner, inputs: Inputs, settings: MeasureSettings, notes: list[str]) -> bool:
    """Two passes must agree; whether a point's output depends on the other points of its batch."""
    first, again = tensor_of(runner(inputs)), tensor_of(runner(inputs, reseed=False))
    if first is None or again is None:
        return False
    if not _agree(first, again, 1e-12):
        second = tensor_of(runner(inputs))
        if second is None or not _agree(first, second, 1e-12):
            raise InputError(
                "two forward passes with the same inputs differ: measure needs a model without randomness of its own"
            )
        notes.append("the forward pass draws random numbers: measured with one draw, the same for every pass")
    if settings.mode == "train" or inputs.count < 2:
        return False
    try:
        alone = tensor_of(runner(inputs.take([0])))
    except Exception as error:  # such as batch statistics of one point
        raise InputError(
            f"the model cannot take one point alone ({_short(error)}); "
            'if it takes statistics over the batch, use mode="train" to measure each point within its batch'
        ) from error
    if alone is not None and not _agree(first[:1], alone, AGREE.get(runner.dtype, 1e-3)):
        notes.append("a point's output depends on the other points of its batch: each point was measured alone")
        return True
    return False


def _agree(first: Tensor, second: Tensor, tolerance: float) -> bool:
    """Equal up to ``tolerance`` of the largest entry; NaN and infinities to themselves."""
    if first.shape != second.shape:
        return False
    first, second = first.detach(), second.detach()
    scale = float(first[first.isfinite()].abs().amax()) if bool(first.isfinite().any()) else 0.0
    return torch.allclose(first, second, rtol=0.0, atol=tolerance * scale, equal_nan=True)


def _as_labels(labels: Any, count: int) -> np.ndarray:
    found = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if found.shape != (count,):
        raise InputError(f"labels have shape {found.shape}; expected one for each of the {count} points")
    return found


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
