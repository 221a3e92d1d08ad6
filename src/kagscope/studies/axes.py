"""Axes of a study: full grids, zipped lists and random draws of values, checked and counted before they are expanded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from kagscope.base.messages import close_names
from kagscope.studies.config import MAX_RUNS, MAX_WIDTH, OneOf, Strict
from kagscope.training.first_layer import FIRST_LAYERS
from kagscope.training.models import INITS
from kagscope.training.settings import ARCHITECTURES, OPTIMIZERS, STEERED_BY

Point = dict[str, Any]


class RunValues(Strict):
    """What one run is: every value that a study may fix or vary."""

    data: str = Field(default="digits", description="mnist10k, digits, mnist, fashion_mnist, kmnist, or a folder")
    architecture: Literal[ARCHITECTURES] = Field(  # type: ignore[valid-type]
        default="mlp", description="vit: a small vision transformer, a block for each hidden layer"
    )
    width: int = Field(default=64, ge=1, le=MAX_WIDTH, description="units per hidden layer")
    depth: int = Field(default=2, ge=1, le=64, description="hidden layers")
    widths: tuple[Annotated[int, Field(ge=1, le=MAX_WIDTH)], ...] | None = Field(
        default=None, min_length=1, description="units of each hidden layer, instead of width and depth"
    )
    activation: Literal["gelu", "relu", "tanh", "silu"] = "gelu"
    labels: Literal["true", "shuffled"] = Field(default="true", description="shuffled: a control, which has nothing to learn")
    training: Literal["standard", "augmented"] = "standard"
    normalize: bool = Field(default=False, description="learn from images less their mean, over their standard deviation")
    rotation: float = Field(default=10.0, ge=0, le=180, description="degrees, of augmented training")
    translation: float = Field(default=1 / 14, ge=0, le=1, description="fraction of the side, of augmented training")
    scale: float = Field(default=0.1, ge=0, le=0.9, description="zoom from 1 - scale to 1 + scale, of augmented training")
    optimizer: Literal[OPTIMIZERS] = "adam"  # type: ignore[valid-type]
    momentum: float = Field(default=0.0, ge=0, le=1, description="of sgd and rmsprop")
    learning_rate: float = Field(default=1e-3, gt=0, lt=1e3)
    weight_decay: float = Field(default=0.0, ge=0, lt=1e3)
    epochs: int | None = Field(
        default=None, ge=0, le=100_000, description="default: 60 for small images, else 20 of up to 20,000, else 10"
    )
    batch_size: int | None = Field(default=None, ge=1, le=2**20, description="default: 32 for small images, else 128")
    train_size: int | None = Field(default=None, ge=1, description="training images to keep; default all")
    label_noise: float = Field(default=0.0, ge=0, le=1, description="fraction of training labels that are made wrong")
    data_seed: int = Field(default=0, ge=0, lt=2**31, description="of the images kept and the labels made wrong")
    init: Literal[INITS] = "default"  # type: ignore[valid-type]
    init_scale: float = Field(default=1.0, gt=0, le=1e6, description="factor on the initial weights")
    first_layer: Literal[FIRST_LAYERS] = Field(  # type: ignore[valid-type]
        default="drawn", description="how the first layer starts: as init says, or of trained nets' rows, or by rule"
    )
    first_layer_data: str | None = Field(default=None, description="what those nets were trained on; default data")
    frozen: bool = Field(default=False, description="leave the first layer as it starts")
    penalty_weight: float = Field(
        default=0.0, ge=-1e38, le=1e38, description="of a term that steers a layer; towards geometry where < 0"
    )
    penalty_score: Literal[STEERED_BY] = "pr"  # type: ignore[valid-type]
    penalty_layer: str = Field(default="hidden1", description="hidden1, hidden2, …")
    penalty_points: int = Field(default=4, ge=1, le=2**20, description="images of a batch at which it is taken")
    penalty_rows: int = Field(default=32, ge=0, le=2**31, description="pairs of rows drawn in each step; 0 for all")
    seed: int = Field(default=0, ge=0, lt=2**31, description="of initialisation, batch order and augmentation")

    @model_validator(mode="after")
    def _check_widths(self) -> RunValues:
        if self.widths is not None and {"width", "depth"} & self.model_fields_set:
            raise ValueError("give widths, or width and depth, not both")
        return self

    @property
    def hidden(self) -> tuple[int, ...]:
        """Units of each hidden layer."""
        return self.widths if self.widths is not None else (self.width,) * self.depth


class Range(OneOf):
    """Values by rule: ``{count = 5}`` (0 to 4), ``{linspace = [a, b, n]}``, ``{geomspace = [a, b, n]}``."""

    count: int | None = Field(default=None, ge=1, le=MAX_RUNS)
    linspace: tuple[float, float, int] | None = None
    geomspace: tuple[float, float, int] | None = None

    @model_validator(mode="after")
    def _check_rule(self) -> Range:
        for rule in (self.linspace, self.geomspace):
            if rule is not None and not 1 <= rule[2] <= MAX_RUNS:
                raise ValueError(f"expected [first, last, how many], how many from 1 to {MAX_RUNS}; got {list(rule)}")
        if self.geomspace is not None and not (self.geomspace[0] > 0 and self.geomspace[1] > 0):
            raise ValueError(f"geomspace needs positive ends; got {list(self.geomspace)}")
        return self

    def values(self) -> list[Any]:
        if self.count is not None:
            return list(range(self.count))
        if self.linspace is not None:
            return [_plain(value) for value in np.linspace(*self.linspace)]
        assert self.geomspace is not None
        return [_plain(value) for value in np.geomspace(*self.geomspace)]


def _kind(value: Any) -> str:
    return "rule" if isinstance(value, dict | Range) else "list"


Values = Annotated[Annotated[list[Any], Tag("list")] | Annotated[Range, Tag("rule")], Discriminator(_kind)]


class Draw(OneOf):
    """A distribution: ``{uniform = [a, b]}``, ``{log_uniform = [a, b]}``, ``{integers = [a, b]}`` or ``{choice = […]}``."""

    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    integers: tuple[int, int] | None = None
    choice: tuple[Any, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _check_ends(self) -> Draw:
        for ends in (self.uniform, self.log_uniform, self.integers):
            if ends is not None and not ends[0] <= ends[1]:
                raise ValueError(f"the first end must not be above the second; got {list(ends)}")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform needs positive ends; got {list(self.log_uniform)}")
        return self

    def draw_one(self, rng: np.random.Generator) -> Any:
        if self.uniform is not None:
            return float(rng.uniform(*self.uniform))
        if self.log_uniform is not None:
            return float(math.exp(rng.uniform(math.log(self.log_uniform[0]), math.log(self.log_uniform[1]))))
        if self.integers is not None:
            return int(rng.integers(self.integers[0], self.integers[1], endpoint=True))
        assert self.choice is not None
        return self.choice[int(rng.integers(len(self.choice)))]


class Random(Strict):
    """``count`` draws, the same for the same ``seed``; the first ones stay when ``count`` grows."""

    count: int = Field(ge=1, le=MAX_RUNS)
    seed: int = Field(default=0, ge=0, lt=2**31)
    draw: dict[str, Draw] = Field(min_length=1)

    def points(self) -> list[Point]:
        return [self._point(index) for index in range(self.count)]

    def _point(self, index: int) -> Point:
        rng = np.random.default_rng([self.seed, index])
        return {name: draw.draw_one(rng) for name, draw in self.draw.items()}


class Axes(Strict):
    """Everything that varies: each combination of the grid with each entry of each zip and each random draw."""

    grid: dict[str, Values] = Field(default_factory=dict)
    zip: tuple[dict[str, Values], ...] = ()
    random: Random | None = None

    @model_validator(mode="after")
    def _check_lengths(self) -> Axes:
        names = self.names()
        for name in names:
            if name not in RunValues.model_fields:
                close = close_names(name, RunValues.model_fields)
                raise ValueError(f"unknown axis {name!r}{close}; a study can vary {', '.join(RunValues.model_fields)}")
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is varied in two places; once is enough")
        for name, values in (*self.grid.items(), *(item for block in self.zip for item in block.items())):
            if not _to_list(values):
                raise ValueError(f"axis {name!r} is empty; give at least one value")
        for block in self.zip:
            lengths = {name: len(_to_list(values)) for name, values in block.items()}
            if len(set(lengths.values())) > 1:
                text = ", ".join(f"{name}: {length}" for name, length in lengths.items())
                raise ValueError(f"lists that go together must be as long as each other; got {text}")
        if self.count() > MAX_RUNS:
            raise ValueError(f"the axes make {self.count():,} runs; at most {MAX_RUNS:,}: use fewer values")
        return self

    def count(self) -> int:
        """Number of combinations."""
        sizes = [len(_to_list(values)) for values in self.grid.values()]
        sizes += [len(_to_list(next(iter(block.values())))) for block in self.zip if block]
        return math.prod(sizes) * (self.random.count if self.random else 1)

    def points(self) -> Iterator[Point]:
        """All combinations; seeds vary fastest, so that those of a setting are adjacent."""
        grid = dict(self.grid)
        seeds = grid.pop("seed", None)
        parts: list[list[Point]] = [[{name: value} for value in _to_list(values)] for name, values in grid.items()]
        parts += [_combine_zip(block) for block in self.zip if block]
        if self.random is not None:
            parts.append(self.random.points())
        if seeds is not None:
            parts.append([{"seed": value} for value in _to_list(seeds)])
        for chosen in itertools.product(*parts):
            yield {name: value for values in chosen for name, value in values.items()}

    def names(self) -> list[str]:
        """Names of the axes."""
        return [*self.grid, *(name for block in self.zip for name in block), *(self.random.draw if self.random else ())]


def _to_list(values: Values) -> list[Any]:
    return values.values() if isinstance(values, Range) else values


def _combine_zip(block: dict[str, Values]) -> list[Point]:
    columns = {name: _to_list(values) for name, values in block.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    """Round to 12 significant digits, and to integers if whole, so that rounding of a rule makes no new runs."""
    rounded = float(f"{float(value):.12g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded
