"""Scores of the units of a layer over all points at once: units that are constant everywhere, units that the output ignores."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

from kagscope.registry import register

ROUNDING = float(np.finfo(np.float32).eps)


@register("constant_units", "constant units", ("row_norms", "threshold"), source="arXiv 2511.21626; MATH.md 3")
def constant_units(row_norms: Float64[np.ndarray, "points m"], threshold: float) -> float:
    """Number of units with a zero row at every point: a mean of |J| at or below ``threshold``; ``row_norms`` (P, m)."""
    return float((row_norms <= threshold).all(axis=0).sum())


@register(
    "constant_share",
    "share of constant rows",
    ("row_norms", "threshold"),
    source="arXiv 2511.21626; MATH.md 3",
    fraction=True,
)
def constant_share(row_norms: Float64[np.ndarray, "points m"], threshold: float) -> float:
    """Share of the (unit, point) pairs whose row is a zero row."""
    return float((row_norms <= threshold).mean())


@register("constant_units_exact", "units constant to rounding", ("row_norms",), source="MATH.md 3")
def constant_units_exact(row_norms: Float64[np.ndarray, "points m"]) -> float:
    """Number of units whose slope is, at every point, below float32 rounding relative to the layer's largest."""
    return float(lost_in_rounding(row_norms).sum())


@register("unfelt_units", "unfelt units", ("output_slopes", "threshold"), source="arXiv 2511.21626; MATH.md 3")
def unfelt_units(output_slopes: Float64[np.ndarray, "points n"], threshold: float) -> float:
    """Number of units with a zero column in d output / d layer at every point; ``output_slopes`` (P, n)."""
    return float((output_slopes <= threshold).all(axis=0).sum())


@register(
    "unfelt_share",
    "share of unfelt units",
    ("output_slopes", "threshold"),
    source="arXiv 2511.21626; MATH.md 3",
    fraction=True,
)
def unfelt_share(output_slopes: Float64[np.ndarray, "points n"], threshold: float) -> float:
    """Share of the (unit, point) pairs whose column is zero."""
    return float((output_slopes <= threshold).mean())


@register("unfelt_units_exact", "units unfelt to rounding", ("output_slopes",), source="MATH.md 3")
def unfelt_units_exact(output_slopes: Float64[np.ndarray, "points n"]) -> float:
    """Number of units whose slope is, at every point, below float32 rounding relative to the layer's largest."""
    return float(lost_in_rounding(output_slopes).sum())


def lost_in_rounding(slopes: Float64[np.ndarray, "points m"]) -> Bool[np.ndarray, " m"]:
    """(m,) bool, units whose slope (P, m) is, at every point, below the rounding of float32 relative to the layer's largest."""
    return np.asarray((slopes <= ROUNDING * slopes.max()).all(axis=0))
