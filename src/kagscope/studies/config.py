"""What a reproduction varies and measures: validated settings, and the runs they stand for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from kagscope.base.errors import InputError
from kagscope.base.validation import validated as validated
from kagscope.training import Augmentation

MAX_RUNS = 100_000
MAX_SEEDS = 1_000
MAX_WIDTH = 65_536
SMALL_IMAGE = 256  # pixels


def _orders(k: tuple[int, ...]) -> tuple[int, ...]:
    if not k or any(order not in (1, 2, 3) for order in k) or len(set(k)) != len(k):
        raise ValueError(f"k must name orders among 1, 2, 3, each once; got {list(k)}")
    return tuple(sorted(k))


Orders = Annotated[tuple[int, ...], AfterValidator(_orders)]
"""Orders of minors, in order."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came after the first stores: at their default they do not enter the fingerprint, so that old names stay."""

    def identity(self, without: Collection[str] = ()) -> dict[str, Any]:
        """Plain values of all fields that decide the fingerprint, but those named."""
        plain = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name in without or (name in self.later and value == field.default):
                del plain[name]
            elif isinstance(value, _Settings):
                plain[name] = value.identity()
        return plain

    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON: equal settings, equal fingerprint, on every machine.

        The name of the data does not enter, its content's fingerprint does: a moved folder is the same data.
        """
        return _digest(self.identity(without=("data",)))


class GeometrySettings(_Settings):
    """What is measured, where and how exactly. ``k = 2`` is the main evidence and therefore gets the most points.

    ``selections``, ``layers`` and ``scores`` are None for all there are; what is not named costs nothing.
    """

    later = frozenset({"selections", "layers", "scores"})

    k: tuple[int, ...] = (1, 2, 3)
    points: int = Field(ge=1, description="test images measured at initialisation and after training")
    visited_points: int = Field(ge=1, description="of these, how many visit every minor (entropy, histogram, top)")
    track_points: int = Field(ge=1, description="test images measured along training")
    track_visited_points: int = Field(ge=0, description="of these, how many visit every minor; 0 samples KL")
    rotation_points: int = Field(ge=0, description="test images whose rr_max is measured")
    rotations: int = Field(ge=2, description="random rotations per rr_max")
    k3_points: int = Field(ge=1, description="test images measured for k = 3")
    k3_rel_error: float = Field(gt=0, lt=1, description="standard error of a sampled k = 3 sum over the sum")
    window_points: int = Field(ge=0, description="test images in the map of windowed scores; 0 leaves the map out")
    window_grid: int = Field(ge=1, description="window centres per image side, at most")
    layer_points: int = Field(ge=10, description="test images for kernel alignment, dimensions and constant units")
    zero_row_quantile: float = Field(gt=0, lt=1, description="of the initial net's row means; rows at or below it count as zero")
    selections: tuple[str, ...] | None = Field(default=None, description="canonical names of column selections")
    layers: tuple[str, ...] | None = Field(default=None, description="names of hidden layers, as in the tables")
    scores: tuple[str, ...] | None = Field(default=None, description="names of scores")

    @classmethod
    def for_inputs(cls, n_inputs: int, **given: Any) -> GeometrySettings:
        """Defaults by the number of pixels: what costs n^2 a point gets fewer points; ``given`` overrides (None does not)."""
        small = n_inputs <= SMALL_IMAGE
        values: dict[str, Any] = {
            "points": 64 if small else 24,
            "visited_points": 16 if small else 2,
            "track_points": 24 if small else 8,
            "track_visited_points": 6 if small else 0,
            "rotation_points": 6 if small else 3,
            "rotations": 12 if small else 8,
            "k3_points": 2,
            "k3_rel_error": 0.01,
            "window_points": 16 if small else 4,
            "window_grid": 8 if small else 10,
            "layer_points": 1000,
            "zero_row_quantile": 0.01,
        }
        return cls(**values | {name: value for name, value in given.items() if value is not None})


class RobustnessSettings(_Settings):
    """What is asked of a trained classifier beyond its accuracy; inputs are images in [0, 1], and attacks stay in that range."""

    linf: tuple[float, ...] = Field(default=(0.05, 0.1), description="radii of FGSM and PGD, largest change of a pixel")
    l2: tuple[float, ...] = Field(default=(0.5, 1.0), description="radii of FGSM and PGD, length of the change")
    points: int = Field(default=500, ge=1, description="test images attacked, at most")
    steps: int = Field(default=20, ge=1, le=10_000, description="of PGD")
    restarts: int = Field(default=1, ge=1, le=1000, description="of PGD from other random points; fooled once is fooled")
    later = frozenset({"restarts"})

    @field_validator("linf", "l2")
    @classmethod
    def _radii(cls, radii: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < radius < 1e6 for radius in radii) or len(set(radii)) != len(radii):
            raise ValueError(f"expected positive radii, each once; got {list(radii)}")
        return radii


class RunConfig(_Settings):
    """One network: everything that decides its weights and its numbers."""

    later = frozenset(
        {"optimizer", "momentum", "init", "init_scale", "rotation", "translation", "scale"}
        | {"train_size", "label_noise", "data_seed", "robustness", "schedule"}
    )
    schema_version: int = 1
    data: str
    data_fingerprint: str
    image_shape: tuple[int, int]
    widths: tuple[int, ...]
    activation: str
    training: Literal["standard", "augmented"]
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    checkpoints: int
    geometry: GeometrySettings
    optimizer: str = "adam"
    momentum: float = 0.0
    init: str = "default"
    init_scale: float = 1.0
    rotation: float = Augmentation.rotation
    translation: float = Augmentation.translation
    scale: float = Augmentation.scale
    train_size: int | None = None
    label_noise: float = 0.0
    data_seed: int = 0
    robustness: RobustnessSettings | None = None
    schedule: Literal["geometric", "linear"] | tuple[int, ...] = "geometric"

    def training_fingerprint(self) -> str:
        """Of what decides the weights at every step, and not of what is kept and measured of them."""
        return _digest(self.identity(without=("data", "geometry", "robustness", "checkpoints", "schedule")))

    @property
    def width(self) -> int:
        return max(self.widths)

    @property
    def run_id(self) -> str:
        widths = "x".join(str(w) for w in self.widths)
        return f"{self.training}-{widths}-seed{self.seed}-{self.fingerprint()[:10]}"

    def at_initialisation(self, seed: int) -> RunConfig:
        """The same network before any training, with this seed: what two runs share that start from the same weights."""
        plain = {name: type(self).model_fields[name].default for name in ("rotation", "translation", "scale")}
        return self.model_copy(update={"training": "standard", "seed": seed, **plain})

    def same_setting(self, other: RunConfig) -> bool:
        """Whether the two differ in their seed alone, so that they can be trained together."""
        return self.model_copy(update={"seed": other.seed}) == other


class StudySettings(_Settings):
    """Settings of ``kagscope reproduce``: a full grid over widths, trainings and seeds."""

    data: str = "digits"
    widths: tuple[int, ...] = (32, 64, 128)
    depth: int = Field(default=2, ge=1, le=64, description="hidden layers, each of the given width")
    activation: Literal["gelu", "relu", "tanh", "silu"] = "gelu"
    trainings: tuple[Literal["standard", "augmented"], ...] = ("standard", "augmented")
    seeds: int = Field(default=5, ge=1, le=MAX_SEEDS)
    epochs: int | None = Field(default=None, ge=0, le=100_000, description="default: 60 for small images, else 10")
    batch_size: int | None = Field(default=None, ge=1, le=2**20, description="default: 32 for small images, else 128")
    learning_rate: float = Field(default=1e-3, gt=0, lt=10)
    weight_decay: float = Field(default=0.0, ge=0, lt=1e3)
    checkpoints: int = Field(default=8, ge=2, le=1000, description="geometrically spaced steps at which geometry is measured")
    k: Orders = (1, 2, 3)
    points: int | None = Field(
        default=None, ge=1, le=1_000_000, description="test images measured; default by the size of the images"
    )
    geometry: GeometrySettings | None = Field(
        default=None, description="details of the measurement; default by the size of the images"
    )

    @field_validator("widths")
    @classmethod
    def _positive_widths(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if not widths:
            raise ValueError("at least one width is needed, for example 32,64,128")
        for width in widths:
            if not 1 <= width <= MAX_WIDTH:
                raise ValueError(f"a width is a number of units from 1 to {MAX_WIDTH}; got {width}")
        if len(set(widths)) != len(widths):
            raise ValueError(f"each width once; got {list(widths)}")
        return widths

    @field_validator("trainings")
    @classmethod
    def _distinct_trainings(cls, trainings: tuple[str, ...]) -> tuple[str, ...]:
        if not trainings or len(set(trainings)) != len(trainings):
            raise ValueError(f"name 'standard', 'augmented' or both, each once; got {list(trainings)}")
        return trainings

    @model_validator(mode="after")
    def _bounded(self) -> StudySettings:
        narrowest, largest_k = min(self.widths), max(self.k)
        if largest_k > narrowest:
            raise ValueError(
                f"k = {largest_k} needs layers of at least {largest_k} units, but width {narrowest} was given; "
                f"use larger widths or a smaller k"
            )
        if self.geometry is not None and self.geometry.k != self.k:
            raise ValueError(f"geometry.k is {list(self.geometry.k)} but k is {list(self.k)}; give both alike, or k alone")
        runs = len(self.widths) * len(self.trainings) * self.seeds
        if runs > MAX_RUNS:
            raise ValueError(f"{runs} networks asked for; at most {MAX_RUNS}: use fewer widths or seeds")
        return self

    def resolved(self, n_inputs: int) -> StudySettings:
        """With every default that depends on the size of the images filled in.

        Raises:
            InputError: k is larger than the number of inputs.
        """
        if max(self.k) > n_inputs:
            raise InputError(f"k = {max(self.k)} needs at least {max(self.k)} inputs, but the images have {n_inputs} pixels")
        small = n_inputs <= SMALL_IMAGE
        defaults: dict[str, Any] = {"epochs": 60 if small else 10, "batch_size": 32 if small else 128}
        defaults["geometry"] = GeometrySettings.for_inputs(n_inputs, k=self.k, points=self.points)
        return self.model_copy(update={name: value for name, value in defaults.items() if getattr(self, name) is None})

    def study_fingerprint(self, data_fingerprint: str) -> str:
        """Of the settings and the content of the data together."""
        return hashlib.sha256(f"{self.fingerprint()} {data_fingerprint}".encode()).hexdigest()

    def runs(self, data_fingerprint: str, image_shape: tuple[int, int]) -> Iterator[RunConfig]:
        """Every run of the grid, seeds of one setting next to each other; defaults filled in for these images."""
        done = self.resolved(image_shape[0] * image_shape[1])
        assert done.epochs is not None
        assert done.batch_size is not None
        assert done.geometry is not None
        for width in self.widths:
            for training in self.trainings:
                for seed in range(self.seeds):
                    yield RunConfig(
                        data=self.data,
                        data_fingerprint=data_fingerprint,
                        image_shape=image_shape,
                        widths=(width,) * self.depth,
                        activation=self.activation,
                        training=training,
                        seed=seed,
                        epochs=done.epochs,
                        batch_size=done.batch_size,
                        learning_rate=self.learning_rate,
                        weight_decay=self.weight_decay,
                        checkpoints=self.checkpoints,
                        geometry=done.geometry,
                    )


def _digest(plain: dict[str, Any]) -> str:
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def settings_from(values: dict[str, Any]) -> StudySettings:
    """Validated settings of ``reproduce`` from plain values; see :func:`validated`."""
    return validated(StudySettings, values)
