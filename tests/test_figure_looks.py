"""Lines can be told apart with every common colour vision and in grey, maps are even, files keep lettering as text."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.figure
import matplotlib.text
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

import kagscope.figures as kf
from figure_tables import make_comparisons, make_model_tables, make_pruning, make_runs, make_tables, make_weights
from kagscope.base.errors import InputError
from kagscope.figures import distributions
from kagscope.figures.colours import SEQUENTIAL, diverging, palettes, ratio_norm, to_lab
from kagscope.figures.line_styles import LINES, Settings, line_looks
from kagscope.figures.panels import Panel, draw_grid
from kagscope.figures.style import DOUBLE_COLUMN, OKABE_ITO, show_range
from kagscope.studies.study_figures import _drop_shuffled
from kagscope.tables.means import summarise

# Machado, Oliveira & Fernandes 2009, severity 1, on linear sRGB
SEEN: dict[str, np.ndarray] = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
APART = 12.0  # of CIE Lab; 2.3 is the least that is noticed side by side


def as_seen(colours: np.ndarray, vision: str) -> np.ndarray:
    """CIE Lab of colours (n, 3) of sRGB as someone sees them."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = (linear @ SEEN[vision].T).clip(0, 1)
    return to_lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))


def test_lab_of_known_colours() -> None:
    """White, and sRGB's red: L 53.24, a 80.09, b 67.20."""
    np.testing.assert_allclose(to_lab(np.array([[1.0, 1, 1], [1, 0, 0]])), [[100.0, 0.0, 0.0], [53.24, 80.09, 67.20]], atol=0.02)


@pytest.mark.parametrize("vision", SEEN)
@pytest.mark.parametrize(
    "palette", [OKABE_ITO, (*distributions.TRAINING_COLOURS, distributions.INITIAL)], ids=["lines", "curves"]
)
def test_colours_are_apart_in_every_vision(vision: str, palette: tuple[str, ...]) -> None:
    lab = as_seen(np.array([to_rgb(colour) for colour in palette]), vision)
    near = {pair: float(np.linalg.norm(lab[pair[0]] - lab[pair[1]])) for pair in combinations(range(len(palette)), 2)}
    assert min(near.values()) > APART, near
    assert (np.linalg.norm(lab - to_lab(np.ones(3)), axis=1) > 3 * APART).all(), "too faint on white"


def test_red_and_green_would_not_do() -> None:
    lab = as_seen(np.array([to_rgb("#d62728"), to_rgb("#8c564b"), to_rgb("#2ca02c")]), "deuteranopia")
    assert min(np.linalg.norm(lab[i] - lab[j]) for i, j in combinations(range(3), 2)) < APART


@pytest.mark.parametrize("trainings", [("standard",), ("standard", "augmented"), ("a", "b", "c", "d")])
@pytest.mark.parametrize("widths", [(8,), (8, 16, 32), tuple(range(8, 14))])
def test_settings_are_apart_without_colour(widths: tuple[int, ...], trainings: tuple[str, ...]) -> None:
    settings = Settings(widths, trainings)
    signs = [(look["marker"], look["linestyle"]) for look in settings.looks().values()]
    assert len(set(map(str, signs))) == len(widths) * len(trainings)


def test_many_widths_get_even_shades() -> None:
    lightness = [to_lab(np.array(to_rgb(look["color"])))[0] for look in line_looks(range(9)).values()]
    steps = np.diff(lightness)
    assert (steps > 3).all()
    assert len(LINES) == 4


@pytest.mark.parametrize("vision", ["normal", "protanopia", "deuteranopia"])
@pytest.mark.parametrize("name", [SEQUENTIAL, "diverging"])
def test_maps_are_even(name: str, vision: str) -> None:
    colours = (diverging() if name == "diverging" else mpl.colormaps[name])(np.linspace(0, 1, 65))[:, :3]
    lab = as_seen(colours, vision)
    halves = [lab[:33], lab[32:]] if name == "diverging" else [lab]
    for half in halves:
        lightness = half[:, 0]
        assert (np.diff(lightness) > 0).all() or (np.diff(lightness) < 0).all()
        if vision == "normal":
            steps = np.array([np.linalg.norm(b - a) for a, b in pairwise(half)])
            assert steps.max() / steps.min() < (1.4 if name == "diverging" else 3.0)  # made even in CIE Lab and in CAM02-UCS
    if name == "diverging":
        assert abs(lab[0, 0] - lab[-1, 0]) < 8
        assert np.linalg.norm(lab[16] - lab[48]) > 2 * APART


def test_the_page_has_the_colours_of_the_maps() -> None:
    places = np.linspace(0, 1, 201)
    for name, colours in palettes().items():
        stops = np.array(colours)
        between = np.stack([np.interp(places, np.linspace(0, 1, len(stops)), channel) for channel in stops.T], axis=1)
        printed = (diverging() if name == "diverging" else mpl.colormaps[SEQUENTIAL])(places)[:, :3]
        assert np.abs(between / 255 - printed).max() < 0.012  # three of 255


def test_ratios_on_one_side_of_one_use_the_whole_map() -> None:
    assert ratio_norm(np.array([0.5, 1.5, np.nan]))(1.0) == pytest.approx(0.5)
    assert ratio_norm(np.array([1.0, 1.01]))(1.0) == pytest.approx(0.5)
    norm = ratio_norm(np.array([1.4, 2.2]))
    assert (norm(1.4), norm(2.2)) == (0.0, 1.0)


def test_files_are_vector_with_text_and_the_same_each_time(tmp_path: Path) -> None:
    plt.rcParams["pdf.fonttype"] = 3  # a user's own settings, which the figures neither follow nor change
    before, opened = dict(mpl.rcParams), plt.get_fignums()
    try:
        for end in ("pdf", "svg", "png"):
            files = [kf.save(kf.figure_pruning(make_pruning()), tmp_path / f"{name}.{end}").read_bytes() for name in "ab"]
            assert files[0] == files[1]
        pdf, svg = (tmp_path / "a.pdf").read_bytes(), (tmp_path / "a.svg").read_text()
        assert b"/Type0" in pdf
        assert b"/FontFile2" in pdf, "TrueType, embedded"
        assert b"/Type3" not in pdf
        assert b"/Subtype /Image" not in pdf, "nothing is a picture of points"
        assert b"CreationDate" not in pdf
        assert "<text" in svg
        assert "units removed" in svg
        assert not re.search(r"<dc:date>", svg)
        assert dict(mpl.rcParams) == before
        assert plt.get_fignums() == opened
    finally:
        mpl.rcdefaults()


def test_what_is_not_there_cannot_be_drawn() -> None:
    with pytest.raises(AttributeError, match="plot_nothing"):
        _ = kf.plot_nothing


def test_given_axes_look_like_all_others() -> None:
    """Axes of pyplot with the user's own settings get the style; the settings stay."""
    with mpl.rc_context({"axes.labelsize": 20, "axes.spines.top": True}):
        ax = plt.figure().add_subplot()
        kf.plot_comparison(make_comparisons(), axis="training", ax=ax)
        assert ax.xaxis.label.get_fontsize() == 8
        assert not ax.spines["top"].get_visible()
        assert mpl.rcParams["axes.labelsize"] == 20
    plt.close("all")


def test_points_of_a_relation_are_the_nets() -> None:
    results, _ = make_tables(points=2, last_step=4, curves=False, windows=False)
    runs = make_runs(results)
    ax = kf.plot_relation(results, runs, outcome="pgd_l2_0.5", score="kl_uniform", layer="hidden2")
    drawn = np.sort(np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.get_lines()]))
    np.testing.assert_allclose(drawn, np.sort(runs["pgd_l2_0.5"]))
    assert f"n = {len(runs)}" in ax.get_title(loc="left")


def test_weights_are_where_their_unit_is() -> None:
    weights = make_weights(6, (2, 3))
    ax = kf.plot_unit_weights(weights, image_shape=(2, 3), units=[4, 1], columns=2, threshold=0.0)
    np.testing.assert_array_equal(np.asarray(ax.images[0].get_array())[:, 4:], weights[1].reshape(2, 3))
    assert [text.get_text() for text in ax.texts] == ["4", "1"]


REFUSED: dict[str, tuple[Callable[[], object], type[InputError], str]] = {
    "an axis of names": (lambda: kf.plot_by_axis(_summary(), x="training"), InputError, "not numeric"),
    "an axis that is none": (lambda: kf.plot_by_axis(_summary(), x="depth"), InputError, "lacks the columns depth"),
    "a map over nothing": (lambda: kf.plot_phase(_summary(), x="width", y="colour"), InputError, "colour"),
    "no such score": (lambda: kf.plot_by_axis(_summary(), score="ipr"), kf.NothingToPlot, "no ipr"),
    "no such axis": (
        lambda: kf.plot_comparison(make_comparisons(), axis="optimizer"),
        kf.NothingToPlot,
        "categories of optimizer",
    ),
    "no attacks": (lambda: kf.figure_robustness(_runs()[["width", "training", "accuracy"]]), kf.NothingToPlot, "no attacks"),
    "other pixels": (lambda: kf.plot_unit_weights(make_weights(), image_shape=(5, 5)), InputError, "36 weights"),
    "rows of zeros": (lambda: kf.plot_row_norms(np.zeros((3, 4))), kf.NothingToPlot, "every row is zero"),
    "no labels": (
        lambda: kf.plot_pruning(make_pruning().assign(accuracy=np.nan), measure="accuracy"),
        kf.NothingToPlot,
        "labels",
    ),
    "one step": (lambda: kf.plot_by_step(summarise(make_model_tables()[0]).assign(step=3)), kf.NothingToPlot, "two steps"),
    "no such layer": (lambda: kf.plot_zipf(make_model_tables()[1], layer="9"), kf.NothingToPlot, "layers block1"),
}


def _summary() -> Any:
    from test_figure_images import summary

    return summary()


def _runs() -> Any:
    return make_runs(make_tables(points=1, last_step=1, curves=False, windows=False)[0])


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_drawn_is_said(case: str) -> None:
    draw, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        draw()


def test_robustness_is_drawn_for_each_setting_not_averaged_over_them() -> None:
    """Nets on shuffled labels and steered ones were one line, named after their width."""
    runs = pd.DataFrame({"width": 8, "training": "standard", "labels": ["true", "shuffled"] * 3, "penalty_weight": 0.1})
    runs = runs.assign(accuracy=[0.9, 0.1] * 3, **{"pgd_linf_0.1": [0.5, 0.0] * 3})
    figure = kf.figure_robustness(runs, ["labels", "penalty_weight"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "penalty weight 0.1",
        "shuffled labels, penalty weight 0.1",
    ]
    heights = {
        tuple(np.round(np.asarray(line.get_ydata(), dtype=float), 9))
        for line in figure.axes[0].get_lines()
        if len(line.get_ydata()) == 2
    }
    assert {(0.9, 0.5), (0.1, 0.0)} <= heights


def test_panels_that_share_an_axis_show_the_range_of_each() -> None:
    left, right = mpl.figure.Figure().subplots(1, 2, sharey=True)
    for ax, high in ((left, 100.0), (right, 10.0)):
        ax.plot([1, high])
        show_range(ax, 1, high)
    assert left.get_ylim() == right.get_ylim() == (1, 100)


def test_names_of_axes_of_neighbours_do_not_overlap() -> None:
    panel = Panel(lambda ax: ax.set_xlabel("minimum distance between columns (pixels)"))
    figure = draw_grid([[panel] * 3], DOUBLE_COLUMN, 2.0)
    figure.draw_without_rendering()
    ends = [(box.x0, box.x1) for box in (ax.xaxis.label.get_window_extent() for ax in figure.axes)]
    assert all(a[1] < b[0] for a, b in pairwise(ends))
    assert ends[0][0] > 0
    assert ends[-1][1] < figure.bbox.x1


def test_panels_above_an_empty_place_have_numbers_on_their_axis() -> None:
    panel = Panel(lambda ax: ax.plot([1, 2], [1, 2]))
    figure = draw_grid([[panel] * 3, [panel] * 2], DOUBLE_COLUMN, 3.0, sharex=True)
    figure.draw_without_rendering()
    named = [any(label.get_visible() and label.get_text() for label in ax.get_xticklabels()) for ax in figure.axes]
    assert named == [False, False, True, True, True]


@cache
def _tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    return make_tables(points=2, last_step=4)


SINGLE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "radius": lambda results, _, __: kf.plot_pr_by_radius(results, layer="hidden2"),
    "distance": lambda results, _, __: kf.plot_pr_by_distance(results, layer="hidden2"),
    "steps": lambda results, _, __: kf.plot_score_by_step(results, layer="hidden2"),
    "zipf": lambda _, curves, __: kf.plot_zipf(curves, layer="hidden2"),
    "histogram": lambda _, curves, __: kf.plot_minor_histogram(curves, layer="hidden2"),
    "windows": lambda results, _, __: kf.plot_window_map(results, layer="hidden2"),
    "overview": lambda results, _, __: kf.plot_scores_overview(results, layer="hidden2"),
    "axis": lambda _, __, summary: kf.plot_by_axis(summary, layer="hidden2"),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_figure_of_one_layer_says_which_and_of_which_order(name: str) -> None:
    results, curves = _tables()
    ax = SINGLE[name](results, curves, _summary() if name == "axis" else None)
    said = " ".join(text.get_text() for text in ax.figure.findobj(mpl.text.Text))
    assert "layer hidden2" in said
    assert "k = 2" in said


def test_places_beside_0_do_not_run_into_each_other() -> None:
    rates = pd.DataFrame(
        {
            "weight_decay": np.repeat([0.0, 0.001, 0.01], 2),
            "optimizer": ["adam", "sgd"] * 3,
            "layer": "hidden1",
            "k": 2,
            "selection": "all",
            "score": "pr",
            "nets": 3,
            "accuracy": 0.9,
            **{f"{name}{end}": 1.0 for name in ("value", "ratio") for end in ("", "_low", "_high")},
        }
    )
    ax = kf.plot_by_axis(rates, x="weight_decay", layer="hidden1")
    shown = np.diff(ax.transData.transform([(x, 1.0) for x in (0.0, 0.001, 0.01)])[:, 0])
    assert shown.min() > 0.5 * shown.max()
    beside = [ax.transData.transform(line.get_xydata())[:, 0] for line in ax.get_lines()[:1]]
    assert np.ptp(beside[0] - ax.transData.transform([(x, 1.0) for x in (0.0, 0.001, 0.01)])[:, 0]) < 1e-6


def test_trainings_of_an_overview_are_told_apart_where_lines_cannot() -> None:
    trainings = ("standard", "augmented", "standard, shuffled labels")
    results, _ = make_tables(widths=(4, 8, 16), trainings=trainings, seeds=2, points=2, last_step=4, curves=False, windows=False)
    figure = kf.figure_scores_overview(results)
    dots = {
        (line.get_color(), line.get_markerfacecolor(), line.get_fillstyle())
        for line in figure.axes[0].get_lines()
        if line.get_marker() not in ("None", "|")
    }
    assert len({one for one in dots if one[0] in OKABE_ITO}) == 9


def test_means_over_settings_leave_out_nets_on_shuffled_labels() -> None:
    table = pd.DataFrame({"labels": ["true", "shuffled"], "value": [1.0, 0.1]})
    assert list(_drop_shuffled(table, ("width", "training"))["value"]) == [1.0]
    assert len(_drop_shuffled(table, ("labels", "width"))) == 2
    assert len(_drop_shuffled(table.iloc[1:], ("width",))) == 1
    assert len(_drop_shuffled(table.drop(columns="labels"), ("width",))) == 2


def test_correlations_that_too_few_seeds_leave_open_are_not_drawn_as_numbers() -> None:
    results, _ = _tables()
    runs = make_runs(results)
    nan = {f"rho{end}": [float("nan")] for end in ("", "_low", "_high")}
    related = pd.DataFrame(
        {"layer": ["hidden1"], "k": [2], "score": ["pr"], "outcome": ["accuracy"], **nan, "p_joint": [float("nan")], "n": [0]}
    )
    with pytest.raises(kf.NothingToPlot, match="seeds"):
        kf.plot_correlations(related, outcome="accuracy")
    ax = kf.plot_relation(results, runs, layer="hidden1", relations=related)
    assert "too few seeds" in ax.get_title(loc="left")


def test_no_field_of_a_map_says_minus_nothing() -> None:
    numbers = _summary()
    numbers = numbers.assign(ratio=np.where(numbers["training"] == numbers["training"].iloc[0], -1e-3, 1.0))
    drawn = kf.plot_phase(numbers, x="training", y="width")
    said = {text.get_text() for text in drawn.texts}
    assert "0.00" in said
    assert not any("−0.00" in one for one in said)
