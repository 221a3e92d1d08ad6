"""Report of a pruning, and the smaller model with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kagscope.base.checks import is_real
from kagscope.base.errors import InputError
from kagscope.pruning.constant import Observation, Verdict, judge, row_ratios, spread_ratios
from kagscope.pruning.effect import check_labels, count, flops_of, latencies, measure_effect
from kagscope.pruning.surgery import Cut, remove_cuts, select_workable
from kagscope.pruning.traced import Traced

LATENCY_POINTS = 256


@dataclass(frozen=True)
class Kept:
    """Units of a layer that are constant, or were named, but are kept."""

    layer: str
    units: tuple[int, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class Pruning:
    """Removed units and the effect of their removal.

    Attributes:
        tolerance: relative tolerance at which rows counted as zero; None if the units were named.
        removed: indices of removed units by layer name, for every layer that could lose some. Layers whose outputs are
            multiplied (gated MLPs) lose the same units together.
        units: number of units before pruning by layer name.
        kept: constant units that are kept, by layer and reason.
        skipped: layers whose units cannot be removed, with the reason.
        largest_change: largest absolute change of an output over the inputs, relative to the largest absolute output.
        largest_absolute_change: the same in the output's units.
        accuracy_before, accuracy_after: share of inputs with the largest output at the label; None without labels.
        parameters_before, parameters_after: numbers of parameters.
        flops_before, flops_after: floating-point operations of one forward pass of one input (2 for a multiply-add; matrix
            products, convolutions and attention, by ``torch.utils.flop_counter``); None if not counted.
        latency_before, latency_after: median seconds of one forward pass of ``latency_points`` inputs; None if not measured.
        latency_points: number of inputs of a timed pass.
    """

    tolerance: float | None
    removed: dict[str, tuple[int, ...]]
    units: dict[str, int]
    kept: tuple[Kept, ...]
    skipped: dict[str, str]
    largest_change: float
    largest_absolute_change: float
    accuracy_before: float | None
    accuracy_after: float | None
    parameters_before: int
    parameters_after: int
    flops_before: int | None
    flops_after: int | None
    latency_before: float | None
    latency_after: float | None
    latency_points: int
    _source: tuple[Traced, Mapping[int, Observation], Tensor | None] = field(repr=False)

    @property
    def traced(self) -> Traced:
        """The traced copy of the model, with the points."""
        return self._source[0]

    def curve(self, tolerances: Iterable[float]) -> pd.DataFrame:
        """Effects of other tolerances, without measuring rows again.

        Args:
            tolerances: relative tolerances, at least 0, as in :func:`~kagscope.pruning.prune.prune`.

        Returns:
            One row per tolerance: tolerance, units (removed), parameters, largest_change, largest_absolute_change, accuracy (NaN
            without labels).

        Raises:
            InputError: a tolerance is negative or NaN, or the pruned units were named.
        """
        traced, observed, labels = self._rows()
        rows = []
        for tolerance in [check_tolerance(value) for value in tolerances]:
            cuts, _ = decide(traced, observed, judge_groups(traced, observed, tolerance))
            smaller = remove_cuts(traced.source, cuts)
            effect = measure_effect(traced.model, smaller, traced.inputs, traced.batch_size, labels)
            units = sum(int(cut.gone.sum()) * len(cut.group.makers) for cut in cuts)
            changes = effect.largest_change, effect.largest_absolute_change, effect.accuracy_after
            rows.append((tolerance, units, count(smaller), *changes))
        names = ["tolerance", "units", "parameters", "largest_change", "largest_absolute_change", "accuracy"]
        return pd.DataFrame(rows, columns=names).astype({"accuracy": float})

    def least_tolerances(self) -> dict[str, np.ndarray]:
        """Smallest tolerance at which each unit (m,) counts as constant, by layer: the larger of its row's norm and its value's
        range, each relative to the largest in the layer.

        Raises:
            InputError: the pruned units were named.
        """
        traced, observed, _ = self._rows()
        least_by_layer: dict[str, np.ndarray] = {}
        for index, group in enumerate(traced.groups):
            if index in observed:
                tolerance = np.maximum(row_ratios(observed[index]), spread_ratios(group, observed[index], rounding_of(traced)))
                least_by_layer |= {layer.name: tolerance.copy() for layer in group.makers}
        return least_by_layer

    def _rows(self) -> tuple[Traced, Mapping[int, Observation], Tensor | None]:
        if self.tolerance is None:
            raise InputError("units were named here and no rows measured; take the report of kagscope.prune")
        return self._source

    def as_json(self) -> dict[str, Any]:
        """Everything except the model, in plain types."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if not name.startswith("_")}
        plain["removed"] = {layer: list(units) for layer, units in self.removed.items()}
        return plain | {"kept": [asdict(kept) | {"units": list(kept.units)} for kept in self.kept]}

    def __repr__(self) -> str:
        criterion = "units that were named" if self.tolerance is None else f"tolerance {self.tolerance:g}"
        gone, total = sum(map(len, self.removed.values())), sum(self.units.values())
        lines = [f"Pruning ({criterion}): {gone} of {total} units removed"]
        width = max(map(len, [*self.units, ""])) + 2
        lines += [f"  {name:<{width}}{len(self.removed[name])} of {size}" for name, size in self.units.items()]
        lines += [f"  kept in {kept.layer}: {_list_units(kept.units)}: {kept.reason}" for kept in self.kept]
        for reason in dict.fromkeys(self.skipped.values()):
            names = tuple(name for name, text in self.skipped.items() if text == reason)
            lines.append(f"  left alone{' ' if any(names) else ''}{_list_units(names, 4)}: {reason}")
        change = f"{self.largest_absolute_change:.3g}"
        if self.largest_absolute_change:
            change += f", {self.largest_change:.3g} times the largest output"
        lines += [f"  largest change of an output: {change}"]
        for name, before, after, form in (
            ("accuracy", self.accuracy_before, self.accuracy_after, "{:.4f}"),
            ("parameters", self.parameters_before, self.parameters_after, "{:,}"),
            ("FLOPs per input", self.flops_before, self.flops_after, "{:,}"),
            (f"seconds for {self.latency_points} inputs", self.latency_before, self.latency_after, "{:.3g}"),
        ):
            if before is not None and after is not None:
                lines.append(f"  {name}: {form.format(before)} before, {form.format(after)} after")
        return "\n".join(lines)


def check_tolerance(tolerance: float) -> float:
    """Return ``tolerance``. Raises :class:`InputError` unless it is a finite number of at least 0."""
    if not is_real(tolerance, 0):
        raise InputError(f"tolerance is {tolerance!r}; expected a finite number from 0, such as 0.01")
    return float(tolerance)


def judge_groups(traced: Traced, rows: Mapping[int, Observation], tolerance: float) -> dict[int, Verdict]:
    """Verdicts on the observed groups of units, by index of the group."""
    rounding = rounding_of(traced)
    return {index: judge(traced.groups[index], observation, tolerance, rounding) for index, observation in rows.items()}


def rounding_of(traced: Traced) -> float:
    """Relative rounding of the model's least precise dtype."""
    dtypes = [parameter.dtype for parameter in traced.model.parameters() if parameter.is_floating_point()]
    return max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)


def decide(traced: Traced, rows: Mapping[int, Observation], verdicts: Mapping[int, Verdict]) -> tuple[list[Cut], dict[int, str]]:
    """Cuts that leave a working model, and reasons against the others by index of their group."""
    indices = list(verdicts)
    cuts = [Cut.of(traced.groups[index], verdicts[index].remove, rows[index]) for index in indices]
    good, reasons = select_workable(traced.model, traced.source, traced.recording, cuts, traced.sample)
    return good, {indices[at]: reason for at, reason in reasons.items()}


def describe(
    traced: Traced,
    rows: Mapping[int, Observation],
    verdicts: Mapping[int, Verdict],
    tolerance: float | None,
    *,
    labels: Any = None,
    flops: bool = False,
    latency: bool = False,
) -> tuple[nn.Module, Pruning]:
    """Remove units and report the effect. Raises :class:`InputError` for labels that do not fit."""
    labels = traced.inputs.labels if labels is None else labels
    answers = None if labels is None else check_labels(labels, traced.recording.shapes, traced.inputs.count)
    cuts, failed = decide(traced, rows, verdicts)
    smaller = remove_cuts(traced.source, cuts)
    effect = measure_effect(traced.model, smaller, traced.inputs, traced.batch_size, answers)
    units = {layer.name: group.size for group in traced.groups if not group.reason for layer in group.makers}
    gone = {layer.name: _indices(cut.gone) for cut in cuts for layer in cut.group.makers}
    kept: list[Kept] = []
    for index, verdict in verdicts.items():
        for layer in traced.groups[index].makers:
            reasons = dict(verdict.keep)
            if index in failed:
                reasons[failed[index]] = verdict.remove
            kept += [Kept(layer.name, _indices(units), reason) for reason, units in reasons.items()]
    skipped = {layer.name: group.reason for group in traced.groups if group.reason for layer in group.makers}
    skipped |= _unused_modules(traced)
    point = traced.inputs.take(slice(0, 1))
    timed = traced.inputs.take(slice(0, min(LATENCY_POINTS, traced.batch_size)))
    seconds = latencies(traced.model, smaller, timed) if latency else (None, None)
    report = Pruning(
        tolerance=tolerance,
        removed={name: gone.get(name, ()) for name in units},
        units=units,
        kept=tuple(kept),
        skipped=skipped,
        largest_change=effect.largest_change,
        largest_absolute_change=effect.largest_absolute_change,
        accuracy_before=effect.accuracy_before,
        accuracy_after=effect.accuracy_after,
        parameters_before=count(traced.source),
        parameters_after=count(smaller),
        flops_before=flops_of(traced.model, point) if flops else None,
        flops_after=flops_of(smaller, point) if flops else None,
        latency_before=seconds[0],
        latency_after=seconds[1],
        latency_points=timed.count,
        _source=(traced, rows, answers),
    )
    return traced.restore_modes(remove_cuts(traced.source, cuts)), report  # not of the copy that was run


def _unused_modules(traced: Traced) -> dict[str, str]:
    """Modules whose weights no call of a Linear layer or convolution was seen to use, or a note that there was no such call."""
    if not traced.groups:
        return {"": "no Linear layer or convolution was seen in the forward pass"}
    used = {id(layer.weight.tensor) for group in traced.groups for layer in group.makers}
    return {
        name: "it was not seen at work as a Linear layer or convolution"
        for name, module in traced.model.named_modules()
        if any(
            weight is not None and "weight" in attribute and weight.ndim > 1 and id(weight) not in used
            for attribute, weight in module._parameters.items()
        )
    }


def _indices(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(unit) for unit in np.flatnonzero(mask))


def _list_units(units: tuple[Any, ...], limit: int = 8) -> str:
    return ", ".join(map(str, units[:limit])) + (f", … ({len(units)})" if len(units) > limit else "")
