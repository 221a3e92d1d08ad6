"""Mixed models over all nets of a study: effects of the axes, with a random intercept for groups of nets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kagscope.studies.nets import Nets
from kagscope.studies.statistics.mixed_model import EXPLAINED, NO_ERROR, Fit, fit_random_intercepts
from kagscope.studies.statistics.student import Array, Estimate, t_interval, t_test

SHAPING = (
    "width",
    "widths",
    "depth",
    "activation",
    "init",
    "init_scale",
    "first_layer",
    "first_layer_data",
)  # axes that change the untrained net
INDICATORS_UP_TO = 8  # values of a number that enter as indicators; more enter as a straight line
COLUMNS = ("mixed_effect", "mixed_low", "mixed_high", "mixed_p_value", "mixed_n", "mixed_test")
NOTHING = (np.nan,) * 4

Fits = dict[tuple[str, tuple[str, ...], bytes], Fit | str]
"""Fits so far, or reasons why there is none, by kind of group, columns and numbers."""


def mixed_effects(nets: Nets, axis: str, done: Fits) -> list[pd.DataFrame]:
    """Effects of the categories of an axis against the first in one model of all nets.

    Fixed effects: this axis and all others that can be distinguished from it (names and up to eight numbers by indicators,
    other numbers by a straight line). Random intercept: the untrained net, which nets of one seed and equal shape share; if no
    two nets do, the seed. (An intercept of the seed alone would count nets that share an untrained net as independent.)
    Fitted by :func:`~kagscope.studies.statistics.mixed_model.fit_random_intercepts`; p-values and intervals by Student's t.
    Windows, the many maps of one score, are left out.

    Args:
        nets: of the study.
        axis: the axis of interest.
        done: fits shared with other axes, to which new ones are added.

    Returns:
        For each category but the first, ``COLUMNS`` with one row per key.
    """
    design, names = _design(nets, axis)
    groups, name = nets.codes(["seed", *(other for other in SHAPING if other in nets.axes)]), "untrained net"
    if np.unique(groups).size == groups.size:
        groups, name = nets.codes(["seed"]), "seed"
    columns = [names.index(f"{axis}={level}") for level in nets.levels(axis)[1:]]
    rows = []
    for values, kind in zip(nets.means, nets.keys["kind"], strict=True):
        fit: Fit | str = ""
        unit, scale = _standardise(values)
        if kind != "window":
            key = (name, tuple(names), unit.tobytes())
            if key not in done:
                done[key] = fit_random_intercepts(unit, design, groups, name)
            fit = done[key]
        rows.append([_row(fit, column, int(np.isfinite(values).sum()), scale) for column in columns])
    return [pd.DataFrame([row[i] for row in rows], columns=list(COLUMNS)) for i in range(len(columns))]


def empty_effects(nets: Nets) -> pd.DataFrame:
    """Empty columns in place of effects that are not requested."""
    return pd.DataFrame([(*NOTHING, 0, "")] * len(nets.keys), columns=list(COLUMNS))


def _standardise(values: Array) -> tuple[Array, float]:
    """Values scaled to standard deviation 1, and the factor: scores that differ only in units are fitted once."""
    defined = values[np.isfinite(values)]
    spread = float(defined.std()) if defined.size else 0.0
    if not defined.size or spread <= 1e-12 * np.abs(defined).max():
        return values, 1.0
    scale = spread * float(np.sign(defined[np.abs(defined).argmax()]))
    return np.round(values / scale, 10), scale


def _design(nets: Nets, axis: str) -> tuple[Array, list[str]]:
    """(nets, columns) linearly independent fixed effects and their names; ``axis`` takes precedence."""
    full = _columns(nets, nets.axes)
    matrix = np.column_stack(list(full.values()))
    if np.linalg.matrix_rank(matrix) == matrix.shape[1]:
        return matrix, list(full)
    kept: dict[str, Array] = {}
    for name, column in _columns(nets, [axis, *(other for other in nets.axes if other != axis)]).items():
        if np.linalg.matrix_rank(np.column_stack([*kept.values(), column])) > len(kept):
            kept[name] = column
    return np.column_stack(list(kept.values())), list(kept)


def _columns(nets: Nets, axes: Sequence[str]) -> dict[str, Array]:
    columns: dict[str, Array] = {"1": np.ones(len(nets.runs))}
    for axis in axes:
        levels = nets.levels(axis)
        if nets.numeric(axis) and len(levels) > INDICATORS_UP_TO:
            numbers = nets.runs[axis].to_numpy(dtype=float)
            columns[axis] = (numbers - numbers.mean()) / numbers.std()
        else:
            text = nets.runs[axis].astype(str)
            columns |= {f"{axis}={level}": np.asarray(text == str(level), dtype=float) for level in levels[1:]}
    return columns


def _row(fit: Fit | str, column: int, n: int, scale: float) -> tuple[Any, ...]:
    """``COLUMNS`` of one column of the design, in the units of the values."""
    if isinstance(fit, str):
        return (*NOTHING, n, fit)
    effects, errors, freedom, test = fit
    effect, error, df = float(effects[column]) * scale, float(errors[column]) * abs(scale), float(freedom[column])
    if not errors[column] > NO_ERROR or df < 1:
        return (effect, *NOTHING[1:], n, EXPLAINED)
    estimate = Estimate(effect, error, df)
    low, high = t_interval(estimate)
    return effect, float(low), float(high), float(t_test(estimate)), n, f"{test}; t, {df:.0f} df"
