"""Start of a tracker: its baseline and the history that it continues."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kagscope.base.errors import DataError, InputError
from kagscope.jacobians.forward import own_state
from kagscope.measuring.baseline import baselines, with_weights
from kagscope.measuring.state import State
from kagscope.tracking.history import INITIAL_FILE, History, describe, digest
from kagscope.tracking.parts import Part
from kagscope.tracking.probe import Probe, Tensors

logger = logging.getLogger("kagscope")
OWN = "the network at the first step"
FIRST_STEP = "the first step"


@dataclass(frozen=True)
class Start:
    """Initial state of a tracker.

    Attributes:
        baseline: states of the network or networks that ratios refer to.
        now: state of the current network, if measured for the baseline.
        step: optimiser step of the baseline network if it comes from a history, else as given.
        history: the open history, or None.
        parts: measurements of earlier sessions.
        damaged: messages about files that could not be read.
    """

    baseline: Sequence[State]
    now: State | None
    step: int
    history: History | None = None
    parts: tuple[Part, ...] = ()
    damaged: tuple[str, ...] = ()


def begin_tracking(
    model: nn.Module,
    probe: Probe,
    folder: str | os.PathLike[str] | None,
    baseline: Any,
    seeds: int | Sequence[int],
    step: int,
    facts: Mapping[str, Any],
) -> Start:
    """Measure the baseline (the history's, if it holds one) and open the history, if a folder is given.

    Nothing is written to the folder before the network has been measured.

    Raises:
        InputError, OutputError, DataError: see :class:`~kagscope.tracking.tracker.Tracker`.
    """
    notes: list[str] = []
    others = list(baselines(model, baseline, seeds, notes))
    described = probe.describe() | {"baseline": _describe(baseline, seeds)}
    old = None if folder is None else History.check(folder, described)
    stored = old.initial() if old is not None and baseline is None else None
    now: State | None = None
    if baseline is not None:
        before = [probe.observe(*source) for source in others]
        for note in notes:
            logger.warning("%s", note)
    elif stored is not None:
        check_same_tensors(own_state(model), stored[0])
        now, step = probe.observe(*with_weights(model, stored[0])), stored[1]
        before = [now]
    else:
        if old is not None and old.has_measurements():
            raise DataError(f"{old.folder / INITIAL_FILE} is missing; without it ratios have no baseline: begin a new history")
        now = probe.observe(model)
        before = [now]
    if folder is None:
        return Start(before, now, step)
    history = History.open(folder, described, facts)
    if stored is None and baseline is None:
        history.save_initial(own_state(model), step)
    parts, damaged = history.read()
    return Start(before, now, step, history, tuple(parts), tuple(damaged))


def check_continues(model: nn.Module, history: History, step: int) -> None:
    """If training resumes at the first step of a history, check that the network is the one it began with.

    Raises:
        InputError: it has other tensors or other numbers.
    """
    stored = history.initial()
    if stored is None or step != stored[1]:
        return
    check_same_tensors(own_state(model), stored[0])
    if not all(torch.equal(tensor.detach().cpu(), stored[0][name]) for name, tensor in own_state(model).items()):
        raise InputError(
            f"the history began at step {step} with other weights than the model has now; "
            "give the same initial weights (the seed), or a new folder"
        )


def check_same_tensors(now: Tensors, then: Tensors) -> None:
    """Raise :class:`InputError` unless names, shapes and dtypes agree."""
    for name in [*now, *(name for name in then if name not in now)]:
        ours, theirs = (_describe_tensor(state.get(name)) for state in (now, then))
        if ours != theirs:
            raise InputError(
                f"the history is that of another network: {name!r} is {theirs} there and {ours} in this model; "
                "give the network it was begun with, or a new folder"
            )


def _describe_tensor(tensor: torch.Tensor | None) -> str:
    return "missing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _describe(baseline: Any, seeds: int | Sequence[int]) -> Any:
    """The ``baseline`` argument as JSON."""
    if baseline is None:
        return OWN
    if isinstance(baseline, nn.Module):
        return digest(own_state(baseline))
    if isinstance(baseline, Mapping):
        return digest(baseline)
    return [str(baseline), describe(seeds)] if baseline == "reinit" else str(baseline)


def baseline_phrase(described: Any) -> str:
    """A baseline in words, from its JSON description in a history."""
    if described == OWN:
        return FIRST_STEP
    if isinstance(described, list):
        return "networks initialised anew"
    return "another network" if str(described).startswith("sha256:") else str(described)
