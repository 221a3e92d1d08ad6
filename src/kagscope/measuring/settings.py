"""What to measure of a model, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import nn

from kagscope.base.errors import InputError
from kagscope.columns.selections import All, Selection, as_selections
from kagscope.jacobians.compute import FLAT, Tokens
from kagscope.jacobians.layers import Layers
from kagscope.jacobians.maps import KINDS
from kagscope.measuring.own_scores import Score, check_scores

MODES = ("eval", "train")
PRECISIONS = ("float64", "model")
MAX_K = 6


@dataclass(frozen=True)
class MeasureSettings:
    """How a model is measured; see :func:`kagscope.measure` for what each means.

    Raises:
        InputError: a value that cannot be used.
    """

    layers: Layers = None
    layer_map: str = "input"
    k: tuple[int, ...] = (1, 2)
    selections: tuple[Selection, ...] = (All(),)
    image_shape: tuple[int, int] | None = None
    positions: Any = None
    groups: Any = None
    tokens: Tokens = None
    mode: str = "eval"
    precision: str = "float64"
    max_rows: int = 512
    visited_minors: float = 1e9
    rotation_points: int = 2
    rel_error: float = 0.01
    zero_row_quantile: float = 0.01
    memory_budget: int = 2**30
    seed: int = 0
    scores: Mapping[str, Score] = field(default_factory=dict)
    jacobian_scores: Mapping[str, Score] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _choice("layer_map", self.layer_map, KINDS)
        _choice("mode", self.mode, MODES)
        _choice("precision", self.precision, PRECISIONS)
        k: Any = self.k
        orders = tuple(k) if isinstance(k, list | tuple | range) else (k,)
        if not orders or any(isinstance(one, bool) or not isinstance(one, int) or not 1 <= one <= MAX_K for one in orders):
            raise InputError(f"k is {self.k!r}; expected whole numbers from 1 to {MAX_K}, such as (1, 2)")
        object.__setattr__(self, "k", tuple(sorted(set(orders))))
        given: Any = self.selections
        found, _ = as_selections(given)
        object.__setattr__(self, "selections", tuple(found))
        for option in ("scores", "jacobian_scores"):
            object.__setattr__(self, option, check_scores(option, getattr(self, option)))
        if twice := self.scores.keys() & self.jacobian_scores.keys():
            raise InputError(
                f"scores and jacobian_scores both have {', '.join(sorted(twice))}; give each score a name of its own"
            )
        if not (isinstance(self.tokens, str) and self.tokens == FLAT) and not _are_tokens(self.tokens):
            raise InputError(f"tokens is {self.tokens!r}; expected None, a number, a list of indices, or 'flat'")
        for name, least in (("max_rows", 2), ("memory_budget", 2**20), ("rotation_points", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} is {value!r}; expected a whole number of at least {least}")
        for name in ("rel_error", "zero_row_quantile"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < 1:
                raise InputError(f"{name} is {value!r}; expected a number between 0 and 1")

    def as_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        plain = asdict(self) | {"selections": [str(selection) for selection in self.selections]}
        plain = {name: list(value) if isinstance(value, tuple | range | np.ndarray) else value for name, value in plain.items()}
        plain["layers"] = _said(self.layers)
        plain |= {name: sorted(plain[name]) for name in ("scores", "jacobian_scores")}
        for name in ("positions", "groups"):
            plain[name] = None if plain[name] is None else "given"
        return plain


def _are_tokens(tokens: Any) -> bool:
    several = isinstance(tokens, list | tuple | range | np.ndarray)
    return tokens is None or all(
        isinstance(one, int | np.integer) and not isinstance(one, bool) for one in (tokens if several else [tokens])
    )


def _said(layers: Layers) -> Any:
    if layers is None or isinstance(layers, str):
        return layers
    if isinstance(layers, type):
        return layers.__name__
    return [one.__name__ if isinstance(one, type) and issubclass(one, nn.Module) else str(one) for one in layers]


def _choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")
