"""Draw means with their intervals against x, a line for each hue.

A figure brings its table into columns ``x``, ``mean``, ``low``, ``high``, ``hue`` (:func:`tidy`), chooses the look of
each hue, and labels the axes; panels are arranged by :mod:`kagscope.figures.panels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from kagscope.figures.labels import is_fraction, short_label
from kagscope.figures.line_styles import layer_looks
from kagscope.figures.style import interval_lengths, legend_above, new_axes, reference_line, width_for

NUDGE = 0.012  # share of the axis between the bars of neighbouring lines, so that they do not overlap
GEOMETRIC = 20.0  # ratio of last to first step from which an axis of steps is logarithmic
START = {"ratio": 1.0, "difference": 0.0}  # value for a network that is its own baseline
OVER = {"ratio": " / ", "difference": " − "}


def tidy(table: pd.DataFrame, x: str, measure: str, hue: str | Sequence[str]) -> pd.DataFrame:
    """Rows with a mean, sorted by x: ``x``, ``mean``, ``low``, ``high`` (NaN without interval), ``hue``.

    Args:
        table: column ``measure``, and absolute ``measure_low`` and ``measure_high`` if intervals are known.
        x, measure: columns of the table.
        hue: column whose value identifies the line; for several columns, the tuple of their values.
    """
    ends = {end: table.get(f"{measure}_{end}", pd.Series(np.nan, table.index)) for end in ("low", "high")}
    names: Any = table[hue] if isinstance(hue, str) else list(zip(*(table[name] for name in hue), strict=True))
    numbers = {"x": table[x], "mean": table[measure], **ends}
    frame = pd.DataFrame({name: column.astype(float) for name, column in numbers.items()}).assign(hue=names)
    return frame[frame["mean"].notna()].sort_values("x")


def draw_means(ax: Axes, means: pd.DataFrame, looks: Mapping[Any, Mapping[str, Any]], *, bands: bool = False) -> None:
    """Draw a line for each hue in ``looks``, with its interval as bars, side by side, or as a band.

    Args:
        ax: where to draw.
        means: result of :func:`tidy`.
        looks: Matplotlib keywords of the line by hue, in the order of the legend.
        bands: bands, for many close x; else bars.
    """
    lines = dict(iter(means.groupby("hue", sort=False, observed=True)))
    low, high = (means["x"].min(), means["x"].max()) if len(means) else (0.0, 0.0)
    for i, (hue, look) in enumerate(looks.items()):
        if hue not in lines:
            continue
        line = lines[hue]
        if bands:
            ax.plot(line["x"], line["mean"], **({"markersize": 3, "markeredgewidth": 0.8} | dict(look)))
            ax.fill_between(line["x"], line["low"], line["high"], color=look["color"], alpha=0.15, linewidth=0)
            continue
        shift = NUDGE * (i - (len(looks) - 1) / 2)
        x = _shift_positions(ax, line["x"], shift, low, high)
        ax.errorbar(x, line["mean"], interval_lengths(line), **({"elinewidth": 0.9} | dict(look)))


def draw_layers(ax: Axes | None, means: pd.DataFrame, score: str, measure: str, k: int, xlabel: str) -> Axes:
    """:func:`draw_means` of one model in new axes, a line for each layer: its hue."""
    looks = layer_looks(means["hue"])
    ax = new_axes(ax, width_for(len(looks)))
    draw_means(ax, means, looks)
    if measure == "ratio":
        reference_line(ax, 1.0)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(measure_label(score, measure, k, names=("model", "baseline")))
    legend_above(ax, len(looks))
    return ax


def _shift_positions(ax: Axes, x: pd.Series[float], shift: float, low: float, high: float) -> pd.Series[float]:
    """Shift ``x`` by a share of the axis, on the axis's scale."""
    scale = ax.xaxis.get_transform()
    first, last = scale.transform(np.array([low, high], dtype=float))
    return pd.Series(scale.inverted().transform(scale.transform(x.to_numpy(dtype=float)) + shift * (last - first)), index=x.index)


def draw_by_step(ax: Axes, means: pd.DataFrame, looks: Mapping[Any, Mapping[str, Any]], score: str, measure: str) -> None:
    """:func:`draw_means` against the training step, with the reference line "as at initialisation"."""
    draw_means(ax, means, looks, bands=True)
    start = START.get(measure, 1.0 if score.startswith("rr_") else None)
    if start is not None:
        reference_line(ax, start)
    step_axis(ax, np.unique(means["x"].to_numpy()))
    ax.set_xlabel("training step")
    if measure in ("value", "baseline") and (is_fraction(score) or (score == "accuracy" and means["mean"].min() >= 0)):
        cut_to_fraction(ax)
    elif score == "accuracy":  # R², which may be far below 0 for an untrained network
        ax.set_ylim(bottom=max(ax.get_ylim()[0], -0.3), auto=None)


def step_axis(ax: Axes, steps: np.ndarray) -> None:
    """Make the step axis logarithmic with room for 0 if steps grow geometrically, else linear."""
    positive = steps[steps > 0]
    even = len(steps) > 2 and np.ptp(np.diff(steps)) <= 0.5 * np.diff(steps).mean()
    if even or len(positive) < 2 or positive[-1] / positive[0] < GEOMETRIC:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        return
    first, last = float(positive[0]), float(positive[-1])
    ax.set_xscale("symlog", linthresh=first, linscale=0.6)
    decades = [10.0**e for e in range(int(np.ceil(np.log10(first))), int(np.floor(np.log10(last))) + 1)]
    name_ticks(ax.xaxis, [0.0, *(decades if len(decades) > 1 else (first, last))])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace(",", "\u2009")))
    ax.set_xlim(-0.12 * first, last * 1.25)


def name_ticks(axis: Axis, places: Sequence[float]) -> None:
    """Set ticks at these positions only, labelled with their numbers."""
    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def cut_to_fraction(ax: Axes) -> None:
    """Limit the axis of a fraction to [0, 1], which its Student's t interval may exceed."""
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, -0.02 * min(high, 1.0)), min(high, 1.02), auto=None)


def measure_label(score: str, measure: str, k: int = 0, names: tuple[str, str] = ("trained", "initial"), sep: str = ",\n") -> str:
    """Label of an axis: the score, its order unless clear from the figure, and the quantities of the ratio or difference."""
    if score == "accuracy":
        return "test accuracy"
    order = f", k = {k}" if k else ""
    reference = OVER[measure].join(names) if measure in OVER else names[1] if measure == "baseline" else ""
    return f"{short_label(score)}{order}" + (sep + reference.strip() if reference else "")
