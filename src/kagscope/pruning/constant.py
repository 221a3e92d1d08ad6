"""Find constant units: the row of their layer's Jacobian is zero, and their value is the same, at every point.

The block Jacobian of a layer (its own input to the units' value, MATH.md section 1) has the row ``slope * w`` for a unit: the
derivative of the steps after the affine map, times the unit's incoming weights. A zero row alone does not make a unit constant: a
saturated sigmoid may be 0 at some points and 1 at others, with no slope at either. Both are checked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kagscope.base.errors import InputError
from kagscope.jacobians.inputs import Inputs
from kagscope.pruning.recorder import Recording, batches, forward, is_metadata, name_of, outputs
from kagscope.pruning.units import Layer, Reader, UnitGroup


@dataclass
class ValueRange:
    """Minimum, maximum and sum of each column of a reader's input over points and positions, float64."""

    low: np.ndarray
    high: np.ndarray
    total: np.ndarray
    count: int

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.count


@dataclass
class Observation:
    """Observed rows and values of a group's units.

    Attributes:
        row: (m,) largest norm of the unit's Jacobian row over points and positions: ``sum |slope| * ||w||`` over the layers that
            make the unit (one, unless layers are multiplied), float64; None if not requested.
        ranges: one :class:`ValueRange` for each reader.
    """

    row: np.ndarray | None
    ranges: list[ValueRange] = field(default_factory=list)


NO_GRADIENT = "gradients are switched off, or what they need overwritten, on the way to the next layer: its slope cannot be seen"


class DifferentSteps(Exception):
    """The forward pass took other steps for these points than in the recording."""


def observe(
    model: nn.Module, groups: Sequence[UnitGroup], recording: Recording, inputs: Inputs, size: int, *, rows: bool = True
) -> list[Observation]:
    """Observe values and, with ``rows``, Jacobian rows of all groups' units over ``inputs``, in batches of ``size`` points.

    Raises:
        DifferentSteps: the steps of the forward pass depend on the data.
        InputError: a unit is NaN or infinite.
    """
    observer = _Observer(groups, recording, rows)
    for batch in batches(inputs, size):
        observer.restart()
        with torch.set_grad_enabled(rows), observer:
            forward(model, batch)
        observer.finish()
    observations = [observer.observation(group) for group in groups]
    for group, observation in zip(groups, observations, strict=True):
        numbers = [bound for batch in observation.ranges for bound in (batch.low, batch.high)]
        if not all(np.isfinite(batch).all() for batch in ([] if observation.row is None else [observation.row]) + numbers):
            raise InputError(
                f"units or slopes of layer {group.makers[0].name!r} are NaN or infinite at these inputs; check the model"
            )
    return observations


class _Observer(TorchFunctionMode):
    """Observes the outputs of layers that make units and the inputs of layers that read them."""

    def __init__(self, groups: Sequence[UnitGroup], recording: Recording, rows: bool) -> None:
        super().__init__()
        self.rows = rows
        self.names = [call.name for call in recording.calls]
        self.made = {layer.call: layer for group in groups for layer in group.makers}
        self.read = {reader.layer.call: (group, reader) for group in groups for reader in group.readers}
        self.slopes: dict[int, np.ndarray] = {}
        self.ranges: dict[int, ValueRange] = {}
        self.leaves: dict[int, Tensor] = {}
        self.index = 0

    def restart(self) -> None:
        self.index = 0
        self.leaves = {}

    def finish(self) -> None:
        if self.index != len(self.names):
            raise DifferentSteps

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        index, name = self.index, name_of(func)
        if index in self.read and name == self.names[index]:
            args, kwargs = self._note_input(index, args, kwargs)
        result = func(*args, **kwargs)
        if is_metadata(name, func, outputs(result)):
            return result
        if index >= len(self.names) or name != self.names[index]:
            raise DifferentSteps
        self.index += 1
        if self.rows and index in self.made:
            leaf = result.detach().requires_grad_()
            self.leaves[index] = leaf
            return leaf.clone()  # as no step may change the leaf in place
        return result

    def _note_input(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Record a reader's input and pass it on detached."""
        group, reader = self.read[index]
        value = layer_input(reader.layer, args, kwargs)
        if self.rows:
            makers = [layer for layer in group.makers if layer.call in self.leaves]  # a gate may depend on what it gates
            leaves = [self.leaves[layer.call] for layer in makers]
            slopes: Sequence[Tensor | None] = [None] * len(leaves)
            if value.requires_grad:
                with contextlib.suppress(RuntimeError):  # a tensor saved for backward was changed in place
                    slopes = torch.autograd.grad(value.sum(), leaves, allow_unused=True, retain_graph=True)
            for layer, slope in zip(makers, slopes, strict=True):
                if slope is None:  # not the same as a slope of zero
                    group.block(NO_GRADIENT)
                else:
                    largest = _by_unit(slope.abs(), 1 if layer.kind == "convolution" else slope.ndim - 1).amax(1)
                    _update_largest(self.slopes, layer.call, largest.double().cpu().numpy())
        flat = _by_unit(value.detach(), reader.axis).double()
        low, high, total = (extreme.cpu().numpy() for extreme in (flat.amin(1), flat.amax(1), flat.sum(1)))
        value_range = ValueRange(low, high, total, flat.shape[1])
        before = self.ranges.get(index)
        self.ranges[index] = value_range if before is None else _join(before, value_range)
        return replace_input(reader.layer, args, kwargs, value.detach())

    def observation(self, group: UnitGroup) -> Observation:
        row = None
        if self.rows:
            row = np.zeros(group.size)
            for layer in group.makers:
                row = row + self.slopes.get(layer.call, np.zeros(group.size)) * weight_norms(layer)
        return Observation(row, [self.ranges[reader.layer.call] for reader in group.readers])


def layer_input(layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Input of a layer, from the arguments of its call."""
    position, name = (1, "mat1") if layer.kind == "addmm" else (0, "input")
    value: Tensor = args[position] if position < len(args) else kwargs[name]
    return value


def replace_input(
    layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], value: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a layer's call with its input replaced."""
    position, name = (1, "mat1") if layer.kind == "addmm" else (0, "input")
    if position < len(args):
        return (*args[:position], value, *args[position + 1 :]), kwargs
    return args, {**kwargs, name: value}


def weight_norms(layer: Layer) -> np.ndarray:
    """L2 norm of the incoming weights of each unit, (m,) float64."""
    weight = layer.weight.tensor.detach().double()
    rows = weight.t() if layer.kind == "addmm" else weight
    return np.asarray(rows.flatten(1).norm(dim=1).cpu().numpy())


def _by_unit(tensor: Tensor, axis: int) -> Tensor:
    """Reshape to (units, everything else)."""
    return tensor.movedim(axis, 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]


def _update_largest(largest: dict[int, np.ndarray], key: int, new: np.ndarray) -> None:
    largest[key] = np.maximum(largest[key], new) if key in largest else new


def _join(first: ValueRange, second: ValueRange) -> ValueRange:
    return ValueRange(
        np.minimum(first.low, second.low),
        np.maximum(first.high, second.high),
        first.total + second.total,
        first.count + second.count,
    )


@dataclass(frozen=True)
class Verdict:
    """Decision on a group's units as boolean masks (m,): ``remove``, and ``keep`` by reason."""

    remove: np.ndarray
    keep: dict[str, np.ndarray]


VARIES = "constant near every point, but not the same from point to point"
PADDED = "constant but not 0, and the next convolution pads with zeros: no bias can stand for it at the border"
NO_BIAS = "constant but not 0, and the next layer has no bias that could take it up"
LAST = "the last of its layer"


def row_ratios(observation: Observation) -> np.ndarray:
    """(m,) largest row norm of each unit relative to the largest in its layer."""
    assert observation.row is not None
    return _ratio(observation.row, observation.row.max())


def spread_ratios(group: UnitGroup, observation: Observation, rounding: float) -> np.ndarray:
    """(m,) range of each unit's value relative to the widest in its layer; the widest over columns and readers.

    Ranges within ``rounding`` of the largest value count as zero.
    """
    widest = np.zeros(group.size)
    for reader, value_range in zip(group.readers, observation.ranges, strict=True):
        spread = value_range.high - value_range.low
        steady = spread <= 4 * rounding * np.maximum(np.abs(value_range.low), np.abs(value_range.high))
        ratios = _ratio(np.where(steady, 0.0, spread), spread.max())
        widest = np.maximum(widest, ratios.reshape(-1, reader.width).max(axis=1))
    return widest


def _ratio(values: np.ndarray, largest: float) -> np.ndarray:
    return np.divide(values, largest, out=np.zeros_like(values), where=values > 0)


def judge(group: UnitGroup, observation: Observation, tolerance: float, rounding: float) -> Verdict:
    """Decide which units are constant within ``tolerance``, which of them are kept, and why.

    A unit is constant if its row is at most ``tolerance`` times the largest row of its layer, and its values, in every column
    that a reader sees, range no wider than ``tolerance`` times the widest range there.

    Args:
        group: the group of units.
        observation: rows and ranges of its units.
        tolerance: relative tolerance, at least 0.
        rounding: relative rounding of the model's dtype.
    """
    flat = row_ratios(observation) <= tolerance
    same = spread_ratios(group, observation, rounding) <= tolerance
    return retract_removals(group, flat & same, observation, tolerance, {VARIES: flat & ~same})


def retract_removals(
    group: UnitGroup,
    remove: np.ndarray,
    observation: Observation,
    tolerance: float = 0.0,
    keep: Mapping[str, np.ndarray] | None = None,
) -> Verdict:
    """Cancel the removal of units whose value cannot be folded into every reader, and of a layer's last unit.

    A value of at most ``tolerance`` times the widest range of its layer need not be folded.
    """
    keep = dict(keep or {})
    for reader, value_range in zip(group.readers, observation.ranges, strict=True):
        small = _all_columns(np.abs(value_range.mean) <= tolerance * (value_range.high - value_range.low).max(), reader)
        foldable = reader.layer.bias is not None or reader.layer.takes_bias
        for bars, reason in ((reader.layer.zero_padded, PADDED), (not foldable, NO_BIAS)):
            if bars and (remove & ~small).any():
                keep[reason] = keep.get(reason, np.zeros(group.size, bool)) | (remove & ~small)
                remove = remove & small
    if remove.all():
        keep[LAST] = np.arange(group.size) == 0
        remove = remove & ~keep[LAST]
    return Verdict(remove, {reason: units for reason, units in keep.items() if units.any()})


def _all_columns(fits: np.ndarray, reader: Reader) -> np.ndarray:
    return np.asarray(fits.reshape(-1, reader.width).all(axis=1))
