"""All figures of a study into one folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from kagscope.base.errors import NothingToPlot
from kagscope.base.files import make_folder
from kagscope.figures import distributions, overview, scales, steps, windows
from kagscope.figures.study import study_means
from kagscope.figures.style import save_all
from kagscope.tables.means import curve_means, select

FORMATS = ("png", "pdf")


class Family(NamedTuple):
    """A figure of a study: file name, caption, function that draws it from (means over runs, curves, image shape), its curves."""

    name: str
    caption: str
    draw: Callable[[pd.DataFrame, pd.DataFrame, tuple[int, ...]], Figure]
    curve: str = ""


FAMILIES: tuple[Family, ...] = (
    Family(
        "pr_ratio_by_radius",
        "Participation ratio over that of the same net at initialisation, against the radius within which the columns of a minor "
        "lie (k = 2); “all” has no such limit. Means over seeds of means over test images, bars are 95% intervals over seeds; "
        "many trainings have a panel each.",
        lambda means, curves, shape: scales.figure_by_radius(means, shape),
    ),
    Family(
        "pr_ratio_by_distance",
        "Above, the same ratio against the least distance between the columns of a minor; "
        "below, how many pairs of columns satisfy it. Bars are 95% intervals over seeds.",
        lambda means, curves, shape: scales.figure_by_distance(means),
    ),
    Family(
        "scores_by_step",
        "Scores against training step (k = 2, all columns; 0 is the untrained net), and test accuracy. "
        "Bands are 95% intervals over seeds.",
        lambda means, curves, shape: steps.figure_scores_by_step(means),
    ),
    Family(
        "zipf",
        "Means of the rows of the k-minor matrix, ordered by rank, over the overall mean. Rows to the right of a dot are at "
        "or below the zero-row threshold, the value that 1% of the rows of the untrained net do not exceed. Bands are 95% "
        "intervals over seeds.",
        lambda means, curves, shape: distributions.figure_zipf(curves, means),
        "zipf",
    ),
    Family(
        "minor_histogram",
        "How large the minors are, relative to their mean, in bins of an eighth of an octave; "
        "left of the dashed line, minors that are exactly zero and those too small for the axis. Means over seeds.",
        lambda means, curves, shape: distributions.figure_minor_histogram(curves),
        "histogram",
    ),
    Family(
        "window_map",
        "Where in the image: participation ratio over that at initialisation, within a window around each pixel. "
        "Means over seeds.",
        lambda means, curves, shape: windows.figure_window_map(means, shape),
    ),
    Family(
        "scores_overview",
        "Every score over its value at initialisation (k = 2, all columns). Bars are 95% intervals over seeds; one that "
        "reaches 0 runs out at the left.",
        lambda means, curves, shape: overview.figure_scores_overview(means),
    ),
    Family(
        "k_comparison",
        "Participation ratio over that at initialisation against the order k of the minors. Bars are 95% intervals over seeds.",
        lambda means, curves, shape: scales.figure_k_comparison(means),
    ),
)


Drawing = Callable[[], Figure]


class Written(NamedTuple):
    """Files of one figure, or the reason why it could not be drawn."""

    files: list[Path]
    reason: str = ""


class WrittenFigures(list[Path]):
    """The files written; ``left_out`` has the reason for each figure that could not be drawn."""

    def __init__(self, figures: Mapping[str, Written]) -> None:
        super().__init__(file for written in figures.values() for file in written.files)
        self.left_out = {name: written.reason for name, written in figures.items() if written.reason}


def drawings(results: pd.DataFrame, curves: pd.DataFrame, image_shape: tuple[int, ...]) -> dict[str, Drawing]:
    """Functions that draw the figures of a study, which can be sent to another process."""
    means, averaged = study_means(results), curve_means(curves)
    return {f.name: partial(_draw, f.name, means, select(averaged, curve=f.curve), image_shape) for f in FAMILIES}


def _draw(name: str, means: pd.DataFrame, curves: pd.DataFrame, image_shape: tuple[int, ...]) -> Figure:
    return next(family for family in FAMILIES if family.name == name).draw(means, curves, image_shape)


def draw_figures(
    results: pd.DataFrame, curves: pd.DataFrame, image_shape: tuple[int, ...]
) -> tuple[dict[str, Figure], dict[str, str]]:
    """All figures that the tables allow, by name, and the reasons for the others' absence."""
    figures: dict[str, Figure] = {}
    left_out: dict[str, str] = {}
    for name, draw in drawings(results, curves, image_shape).items():
        try:
            figures[name] = draw()
        except NothingToPlot as reason:
            left_out[name] = str(reason)
    return figures, left_out


def write_figures(
    results: pd.DataFrame,
    curves: pd.DataFrame,
    folder: str | Path,
    image_shape: tuple[int, ...],
    progress: Callable[[str], None] | None = None,
    *,
    formats: Sequence[str] = FORMATS,
) -> WrittenFigures:
    """Draw every figure that the tables allow and write it.

    Args:
        results: the ``results`` table of :mod:`kagscope.tables.schema`, or means of it (:mod:`kagscope.figures.study`).
        curves: the ``curves`` table, or :func:`~kagscope.tables.means.curve_means` of it.
        folder: created if it does not exist.
        image_shape: (H, W) or (C, H, W) in pixels.
        progress: called with each figure's name before it is drawn.
        formats: any of "png" (200 dots per inch), "pdf" and "svg"; if empty, nothing is drawn and no folder created.

    Returns:
        The paths written; ``left_out`` has the reason for each figure that the tables do not allow.

    Raises:
        InputError: a table lacks columns, or an unknown format.
        OutputError: the folder cannot be written.
    """
    written: dict[str, Written] = {}
    if not formats:
        return WrittenFigures(written)
    make_folder(folder)
    for name, draw in drawings(results, curves, image_shape).items():
        if progress is not None:
            progress(name)
        written[name] = write_drawing(name, draw, folder, formats)
    return WrittenFigures(written)


def write_drawing(name: str, draw: Drawing, folder: str | Path, formats: Sequence[str] = FORMATS) -> Written:
    """Draw one figure and write it; raises as :func:`write_all`."""
    try:
        return Written(write_all({name: draw()}, folder, formats))
    except NothingToPlot as reason:
        return Written([], str(reason))


def write_all(figures: Mapping[str, Figure], folder: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write figures under their names into ``folder``, created if needed, and return the paths.

    Raises:
        InputError: an unknown format.
        OutputError: the folder cannot be written.
    """
    folder = make_folder(folder)
    return [path for name, figure in figures.items() for path in save_all(figure, [folder / f"{name}.{end}" for end in formats])]
