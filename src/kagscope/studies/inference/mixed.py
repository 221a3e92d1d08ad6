"""Mixed models over all nets of a study: effects of what was varied, with a random intercept for nets that belong together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from kagscope.studies.inference.nets import Indices, Nets
from kagscope.studies.statistics import Array

SHAPING = ("width", "widths", "depth", "activation", "init", "init_scale")  # axes that change the untrained net
INDICATORS_UP_TO = 8  # values of a number that enter one by one; beyond, a straight line
COLUMNS = ("mixed_effect", "mixed_low", "mixed_high", "mixed_p_value", "mixed_n", "mixed_test")
NOTHING = (np.nan,) * 4
BOUNDARY = 1e-4  # variance of the intercepts over that of the rest, below which it counts as 0
NO_ERROR = 1e-9  # standard error of numbers of standard deviation 1: the model explains every net
SINGULAR, FAILED, EXPLAINED = "singular", "failed", "the model explains every net"


Fit = tuple[Array, Array, Array, str]
"""Effects, standard errors and degrees of freedom of the columns of a design, and what was fitted."""
Fits = dict[tuple[str, tuple[str, ...], bytes], Fit | str]
"""Fits done so far, or why there is none: of a kind of group, the columns and the numbers."""


def mixed_effects(nets: Nets, axis: str, done: Fits) -> list[pd.DataFrame]:
    """Effects of the categories of an axis against the first in one model of all nets.

    Fixed effects: this axis and all others that can be told from it (names and up to eight values of a number by indicators,
    other numbers by a straight line). Random intercept: the untrained net, which nets of one seed and equal shape share; where no
    two nets do, the seed. (An intercept of the seed alone would count the nets of one untrained net as so many.)
    Fitted by restricted maximum likelihood (statsmodels MixedLM); p-values and intervals by Student's t with between-within
    degrees of freedom (Schluchter & Elashoff 1990). Windows, the many maps of one score, have none.

    Args:
        nets: of the study.
        axis: the one of interest.
        done: fits that other axes share, added to.

    Returns:
        For each category but the first ``COLUMNS``, one row per key.
    """
    design, names = _design(nets, axis)
    groups, name = nets.codes(["seed", *(other for other in SHAPING if other in nets.axes)]), "untrained net"
    if np.unique(groups).size == groups.size:
        groups, name = nets.codes(["seed"]), "seed"
    wanted = [names.index(f"{axis}={level}") for level in nets.levels(axis)[1:]]
    rows = []
    for values, kind in zip(nets.means, nets.keys["kind"], strict=True):
        fit: Fit | str = ""
        unit, scale = _standardised(values)
        if kind != "window":
            key = (name, tuple(names), unit.tobytes())
            if key not in done:
                done[key] = _fit(unit, design, groups, name)
            fit = done[key]
        rows.append([_row(fit, column, int(np.isfinite(values).sum()), scale) for column in wanted])
    return [pd.DataFrame([row[place] for row in rows], columns=list(COLUMNS)) for place in range(len(wanted))]


def _standardised(values: Array) -> tuple[Array, float]:
    """Values of standard deviation 1 and the factor: many scores are others in other units, and are fitted once."""
    defined = values[np.isfinite(values)]
    spread = float(defined.std()) if defined.size else 0.0
    if not defined.size or spread <= 1e-12 * np.abs(defined).max():
        return values, 1.0
    scale = spread * float(np.sign(defined[np.abs(defined).argmax()]))
    return np.round(values / scale, 10), scale


def _design(nets: Nets, axis: str) -> tuple[Array, list[str]]:
    """(nets, columns) fixed effects without linear dependence, and their names; ``axis`` comes first where that matters."""
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
    half = stats.t.isf(0.025, df) * error
    return effect, effect - half, effect + half, 2 * stats.t.sf(abs(effect / error), df), n, f"{test}; t, {df:.0f} df"


def _fit(values: Array, design: Array, groups: Indices, name: str) -> Fit | str:
    defined = np.isfinite(values)
    y, X = values[defined], design[defined]
    if y.size <= X.shape[1] + 1 or np.linalg.matrix_rank(X) < X.shape[1]:
        return "too few nets for the model" if y.size else ""
    if y.std() <= 1e-12 * np.abs(y).max():
        return "all values are equal"
    return _fitted(y, X, groups[defined], name)


def _fitted(y: Array, X: Array, group: Indices, name: str) -> Fit | str:
    """The mixed model, what stands in for it, or why nothing does."""
    from statsmodels.regression.linear_model import OLS

    groups = np.unique(group).size
    if groups == len(y) or groups < 2:
        return _plain(y, X, f"least squares: no two nets share the {name}" if groups > 1 else f"least squares: one {name}")
    mixed = _mixed(y, X, group, f"MixedLM, random intercept of {groups} {name}s")
    if isinstance(mixed, tuple) or mixed == EXPLAINED:
        return mixed
    if mixed == SINGULAR:
        return _plain(y, X, f"least squares: MixedLM finds no variance between {groups} {name}s")
    robust = OLS(y, X).fit(cov_type="cluster", cov_kwds={"groups": group})
    freedom = np.full(X.shape[1], groups - 1.0)
    with np.errstate(invalid="ignore"):  # of variances that round to less than 0
        errors = robust.bse
    return robust.params, errors, freedom, f"least squares, errors by cluster: MixedLM of {groups} {name}s did not converge"


def _plain(y: Array, X: Array, test: str) -> Fit:
    from statsmodels.regression.linear_model import OLS

    fitted = OLS(y, X).fit()
    with np.errstate(invalid="ignore"):  # of variances that round to less than 0
        errors = fitted.bse
    return fitted.params, errors, np.full(X.shape[1], float(len(y) - X.shape[1])), test


def _mixed(y: Array, X: Array, group: Indices, test: str) -> Fit | str:
    from statsmodels.regression.mixed_linear_model import MixedLM

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # what they say is looked at here
        try:
            fitted = MixedLM(y, X, group).fit(reml=True, method="powell")  # lbfgs ends in singular matrices
            if not fitted.scale > NO_ERROR**2:
                return EXPLAINED
            variance, errors = float(fitted.cov_re[0, 0]) / float(fitted.scale), np.asarray(fitted.bse_fe)
        except (np.linalg.LinAlgError, ValueError):
            return FAILED
    if not fitted.converged:
        return FAILED
    if not variance > BOUNDARY:
        return SINGULAR
    if not np.isfinite(errors).all():
        return FAILED
    _, first, member = np.unique(group, return_index=True, return_inverse=True)
    between = (X[first][member] == X).all(axis=0)  # columns that are the same within every group
    groups = np.unique(group).size
    freedom = np.where(between, groups - between.sum(), len(y) - groups - (~between).sum())
    return np.asarray(fitted.fe_params), errors, freedom.astype(float), test
