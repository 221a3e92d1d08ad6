"""Load what ``kagscope measure`` measures, by name: the model, its weights, its inputs and its baseline."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from kagscope.base.errors import DataError, InputError
from kagscope.base.messages import listing
from kagscope.base.progress import Say
from kagscope.jacobians.forward import count_required, positional_parameters
from kagscope.loading import (
    Checkpoint,
    LoadedInputs,
    find_checkpoints,
    fit_inputs,
    is_published,
    load_inputs,
    load_into,
    load_model,
    load_published,
    load_state,
)
from kagscope.loading.checkpoints import is_pattern


@dataclass(frozen=True)
class Request:
    """The options that name what is measured, as given."""

    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: Sequence[str] = ()
    baseline: str | None = None
    data: str | None = None
    split: str = "test"
    input_shape: tuple[int, ...] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Subject:
    """A loaded model with everything needed to measure it.

    Attributes:
        model: the model, with its weights unless there are ``checkpoints``.
        inputs: inputs in the shape and dtype that it takes.
        source: the inputs as loaded, with labels.
        baseline: baseline for :func:`kagscope.measure`, or None.
        baseline_name: the baseline in words; "" to let :func:`kagscope.measure` find them.
        checkpoints: checkpoints of a series by step; empty for one set of weights.
        published: name and revision of a published model, for provenance.
    """

    model: nn.Module
    inputs: Tensor | dict[str, Tensor]
    source: LoadedInputs
    baseline: Any
    baseline_name: str = ""
    checkpoints: tuple[Checkpoint, ...] = ()
    published: Mapping[str, str] = field(default_factory=dict)

    def at(self, points: np.ndarray) -> tuple[Tensor | dict[str, Tensor], Tensor | None]:
        """Inputs and labels, if there are any, at these indices."""
        inputs, labels = self.inputs, self.source.labels
        chosen = {name: values[points] for name, values in inputs.items()} if isinstance(inputs, dict) else inputs[points]
        return chosen, None if labels is None else labels[points]


def is_series(weights: Sequence[str]) -> bool:
    """Whether these names of weights are several checkpoints."""
    return len(weights) > 1 or any(is_pattern(name) for name in weights)


def prepare(request: Request, say: Say) -> Subject:
    """Load everything and check that it fits together. ``say`` is called with every choice made.

    Raises:
        InputError: a wrong name, or parts that do not fit together.
        DataError: a bad file.
    """
    if Path(request.model).is_dir():
        return _load_run(request, say)
    if request.data is None:
        raise InputError(
            "--data is missing; give a data set (mnist10k, digits, mnist, a folder) or a file of inputs (.npz, .npy, .pt)"
        )
    model, facts = bare_model(request)
    series = is_series(request.weights)
    checkpoints = tuple(find_checkpoints(request.weights)) if series else ()
    initial = copy.deepcopy(model) if request.baseline == "initial" else None
    if request.weights and not series:
        _load(model, request.weights[0], say)
    elif not request.weights:
        how = f"published, revision {facts['revision']}" if facts else f"it was built (seed {request.seed})"
        say(f"no --weights: {request.model} is measured as {how}")
    baseline = _baseline(request, model, initial, bool(checkpoints), say)
    subject = _add_inputs(request, request.data, model, baseline, _describe(request.baseline), say, checkpoints)
    return replace(subject, published=facts)


def bare_model(request: Request) -> tuple[nn.Module, dict[str, str]]:
    """The model before ``--weights`` are loaded, with the name and revision of a published one."""
    if not is_published(request.model):
        return load_model(request.model, request.arguments, seed=request.seed), {}
    published = load_published(request.model, request.arguments)
    return published.model, {"model": request.model, "revision": published.revision}


def _load(model: nn.Module, name: str, say: Say) -> nn.Module:
    load_into(model, load_state(name, say=say), name, say=say)
    return model


def _baseline(request: Request, model: nn.Module, initial: nn.Module | None, series: bool, say: Say) -> Any:
    name = request.baseline
    if name is None or name == "none":
        return "first" if series and name is None else None
    if name == "first":
        if not series:
            raise InputError("--baseline first is the first checkpoint of a series; give several --weights, or another baseline")
        return "first"
    if name == "initial":
        if not request.weights:
            raise InputError("--baseline initial is the model before --weights, but no --weights are given")
        say(f"baseline: {request.model} as it was built (seed {request.seed}), which need not be what the training began with")
        return initial
    if name == "reinit":
        return "reinit"
    return _load(copy.deepcopy(model), name, say)


def _describe(baseline: str | None) -> str:
    """Description of a baseline passed to :func:`kagscope.measure` as a model."""
    if baseline in (None, "none", "first", "reinit"):
        return ""
    return "the model as built" if baseline == "initial" else str(baseline)


def _add_inputs(
    request: Request,
    data: str,
    model: nn.Module,
    baseline: Any,
    baseline_name: str,
    say: Say,
    checkpoints: tuple[Checkpoint, ...] = (),
) -> Subject:
    required = positional_parameters(model)[: count_required(model)]
    source = load_inputs(data, split=request.split, shape=request.input_shape, required=required)
    if source.left_out:
        say(f"{data}: the model is not fed {listing(source.left_out)}; to feed it several arrays, name them as its arguments")
    inputs = source.inputs
    device = next((p.device for p in model.parameters()), None)
    if isinstance(inputs, Tensor):
        inputs = fit_inputs(model, inputs, keep_shape=request.input_shape is not None)
    elif device is not None:
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
    return Subject(model, inputs, source, baseline, baseline_name, checkpoints)


# -- a run of `kagscope reproduce` -----------------------------------------------------------------------------------------------


def _load_run(request: Request, say: Say) -> Subject:
    """The trained network in ``runs/<run id>/``, with its initial weights as the default baseline."""
    folder = Path(request.model)
    if request.weights or request.arguments:
        raise InputError(f"{folder} is a run with its own weights; leave --weights and --argument out")
    from pydantic import ValidationError

    from kagscope.studies.config import RunConfig
    from kagscope.studies.networks import network, read_checkpoints
    from kagscope.studies.record import CONFIG, WEIGHTS

    try:
        config = RunConfig.model_validate(json.loads((folder / CONFIG).read_text()))
    except (OSError, ValueError, ValidationError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}"
        raise DataError(
            f"{folder} is not a run of kagscope reproduce (config.json: {reason}); give OUT/runs/RUN, or package.module:factory"
        ) from None
    states = read_checkpoints(folder / WEIGHTS)

    def load_network(step: int) -> nn.Module:
        try:
            return network(config, states[step])
        except (KeyError, ValueError, RuntimeError) as error:
            raise DataError(f"{folder / WEIGHTS}: holds other layers than config.json says; the run is damaged") from error

    first, *_, last = (*states, *states)
    model = load_network(last)
    if request.baseline in (None, "initial"):
        baseline, baseline_name = load_network(first), f"the same network at step {first}"
    else:
        baseline, baseline_name = _baseline(request, model, None, False, say), _describe(request.baseline)
    return _add_inputs(request, request.data or config.data, model, baseline, baseline_name, say)
