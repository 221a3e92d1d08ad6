"""``kagscope.measure`` and ``kagscope.measure_series``: from a model, inputs and a baseline to a report."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kagscope.base.checks import is_whole
from kagscope.base.errors import DataError, InputError
from kagscope.base.messages import listing
from kagscope.base.progress import Say, Tell, partial_progress, report_progress
from kagscope.base.provenance import hardware, versions
from kagscope.jacobians.forward import own_state, unwrap
from kagscope.jacobians.inputs import Inputs, as_inputs
from kagscope.jacobians.model_checks import check_model
from kagscope.jacobians.surroundings import preserve_global_state
from kagscope.loading.checkpoints import find_checkpoints
from kagscope.loading.fitting import match_names
from kagscope.loading.weights import load_state
from kagscope.measuring.baseline import baselines, with_weights
from kagscope.measuring.caveats import ONE_RANDOM
from kagscope.measuring.compare import compare, curves, unit_table
from kagscope.measuring.observe import observe
from kagscope.measuring.report import Report
from kagscope.measuring.spec import MeasureSpec, spec_from
from kagscope.measuring.state import State
from kagscope.measuring.steps import join_reports

FIRST = "first"
Weights = str | os.PathLike[str] | Mapping[str, Tensor] | nn.Module


def measure(
    model: nn.Module,
    inputs: Any,
    *,
    spec: MeasureSpec | str | None = None,
    baseline: Any = None,
    baseline_seeds: int | Sequence[int] = 3,
    labels: Any = None,
    progress: bool | Say | None = None,
    **options: Any,
) -> Report:
    """Measure the geometry of a network's layers: the minors of their Jacobians, against a baseline (MATH.md sections 1 to 3).

    Args:
        model: any ``torch.nn.Module``. It is left as it is: parameters, buffers, gradients, hooks, mode, random state.
        inputs: a tensor (points, …), a tuple of positional arguments, a mapping of keyword arguments, or a ``DataLoader``; the
            batch comes first. Integers are welcome wherever no derivative is taken with respect to them. Of a loader's (x, y) the
            model is fed as many elements as its ``forward`` has required positional parameters, at least one.
        spec: what to measure, whole; "quick" is a first look within seconds, in which options change what they name.
        baseline: a model, a state dict, the path of a checkpoint, "reinit" (every module's own ``reset_parameters``), or None.
        baseline_seeds: of "reinit": how many networks, or their seeds; scores are compared with the mean over them.
        labels: (inputs,) classes of all inputs, for kernel alignment.
        progress: a callable that gets each layer's name; True or None show a bar on a terminal, elsewhere a line now and then;
            False shows nothing. What will take more than a minute is announced first, with an estimate.
        **options: the fields of :class:`kagscope.MeasureSpec` and of its budget, instead of ``spec``: ``layers``, ``layer_map``,
            ``k``, ``selections``, ``image_shape``, ``points`` (of a loader the first ones, at most 100 by default), ``tokens``,
            ``scores`` (names, or your own functions of :class:`kagscope.Moments`), ``rel_error``, …. All of them:
            ``help(kagscope.MeasureSpec)`` and ``help(kagscope.Budget)``.

    Returns:
        A :class:`Report`: print it for the main scores and what to distrust, or see its ``table``, ``summary()``, ``to_html()``.

    Raises:
        InputError: a model, layer, input or option that cannot be used; raised before the work starts where that is possible.
    """
    chosen = spec_from(spec, options)
    check_model(model)
    since, model = time.perf_counter(), unwrap(model)
    fed = as_inputs(inputs, chosen.points, model)
    notes: list[str] = []
    with preserve_global_state(own_state(model).values()), torch.inference_mode(False), report_progress(progress) as tell:
        state, before = observe_all(model, fed, chosen, baseline, baseline_seeds, labels, notes, tell)
        provenance = {
            **model_facts(model, fed, chosen),
            "baseline": describe_baseline(baseline, len(before)),
            "seconds": round(time.perf_counter() - since, 3),
        }
        return make_report(state, before, notes, provenance)


def measure_series(
    model: nn.Module,
    checkpoints: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[int, Weights],
    inputs: Any,
    *,
    spec: MeasureSpec | str | None = None,
    baseline: Any = FIRST,
    baseline_seeds: int | Sequence[int] = 3,
    labels: Any = None,
    progress: bool | Say | None = None,
    **options: Any,
) -> Report:
    """Measure the checkpoints of one training run at the same points, against the same baseline.

    Args:
        model: the architecture; its own weights are neither measured nor changed.
        checkpoints: files, or a pattern such as ``"run/step_*.safetensors"``, by the step in their names
            (:func:`kagscope.loading.find_checkpoints`); or weights by step: files, state dicts or models.
        inputs: see :func:`measure`.
        spec: what to measure, whole; "quick" is a first look within seconds, in which options change what they name.
        baseline: "first" is the first checkpoint that can be measured; otherwise as for :func:`measure`.
        baseline_seeds: of "reinit".
        labels: (inputs,) classes, for kernel alignment.
        progress: a callable that gets each checkpoint and layer.
        **options: fields of :class:`kagscope.MeasureSpec` and of its budget, as for :func:`measure`.

    Returns:
        A :class:`Report` whose table has ``step``. A checkpoint that is damaged, does not fit or has no finite Jacobian is left
        out and named in ``left_out``.

    Raises:
        InputError: a model, layer, input or option that cannot be used.
        DataError: no checkpoint could be read.
    """
    chosen = spec_from(spec, {name: value for name, value in options.items() if value is not None})
    check_model(model)
    model = unwrap(model)
    entries = _entries(checkpoints)
    fed = as_inputs(inputs, chosen.points, model)
    notes: list[str] = []
    noted: dict[str, list[str]] = {}  # what was taken or dropped, and in which checkpoints
    reports: dict[int, Report] = {}
    left_out: dict[str, str] = {}
    diverged: InputError | None = None
    from_first = isinstance(baseline, str) and baseline == FIRST
    facts = model_facts(model, fed, chosen)
    with preserve_global_state(own_state(model).values()), torch.inference_mode(False), report_progress(progress) as tell:
        others = [] if from_first else list(baselines(model, baseline, baseline_seeds, notes))
        total = len(entries) + len(others)
        before = [
            observe(module, fed, chosen, weights=weights, labels=labels, progress=partial_progress(tell, number, total))
            for number, (module, weights) in enumerate(others)
        ]
        for number, (step, name, source) in enumerate(entries, 1):
            since, say = time.perf_counter(), partial(_note, noted, name)
            inner = partial_progress(tell, len(others) + number - 1, total)
            progress_of_step = _name_progress(inner, f"step {step} ({number} of {len(entries)}): layer {{}}")
            given: Mapping[str, Tensor] = {}
            try:
                given = match_names(model, _load_weights(source, say), name, say=say)
                module, weights = with_weights(model, given)
                options = {"weights": weights, "labels": labels, "networks": total if number == 1 else 0}
                state = observe(module, fed, chosen, progress=progress_of_step, **options)
            except DataError as error:
                left_out[name] = str(error).removeprefix(name).removeprefix(":").strip()
                continue
            except InputError as error:
                if not reports and all(map(_is_finite, given.values())):  # not the fault of this checkpoint
                    raise
                left_out[name], diverged = str(error), diverged or error
                continue
            before = before or ([state] if from_first else [])
            provenance = {
                **facts,
                "baseline": f"step {next(iter(reports), step)}" if from_first else describe_baseline(baseline, len(before)),
                "weights": name,
                "seconds": round(time.perf_counter() - since, 3),
            }
            reports[step] = make_report(state, before, [], provenance)
    if not reports and diverged is not None:
        raise diverged
    if not reports:
        raise DataError(f"no checkpoint could be measured: {'; '.join(f'{name}: {why}' for name, why in left_out.items())}")
    notes += [f"in {listing(names, 1)}: {note}" for note, names in noted.items()]
    return join_reports(reports, notes=notes, left_out=left_out)


def observe_all(
    model: nn.Module,
    inputs: Inputs,
    spec: MeasureSpec,
    baseline: Any,
    baseline_seeds: int | Sequence[int],
    labels: Any,
    notes: list[str],
    tell: Tell,
) -> tuple[State, list[State]]:
    """Measure a network and its baselines; remarks on the baselines are appended to ``notes``."""
    networks = list(baselines(model, baseline, baseline_seeds, notes))
    total = 1 + len(networks)
    state = observe(model, inputs, spec, labels=labels, progress=partial_progress(tell, 0, total), networks=total)
    name_baseline = _name_progress(tell, "{} of the baseline")
    try:
        return state, [
            observe(network, inputs, spec, weights=weights, labels=labels, progress=partial_progress(name_baseline, i, total))
            for i, (network, weights) in enumerate(networks, 1)
        ]
    except InputError as error:  # the model itself has just been measured
        raise InputError(f"in the baseline, {error}") from error


def _note(noted: dict[str, list[str]], checkpoint: str, note: str) -> None:
    """Add a checkpoint to those of which the same is to be said."""
    noted.setdefault(note.removeprefix(f"{checkpoint}: "), []).append(checkpoint)


def _is_finite(value: Any) -> bool:
    """Whether weights are finite, or no dense tensor, as what a module's ``get_extra_state`` gives."""
    dense = isinstance(value, Tensor) and value.layout == torch.strided
    return not dense or bool(value.isfinite().all())


def _name_progress(tell: Tell, form: str) -> Tell:
    """Progress with the names of layers in a longer text; separate lines as they are."""
    return lambda text, share=None: tell(text if share is None else form.format(text), share)


def model_facts(model: nn.Module, inputs: Inputs, spec: MeasureSpec) -> dict[str, Any]:
    """Provenance of every measurement of a model at these inputs."""
    points = inputs.count_up_to(spec.points)
    return {"model": type(model).__name__, "versions": versions(model.modules()), "points": points}


def make_report(state: State, before: Sequence[State], notes: Sequence[str], provenance: Mapping[str, Any]) -> Report:
    """Report of one network against its baselines; spec and hardware are added to ``provenance``."""
    return Report(
        compare(state, before),
        curves(state, before),
        layers=[asdict(record) for record in state.layers],
        settings=state.spec.as_json(),
        notes=[*state.notes, *notes],
        provenance={**provenance, "spec": state.spec.id, "hardware": hardware()},
        units=unit_table(state, before),
    )


def describe_baseline(baseline: Any, count: int) -> str:
    """Describe a baseline that consists of ``count`` networks."""
    if baseline is None:
        return "none"
    if isinstance(baseline, str):
        many = f"{count} networks initialised anew" if count != 1 else ONE_RANDOM
        return many if baseline == "reinit" else baseline
    if isinstance(baseline, nn.Module):
        return "the model given"
    return "the state dict given" if count and hasattr(baseline, "keys") else str(baseline)


def _entries(checkpoints: Any) -> list[tuple[int, str, Weights]]:
    """Step, name and weights of each checkpoint, by step."""
    if isinstance(checkpoints, Mapping):
        if not checkpoints or not all(map(is_whole, checkpoints)):
            raise InputError(f"checkpoints by step have the steps {list(checkpoints)[:5]!r}; expected at least one whole number")
        return [
            (int(step), str(given) if isinstance(given, str | os.PathLike) else f"step {step}", given)
            for step, given in sorted(checkpoints.items(), key=lambda entry: entry[0])
        ]
    return [(entry.step, str(entry.path), entry.path) for entry in find_checkpoints(checkpoints)]


def _load_weights(given: Weights, say: Say) -> Mapping[str, Tensor]:
    if isinstance(given, nn.Module):
        return given.state_dict()
    if isinstance(given, Mapping):
        return given
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"weights are of type {type(given).__name__}; expected a file, a state dict or a model")
    return load_state(given, say=say)


def _show_options(function: Callable[..., Any]) -> None:
    """Show the fields of the spec as keyword arguments in ``help()`` and completion."""
    signature = inspect.signature(function)
    positional = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    fields = {**MeasureSpec.model_fields}
    del fields["budget"]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None if field.default_factory else field.default)
        for name, field in fields.items()
    ]
    function.__signature__ = signature.replace(parameters=[*positional, *more])  # type: ignore[attr-defined]


for _function in (measure, measure_series):
    _show_options(_function)
