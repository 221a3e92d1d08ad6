"""Every figure against a picture of its marks and a list of its lettering, both kept in ``tests/figures``.

Pictures are drawn without lettering and at fixed places, so that other builds of FreeType make the same ones; what is written in
a figure is compared as text. ``python tests/test_figure_images.py`` draws them anew: look at what changed before committing it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

import kagscope.figures as kf
from figure_tables import make_comparisons, make_model_tables, make_pruning, make_runs, make_tables, make_weights
from kagscope.figures.study import net_means
from kagscope.figures.style import new_figure, style
from kagscope.studies.nets import Nets
from kagscope.studies.relations import relations
from kagscope.studies.setting_tables import settings_summary
from kagscope.tables.means import curve_means, summarise
from kagscope.tables.onset import COLUMNS

pytestmark = pytest.mark.usefixtures("every_figure")

FOLDER = Path(__file__).parent / "figures"
LETTERING = FOLDER / "lettering.json"
SHAPE = (8, 8)
TOLERANCE = 1.0  # root mean square over pixels, of 255; what rounding changes is below 0.1


@cache
def rows() -> tuple[pd.DataFrame, pd.DataFrame]:
    return make_tables(points=3, last_step=64)


@cache
def study() -> tuple[pd.DataFrame, pd.DataFrame]:
    return net_means(rows()[0]), curve_means(rows()[1])


@cache
def crowd() -> tuple[pd.DataFrame, pd.DataFrame]:
    """More trainings than one panel holds."""
    trainings = [f"{name}, weight decay {decay:g}" for name in ("standard", "augmented") for decay in (0.0, 0.001, 0.01)]
    results, curves = make_tables(points=2, last_step=4, trainings=trainings, seeds=2, ks=(1, 2), layers=("hidden1",), stride=2)
    return net_means(results), curve_means(curves)


@cache
def runs() -> pd.DataFrame:
    return make_runs(rows()[0])


@cache
def related() -> pd.DataFrame:
    made = relations(Nets.of(rows()[0], runs(), ["width", "training", "seed"]))
    rho = np.random.default_rng(0).uniform(-0.6, 0.6, len(made))
    return made.assign(n=5, rho=rho, rho_low=rho - 0.3, rho_high=rho + 0.3, p_joint=np.where(abs(rho) > 0.5, 0.01, 0.5))


@cache
def summary() -> pd.DataFrame:
    return settings_summary(rows()[0], runs(), ["width", "training", "seed"])


@cache
def model() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    table, curves = make_model_tables()
    return table, curves, summarise(table)


@cache
def along() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A series' summary of two layers, and an onset in one of them."""
    steps = [0, 1, 4, 16, 64, 256]
    rows = [
        {"step": step, "layer": layer, "k": 2, "selection": "all", "score": "pr", "value": ratio / 50, "ratio": ratio}
        | {"ratio_low": ratio - 0.04, "ratio_high": ratio + 0.04, "value_low": ratio / 60, "value_high": ratio / 40}
        for layer, speed in (("hidden1", 0.12), ("hidden2", 0.02))
        for place, step in enumerate(steps)
        for ratio in [1 + speed * place**1.5]
    ]
    found = {name: [np.nan] for name in COLUMNS} | {"layer": ["hidden1"], "k": [2], "selection": ["all"], "score": ["pr"]}
    return pd.DataFrame(rows), pd.DataFrame(found | {"step": [4], "ratio": [1 + 0.12 * 2**1.5]})


DRAWN: dict[str, Callable[..., Axes]] = {
    "plot_pr_by_radius": lambda ax: kf.plot_pr_by_radius(study()[0], image_shape=SHAPE, ax=ax, legend=False),
    "plot_pr_by_distance": lambda ax: kf.plot_pr_by_distance(study()[0], layer="hidden2", ax=ax, legend=False),
    "plot_valid_subsets": lambda ax: kf.plot_valid_subsets(study()[0], ax=ax),
    "plot_k_comparison": lambda ax: kf.plot_k_comparison(study()[0], ax=ax, legend=False),
    "plot_score_by_step": lambda ax: kf.plot_score_by_step(study()[0], ax=ax, legend=False),
    "plot_accuracy": lambda ax: kf.plot_accuracy(study()[0], training="standard", ax=ax, legend=False),
    "plot_zipf": lambda ax: kf.plot_zipf(study()[1], results=study()[0], ax=ax, legend=False),
    "plot_zipf_of_a_model": lambda ax: kf.plot_zipf(model()[1], ax=ax, legend=False),
    "plot_minor_histogram": lambda ax: kf.plot_minor_histogram(study()[1], ax=ax, legend=False),
    "plot_minor_histogram_of_a_model": lambda ax: kf.plot_minor_histogram(model()[1], ax=ax, legend=False),
    "plot_window_map": lambda ax: kf.plot_window_map(study()[0], image_shape=SHAPE, ax=ax, colorbar=False),
    "plot_scores_overview": lambda ax: kf.plot_scores_overview(study()[0], ax=ax, legend=False),
    "plot_comparison": lambda ax: kf.plot_comparison(make_comparisons(), axis="training", ax=ax),
    "plot_phase": lambda ax: kf.plot_phase(summary(), x="training", y="width", ax=ax),
    "plot_by_axis": lambda ax: kf.plot_by_axis(summary(), x="width", ax=ax, legend=False),
    "plot_relation": lambda ax: kf.plot_relation(study()[0], runs(), relations=related(), ax=ax, legend=False),
    "plot_correlations": lambda ax: kf.plot_correlations(related(), outcome="pgd_linf_0.05", ax=ax, legend=False),
    "plot_robustness": lambda ax: kf.plot_robustness(runs(), ax=ax, legend=False),
    "plot_scales": lambda ax: kf.plot_scales(model()[2], ax=ax),
    "plot_layers": lambda ax: kf.plot_layers(model()[2], ax=ax),
    "plot_tokens": lambda ax: kf.plot_tokens(model()[0], ax=ax),
    "plot_by_step": lambda ax: kf.plot_by_step(along()[0], onsets=along()[1], ax=ax, legend=False),
    "plot_pruning": lambda ax: kf.plot_pruning(make_pruning(), measure="largest_change", ax=ax),
    "plot_unit_weights": lambda ax: kf.plot_unit_weights(make_weights(), image_shape=(6, 6), threshold=2e-2, ax=ax),
    "plot_row_norms": lambda ax: kf.plot_row_norms(make_weights(), threshold=0.1, ax=ax, legend=False),
}
COMPOSED: dict[str, Callable[[], Figure]] = {
    "figure_by_radius": lambda: kf.figure_by_radius(study()[0], SHAPE),
    "figure_by_radius_crowded": lambda: kf.figure_by_radius(crowd()[0], SHAPE),
    "figure_by_distance": lambda: kf.figure_by_distance(study()[0]),
    "figure_k_comparison": lambda: kf.figure_k_comparison(study()[0]),
    "figure_scores_by_step": lambda: kf.figure_scores_by_step(study()[0]),
    "figure_zipf": lambda: kf.figure_zipf(study()[1], study()[0]),
    "figure_minor_histogram": lambda: kf.figure_minor_histogram(study()[1]),
    "figure_minor_histogram_crowded": lambda: kf.figure_minor_histogram(crowd()[1]),
    "figure_window_map": lambda: kf.figure_window_map(study()[0], SHAPE),
    "figure_scores_overview": lambda: kf.figure_scores_overview(study()[0]),
    "figure_scores_overview_crowded": lambda: kf.figure_scores_overview(crowd()[0]),
    "figure_phase": lambda: kf.figure_phase(summary(), "training", "width"),
    "figure_dynamics": lambda: kf.figure_dynamics(study()[0], runs(), "training", "width"),
    "figure_by_axis": lambda: kf.figure_by_axis(summary(), "width"),
    "figure_relations": lambda: kf.figure_relations(rows()[0], runs(), related()),
    "figure_robustness": lambda: kf.figure_robustness(runs()),
    "figure_by_step": lambda: kf.figure_by_step(along()[0]),
    "figure_pruning": lambda: kf.figure_pruning(make_pruning()),
}


def drawn(name: str) -> Figure:
    """The figure, one that composes panels or one of fixed axes that ``plot_…`` was given."""
    if name in COMPOSED:
        return COMPOSED[name]()
    figure = new_figure(3.3, 2.6)
    figure.set_layout_engine("none")
    ax = figure.add_axes((0.15, 0.15, 0.8, 0.7))
    assert DRAWN[name](ax) is ax
    return figure


def lettering(figure: Figure) -> list[str]:
    """What is written in a figure that was drawn, in the order of its parts."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def picture(figure: Figure, path: Path) -> Path:
    """The marks without lettering, in panels not yet arranged around it: nothing depends on the font's renderer."""
    figure.set_layout_engine("none")
    for text in figure.findobj(Text):
        text.set_alpha(0.0)
    with style():
        figure.savefig(path, dpi=50, metadata={"Software": None})
    return path


QUICK = (*DRAWN, "figure_by_radius", "figure_dynamics", "figure_relations")  # others are panels of what is drawn alone


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in (*DRAWN, *COMPOSED)]
)
def test_figures_look_as_they_did(name: str, tmp_path: Path) -> None:
    figure = drawn(name)
    difference = compare_images(str(FOLDER / f"{name}.png"), str(picture(figure, tmp_path / f"{name}.png")), TOLERANCE)
    assert difference is None, difference
    assert lettering(figure) == json.loads(LETTERING.read_text())[name]


def test_every_public_figure_is_looked_at() -> None:
    names = {name for name in kf.__all__ if name.startswith(("plot_", "figure_"))}
    assert names <= {*DRAWN, *COMPOSED}
    assert {path.stem for path in FOLDER.glob("*.png")} == {*DRAWN, *COMPOSED}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_000_000


def moved(figure: Figure) -> Figure:
    """The same with one mean 4% higher."""
    line = next(line for line in figure.axes[0].get_lines() if len(np.asarray(line.get_ydata())) > 3)
    y = np.array(line.get_ydata(), dtype=float)
    y[2] *= 1.04
    line.set_ydata(y)
    return figure


def recoloured(figure: Figure) -> Figure:
    """The same with one line of another blue."""
    line = next(line for line in figure.axes[0].get_lines() if len(np.asarray(line.get_ydata())) > 3)
    line.set_color(tuple(0.8 * np.array(to_rgb(line.get_color()))))
    return figure


@pytest.mark.parametrize("changed", [moved, recoloured])
def test_a_changed_number_or_colour_is_seen(changed: Callable[[Figure], Figure], tmp_path: Path) -> None:
    found = picture(changed(drawn("plot_pr_by_radius")), tmp_path / "changed.png")
    assert compare_images(str(FOLDER / "plot_pr_by_radius.png"), str(found), TOLERANCE) is not None


def draw_all() -> None:
    """All pictures and lettering anew."""
    FOLDER.mkdir(exist_ok=True)
    written: dict[str, Any] = {}
    for name in (*DRAWN, *COMPOSED):
        figure = drawn(name)
        picture(figure, FOLDER / f"{name}.png")
        written[name] = lettering(figure)
    LETTERING.write_text(json.dumps(written, indent=0, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    draw_all()
    sys.exit(0)
