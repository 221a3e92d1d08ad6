"""Figures show what the table holds, for every shape of table, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from scipy import stats

from figure_tables import make_tables
from hostile import HOSTILE, LAYER, TRAINING
from kagscope import figures
from kagscope.base.errors import InputError, OutputError
from kagscope.figures.scales import figure_k_comparison
from kagscope.figures.study import net_means, study_means
from kagscope.figures.style import new_figure, save
from kagscope.report import render_report
from kagscope.tables import means

pytestmark = pytest.mark.usefixtures("every_figure")

SHAPE = (8, 8)


@pytest.fixture(scope="module")
def study() -> tuple[pd.DataFrame, pd.DataFrame]:
    return make_tables(points=4, last_step=20)


def test_means_and_intervals_are_those_of_scipy(study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    results, _ = study
    wanted = {"layer": "hidden1", "k": 2, "selection": "ball(4)", "score": "pr", "width": 16, "training": "augmented", "step": 20}
    raw = means.select(results, **wanted)
    seeds = raw.groupby("seed")["ratio"].mean()
    low, high = stats.t.interval(0.95, len(seeds) - 1, loc=seeds.mean(), scale=stats.sem(seeds))
    row = means.select(study_means(results), **wanted).iloc[0]
    assert row["ratio"] == pytest.approx(seeds.mean(), rel=1e-12)
    assert (row["ratio_low"], row["ratio_high"]) == (pytest.approx(low, rel=1e-9), pytest.approx(high, rel=1e-9))
    assert row["runs"] == 3
    assert row["points"] == 4


def test_accuracy_is_a_score_of_no_layer(study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    results, _ = study
    nets = results.drop_duplicates(["run", "step"]).query("width == 8 and training == 'standard' and step == 20")
    row = means.select(study_means(results), score="accuracy", width=8, training="standard", step=20).iloc[0]
    assert row["layer"] == ""
    assert row["value"] == pytest.approx(nets["accuracy"].mean())


def test_undefined_points_are_left_out_and_counted(study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    nets = net_means(study[0])
    near_zero = means.select(nets, score="near_zero")
    assert (near_zero["points"] == 3).all()
    assert (near_zero["undefined"] == 1).all()
    assert net_means(nets) is nets
    over_nets = study_means(nets)
    assert study_means(over_nets) is over_nets


def test_one_seed_has_no_interval() -> None:
    results, _ = make_tables(seeds=1, points=3, last_step=4, widths=(8,), curves=False)
    row = study_means(results)
    assert row["ratio_low"].isna().all()
    assert row["ratio"].notna().any()


def test_curve_bins_that_a_run_lacks_count_as_zero() -> None:
    base = {"width": 8, "training": "standard", "step": 5, "layer": "hidden1", "k": 2, "selection": "all", "curve": "histogram"}
    rows = [base | {"run": "a", "seed": 0, "x": 0.0, "y": 1.0}, base | {"run": "b", "seed": 1, "x": 0.125, "y": 1.0}]
    found = means.curve_means(pd.DataFrame(rows))
    assert found["y"].tolist() == [0.5, 0.5]
    assert found["stage"].tolist() == ["trained", "trained"]


def test_curves_are_of_the_beginning_and_the_end() -> None:
    base = {"width": 8, "training": "standard", "layer": "hidden1", "k": 2, "selection": "all", "curve": "zipf", "seed": 0}
    rows = [base | {"run": "a", "step": step, "x": 1.0, "y": step + 1.0} for step in (0, 3, 5)]
    found = means.curve_means(pd.DataFrame(rows))
    assert found[["stage", "y"]].astype({"stage": str}).to_numpy().tolist() == [["initial", 1.0], ["trained", 6.0]]


def test_rows_of_groups_come_in_order() -> None:
    table = pd.DataFrame({"a": ["y", "x", "y", "x"], "b": pd.Categorical(list("pqpp"))})
    found = [(key, rows.tolist()) for key, rows in means.group_rows(table, ["a", "b"])]
    assert found == [(("y", "p"), [0, 2]), (("x", "q"), [1]), (("x", "p"), [3])]
    assert not list(means.group_rows(table.iloc[:0], ["a"]))


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("all", ("all", ())),
        ("ball(7)", ("ball", (7.0,))),
        ("window(13,2.5,7)", ("window", (13.0, 2.5, 7.0))),
        ("odd(x)", ("odd(x)", ())),
    ],
)
def test_selection_names(name: str, parsed: tuple[str, tuple[float, ...]]) -> None:
    assert means.selection_parameters(name) == parsed


def test_the_points_drawn_are_the_means(study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    ax = figures.plot_pr_by_radius(study[0], layer="hidden2", image_shape=SHAPE)
    expected = means.select(
        means.last_step(study_means(study[0])),
        layer="hidden2",
        k=2,
        score="pr",
        width=8,
        training="standard",
    )
    ratios = expected.set_index(expected["selection"].astype(str)).loc[
        ["ball(2)", "ball(4)", "ball(6)", "ball(8)", "all"], "ratio"
    ]
    bars = ax.containers[0]
    assert isinstance(bars, ErrorbarContainer)
    assert bars.lines[0].get_ydata() == pytest.approx(ratios.to_numpy())
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["2", "4", "6", "8", "all"]


def test_the_map_puts_windows_where_they_are(study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    ax = figures.plot_window_map(study[0], layer="hidden1", width=16, image_shape=SHAPE)
    shown = np.asarray(ax.images[0].get_array())
    row = means.select(
        means.last_step(study[0]), layer="hidden1", width=16, training="standard", score="pr", selection="window(5,2,2)"
    )
    assert shown[5, 2] == pytest.approx(row.groupby("seed")["ratio"].mean().mean())
    norm = ax.images[0].norm
    assert norm(np.array(1.0)) == pytest.approx(0.5)  # white is "as at initialisation"


@pytest.mark.parametrize(
    "draw", [figures.plot_score_by_step, figures.plot_accuracy, figures.plot_scores_overview, figures.plot_k_comparison]
)
def test_given_axes_are_used_and_returned(draw: Callable[..., Axes], study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    ax = new_figure().subplots()
    assert draw(study[0], ax=ax) is ax
    assert ax.has_data()


@pytest.mark.slow
def test_all_are_written_and_nothing_is_left_behind(
    study: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, open_before = dict(mpl.rcParams), plt.get_fignums()
    seen: list[str] = []
    written = figures.write_figures(*study, tmp_path / "figures", SHAPE, seen.append)
    assert written.left_out == {}
    assert seen == [family.name for family in figures.FAMILIES]
    assert sorted(path.name for path in written) == sorted(
        f"{family.name}.{end}" for family in figures.FAMILIES for end in ("png", "pdf")
    )
    assert sorted(written) == sorted((tmp_path / "figures").iterdir())
    assert all(path.read_bytes()[:4] == {".png": b"\x89PNG", ".pdf": b"%PDF"}[path.suffix] for path in written)
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == open_before
    monkeypatch.setattr("kagscope.report.page.draw_figures", None)  # a page does not draw them again
    page = render_report(results=study[0], curves=study[1], claims=[], provenance={"figures": written})
    assert page.count("<figure>") == len(figures.FAMILIES)


def test_the_same_table_gives_the_same_bytes(study: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    one = means.select(study[0], width=8, training="standard")
    for end in ("png", "pdf"):
        first, second = (save(figure_k_comparison(one), tmp_path / f"{name}.{end}") for name in "ab")
        assert first.read_bytes() == second.read_bytes()


CASES: dict[str, tuple[dict[str, object], set[str]]] = {
    "one of each": ({"widths": (8,), "trainings": ("augmented",), "seeds": 1, "layers": (LAYER,), "run_name": HOSTILE}, set()),
    "seven widths": ({"widths": range(8, 15), "trainings": ("standard",), "windows": False}, {"window_map"}),
    "k = 2 only, no curves": (
        {"ks": (2,), "curves": False, "windows": False, "widths": (8,)},
        {"k_comparison", "window_map", "zipf", "minor_histogram"},
    ),
    "untrained": ({"last_step": 0, "widths": (8,)}, {"scores_by_step"}),
    "three layers, not square, centres 4 apart": (
        {"image_shape": (20, 28), "stride": 4, "trainings": (TRAINING,), "widths": (8,), "layers": ("hidden1", "b", "c")},
        set(),
    ),
}


DEAR = ("seven widths", "three layers, not square, centres 4 apart")


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] if case in DEAR else []) for case in CASES])
def test_every_shape_of_study_is_drawn_or_left_out_with_a_reason(case: str) -> None:
    chosen, missing = CASES[case]
    options: dict[str, Any] = {"seeds": 2, "points": 2, "last_step": 4, "widths": (8, 16)} | chosen
    drawn, left_out = figures.draw_figures(*make_tables(**options), options.get("image_shape", SHAPE))
    assert sorted([*drawn, *left_out]) == sorted(family.name for family in figures.FAMILIES)
    assert set(left_out) == missing
    assert all(left_out.values())
    for figure in drawn.values():
        figure.draw_without_rendering()


@pytest.mark.parametrize("column", ["ratio", "value", "accuracy"])
def test_nothing_but_nan_crashes_nothing(column: str) -> None:
    results, curves = make_tables(seeds=2, points=2, last_step=4, widths=(8,), trainings=("standard",))
    drawn, left_out = figures.draw_figures(results.assign(**{column: np.nan}), curves.assign(y=np.nan), SHAPE)
    assert {"zipf", "minor_histogram"} <= set(left_out)
    for figure in drawn.values():
        figure.draw_without_rendering()


def test_empty_tables_leave_all_out() -> None:
    results, curves = make_tables(seeds=1, points=1, last_step=1, widths=(8,), windows=False)
    drawn, left_out = figures.draw_figures(results.iloc[:0], curves.iloc[:0], SHAPE)
    assert drawn == {}
    assert len(left_out) == len(figures.FAMILIES)


def test_a_foreign_table_is_named() -> None:
    with pytest.raises(InputError, match=r"results table lacks the columns .*ratio"):
        figures.plot_pr_by_radius(pd.DataFrame({"run": ["a"]}))


def test_a_folder_that_is_a_file(study: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    blocked = tmp_path / "figures"
    blocked.write_text("mine")
    with pytest.raises(OutputError, match="figures"):
        figures.write_figures(study[0].iloc[:0], study[1].iloc[:0], blocked, SHAPE)
    assert blocked.read_text() == "mine"
