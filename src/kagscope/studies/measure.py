"""Measurements of a study: the ``[measure]`` table, and the specs that follow from it for a run and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import comb
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, Tag, create_model, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

import kagscope.pruning.change  # noqa: F401  registers its scores
from kagscope.base.errors import InputError
from kagscope.base.provenance import digest
from kagscope.columns.layout import make_layout
from kagscope.columns.scales import all_selections
from kagscope.columns.selections import check_layout, parse_selection
from kagscope.data import Dataset
from kagscope.measuring.spec import Budget, MeasureSpec
from kagscope.studies.config import SMALL_IMAGE, OneOf, RunConfig, Strict
from kagscope.studies.record import MeasuredFiles
from kagscope.training.settings import geometric_steps, linear_steps

MAIN, ALONG, OUTPUT = "main", "along", "output"
"""Names of specs: for the first and last step; for the steps between, at fewer points; for the map from a layer to the output."""
LAYERS = "hidden*"  # of kagscope's own MLPs: hidden1, hidden2, …
ALONG_SCORES = (
    *("pr", "pr_normalized", "effective_minors", "ipr", "kl_uniform", "rr_pr", "zero_rows", "zero_rows_exact"),
    *("kernel_alignment", "cka_init", "effective_dimension"),
)
OUTPUT_SCORES = ("unfelt_units", "unfelt_share")
WIDE = comb(128, 2)  # row pairs of a layer of the article's widest nets, the unit of budgets
LEAST_INPUTS = 64  # counted in budgets, as fewer cost next to nothing


class RobustnessSettings(Strict):
    """Robustness of a trained classifier: calibration and attacks on images in [0, 1], within that range."""

    linf: tuple[float, ...] = Field(default=(0.05, 0.1), description="radii of FGSM and PGD, largest change of a pixel")
    l2: tuple[float, ...] = Field(default=(0.5, 1.0), description="radii of FGSM and PGD, length of the change")
    points: int = Field(default=500, ge=1, description="test images attacked, at most")
    steps: int = Field(default=20, ge=1, le=10_000, description="of PGD")
    restarts: int = Field(default=1, ge=1, le=1000, description="of PGD from other random points; fooled once is fooled")

    @field_validator("linf", "l2")
    @classmethod
    def _check_radii(cls, radii: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < radius < 1e6 for radius in radii) or len(set(radii)) != len(radii):
            raise ValueError(f"expected positive radii, each once; got {list(radii)}")
        return radii

    @property
    def id(self) -> str:
        """Ten hexadecimal digits that identify the settings; defaults must never be changed."""
        return digest(self.model_dump(mode="json", exclude_defaults=True))[:10]


@dataclass(frozen=True)
class Measurements:
    """Everything that is measured of a run: specs by name (:data:`MAIN`, :data:`ALONG`, :data:`OUTPUT`) and attacks."""

    specs: Mapping[str, MeasureSpec] = field(default_factory=dict)
    robustness: RobustnessSettings | None = None

    @cached_property
    def record(self) -> dict[str, Any]:
        """For ``study.json``: ids, from which file names follow, and their meaning."""
        return {
            "tables": {name: spec.id for name, spec in self.specs.items()},
            "specs": {name: spec.as_json() for name, spec in self.specs.items()},
            "robustness": None if self.robustness is None else self.robustness.id,
            "attacks": None if self.robustness is None else self.robustness.model_dump(mode="json"),
        }

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Files of a run's folder with these measurements."""
        return MeasuredFiles.of(self.record).files


class Job(NamedTuple):
    """A run and everything that is measured of it."""

    run: RunConfig
    measurements: Measurements

    @property
    def files(self) -> tuple[str, ...]:
        """Files of the run's folder with its measurements."""
        return self.measurements.files


class Steps(OneOf):
    """Checkpoints at ``{steps = [10, 100]}`` or ``{epochs = [0.5, 1, 10]}``, in addition to the first and the last step."""

    steps: tuple[int, ...] | None = Field(default=None, min_length=1)
    epochs: tuple[float, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _check_lists(self) -> Steps:
        for given in self.steps or self.epochs or ():
            if not 0 <= given < 2**53:
                raise ValueError(f"expected numbers of at least 0; got {given}")
        return self

    def at(self, per_epoch: int) -> list[int]:
        """Optimiser steps, for ``per_epoch`` steps per epoch."""
        return list(self.steps) if self.steps is not None else [round(epoch * per_epoch) for epoch in self.epochs or ()]


Schedule = Annotated[
    Annotated[Literal["geometric", "linear"], Tag("word")] | Annotated[Steps, Tag("rule")],
    Discriminator(lambda given: "rule" if isinstance(given, dict | Steps) else "word"),
]

TAKEN = ("layer_map", "k", "selections", "window_map", "scores", "points", "zero_row_quantile", "precision", "seed")
"""Fields of :class:`MeasureSpec` that a study sets; the others follow from its networks."""


def _fields() -> dict[str, Any]:
    """Fields of the spec and its budget, with their descriptions and bounds; defaults depend on the data."""
    spec_fields = {name: MeasureSpec.model_fields[name] for name in TAKEN} | Budget.model_fields
    plain: dict[str, Any] = {"selections": tuple[str, ...]}
    fields: dict[str, Any] = {}
    for name, info in spec_fields.items():
        kind: Any = (
            Annotated[(plain.get(name, info.annotation), *info.metadata)] if info.metadata else plain.get(name, info.annotation)
        )
        fields[name] = (kind | None, Field(default=None, description=info.description))
    return fields


class _SpecChecks(Strict):
    """Checks values of a spec by the spec itself."""

    @field_validator(*TAKEN, check_fields=False)
    @classmethod
    def _check_by_spec(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            return None
        name = str(info.field_name)
        try:
            checked = getattr(MeasureSpec(**{name: value}), name)
        except InputError as error:
            raise ValueError(str(error).removeprefix(f"{name}: ")) from error
        if name == "selections":
            value = checked = tuple(map(str, checked))
        if name in ("k", "selections", "scores") and (not value or len(set(value)) != len(value)):
            raise ValueError(f"expected at least one, each once; got {list(value)}")
        return checked

    def given_values(self) -> dict[str, Any]:
        """The given values of a spec."""
        names = (*TAKEN, *Budget.model_fields)
        return {name: value for name in names if (value := getattr(self, name)) is not None}


SpecValues: Any = create_model("SpecValues", __base__=_SpecChecks, **_fields())
SpecValues.__doc__ = "Values of a spec that a study sets; None for the default, which goes by the size of the images."


class Measure(SpecValues):
    """What is measured of every run: defaults depend on the size of the images, and omitted measurements cost nothing."""

    layers: tuple[str, ...] | None = Field(
        default=None, description='hidden layers, "hidden1", "hidden2", …, or "first", "last"; default all'
    )
    along: SpecValues = Field(
        default_factory=SpecValues, description="what is measured otherwise between the first and last step"
    )
    checkpoints: int = Field(
        default=8, ge=2, le=1000, description="steps at which geometry is measured, the first and last included"
    )
    schedule: Schedule = Field(
        default="geometric", description="how they are spaced; or { steps = […] } or { epochs = […] } instead of a number"
    )
    robustness: RobustnessSettings | None = Field(default=None, description="adversarial accuracy and calibration; a table")

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, layers: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if layers is not None and (not layers or len(set(layers)) != len(layers)):
            raise ValueError(f"expected at least one, each once; got {list(layers)}")
        return layers

    @model_validator(mode="after")
    def _check_checkpoints(self) -> Measure:
        if isinstance(self.schedule, Steps) and "checkpoints" in self.model_fields_set:
            raise ValueError("checkpoints and a schedule of steps or epochs both say how many; give one of them")
        return self

    def of_run(self, dataset: Dataset, depth: int, steps: Sequence[int], architecture: str = "mlp") -> Measurements:
        """Measurements of nets of ``depth`` hidden layers on these data, kept at ``steps``.

        Raises:
            InputError: the net lacks a layer, a selection does not fit the images, or a vit lacks the map.
        """
        values = self.given_values() | self._layers(depth) | {"image_shape": dataset.image_shape}
        if architecture == "vit" and values.setdefault("layer_map", "block") != "block":
            raise InputError(
                f"measure.layer_map is {self.layer_map!r}, but the hidden layers of a vit take tokens; expected 'block'"
            )
        if values.get("layer_map", "input") != "input":  # columns are units, not pixels
            values |= {"image_shape": None, "selections": values.get("selections", ("all",)), "window_map": 0}
        elif "selections" in values:
            _check_selections(values["selections"], dataset)
            values.setdefault("window_map", 0)
        main = MeasureSpec(**_defaults(dataset) | values)
        specs = {MAIN: main}
        scores = [name for name in ALONG_SCORES if main.wants(name)]
        if len(steps) > 2 and scores:
            along = {"scores": scores, "k": tuple(k for k in main.k if k <= 2), "window_map": 0, **_along_values(main, dataset)}
            along |= self.along.given_values()
            if along["k"]:
                specs[ALONG] = main.with_(**along)
        unfelt = [name for name in OUTPUT_SCORES if main.wants(name)]
        if unfelt and main.layer_map != "output":  # else the main spec measures them
            specs[OUTPUT] = main.with_(layer_map="output", scores=unfelt, k=(1,), selections=None, window_map=0, image_shape=None)
        return Measurements(specs, self.robustness)

    def _layers(self, depth: int) -> dict[str, Any]:
        names = [f"hidden{index + 1}" for index in range(depth)]
        if self.layers is None:
            return {"layers": LAYERS}
        chosen = [{"first": names[0], "last": names[-1]}.get(layer, layer) for layer in self.layers]
        unknown = [layer for layer in chosen if layer not in names]
        if unknown:
            raise InputError(
                f"measure.layers names {unknown[0]!r}, but a net of depth {depth} has the hidden layers {', '.join(names)}; "
                "expected some of these, first or last"
            )
        return {"layers": LAYERS if set(chosen) == set(names) else tuple(name for name in names if name in chosen)}

    def checkpoint_steps(self, epochs: int, per_epoch: int) -> tuple[int, ...]:
        """Steps at which weights are kept, for ``epochs`` epochs of ``per_epoch`` steps.

        Raises:
            InputError: a step is after the last one.
        """
        last = epochs * per_epoch
        if isinstance(self.schedule, Steps):
            steps = self.schedule.at(per_epoch)
            if max(steps) > last:
                raise InputError(
                    f"measure.schedule names step {max(steps)}, but training ends at step {last} ({epochs} epochs of {per_epoch} "
                    "steps); expected steps up to that"
                )
            return tuple(sorted({0, last, *steps}))
        spaced = linear_steps if self.schedule == "linear" else geometric_steps
        return tuple(spaced(last, self.checkpoints))


def _defaults(dataset: Dataset) -> dict[str, Any]:
    """Defaults by the number of pixels n: costs of n^2 per point allow fewer points."""
    small = dataset.n_inputs <= SMALL_IMAGE
    return {
        "points": 64 if small else 12,
        "selections": all_selections(dataset.image_shape),
        "window_map": 8 if small else 10,
        "exact_minors": _count_minors(64 if small else 0.1, dataset),  # beyond, sampling to these errors is faster
        "rel_error": 0.002 if small else 0.004,  # per point; a fifth of that for their mean
        "triple_points": 2 if small else 1,
        "rotation_points": 6 if small else 3,
        "rotations": 12 if small else 8,
        "divergence_points": 16,
        "window_points": 16 if small else 1,
        "unit_points": 1000 if small else 200,
    }


def _along_values(main: MeasureSpec, dataset: Dataset) -> dict[str, Any]:
    """Values for the steps between: fewer points and minors than at the ends."""
    small = dataset.n_inputs <= SMALL_IMAGE
    points, minors = (24, _count_minors(24, dataset)) if small else (4, 0.0)
    values: dict[str, Any] = {"points": min(points, main.points or points)}
    values["exact_minors"] = min(minors, main.budget.exact_minors)
    return values if small else values | {"rel_error": max(0.01, main.budget.rel_error)}


def _count_minors(points: float, dataset: Dataset) -> float:
    """Number of 2-minors of a layer of 128 units at ``points`` points."""
    return float(points * WIDE * comb(max(dataset.n_inputs, LEAST_INPUTS), 2))


def _check_selections(names: Sequence[str], dataset: Dataset) -> None:
    try:
        check_layout([parse_selection(name) for name in names], make_layout(dataset.n_inputs, dataset.image_shape, None, None))
    except InputError as error:
        raise InputError(f"measure.selections does not fit {dataset.name}: {error}") from error
