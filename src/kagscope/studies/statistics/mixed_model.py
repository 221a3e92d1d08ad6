"""Linear model with a random intercept for networks that belong together, and what stands in for it where it cannot be fitted."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from kagscope.studies.statistics.student import Array

Groups = NDArray[np.int64]
BOUNDARY = 1e-4  # variance of the intercepts over that of the rest, below which it counts as 0
NO_ERROR = 1e-9  # standard error of numbers of standard deviation 1: the model explains every net
SINGULAR, FAILED, EXPLAINED = "singular", "failed", "the model explains every net"

Fit = tuple[Array, Array, Array, str]
"""Effects, standard errors and degrees of freedom of the columns of a design, and what was fitted."""


def fit_random_intercepts(values: Array, design: Array, groups: Groups, name: str) -> Fit | str:
    """Fit ``values`` of nets by a design and a random intercept of each group, by restricted maximum likelihood.

    Statsmodels' MixedLM with between-within degrees of freedom (Schluchter & Elashoff 1990). Where the intercepts have no
    variance or no two nets share a group, plain least squares; where MixedLM does not converge, least squares with errors
    clustered by group.

    Args:
        values: (nets,), of standard deviation about 1; NaN are left out.
        design: (nets, columns) fixed effects.
        groups: (nets,) number of the group of each net.
        name: what a group is called.

    Returns:
        The fit, or why there is none.
    """
    defined = np.isfinite(values)
    y, X = values[defined], design[defined]
    if y.size <= X.shape[1] + 1 or np.linalg.matrix_rank(X) < X.shape[1]:
        return "too few nets for the model" if y.size else ""
    if y.std() <= 1e-12 * np.abs(y).max():
        return "all values are equal"
    return _fitted(y, X, groups[defined], name)


def _fitted(y: Array, X: Array, group: Groups, name: str) -> Fit | str:
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


def _mixed(y: Array, X: Array, group: Groups, test: str) -> Fit | str:
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
