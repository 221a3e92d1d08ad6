"""Where in the image geometry is: the ratio inside windows, drawn as a map."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from kagscope.figures.style import DOUBLE_COLUMN, new_axes, new_figure, not_measured, style
from kagscope.figures.tables import (
    NothingToPlot,
    final,
    layer_label,
    layers_of,
    over_runs,
    per_run,
    select,
    trainings_of,
    widths_of,
    windows,
)

COLOURS = "PuOr_r"  # told apart with every common colour vision; purple below 1, orange above


def window_grid(table: pd.DataFrame, measure: str = "ratio") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the window centres and the (rows, columns) array of means; NaN where no window was measured."""
    rows, columns = np.unique(table["row"]), np.unique(table["column"])
    grid = np.full((len(rows), len(columns)), np.nan)
    grid[np.searchsorted(rows, table["row"]), np.searchsorted(columns, table["column"])] = table[measure]
    return rows, columns, grid


def plot_window_map(
    results: pd.DataFrame,
    *,
    layer: str | None = None,
    k: int = 2,
    score: str = "pr",
    width: int | None = None,
    training: str | None = None,
    radius: float | None = None,
    image_shape: tuple[int, int] | None = None,
    norm: Normalize | None = None,
    ax: Axes | None = None,
    colorbar: bool = True,
) -> Axes:
    """Map over the image of the ratio of ``score`` to initialisation in the window around each centre, mean over seeds.

    Args:
        results: the ``results`` table, or :func:`~kagscope.figures.tables.per_run` of it.
        layer: which layer; the first by default.
        k: order of the minors.
        score: any score with a ratio.
        width: which width; the largest by default.
        training: which training; "standard" by default where present.
        radius: of the windows; the one with most centres by default.
        image_shape: height and width in pixels, for the frame.
        norm: colours; by default symmetrical about 1 on a log scale.
        ax: where to draw; a new figure by default.
        colorbar: whether to draw one.

    Raises:
        NothingToPlot: no windows were measured.
    """
    table = _window_table(results, layer, k, score, width, training, radius)
    rows, columns, grid = window_grid(table)
    with style():
        ax = new_axes(ax)
        norm = norm if norm is not None else centred_norm(grid)
        step_y, step_x = _spacing(rows), _spacing(columns)
        extent = (columns[0] - step_x / 2, columns[-1] + step_x / 2, rows[-1] + step_y / 2, rows[0] - step_y / 2)
        image = ax.imshow(grid, cmap=COLOURS, norm=norm, extent=extent, interpolation="nearest", aspect="equal")
        if image_shape is not None:
            ax.set_xlim(-0.5, image_shape[1] - 0.5)
            ax.set_ylim(image_shape[0] - 0.5, -0.5)
        ax.set_facecolor("#e9e9e9")
        ax.grid(False)
        ax.spines[["top", "right"]].set_visible(True)
        ax.set_xlabel("pixel column")
        ax.set_ylabel("pixel row")
        if colorbar:
            add_colorbar(image, [ax], f"{score_label_short(score)}, trained / initial")
    return ax


def figure_window_map(results: pd.DataFrame, image_shape: tuple[int, int]) -> Figure:
    """A map for each layer (rows) and training (columns) of the largest width, with one colour scale."""
    reduced = per_run(results)
    table = windows(final(select(reduced, score="pr")))
    table = table[table["ratio"].notna()]
    if table.empty:
        raise NothingToPlot("no window(…) selections were measured")
    layers, trainings, width = layers_of(table), trainings_of(table), widths_of(table)[-1]
    k = 2 if (table["k"] == 2).any() else int(table["k"].iloc[0])
    shown: list[tuple[int, int, str, str]] = []
    grids = []
    for row, layer in enumerate(layers):
        for column, training in enumerate(trainings):
            try:
                grids.append(window_grid(_window_table(reduced, layer, k, "pr", width, training, None))[2])
            except NothingToPlot:
                continue
            shown.append((row, column, layer, training))
    norm = centred_norm(np.concatenate([grid.ravel() for grid in grids]))
    with style():
        panel = 2.3
        wide = min(DOUBLE_COLUMN, panel * image_shape[1] / max(image_shape) * len(trainings) + 1.2)
        figure = new_figure(wide, panel * image_shape[0] / max(image_shape) * len(layers) + 0.4)
        axes = figure.subplots(len(layers), len(trainings), squeeze=False, sharex=True, sharey=True)
        image: AxesImage | None = None
        for row, column, layer, training in shown:
            ax = axes[row][column]
            plot_window_map(
                reduced,
                layer=layer,
                k=k,
                width=width,
                training=training,
                image_shape=image_shape,
                norm=norm,
                ax=ax,
                colorbar=False,
            )
            image = ax.images[0]
            ax.set_title(f"{layer_label(layer, layers)}, {training}", fontweight="bold")
            if column:
                ax.set_ylabel("")
            if row < len(layers) - 1:
                ax.set_xlabel("")
        for row in range(len(layers)):
            for column in range(len(trainings)):
                if not axes[row][column].images:
                    not_measured(axes[row][column])
        assert image is not None
        add_colorbar(image, list(axes.ravel()), f"PR in window, trained / initial (width {width}, k = {k})")
    return figure


def score_label_short(score: str) -> str:
    """The axis name of a score in a window."""
    return "PR in window" if score == "pr" else f"{score} in window"


def centred_norm(values: np.ndarray) -> Normalize:
    """A log scale of colours whose middle is ratio 1 and whose ends are equally many times more and less."""
    finite = values[np.isfinite(values) & (values > 0)]
    reach = float(np.abs(np.log(finite)).max()) if len(finite) else 0.0
    reach = max(reach, np.log(1.05))  # a map that is 1 everywhere is white, not noise
    return LogNorm(vmin=float(np.exp(-reach)), vmax=float(np.exp(reach)), clip=True)


def add_colorbar(image: AxesImage, axes: list[Axes], label: str) -> None:
    """A colour bar with ticks at round ratios."""
    figure = axes[0].figure
    bar = figure.colorbar(image, ax=axes, label=label, shrink=0.85, aspect=24, pad=0.02)
    low, high = image.get_clim()
    low, high = float(low or 0.5), float(high or 2.0)
    bar.ax.yaxis.set_major_locator(FixedLocator(ratio_ticks(low, high)))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    bar.outline.set_linewidth(0.5)


def ratio_ticks(low: float, high: float) -> list[float]:
    """Round ratios between ``low`` and ``high``, about seven of them, 1 among them."""
    ladders = (
        [0.92, 0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08],
        [0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4],
        [0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0],
        [0.25, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0],
        [0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0],
    )
    ladder = next((ladder for ladder in ladders if ladder[-1] >= high * 0.93), ladders[-1])
    return [tick for tick in ladder if low <= tick <= high]


def _window_table(
    results: pd.DataFrame, layer: str | None, k: int, score: str, width: int | None, training: str | None, radius: float | None
) -> pd.DataFrame:
    table = windows(select(final(per_run(results)), k=k, score=score))
    table = table[table["ratio"].notna()]
    if table.empty:
        raise NothingToPlot(f"no ratio of {score} with k = {k} for window(…) selections")
    layer = layer if layer is not None else layers_of(table)[0]
    width = width if width is not None else widths_of(table)[-1]
    training = training if training is not None else trainings_of(table)[0]
    table = select(table, layer=layer, width=width, training=training)
    if table.empty:
        raise NothingToPlot(f"no windows of layer {layer} at width {width} with {training} training")
    radius = radius if radius is not None else float(table["radius"].value_counts().index[0])
    keys = ("width", "training", "layer", "k", "score", "selection", "row", "column", "radius")
    return over_runs(select(table, radius=radius), keys)


def _spacing(places: np.ndarray) -> float:
    return float(np.diff(places).min()) if len(places) > 1 else 1.0
