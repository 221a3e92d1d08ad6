"""Where geometry occurs: a made-up study whose answer is known, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from kagscope.base.errors import NothingToPlot
from kagscope.figures.steps import figure_dynamics
from kagscope.studies.phase_diagram import SIGNATURES, phase_diagram, phase_findings
from kagscope.tables.schema import RESULT_COLUMNS

WIDTHS, TASKS, STEPS = (4, 8, 16), ("easy", "hard"), (0, 1, 10, 100)
Ratio = Callable[[str, int, int, str], float]


def made(
    ratio: Ratio, seeds: int = 5, noise: float = 0.02, signatures: tuple[str, ...] = SIGNATURES
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results and runs; ``ratio(task, width, step, score)`` is the geometric mean of the ratio over nets."""
    rng = np.random.default_rng(0)
    rows, runs = [], []
    for width in WIDTHS:
        for task in TASKS:
            for seed in range(seeds):
                run = f"{task}-{width}-{seed}"
                runs.append({"run": run, "width": width, "data": task, "seed": seed})
                for step in STEPS:
                    about = {"run": run, "width": width, "training": "standard", "labels": "true", "seed": seed, "step": step}
                    about |= {"epoch": step / 10}
                    for score in signatures:
                        value = ratio(task, width, step, score) * np.exp(noise * rng.standard_normal()) if step else 1.0
                        for point in range(2):
                            rows.append(
                                about
                                | {
                                    "accuracy": step / 200,
                                    "layer": "1",
                                    "k": 2,
                                    "selection": "all",
                                    "point": point,
                                    "score": score,
                                }
                                | {
                                    "value": value,
                                    "baseline": 1.0,
                                    "ratio": value,
                                    "stderr": 0.0,
                                    "baseline_stderr": 0.0,
                                    "exact": True,
                                    "reason": "",
                                }
                            )
    return pd.DataFrame(rows).astype(RESULT_COLUMNS)[list(RESULT_COLUMNS)], pd.DataFrame(runs)


def goldilocks(task: str, width: int, step: int, score: str) -> float:
    return 1.5 if task == "hard" and width > 4 and step >= (10 if width == 16 else 100) else 1.0


def test_no_onset_where_only_the_end_was_measured() -> None:
    """It said that geometry was there "from step 100 on", the last step, before which nobody had looked."""
    results, runs = made(lambda task, width, step, score: 1.5)
    table = phase_diagram(results[results["step"].isin([0, max(STEPS)])], runs, ["width", "data"])
    assert table["occurs"].all()
    assert table["onset_step"].isna().all()
    assert "phase_onset" not in {finding.code for finding in phase_findings(table, ["width", "data"])}


def test_it_finds_where_and_when() -> None:
    results, runs = made(goldilocks)
    table = phase_diagram(results, runs, ["width", "data"])
    assert len(table) == 6
    assert list(table["width"]) == [4, 4, 8, 8, 16, 16], "in the order of the runs"
    there = {(row["width"], row["data"]): row for row in table.to_dict("records")}
    assert {place for place, row in there.items() if row["occurs"]} == {(8, "hard"), (16, "hard")}
    assert there[8, "hard"]["onset_step"] == 100
    assert there[16, "hard"]["onset_step"] == 10
    assert there[16, "hard"]["onset_epoch"] == 1
    assert there[16, "hard"]["onset_accuracy"] == pytest.approx(0.05)
    assert np.isnan(there[4, "easy"]["onset_step"])
    assert there[16, "hard"]["pr"] == pytest.approx(1.5, rel=0.03)
    count, where, onset = phase_findings(table, ["width", "data"], "R²")
    assert (count.code, dict(count.numbers)) == ("phase_count", {"occurs": 2, "of": 6})
    assert (where.code, where.numbers["where"]) == ("phase_where", "easy: nowhere; hard: width 8 and more")
    expected = {"layer": "1", "step": 55, "earliest": 10, "latest": 100, "accuracy": pytest.approx(0.275)}
    assert (onset.code, dict(onset.numbers)) == ("phase_onset", expected)
    assert "in the median setting (10 to 100; epoch 5.5), when the test R² is" in onset
    first = table[(table["width"] == 8) & (table["data"] == "hard")]
    (_, _, onset) = phase_findings(first, ["width", "data"], "R²")
    assert "from step 100 on (epoch 10), when the test R² is" in onset


def test_numbers_are_those_of_the_t_test() -> None:
    results, runs = made(goldilocks)
    row = phase_diagram(results, runs, ["width", "data"]).iloc[3]
    mine = results[(results["run"] == "hard-8-0") | results["run"].astype(str).str.startswith("hard-8-")]
    logs = [
        np.log(mine[(mine["score"] == score) & (mine["step"] == 100)].groupby("run", observed=True)["ratio"].mean())
        for score in SIGNATURES
    ]
    p_values = [stats.ttest_1samp(one, 0, alternative="greater").pvalue for one in logs]
    assert row["p_value"] == pytest.approx(max(p_values))
    low, high = stats.t.interval(0.95, 4, logs[0].mean(), stats.sem(logs[0]))
    assert (row["pr_low"], row["pr_high"]) == pytest.approx((np.exp(low), np.exp(high)))


@pytest.mark.parametrize("missing", SIGNATURES)
def test_one_signature_alone_is_not_enough(missing: str) -> None:
    results, runs = made(lambda task, width, step, score: 0.97 if score == missing else 1.5)
    assert not phase_diagram(results, runs, ["width", "data"])["occurs"].any()


def test_lower_is_not_there_and_nothing_is_nowhere() -> None:
    results, runs = made(lambda *about: 0.7)
    table = phase_diagram(results, runs, ["width", "data"])
    assert (table["p_value"] > 0.99).all()
    assert [one.code for one in phase_findings(table, ["width", "data"])] == ["phase_count"]  # nothing more to tell
    results, runs = made(lambda *about: 1.5)
    table = phase_diagram(results, runs, ["width", "data"])
    assert where_it_occurs(table, ["width", "data"]) == "in all 6 settings"


def where_it_occurs(table: pd.DataFrame, axes: list[str]) -> object:
    (found,) = [one for one in phase_findings(table, axes) if one.code == "phase_where"]
    return found.numbers["where"]


def test_p_values_are_adjusted_over_all_settings_and_layers() -> None:
    results, runs = made(lambda task, width, *rest: 1.0 + 0.02 * width, noise=0.1)
    table = phase_diagram(results, runs, ["width", "data"])
    adjusted = multipletests(table["p_value"], method="holm")[1]
    assert table["p_holm"].to_numpy() == pytest.approx(adjusted, rel=1e-12)
    assert ((table["p_value"] < 0.05) & (table["p_holm"] >= 0.05)).any(), "the adjustment decides something here"
    assert (table["occurs"] == (adjusted < 0.05)).all()


def test_chance_alone_seldom_says_it_occurs() -> None:
    found = 0
    for noise in np.linspace(0.01, 0.4, 10):
        results, runs = made(lambda *about: 1.0, noise=noise)
        found += bool(phase_diagram(results, runs, ["width", "data"])["occurs"].any())
    assert found <= 1


def test_without_seeds_or_signatures_it_is_left_open() -> None:
    results, runs = made(goldilocks, seeds=1)
    table = phase_diagram(results, runs, ["width", "data"])
    assert not table["occurs"].any()
    assert [one.code for one in phase_findings(table, ["width", "data"])] == ["phase_open"]
    results, runs = made(goldilocks, signatures=("pr", "rr_pr"))
    assert phase_diagram(results, runs, ["width", "data"]).empty
    assert phase_findings(pd.DataFrame(), ["width"]) == []


def test_with_three_axes_settings_are_counted() -> None:
    results, runs = made(goldilocks, seeds=10)
    runs["half"] = runs["seed"] % 2
    table = phase_diagram(results, runs, ["width", "data", "half"])
    assert len(table) == 12
    where = where_it_occurs(table, ["width", "data", "half"])
    assert where in ("data easy: in 0 of 6; data hard: in 4 of 6", "half 0: in 2 of 6; half 1: in 2 of 6")


@pytest.mark.parametrize("axes", [[], ["width"], ["data"]])
def test_fewer_axes(axes: list[str]) -> None:
    results, runs = made(lambda *about: 1.5)
    table = phase_diagram(results, runs, axes)
    assert len(table) == (runs[axes[0]].nunique() if axes else 1)
    assert table["occurs"].all()
    assert phase_findings(table, axes)


def test_the_figure_draws_the_means() -> None:
    results, runs = made(goldilocks)
    figure = figure_dynamics(results, runs, "data", "width", accuracy="R²")
    panel = figure.axes[2]  # first row (PR), width 16
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in panel.lines]
    hard = results[results["run"].astype(str).str.startswith("hard-16") & (results["score"] == "pr")]
    means = hard.groupby("step")["ratio"].mean().to_numpy()
    assert any(values.shape == means.shape and np.allclose(values, means) for values in drawn)
    assert figure.axes[-3].get_ylabel() == "test R²"
    assert [ax.get_title() for ax in figure.axes[:3]] == ["width 4", "width 8", "width 16"]
    with pytest.raises(NothingToPlot):
        figure_dynamics(results[results["step"] != 10], runs, "data")
