"""``kagscope.measure_series``: checkpoints of one training run, measured alike, without the code that trained."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from kagscope.base.errors import DataError, InputError
from kagscope.base.messages import listed
from kagscope.jacobians.inputs import as_inputs
from kagscope.loading.checkpoints import find_checkpoints
from kagscope.loading.weights import fitting, load_state
from kagscope.measuring.api import reported, said
from kagscope.measuring.baseline import baselines
from kagscope.measuring.checks import check_model
from kagscope.measuring.observe import Observation, observe
from kagscope.measuring.report import Report
from kagscope.measuring.series import Series
from kagscope.measuring.settings import MeasureSettings

FIRST = "first"
Weights = str | os.PathLike[str] | Mapping[str, Tensor] | nn.Module
Say = Callable[[str], None]


def measure_series(
    model: nn.Module,
    checkpoints: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[int, Weights],
    inputs: Any,
    *,
    baseline: Any = FIRST,
    baseline_seeds: int | Sequence[int] = 3,
    labels: Any = None,
    points: int | None = None,
    progress: Say | None = None,
    **settings: Any,
) -> Series:
    """Measure the checkpoints of one training run at the same points, against the same baseline.

    Args:
        model: the architecture; its own weights are neither measured nor changed.
        checkpoints: files, or a pattern such as ``"run/step_*.safetensors"``, by the step in their names
            (:func:`kagscope.loading.find_checkpoints`); or weights by step: files, state dicts or models.
        inputs: see :func:`kagscope.measure`.
        baseline: "first" is the first checkpoint that can be measured; else as of :func:`kagscope.measure`.
        baseline_seeds: of "reinit".
        labels: (points,) classes, for kernel alignment.
        points: how many points to take, the first ones.
        progress: told of each checkpoint and layer.
        settings: ``layers``, ``layer_map``, ``k``, ``selections`` and the rest, see :func:`kagscope.measure`.

    Returns:
        A :class:`Series`. A checkpoint that is damaged, does not fit or has no finite Jacobian is left out and named there.

    Raises:
        InputError: a model, layer, input or option that cannot be used.
        DataError: no checkpoint could be read.
    """
    chosen = MeasureSettings(**{name: value for name, value in settings.items() if value is not None})
    check_model(model)
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    entries = _entries(checkpoints)
    found = as_inputs(inputs, points)
    labels = found.labels if labels is None else labels[:points]
    notes: list[str] = []
    chosen_in: dict[str, list[str]] = {}  # what was taken or dropped, and in which checkpoints

    def measured(module: nn.Module, weights: Mapping[str, Tensor] | None, what: str) -> Observation:
        tell = (lambda layer: progress(f"{what}: layer {layer}")) if progress else (lambda layer: None)
        return observe(module, found.kwargs or found.args, chosen, weights=weights, labels=labels, progress=tell)

    from_first = isinstance(baseline, str) and baseline == FIRST
    others = [] if from_first else baselines(model, baseline, baseline_seeds, notes)
    before = [measured(module, weights, "baseline") for module, weights in others]
    reports: dict[int, Report] = {}
    left_out: dict[str, str] = {}
    for place, (step, name, given) in enumerate(entries, 1):
        since = time.perf_counter()

        def say(note: str, name: str = name) -> None:
            chosen_in.setdefault(note.removeprefix(f"{name}: "), []).append(name)

        try:
            weights = fitting(model, _state(given, say), name, say=say)
        except DataError as error:
            left_out[name] = str(error).removeprefix(name).removeprefix(":").strip()
            continue
        try:
            seen = measured(model, weights, f"step {step} ({place} of {len(entries)})")
        except InputError as error:
            if not reports:  # then it is not this checkpoint that is at fault
                raise
            left_out[name] = str(error)
            continue
        before = before or ([seen] if from_first else [])
        about = {
            "model": type(model).__name__,
            "points": found.count,
            "baseline": f"step {next(iter(reports), step)}" if from_first else said(baseline, len(before)),
            "weights": name,
            "seconds": round(time.perf_counter() - since, 3),
        }
        reports[step] = reported(seen, before, chosen, [], about)
    if not reports:
        raise DataError(f"no checkpoint could be measured: {'; '.join(f'{name}: {why}' for name, why in left_out.items())}")
    notes += [f"{listed(names, 1)}: {note}" for note, names in chosen_in.items()]
    return Series(reports, left_out, notes)


def _entries(checkpoints: Any) -> list[tuple[int, str, Weights]]:
    """Step, name and weights of each checkpoint, by step."""
    if isinstance(checkpoints, Mapping):
        if not checkpoints or not all(isinstance(step, int) and not isinstance(step, bool) for step in checkpoints):
            raise InputError(f"checkpoints by step have the steps {list(checkpoints)[:5]!r}; expected at least one whole number")
        names = {
            step: str(given) if isinstance(given, str | os.PathLike) else f"step {step}" for step, given in checkpoints.items()
        }
        return [(step, names[step], checkpoints[step]) for step in sorted(checkpoints)]
    return [(one.step, str(one.path), one.path) for one in find_checkpoints(checkpoints)]


def _state(given: Weights, say: Say) -> Mapping[str, Tensor]:
    if isinstance(given, nn.Module):
        return given.state_dict()
    if isinstance(given, Mapping):
        return given
    return load_state(given, say=say)
