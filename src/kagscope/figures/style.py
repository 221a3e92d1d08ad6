"""Style of all figures: colours, sizes and fonts; reproducible saving, so that the same table gives the same bytes."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from kagscope.base.errors import InputError, NothingToPlot
from kagscope.base.files import atomic_path

# Okabe and Ito (2008): distinguishable with all common types of colour vision; yellow is left out, as too faint on white
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
OKABE_ITO = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
GREY = "#6b6b6b"
MANY = len(OKABE_ITO)  # lines in one panel; more get shades instead of colours
MARKERS = ("o", "s", "^", "D", "v", "P")  # in addition to colours, for grey prints
SINGLE_COLUMN, DOUBLE_COLUMN = 3.3, 6.8  # inches, as in most journals

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures look the same everywhere
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.width": 0.5,
    "ytick.minor.width": 0.5,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "errorbar.capsize": 2,
    "figure.facecolor": "white",
    "mathtext.fontset": "dejavusans",
    "pdf.fonttype": 42,  # embedded TrueType, so that text can be edited
    "svg.fonttype": "none",
    "svg.hashsalt": "kagscope",
    "path.simplify": True,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Apply the figures' settings within the block and restore the user's after it."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)  # type: ignore[arg-type]
        yield


class _NotebookFigure(Figure):
    """A figure that notebooks show even if pyplot was not imported."""

    def _repr_png_(self) -> bytes:
        with style(), io.BytesIO() as stream:
            self.savefig(stream, format="png", dpi=110, metadata={"Software": None})
            return stream.getvalue()


def new_figure(width: float = DOUBLE_COLUMN, height: float = 2.6) -> Figure:
    """Make a figure, in inches, that is not registered with pyplot."""
    figure = _NotebookFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_axes(ax: Axes | None, width: float = SINGLE_COLUMN, height: float = 2.6) -> Axes:
    """Apply the figures' style to ``ax``, or make the axes of a new figure of this size in inches."""
    if ax is None:
        return new_figure(width, height).subplots()
    ax.spines[["top", "right"]].set_visible(False)
    for spine in ax.spines.values():
        spine.set_linewidth(RC["axes.linewidth"])
    ax.tick_params(labelsize=RC["xtick.labelsize"], width=RC["xtick.major.width"])
    for text in (ax.xaxis.label, ax.yaxis.label):
        text.set_fontsize(RC["axes.labelsize"])
    ax.title.set(fontsize=RC["axes.titlesize"], fontweight=RC["axes.titleweight"])
    ax.set_axisbelow(True)
    ax.grid(True, axis="y", color=RC["grid.color"], linewidth=RC["grid.linewidth"])
    return ax


def width_for(lines: int) -> float:
    """Width in inches of a single-panel figure, with room for the legend of many lines."""
    return SINGLE_COLUMN + 1.4 * (lines > MANY)


def reference_line(ax: Axes, at: float, vertical: bool = False) -> None:
    """Draw the thin reference line "as at initialisation"."""
    draw = ax.axvline if vertical else ax.axhline
    draw(at, color=GREY, linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=1)


def interval_lengths(means: pd.DataFrame) -> np.ndarray:
    """Distances from ``mean`` to ``low`` and ``high``, (2, n); 0 without interval."""
    mean, low, high = (means[name].to_numpy(dtype=float) for name in ("mean", "low", "high"))
    return np.nan_to_num(np.stack([mean - low, high - mean]), nan=0.0).clip(min=0.0)


def show_range(ax: Axes, low: float, high: float) -> None:
    """Set the vertical range; if other panels with lines share the axis, only widen it."""
    if any(other.lines or other.patches for other in ax.get_shared_y_axes().get_siblings(ax) if other is not ax):
        shown = ax.get_ylim()
        low, high = min(low, shown[0]), max(high, shown[1])
    ax.set_ylim(low, high)


def log_ticks(ax: Axes) -> None:
    """Vertical log axis with about five labelled decades, or 1, 2 and 5 of each if it spans less than two."""
    low, high = ax.get_ylim()
    if high / low < 100:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ax.yaxis.set_major_locator(LogLocator(numticks=5))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter(NullFormatter())


def draw_each(panels: Sequence[tuple[Axes, Callable[..., object], str]]) -> None:
    """Draw every panel by ``draw(ax=…)``, with its text in place of one that has nothing to show.

    Raises:
        NothingToPlot: no panel has anything to show.
    """
    reasons = []
    for ax, draw, absent in panels:
        try:
            draw(ax=ax)
        except NothingToPlot as reason:
            reasons.append(reason)
            ax.text(0.5, 0.5, absent, ha="center", va="center", transform=ax.transAxes, color=GREY)
    if len(reasons) == len(panels):
        raise reasons[0] if reasons else NothingToPlot("the table is empty")


def figure_legend(figure: Figure | SubFigure, handles: Sequence[Any], title: str = "") -> None:
    """Add one legend above all panels, in as many columns as fit."""
    if handles:
        columns = legend_columns(handles, float(figure.bbox.width) / float(figure.dpi))
        above: dict[str, Any] = {"title": title, "title_fontsize": 8.5} if title else {}
        figure.legend(handles=list(handles), loc="outside upper center", ncols=columns, columnspacing=1.4, **above)


def legend_columns(handles: Sequence[Any], room: float) -> int:
    """Number of columns of a legend that fit into ``room`` inches."""
    widths = [0.5 + 0.062 * len(str(handle.get_label())) for handle in handles]  # key, and inches per letter
    return next((n for n in range(len(widths), 1, -1) if _legend_width(widths, n) <= room), 1)


def _legend_width(widths: Sequence[float], columns: int) -> float:
    """Width of a legend filled by column, with the remainder in the first columns."""
    rows, longer = divmod(len(widths), columns)
    sizes = [rows + 1] * longer + [rows] * (columns - longer)
    ends = np.cumsum(sizes)
    return sum(max(widths[end - size : end]) for size, end in zip(sizes, ends, strict=True))


def width_of(ax: Axes) -> float:
    """Width of a panel in inches."""
    grid = ax.get_subplotspec()
    return float(ax.figure.bbox.width) / float(ax.figure.dpi) / (grid.get_gridspec().ncols if grid else 1)


def legend_above(ax: Axes, entries: int, handles: Sequence[Any] | None = None, title: str = "") -> None:
    """Add a legend that covers no data: above the axes, or beside them if it has more than :data:`MANY` entries.

    Its title states what the lines have in common, such as their layer.
    """
    shown = ax.get_legend_handles_labels()[0] if handles is None else list(handles)
    location: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    if entries <= MANY:
        columns = min(2, legend_columns(shown, width_of(ax) - 0.15))
        location = {"loc": "lower center", "bbox_to_anchor": (0.45, 1.0), "ncols": columns, "borderaxespad": 0.2}
    ax.legend(handles=shown, title=title or None, title_fontsize=RC["legend.fontsize"], **location)


def save(figure: Figure, path: str | os.PathLike[str], dpi: int = 200) -> Path:
    """Write ``figure`` atomically, without dates, so that the same figure gives the same bytes.

    Args:
        figure: ``ax.figure`` of the result of ``plot_…``, or the result of ``figure_…``.
        path: file with the suffix of the format: .pdf (embedded TrueType fonts), .svg (text as text) or .png.
        dpi: dots per inch of a PNG.

    Raises:
        InputError: another suffix.
        OutputError: the folder cannot be written.
    """
    return save_all(figure, [path], dpi)[0]


def save_all(figure: Figure, paths: Sequence[str | os.PathLike[str]], dpi: int = 200) -> list[Path]:
    """Write ``figure`` to several files, in the formats of their suffixes; see :func:`save`.

    Panels are arranged only once, not for each file as by ``savefig``.
    """
    files = [Path(path) for path in paths]
    for file in files:
        if file.suffix not in WRITERS:
            *others, last = WRITERS
            raise InputError(f"{file}: a figure's name ends with {', '.join(others)} or {last}")
    with style(), _fixed_layout(figure, dpi):
        for file in files:
            with atomic_path(file) as temporary:
                WRITERS[file.suffix](figure, temporary)
                figure.dpi = dpi  # vector formats change it
    return files


@contextlib.contextmanager
def _fixed_layout(figure: Figure, dpi: int) -> Iterator[None]:
    """Arrange panels once and keep them in place; canvas, layout and resolution are restored after the block."""
    canvas, engine, before = figure.canvas, figure.get_layout_engine(), figure.dpi
    try:
        FigureCanvasAgg(figure)  # no window that would follow the resolution
        figure.dpi = dpi
        if engine is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")
        yield
    finally:
        figure.set_layout_engine(engine or "none")
        figure.dpi = before
        figure.set_canvas(canvas)


def _write_pdf(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_pdf import FigureCanvasPdf  # slow import, 0.3 s

    canvas: Any = FigureCanvasPdf(figure)
    canvas.print_pdf(path, metadata={"CreationDate": None})


def _write_svg(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(path, metadata={"Date": None})


def _write_png(figure: Figure, path: Path) -> None:
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(path, metadata={"Software": None})


WRITERS: dict[str, Callable[[Figure, Path], None]] = {".pdf": _write_pdf, ".svg": _write_svg, ".png": _write_png}
