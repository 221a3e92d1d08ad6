"""What was measured of one network at one step: scores by layer, order, selection and name, moments, row means."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from kagscope.minors import moment_scores
from kagscope.minors.moments import Moments
from kagscope.wanted import NEEDS

MOMENT_SCORES = ("pr", "pr_normalized", "effective_minors", "ipr", "kl_uniform")
ATTRIBUTES = dict(zip(MOMENT_SCORES, ("participation_ratio", *MOMENT_SCORES[1:]), strict=True))
WHOLE = -1  # the point of a score of a layer over many points
ALL_ZERO = "undefined: every minor is zero"

Key = tuple[str, int, str, str]
"""(layer, k, selection, score)."""


class Values(NamedTuple):
    """One score at some points: ``points``, ``values`` and standard errors ``stderr`` (P,), and why a value may be undefined."""

    points: np.ndarray
    values: np.ndarray
    stderr: np.ndarray
    exact: bool
    reason: str

    @classmethod
    def of(cls, points: Any, values: Any, stderr: Any = 0.0, exact: bool = True, reason: str = ALL_ZERO) -> Values:
        """From scalars or arrays, broadcast."""
        found = np.atleast_1d(np.asarray(values, dtype=np.float64))
        return cls(np.asarray(points), found, np.broadcast_to(np.asarray(stderr, dtype=np.float64), found.shape), exact, reason)


@dataclass
class State:
    """What was measured of one network at one step, kept to be compared with its initial state.

    Attributes:
        points: (P,) indices of the test images whose Jacobians were measured; smaller sets are its first ones.
        scores: values by (layer, k, selection, score).
        visited: moments with histogram of each point where every minor was looked at, the first ones, by (layer, k, selection).
        row_means: row means of the k-minor matrix at the first points, (P, rows), by (layer, k).
        activations: (N, m) of ``layer_points`` test images, by layer.
        row_norms: row means of |J| at the same images, (N, m), by layer; empty unless measured in full.
        output_slopes: largest |d output / d unit| at the same images, (N, m), by layer; empty unless measured in full.
    """

    points: np.ndarray
    scores: dict[Key, Values] = field(default_factory=dict)
    visited: dict[tuple[str, int, str], list[Moments]] = field(default_factory=dict)
    row_means: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    activations: dict[str, np.ndarray] = field(default_factory=dict)
    row_norms: dict[str, np.ndarray] = field(default_factory=dict)
    output_slopes: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, key: Key, points: Any, values: Any, stderr: Any = 0.0, exact: bool = True, reason: str = ALL_ZERO) -> None:
        """Record a score; the same score at further points is appended."""
        new = Values.of(points, values, stderr, exact, reason)
        old = self.scores.get(key)
        if old is not None:
            points, values, errors = (np.concatenate(pair) for pair in zip(old[:3], new[:3], strict=True))
            new = Values(points, values, errors, exact and old.exact, reason)
        self.scores[key] = new


def record(state: State, layer: str, rows: int, selection: str, points: np.ndarray, found: Moments) -> None:
    """The scores that these moments allow, with their standard errors, and the number of column subsets of the selection."""
    k, exact, errors = found.k, found.exact, found.stderr
    reason = "undefined: no column subset in this selection" if found.count == 0 else ALL_ZERO
    for score, attribute in ATTRIBUTES.items():
        if not set(NEEDS[score]) <= set(found.sums):
            continue
        state.add((layer, k, selection, score), points, getattr(found, attribute), errors.get(attribute, 0.0), exact, reason)
    if found.bins is not None:
        state.add(
            (layer, k, selection, "near_zero"), points, found.near_zero, moment_scores.near_zero_error(found), exact, reason
        )
    if "top" in found.sums:
        state.add((layer, k, selection, "top"), points, found.top, errors.get("top", 0.0 if exact else np.nan), exact, reason)
    subsets = float(found.count // math.comb(rows, k))
    state.scores[layer, k, selection, "column_subsets"] = Values.of([WHOLE], subsets)
