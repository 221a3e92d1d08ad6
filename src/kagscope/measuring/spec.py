"""One frozen description of what is measured, how exactly, and at how many points."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import Any, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch import Tensor, nn

import kagscope.scores  # noqa: F401  registers every score
from kagscope import registry
from kagscope.base.checks import is_whole
from kagscope.base.errors import InputError
from kagscope.base.messages import close_names
from kagscope.base.provenance import ENGINE, digest
from kagscope.base.validation import first_error
from kagscope.columns.scales import scales
from kagscope.columns.selections import All, Ball, Selection, as_selections
from kagscope.jacobians.compute import FLAT
from kagscope.jacobians.layers import Layers
from kagscope.jacobians.maps import KINDS
from kagscope.tables.schema import BOOKKEEPING

MODES = ("eval", "train")
PRECISIONS = ("float64", "model")
MAX_K = 6
QUICK: dict[str, Any] = {"points": 5, "tokens": 4, "max_rows": 256, "rel_error": 0.01, "rotation_points": 0, "exact_minors": 1e8}
INDENT: dict[str, Any] = {"initial_indent": "    ", "subsequent_indent": "        "}
ScoreFunction = Callable[[Any], Any]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """The descriptions of the fields, for ``help()`` too."""
        fields = [fill(f"{name}: {field.description}", 120, **INDENT) for name, field in cls.model_fields.items()]
        cls.__doc__ = "\n".join([inspect.getdoc(cls) or "", "", "Fields:", *fields])


class Budget(_Strict):
    """What is exact, what is sampled and to which error, and at how many points what costs much is measured.

    Exact is what formulas give (sums over all columns and windows, the factored family) and what enumeration of
    ``exact_minors`` minors a layer reaches; of the rest column pairs are drawn, to ``rel_error``.
    """

    exact: bool = Field(default=False, description="sum over every minor, however many there are; only rotations are drawn")
    exact_minors: float = Field(default=1e9, ge=0, description="how many 2-minors of a layer may be visited one by one")
    rel_error: float = Field(
        default=0.002,
        gt=0,
        lt=1,
        description="relative standard error of what is sampled for k = 2; five times as much for k >= 3, and for KL in nats",
    )
    triple_points: int | None = Field(
        default=None, ge=1, description="points at which minors of order 3 and more are measured; None for all"
    )
    rotation_points: int = Field(default=2, ge=0, description="points at which rr_max and rr_sampled are measured")
    rotations: int = Field(default=16, ge=2, description="random rotations for rr_max")
    drawn_minors: int = Field(default=500, ge=2, description="minors drawn for rr_sampled, as the authors' code draws them")
    row_points: int = Field(default=20, ge=0, description="points for row means of pairs and triples (zero_rows, Zipf curves)")
    divergence_points: int = Field(default=10, ge=0, description="points at which column_divergence is measured")
    unit_points: int | None = Field(
        default=None, ge=1, description="points at which units are tested for being constant or unfelt; None for `points`"
    )
    samples: int = Field(default=1000, ge=10, description="inputs used for scores of representations")
    window_points: int = Field(default=4, ge=1, description="points for the map of windows")
    max_rows: int | None = Field(
        default=None, ge=2, description="of a layer with more rows, how many are drawn to estimate all of it; None for all"
    )
    memory_budget: int = Field(default=2**30, ge=2**20, description="working memory in bytes, roughly")


class MeasureSpec(_Strict):
    """One description of a measurement; every door takes it, and the options of commands and study files are made from it.

    Fields of the :class:`Budget` may be given directly: ``MeasureSpec(k=2, rel_error=0.005)``.

    Raises:
        InputError: a value that cannot be used: which, what was given, what is expected.
    """

    layers: Any = Field(
        default=None,
        description='names from named_modules() ("encoder.0.mlp"), patterns (* one part of a name, ** any), module classes, or a '
        "list of them; None: every activation",
    )
    layer_map: str = Field(
        default="input",
        description='"input", from the model\'s input to the layer; "block", from the layer\'s own input to its output; '
        '"output", from the layer to the model\'s output',
    )
    k: tuple[int, ...] = Field(default=(1, 2), description="orders of the minors")
    selections: tuple[Selection, ...] = Field(default=(All(),), description="column selections, or their names")
    image_shape: tuple[int, ...] | None = Field(
        default=None, description="(height, width), or (channels, height, width), where columns are pixels"
    )
    positions: Any = Field(default=None, description="(n, dimension) coordinates of the columns, where they are no image")
    groups: Any = Field(default=None, description="n labels of the columns, where distance only means same group or another")
    window_map: int = Field(
        default=0, ge=0, description="window centres along each side of the image, for a map of PR; 0: no map"
    )
    tokens: Any = Field(
        default=None,
        description="of layers on sequences: None all (of more than 256 as many evenly spaced), a number that many evenly "
        'spaced, a list those, "flat" takes a sequence whole',
    )
    wrt: int | str | None = Field(default=None, description="which input to differentiate, where several could be")
    mode: str = Field(
        default="eval", description='"eval", or "train", where each point is taken with respect to itself within its batch'
    )
    precision: str = Field(
        default="float64", description='precision of the Jacobians: "float64", or "model" for that of the model'
    )
    scores: tuple[str, ...] | None = Field(default=None, description="names of scores; None for all")
    own_scores: Mapping[str, ScoreFunction] = Field(default_factory=dict, description="your functions of Moments, by name")
    jacobian_scores: Mapping[str, ScoreFunction] = Field(
        default_factory=dict, description="your functions of (B, m, n) Jacobians, by name"
    )
    points: int | None = Field(default=None, description="how many of the inputs, a fixed random sample; None for all")
    zero_row_quantile: float = Field(
        default=0.01, gt=0, lt=1, description="quantile of the baseline's rows at or below which a row counts as zero"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of everything that is drawn")
    budget: Budget = Field(default_factory=Budget, description="what is exact, what is sampled, at how many points")

    def __init__(self, /, **fields: Any) -> None:
        known = [*(name for name in MeasureSpec.model_fields if name != "budget"), *Budget.model_fields, "budget"]
        for name in fields:
            if name not in known:
                raise InputError(f"{name}: unknown option{close_names(name, known)}; expected some of {', '.join(known)}")
        try:
            super().__init__(**fields)
        except ValidationError as error:
            reason = str(first_error(MeasureSpec, error))
            if error.errors()[0]["type"] == "value_error":  # raised by this class, with the name of the field
                reason = reason.partition(": ")[2]
            raise InputError(reason if "budget" in fields else reason.removeprefix("budget.")) from None

    @model_validator(mode="before")
    @classmethod
    def _normalise_fields(cls, fields: Any) -> Any:
        """Move budget fields into the budget and own scores out of ``scores``; convert NumPy numbers to Python's."""
        if not isinstance(fields, dict):
            return fields
        fields = {name: _as_python_number(name, value) for name, value in fields.items()}
        direct = {name: fields.pop(name) for name in Budget.model_fields if name in fields}
        if direct:
            budget = fields.get("budget", {})
            fields["budget"] = (budget.model_dump() if isinstance(budget, Budget) else dict(budget)) | direct
        if isinstance(fields.get("scores"), Mapping):
            fields["own_scores"] = fields.pop("scores")
        return fields

    @field_validator("layer_map", "mode", "precision")
    @classmethod
    def _check_choice(cls, value: str, info: Any) -> str:
        choices = {"layer_map": KINDS, "mode": MODES, "precision": PRECISIONS}[info.field_name]
        if value not in choices:
            raise ValueError(f"{info.field_name} is {value!r}; expected one of {', '.join(map(repr, choices))}")
        return value

    @field_validator("k", mode="before")
    @classmethod
    def _check_orders(cls, k: Any) -> Any:
        orders = tuple(k) if isinstance(k, list | tuple | range) else (k,)
        if not orders or not all(is_whole(i, 1, MAX_K) for i in orders):
            raise ValueError(f"k is {k!r}; expected whole numbers from 1 to {MAX_K}, such as (1, 2)")
        return tuple(sorted({int(i) for i in orders}))

    @field_validator("selections", mode="before")
    @classmethod
    def _parse_selections(cls, given: Any) -> Any:
        return tuple(as_selections(All() if given is None else given)[0])

    @field_validator("image_shape", mode="before")
    @classmethod
    def _check_image_shape(cls, given: Any) -> Any:
        if given is None:
            return None
        sides = tuple(given) if isinstance(given, list | tuple | torch.Size) else ()
        if len(sides) not in (2, 3) or not all(is_whole(side, 1) for side in sides):
            raise ValueError(f"image_shape is {given!r}; expected (height, width) or (channels, height, width), such as (28, 28)")
        return tuple(int(side) for side in sides)

    @field_validator("scores", mode="before")
    @classmethod
    def _check_scores(cls, names: Any) -> Any:
        if names is None:
            return None
        if (
            isinstance(names, str)
            or not isinstance(names, Sequence)
            or not names
            or not all(isinstance(score, str) for score in names)
        ):
            raise ValueError(f"scores is {names!r:.80}; expected a list of names, or your own functions by name")
        chosen = registry.select_scores(names)  # raises for an unknown one
        measured = {s.name for s in registry.all_scores() if s.takes}  # without takes: scores of studies, known once imported
        return None if measured <= {score.name for score in chosen} else tuple(score.name for score in chosen)

    @field_validator("own_scores", "jacobian_scores", mode="before")
    @classmethod
    def _check_own_scores(cls, given: Any, info: Any) -> Any:
        option = {"own_scores": "scores"}.get(info.field_name, info.field_name)
        if given is None or given == []:  # as the JSON of a spec has it
            return {}
        if not isinstance(given, Mapping):
            raise ValueError(f"{option} is {given!r:.80}; expected functions by name, such as {{'my_score': function}}")
        for name, function in given.items():
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(f"{option} has the name {name!r}; expected letters, digits and _, such as 'my_score'")
            if name in registry.names() or name in BOOKKEEPING:
                raise ValueError(f"{option} has the name {name!r}, which is a score of kagscope; choose another")
            if not callable(function):
                raise ValueError(f"{option}: {name!r} is {function!r:.80}; expected a function")
        return dict(given)

    @field_validator("tokens", mode="before")
    @classmethod
    def _check_tokens(cls, tokens: Any) -> Any:
        several = isinstance(tokens, list | tuple | range | np.ndarray)
        whole = all(is_whole(t) for t in (tokens if several else [tokens]))
        if not (tokens is None or whole or (isinstance(tokens, str) and tokens == FLAT)):
            raise ValueError(f"tokens is {tokens!r}; expected None, a number, a list of indices, or 'flat'")
        if len(tokens) < 1 if several else isinstance(tokens, int | np.integer) and tokens < 1:
            raise ValueError(
                f"tokens is {tokens!r}; expected a positive number, a list of token indices, None for all, or 'flat'"
            )
        return tuple(int(token) for token in tokens) if several else tokens

    @field_validator("wrt", mode="before")
    @classmethod
    def _check_wrt(cls, wrt: Any) -> Any:
        if isinstance(wrt, bool) or (isinstance(wrt, int) and wrt < 0):
            raise ValueError(f"wrt is {wrt!r}; expected the name of an input, or its position from 0")
        return wrt

    @field_validator("points", mode="before")
    @classmethod
    def _check_points(cls, points: Any) -> Any:
        if points is not None and not is_whole(points, 1):
            raise ValueError(f"points is {points!r}; expected a positive number of points, or None for all")
        return points if points is None else int(points)

    @model_validator(mode="after")
    def _check_distinct(self) -> Self:
        if twice := self.own_scores.keys() & self.jacobian_scores.keys():
            raise ValueError(
                f"scores and jacobian_scores both have {', '.join(sorted(twice))}; give each score a name of its own"
            )
        return self

    def with_(self, **changed: Any) -> MeasureSpec:
        """A copy with some fields changed; fields of the budget may be named directly."""
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        return MeasureSpec(**kept | changed)

    def wants(self, *names: str) -> bool:
        """Whether any of these scores is asked for."""
        return self.scores is None or any(name in self.scores for name in names)

    @property
    def score_records(self) -> tuple[registry.Score, ...]:
        """Registry records of the requested scores, own scores excluded."""
        return registry.select_scores(self.scores)

    def as_json(self) -> dict[str, Any]:
        """Plain values for a file: arrays as digests, functions and classes by name. One without these can be read back."""
        plain = {name: _as_plain(getattr(self, name)) for name in type(self).model_fields if name != "budget"}
        return plain | {"budget": self.budget.model_dump()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> MeasureSpec:
        """Inverse of :meth:`as_json`. Raises :class:`InputError` for functions or arrays, which a file does not hold."""
        fields = dict(plain)
        for name in ("own_scores", "jacobian_scores"):
            if functions := fields.pop(name, ()):
                raise InputError(f"the spec has {name} {', '.join(functions)}, functions that no file holds; make it anew")
        return cls(**fields)

    @property
    def id(self) -> str:
        """Ten hexadecimal digits that identify a spec: a digest of all that affects numbers, the engine's version included."""
        decides = self.as_json() | {"engine": ENGINE}
        del decides["budget"]["memory_budget"]
        return digest(decides)[:10]


def _as_python_number(name: str, value: Any) -> Any:
    """Convert NumPy numbers to Python's, except arrays that have an entry per column."""
    array = isinstance(value, np.ndarray) and name not in ("positions", "groups")
    return value.tolist() if array or isinstance(value, np.generic) else value


def _as_plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return f"sha256:{hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    if isinstance(value, Mapping):
        return sorted(value)
    if isinstance(value, type) and issubclass(value, nn.Module):
        return value.__name__
    if isinstance(value, Selection):
        return str(value)
    if isinstance(value, list | tuple | range):
        return [_as_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def spec_from(spec: MeasureSpec | str | None, options: Mapping[str, Any]) -> MeasureSpec:
    """The spec itself, or one made from options; "quick" is that of a first look, modified by the options.

    Raises:
        InputError: Both are given, an option is unknown (with close names), or a value cannot be used.
    """
    if spec is None:
        return MeasureSpec(**options)
    if isinstance(spec, str) and spec == "quick":
        return _quick_spec(options)
    if options:
        raise InputError(f"spec and {', '.join(sorted(options))} are both given; put everything into one of them")
    if not isinstance(spec, MeasureSpec):
        raise InputError(f"spec is {spec!r:.80}; expected a kagscope.MeasureSpec, or 'quick' for a first look")
    return spec


def _quick_spec(options: Mapping[str, Any]) -> MeasureSpec:
    """Spec of a first look: few points and rows, and for images all pairs and the two smaller balls."""
    spec = MeasureSpec(**(QUICK | dict(options)))
    if spec.image_shape is None or options.get("selections") is not None:
        return spec
    return spec.with_(selections=(All(), *(Ball(size) for size in scales(spec.image_shape)[:2])))


__all__ = ["Budget", "Layers", "MeasureSpec", "ScoreFunction", "spec_from"]
