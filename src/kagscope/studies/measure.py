"""What a study measures of every run: the ``[measure]`` table, and what it comes to for one run and its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from kagscope.base.errors import InputError
from kagscope.columns.layout import make_layout
from kagscope.columns.selections import check_layout, parse_selection
from kagscope.data import Dataset
from kagscope.measuring.geometry import WINDOWS, all_selections
from kagscope.studies.axes import RunValues, _Strict
from kagscope.studies.config import GeometrySettings, Orders, RobustnessSettings
from kagscope.training.models import layer_names
from kagscope.training.settings import geometric_steps, linear_steps
from kagscope.wanted import SCORE_NAMES

ENDS = {"first": 0, "last": -1}


class Steps(_Strict):
    """Checkpoints at given places, ``{steps = [10, 100]}`` or ``{epochs = [0.5, 1, 10]}``, beside the first and the last step."""

    steps: tuple[int, ...] | None = Field(default=None, min_length=1)
    epochs: tuple[float, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_list(self) -> Steps:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give one of steps, epochs")
        for given in self.steps or self.epochs or ():
            if not 0 <= given < 2**53:
                raise ValueError(f"expected numbers of at least 0; got {given}")
        return self

    def at(self, per_epoch: int) -> list[int]:
        """In optimiser steps, of which an epoch has ``per_epoch``."""
        return list(self.steps) if self.steps is not None else [round(epoch * per_epoch) for epoch in self.epochs or ()]


Schedule = Annotated[
    Annotated[Literal["geometric", "linear"], Tag("word")] | Annotated[Steps, Tag("rule")],
    Discriminator(lambda given: "rule" if isinstance(given, dict | Steps) else "word"),
]


class Measure(_Strict):
    """What is measured of every run: defaults go by the size of the images, and what is not asked for costs nothing."""

    k: Orders = Field(default=(1, 2), description="orders of the minors, among 1, 2, 3")
    selections: tuple[str, ...] | None = Field(
        default=None,
        description='column selections, such as "all", "ball(7)", "apart(7)", "shell(7,14)", "window(13,13,7)", and "windows", '
        "the map; default all, balls and distances of quarters of the image's side, and the map",
    )
    layers: tuple[str, ...] | None = Field(
        default=None, description='hidden layers by their names, "hidden1", "hidden2", …, or "first", "last"; default all'
    )
    scores: tuple[str, ...] | None = Field(default=None, description=f"among {', '.join(SCORE_NAMES)}; default all")
    checkpoints: int = Field(
        default=8, ge=2, le=1000, description="steps at which geometry is measured, the first and last included"
    )
    schedule: Schedule = Field(
        default="geometric", description="how they are spaced; or { steps = […] } or { epochs = […] } instead of a number"
    )
    points: int | None = Field(default=None, ge=1, le=1_000_000, description="test images; default 64, of large images 24")
    visited_points: int | None = Field(default=None, ge=1, description="of these, how many visit every minor; default 16 or 2")
    track_points: int | None = Field(default=None, ge=1, description="test images between start and end; default 24 or 8")
    track_visited_points: int | None = Field(default=None, ge=0, description="of these, that visit every minor; default 6 or 0")
    rotation_points: int | None = Field(default=None, ge=0, description="test images of rr_max; default 6 or 3")
    rotations: int | None = Field(default=None, ge=2, description="random rotations of rr_max; default 12 or 8")
    k3_points: int | None = Field(default=None, ge=1, description="test images of k = 3; default 2")
    window_points: int | None = Field(default=None, ge=0, description="test images of the map of windows; default 16 or 4")
    window_grid: int | None = Field(default=None, ge=1, description="window centres a side, at most; default 8 or 10")
    layer_points: int | None = Field(default=None, ge=10, description="test images of scores of a layer; default 1000")
    robustness: RobustnessSettings | None = Field(default=None, description="adversarial accuracy and calibration; a table")

    @field_validator("selections")
    @classmethod
    def _canonical(cls, selections: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if selections is None:
            return None
        try:
            return _each_once([name if name == WINDOWS else str(parse_selection(name)) for name in selections])
        except InputError as error:
            raise ValueError(str(error)) from error

    @field_validator("layers", mode="before")
    @classmethod
    def _names(cls, layers: Any) -> Any:
        return [str(one) if type(one) is int else one for one in layers] if isinstance(layers, list | tuple) else layers

    @field_validator("layers")
    @classmethod
    def _layers_once(cls, layers: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if layers is None else _each_once(layers)

    @field_validator("scores")
    @classmethod
    def _known(cls, scores: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for score in scores or ():
            if score not in SCORE_NAMES:
                raise ValueError(f"there is no score {score!r}; expected some of {', '.join(SCORE_NAMES)}")
        return None if scores is None else _each_once(scores)

    @model_validator(mode="after")
    def _one_number_of_checkpoints(self) -> Measure:
        if isinstance(self.schedule, Steps) and "checkpoints" in self.model_fields_set:
            raise ValueError("checkpoints and a schedule of steps or epochs both say how many; give one of them")
        return self

    def geometry(self, dataset: Dataset, depth: int) -> GeometrySettings:
        """For a net of ``depth`` hidden layers on these data; what comes to all there is stands as None.

        Raises:
            InputError: a layer that the net has not, or a selection that does not fit the images.
        """
        other = {"checkpoints", "schedule", "robustness", "selections", "layers", "scores"}
        return GeometrySettings.for_inputs(
            dataset.n_inputs,
            **self.model_dump(exclude=other),
            selections=self._selections(dataset),
            layers=self._layers(depth),
            scores=None if self.scores is None else _unless_all([s for s in SCORE_NAMES if s in self.scores], SCORE_NAMES),
        )

    def _selections(self, dataset: Dataset) -> tuple[str, ...] | None:
        if self.selections is None:
            return None
        chosen = [parse_selection(name) for name in self.selections if name != WINDOWS]
        try:
            check_layout(chosen, make_layout(dataset.n_inputs, dataset.image_shape, None, None))
        except InputError as error:
            raise InputError(f"measure.selections does not fit {dataset.name}: {error}") from error
        usual = [*(str(selection) for selection in all_selections(dataset.image_shape)), WINDOWS]
        return _unless_all(self.selections, list(dict.fromkeys(usual)))

    def _layers(self, depth: int) -> tuple[str, ...] | None:
        names = layer_names(depth)
        if self.layers is None:
            return None
        chosen = [names[ENDS[one]] if one in ENDS else one for one in self.layers]
        unknown = [one for one in chosen if one not in names]
        if unknown:
            raise InputError(
                f"measure.layers names {unknown[0]!r}, but a net of depth {depth} has the hidden layers {', '.join(names)}; "
                "expected some of these, first or last"
            )
        return _unless_all([name for name in names if name in chosen], names)

    def kept(self, values: RunValues, epochs: int, per_epoch: int) -> dict[str, Any]:
        """``checkpoints`` and ``schedule`` of a run of ``epochs`` epochs of ``per_epoch`` steps; the same steps are said alike.

        Raises:
            InputError: a step after the last one.
        """
        last = epochs * per_epoch
        if isinstance(self.schedule, Steps):
            steps = self.schedule.at(per_epoch)
            if max(steps) > last:
                raise InputError(
                    f"measure.schedule names step {max(steps)}, but training ends at step {last} ({epochs} epochs of {per_epoch} "
                    "steps); expected steps up to that"
                )
            every = tuple(sorted({0, last, *steps}))
            return {"checkpoints": max(len(every), 2), "schedule": every}
        same = linear_steps(last, self.checkpoints) == geometric_steps(last, self.checkpoints)
        return {"checkpoints": self.checkpoints, "schedule": "geometric" if same else self.schedule}


def _each_once(names: Sequence[str]) -> tuple[str, ...]:
    if not names or len(set(names)) != len(names):
        raise ValueError(f"expected at least one, each once; got {list(names)}")
    return tuple(names)


def _unless_all(chosen: Sequence[str], every: Sequence[str]) -> tuple[str, ...] | None:
    return None if set(chosen) == set(every) else tuple(chosen)
