"""Linear model with a random intercept for groups of networks, and fallbacks where it cannot be fitted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kagscope.studies.statistics.student import Array

Groups = NDArray[np.int64]
BOUNDARY = 1e-4  # ratio of intercept to residual variance below which it counts as 0
NO_ERROR = 1e-9  # standard error, for values of standard deviation 1, at which the model fits every net exactly
SINGULAR, FAILED, EXPLAINED = "singular", "failed", "the model explains every net"

Fit = tuple[Array, Array, Array, str]
"""Effects, standard errors and degrees of freedom of the columns of a design, and the name of the model."""


def fit_random_intercepts(values: Array, design: Array, groups: Groups, name: str) -> Fit | str:
    """Fit ``values`` of nets by fixed effects and a random intercept per group, by restricted maximum likelihood.

    As statsmodels' MixedLM, with between-within degrees of freedom (Schluchter & Elashoff 1990). If the intercepts have no
    variance or no two nets share a group, ordinary least squares; if the fit fails, least squares with errors
    clustered by group.

    Args:
        values: (nets,) of standard deviation about 1; NaN are left out.
        design: (nets, columns) fixed effects.
        groups: (nets,) index of the group of each net.
        name: name of a group.

    Returns:
        The fit, or the reason why there is none.
    """
    defined = np.isfinite(values)
    y, X = values[defined], design[defined]
    if y.size <= X.shape[1] + 1 or np.linalg.matrix_rank(X) < X.shape[1]:
        return "too few nets for the model" if y.size else ""
    if y.std() <= 1e-12 * np.abs(y).max():
        return "all values are equal"
    return _fit(y, X, groups[defined], name)


def _fit(y: Array, X: Array, group: Groups, name: str) -> Fit | str:
    """Fit of the mixed model or a fallback, or the reason why there is none."""
    start = np.linalg.lstsq(X, y, rcond=None)[0]  # subtracted first, to avoid cancellation in sums of squares
    fit = _fit_rest(y - X @ start, X, group, name)
    return fit if isinstance(fit, str) else (start + fit[0], *fit[1:])


def _fit_rest(y: Array, X: Array, group: Groups, name: str) -> Fit | str:
    groups = np.unique(group).size
    if groups == len(y) or groups < 2:
        return _plain(y, X, f"least squares: no two nets share the {name}" if groups > 1 else f"least squares: one {name}")
    mixed = _fit_reml(y, X, group, f"MixedLM, random intercept of {groups} {name}s")
    if isinstance(mixed, tuple) or mixed == EXPLAINED:
        return mixed
    if mixed == SINGULAR:
        return _plain(y, X, f"least squares: MixedLM finds no variance between {groups} {name}s")
    from statsmodels.regression.linear_model import OLS  # slow import, 1 s

    robust = OLS(y, X).fit(cov_type="cluster", cov_kwds={"groups": group})
    freedom = np.full(X.shape[1], groups - 1.0)
    with np.errstate(invalid="ignore"):  # for variances rounded below 0
        errors = robust.bse
    return robust.params, errors, freedom, f"least squares, errors by cluster: MixedLM of {groups} {name}s did not converge"


def _plain(y: Array, X: Array, test: str) -> Fit:
    inverse, freedom = np.linalg.pinv(X), float(len(y) - X.shape[1])
    effects = inverse @ y
    errors = np.linalg.norm(inverse, axis=1) * np.linalg.norm(y - X @ effects) / freedom**0.5
    return effects, errors, np.full(X.shape[1], freedom), test


def _fit_reml(y: Array, X: Array, group: Groups, test: str) -> Fit | str:
    """Restricted maximum likelihood over one number, the ratio of intercept to residual variance.

    With V = I + ratio Z Z^T, whose inverse and determinant split by group, the log-likelihood up to constants is
    -1/2 ((n - p) ln RSS + ln det V + ln det X^T V^-1 X) (Harville 1977); at least ten times faster than statsmodels' MixedLM.
    """
    _, first, member, sizes = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    n, p = X.shape
    Z = np.eye(len(sizes))[member]
    residuals = y - np.column_stack([X, Z]) @ np.linalg.lstsq(np.column_stack([X, Z]), y, rcond=None)[0]
    if not residuals @ residuals / (n - p) > NO_ERROR**2:
        return EXPLAINED
    columns, sums = np.column_stack([X, y]), Z.T @ np.column_stack([X, y])

    gram = columns.T @ columns

    def products(ratios: Array) -> Array:
        """(ratios, p + 1, p + 1) products of the columns of X and y with V^-1."""
        shares = ratios[:, None] / (1 + ratios[:, None] * sizes)
        return np.asarray(gram - (sums.T * shares[:, None]) @ sums)

    def costs(logs: Array) -> Array:
        ratios = np.exp(logs)
        both = products(ratios)
        (sign, size), (_, of_X) = np.linalg.slogdet(both), np.linalg.slogdet(both[:, :p, :p])
        with np.errstate(invalid="ignore"):
            rss = np.where(sign > 0, size - of_X, -np.inf)  # of the determinants' quotient
            return np.asarray((n - p) * rss + np.log1p(ratios[:, None] * sizes).sum(axis=1) + of_X)

    grid = np.linspace(np.log(BOUNDARY) - 2, -2 * np.log(BOUNDARY), 57)
    best = int(np.clip(np.argmin(costs(grid)), 1, len(grid) - 2))
    while (step := grid[1] - grid[0]) > 1e-4:
        grid = np.linspace(grid[best] - step, grid[best] + step, 33)
        best = int(np.clip(np.argmin(costs(grid)), 1, len(grid) - 2))
    low, middle, high = costs(grid[best - 1 : best + 2])
    bend = low - 2 * middle + high  # of a parabola, as the minimum of the costs themselves is lost in rounding
    ratio = float(np.exp(grid[best] + np.clip((low - high) / (2 * bend) if 0 < bend < np.inf else 0.0, -1, 1) * step))
    if not ratio > BOUNDARY:
        return SINGULAR
    (both,) = products(np.array([ratio]))
    try:
        effects: Array = np.asarray(np.linalg.solve(both[:p, :p], both[:p, p]), dtype=np.float64)
        inverse = np.linalg.inv(both[:p, :p])
    except np.linalg.LinAlgError:
        return FAILED
    scale = float(both[p, p] - both[:p, p] @ effects) / (n - p)
    errors: Array = np.sqrt(np.maximum(np.diagonal(inverse), 0.0) * max(scale, 0.0))
    if not np.isfinite(errors).all():
        return FAILED
    between = (X[first][member] == X).all(axis=0)  # columns that are constant within every group
    freedom = np.where(between, len(sizes) - between.sum(), n - len(sizes) - (~between).sum())
    return effects, errors, freedom.astype(float), test
