"""Configuration of a network of a study: everything that determines its weights, and its hash as the run's name."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from kagscope.base.provenance import digest
from kagscope.training import Augmentation, TrainingSettings
from kagscope.training.settings import Penalty

MAX_RUNS = 100_000
MAX_WIDTH = 65_536
SMALL_IMAGE = 256  # pixels
AUGMENTATION = ("rotation", "translation", "scale")
PENALTY = ("penalty_score", "penalty_layer", "penalty_points", "penalty_rows")  # without effect if its weight is 0
OF_A_LAYER = ("penalty_layer", "penalty_rows")  # without effect on gradients of the loss


class Strict(BaseModel):
    """Immutable settings that accept no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _check_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse ``true`` and ``"3"``, which pydantic would take for the numbers 1 and 3."""
        given = value if isinstance(value, list | tuple) else [value]
        wrong = [item for item in given if isinstance(item, bool | str)]
        if wrong and _holds_numbers(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError(f"expected a number (got {wrong[0]!r})")
        return value


def _holds_numbers(annotation: Any) -> bool:
    """Whether a field holds an int or a float, several of them, or None."""
    kinds = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    kinds = tuple(kind for kind in kinds if kind not in (type(None), ...))
    return annotation in (int, float) or (bool(kinds) and all(map(_holds_numbers, kinds)))


class OneOf(Strict):
    """Settings of which exactly one is given."""

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(getattr(self, name) is not None for name in type(self).model_fields) != 1:
            raise ValueError(f"give one of {', '.join(type(self).model_fields)}")
        return self


class RunConfig(Strict):
    """A network and its training, independent of its measurements.

    Attributes:
        first_layer_data: name of the data on which the nets of its first layer were trained; None for ``data``.
        data: name or folder; its content is identified by ``data_fingerprint``, so that a moved folder is the same data.
        steps: increasing optimiser steps at which weights are kept, including 0 and the last one.
        normalize: whether it was trained on images less their mean, over their standard deviation; its weights hold both.
        labels: of the training images: "true", or "shuffled" among them, by ``seed``: the control.
    """

    schema_version: int = 2
    data: str
    data_fingerprint: str
    image_shape: tuple[int, ...]
    widths: tuple[int, ...]
    activation: str
    training: Literal["standard", "augmented"]
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    steps: tuple[int, ...]
    labels: Literal["true", "shuffled"] = "true"
    penalty_weight: float = 0.0
    penalty_score: str = "pr"
    penalty_layer: str = "hidden1"
    penalty_points: int = Penalty.points
    penalty_rows: int = Penalty.rows
    optimizer: str = "adam"
    momentum: float = 0.0
    init: str = "default"
    init_scale: float = 1.0
    first_layer: str = "drawn"
    first_layer_data: str | None = None
    frozen: bool = False
    rotation: float = Augmentation.rotation
    translation: float = Augmentation.translation
    scale: float = Augmentation.scale
    train_size: int | None = None
    label_noise: float = 0.0
    data_seed: int = 0
    normalize: bool = False
    architecture: Literal["mlp", "vit"] = "mlp"

    def fingerprint(self) -> str:
        """Hash of everything that determines the weights at the kept steps.

        Default values do not enter, so that fields added by later versions do not change the names of old runs;
        defaults must therefore never be changed.
        """
        return digest(self.model_dump(mode="json", exclude={"data", "schema_version"}, exclude_defaults=True))

    @property
    def n_inputs(self) -> int:
        """Number of entries of an image."""
        return math.prod(self.image_shape)

    @property
    def width(self) -> int:
        """Units of the widest hidden layer."""
        return max(self.widths)

    @property
    def run_id(self) -> str:
        """Name of the run and of its folder."""
        widths = "x".join(str(w) for w in self.widths)
        control = "-shuffled" if self.labels == "shuffled" else ""
        return f"{self.training}{control}-{widths}-seed{self.seed}-{self.fingerprint()[:10]}"

    def at_initialisation(self, seed: int) -> RunConfig:
        """The same network before training, with this seed, which is equal for runs that start from the same weights."""
        plain = {name: type(self).model_fields[name].default for name in (*AUGMENTATION, *PENALTY, "penalty_weight")}
        return self.model_copy(update={"training": "standard", "labels": "true", "seed": seed, **plain})

    def same_setting(self, other: RunConfig) -> bool:
        """Whether the two differ only in their seed, so that they can be trained together."""
        return self.model_copy(update={"seed": other.seed}) == other

    def training_settings(self) -> TrainingSettings:
        """Training settings of the network."""
        fields = TrainingSettings.__dataclass_fields__.keys() & type(self).model_fields.keys()
        shared: dict[str, Any] = {name: getattr(self, name) for name in fields}
        augmentation = Augmentation(self.rotation, self.translation, self.scale) if self.training == "augmented" else None
        own = {"hidden": self.widths, "augmentation": augmentation, "penalty": self._penalty(), "schedule": self.steps}
        return TrainingSettings(**shared | own)

    def _penalty(self) -> Penalty | None:
        if not self.penalty_weight:
            return None
        return Penalty(self.penalty_weight, self.penalty_score, self.penalty_layer, self.penalty_points, self.penalty_rows)
