"""Remove locally constant units: their value goes into the next layer's bias, the function is unchanged (MATH.md, claim 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from kagscope.base.errors import InputError
from kagscope.jacobians.model_checks import check_model
from kagscope.jacobians.untouched import preserve_model
from kagscope.pruning.constant import DifferentSteps, Observation, observe, retract_removals
from kagscope.pruning.pruning import Pruning, check_tolerance, describe, judge_groups
from kagscope.pruning.traced import Traced, trace
from kagscope.pruning.units import UnitGroup


def prune(
    model: nn.Module, inputs: Any, tolerance: float = 0.0, *, labels: Any = None, latency: bool = False
) -> tuple[nn.Module, Pruning]:
    """Return a smaller copy of any model, without the units that are constant at the given inputs.

    A unit is an output of a Linear layer, an output channel of a convolution, or an inner unit of a gated or transformer MLP. It
    is removed if, at every input and every position or token,

    - its row of the layer's block Jacobian (the layer's own input to the unit's value just before the next layer) is zero: its
      L2 norm is at most ``tolerance`` times the largest row norm of the layer over units and inputs; and
    - its value is constant: the range of its values is at most ``tolerance`` times the widest such range among the
      layer's units. A saturated sigmoid can have slope zero everywhere and yet take the values 0 and 1: such a unit is kept.

    With tolerance 0 the row must be exactly zero in the model's dtype and the values equal to rounding: the
    outputs at the inputs are then unchanged to rounding. (Row norms are ``|slope| * ||incoming weights||``; if layers are
    multiplied, as in gated MLPs, their sum; if pooling follows, the slope is summed over the cells that a position contributes
    to.) The value's mean over inputs goes into the next layer's bias, which is created if missing. Each layer keeps at
    least one unit.

    What cannot be removed is kept and named in the report: outputs, layers that add to a residual stream, layers used twice,
    and constant channels before a convolution with zero padding unless their value is 0.

    Args:
        model: any ``nn.Module``, taken in eval mode and not changed.
        inputs: points over which units have to be constant: a tensor (B, …), a tuple of positional arguments, a mapping
            of keyword arguments, batch first, or a ``DataLoader`` (its first 100 points); in any floating dtype, on the
            model's device.
        tolerance: relative tolerance, at least 0; see above.
        labels: (B,), or in the shape of the output without its last axis, integers: accuracy before and after is reported
            (argmax over the last axis of the model's first output). By default those of a loader.
        latency: measure the time of a forward pass before and after, which takes a few seconds on large models.

    Returns:
        The smaller model, in the training mode and dtype of the given one, and a :class:`Pruning`.

    Raises:
        InputError: the tolerance is negative or NaN; inputs are empty, not finite, on another device, or that the model
            cannot take; a model on the meta device; labels that do not fit the output.
    """
    tolerance = check_tolerance(tolerance)
    check_model(model)
    with preserve_model(model):  # attributes of its classes too, which its copies share
        traced = trace(model, inputs)
        observed = _observe(traced, rows=True)
        judged = judge_groups(traced, observed, tolerance)
        return describe(traced, observed, judged, tolerance, labels=labels, flops=True, latency=latency)


def remove_units(model: nn.Module, inputs: Any, units: Mapping[str, np.ndarray]) -> tuple[nn.Module, Pruning]:
    """Return a smaller copy of any model without the given units, whatever they do.

    Each unit is treated as constant: its mean value over ``inputs`` times its outgoing weights goes into the next layer's bias.
    If all units of a layer are given, one is kept.

    Args:
        model: any ``nn.Module``, not changed.
        inputs: points over which the mean is taken, as in :func:`prune`.
        units: name of a layer, or of the activation after it, to a boolean mask (m,) of the units to remove.

    Returns:
        The smaller model, in the dtype of ``model``, and a :class:`Pruning`.

    Raises:
        InputError: a layer, mask or inputs do not fit the model.
    """
    check_model(model)
    with preserve_model(model):  # attributes of its classes too, which its copies share
        traced = trace(model, inputs)
        masks: dict[int, np.ndarray] = {}
        for name, mask in units.items():
            group = _find_group(traced, name)
            masks[id(group)] = masks.get(id(group), False) | _check(name, mask, group.size)
        observed = _observe(traced, rows=False)
        verdicts = {
            index: retract_removals(
                traced.groups[index], masks.get(id(traced.groups[index]), np.zeros(traced.groups[index].size, bool)), observation
            )
            for index, observation in observed.items()
        }
        return describe(traced, observed, verdicts, None)


def _observe(traced: Traced, *, rows: bool) -> dict[int, Observation]:
    """Observations of each group with removable units, by index of the group."""
    indices = [index for index, group in enumerate(traced.groups) if not group.reason]
    groups = [traced.groups[index] for index in indices]
    try:
        seen_groups = (
            observe(traced.model, groups, traced.recording, traced.inputs, traced.batch_size, rows=rows) if groups else []
        )
    except DifferentSteps:
        for group in groups:
            group.block("the forward pass takes other steps for other inputs")
        return {}
    return {index: row for index, row in zip(indices, seen_groups, strict=True) if not traced.groups[index].reason}


def _find_group(traced: Traced, name: str) -> UnitGroup:
    for group in traced.groups:
        if name in group.names or name in [layer.name for layer in group.makers]:
            if group.reason:
                raise InputError(f"units of {name!r} cannot be removed: {group.reason}")
            return group
    known = sorted({layer.name for group in traced.groups if not group.reason for layer in group.makers})
    raise InputError(f"no layer {name!r} whose units could be removed; the model has {known}")


def _check(name: str, mask: np.ndarray, size: int) -> np.ndarray:
    mask = np.array(mask)
    if mask.shape != (size,):
        raise InputError(f"mask for layer {name!r} has shape {mask.shape}, expected ({size},)")
    if mask.dtype != bool:  # indices would be mistaken for truth values
        raise InputError(f"mask for layer {name!r} holds {mask.dtype}, expected bool: True where a unit goes")
    return mask
