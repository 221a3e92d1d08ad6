"""Two studies side by side: statistics against SciPy, matching against the stored tables, and the page in a browser."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from browser import Browser, find_chromium
from kagscope.base.errors import NothingToPlot
from kagscope.cli import app
from kagscope.figures.versus import plot_versus
from kagscope.studies.contrasts import COLUMNS, contrasts
from kagscope.studies.side import names_of
from kagscope.studies.statistics.multiple_testing import holm
from kagscope.studies.versus import Comparison, compare_studies
from kagscope.tables.schema import ALL_SETTINGS


def cells(values: dict[str, np.ndarray], score: str = "pr", measure: str = "ratio", selection: str = "all") -> pd.DataFrame:
    """One row per network: ``values`` by setting, one for each seed."""
    rows = [
        {"setting": setting, "seed": seed, "layer": "1", "k": 2, "selection": selection, "score": score, "value": x, "ratio": x}
        for setting, numbers in values.items()
        for seed, x in enumerate(numbers)
    ]
    table = pd.DataFrame(rows).assign(exact=True)
    return table if measure == "ratio" else table.assign(ratio=np.nan)


def row(table: pd.DataFrame, setting: str = ALL_SETTINGS) -> dict[str, Any]:
    (found,) = table[table["setting"] == setting].to_dict("records")
    return {str(name): value for name, value in found.items()}


RNG = np.random.default_rng(0)
A = {"w 8": RNG.lognormal(0, 0.2, 5), "w 16": RNG.lognormal(0, 0.4, 4)}
B = {"w 8": RNG.lognormal(0.3, 0.2, 5), "w 16": RNG.lognormal(0.3, 0.4, 6)}


def test_pairs_are_tested_as_scipy_does() -> None:
    found = row(contrasts(cells(A), cells(B), {"w 8": True, "w 16": False}), "w 8")
    logs = np.log(B["w 8"]) - np.log(A["w 8"])
    test = stats.ttest_1samp(logs, 0)
    interval = test.confidence_interval()
    assert found["estimate"] == pytest.approx(np.exp(logs.mean()), rel=1e-12)
    assert (found["low"], found["high"]) == pytest.approx(np.exp(interval), rel=1e-10)
    assert found["p_value"] == pytest.approx(test.pvalue, rel=1e-9)
    assert (found["n_a"], found["n_b"], found["paired"], found["effect"]) == (5, 5, True, "ratio")
    assert found["test"] == "paired t-test of logarithms"


def test_groups_are_tested_by_welch_as_scipy_does() -> None:
    found = row(contrasts(cells(A), cells(B), {"w 8": True, "w 16": False}), "w 16")
    test = stats.ttest_ind(np.log(B["w 16"]), np.log(A["w 16"]), equal_var=False)
    assert found["p_value"] == pytest.approx(test.pvalue, rel=1e-9)
    assert (found["low"], found["high"]) == pytest.approx(np.exp(test.confidence_interval()), rel=1e-9)
    assert (found["n_a"], found["n_b"], found["paired"]) == (4, 6, False)
    assert (found["a"], found["b"]) == pytest.approx((stats.gmean(A["w 16"]), stats.gmean(B["w 16"])))


def test_over_settings_every_setting_weighs_the_same() -> None:
    found = row(contrasts(cells(A), cells(B), {"w 8": True, "w 16": False}))
    d = np.log(B["w 8"] / A["w 8"])
    one, other = np.log(A["w 16"]), np.log(B["w 16"])
    v = [d.var(ddof=1) / 5, one.var(ddof=1) / 4 + other.var(ddof=1) / 6]
    df = [4.0, v[1] ** 2 / ((one.var(ddof=1) / 4) ** 2 / 3 + (other.var(ddof=1) / 6) ** 2 / 5)]
    mean, se = (d.mean() + other.mean() - one.mean()) / 2, np.sqrt(sum(v)) / 2
    freedom = sum(v) ** 2 / (v[0] ** 2 / df[0] + v[1] ** 2 / df[1])
    assert found["estimate"] == pytest.approx(np.exp(mean), rel=1e-12)
    assert found["p_value"] == pytest.approx(2 * stats.t.sf(abs(mean) / se, freedom), rel=1e-9)
    assert found["high"] == pytest.approx(np.exp(mean + stats.t.ppf(0.975, freedom) * se), rel=1e-9)
    assert (found["settings"], found["n_a"], found["n_b"], found["paired"]) == (2, 9, 11, False)


def test_what_has_zeros_is_compared_by_differences() -> None:
    a, b = np.array([0.0, 0.1, 0.2]), np.array([0.3, 0.1, 0.4])
    found = row(contrasts(cells({"s": a}, measure="value"), cells({"s": b}, measure="value"), {"s": True}), "s")
    assert (found["effect"], found["measure"]) == ("difference", "value")
    assert found["estimate"] == pytest.approx((b - a).mean())
    assert found["p_value"] == pytest.approx(stats.ttest_rel(b, a).pvalue, rel=1e-9)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 6), factor=st.floats(0.01, 100))
@settings(max_examples=8, deadline=None)
def test_exchange_and_scale(seed: int, n: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.lognormal(0, 0.5, n), rng.lognormal(0, 0.5, n)
    for paired in (True, False):
        forth, back = (row(contrasts(cells({"s": x}), cells({"s": y}), {"s": paired})) for x, y in ((a, b), (b, a)))
        assert forth["estimate"] * back["estimate"] == pytest.approx(1, rel=1e-9)
        assert forth["low"] * back["high"] == pytest.approx(1, rel=1e-6)
        assert forth["p_value"] == pytest.approx(back["p_value"], rel=1e-6)
        scaled = row(contrasts(cells({"s": a}), cells({"s": factor * b}), {"s": paired}))
        assert scaled["estimate"] == pytest.approx(factor * forth["estimate"], rel=1e-6)
        same = row(contrasts(cells({"s": a}), cells({"s": a * (1 + 1e-14)}), {"s": paired}))
        assert same["p_value"] == 1
        assert same["estimate"] == 1


def test_one_network_a_side_has_an_effect_but_no_interval() -> None:
    found = row(contrasts(cells({"s": np.array([2.0])}), cells({"s": np.array([3.0])}), {"s": True}))
    assert found["estimate"] == pytest.approx(1.5)
    assert np.isnan([found["low"], found["p_value"], found["p_holm"]]).all()


def test_a_difference_without_any_spread_has_no_p() -> None:
    found = row(
        contrasts(
            cells({"s": np.array([1.0, 1.0])}, measure="value"), cells({"s": np.array([2.0, 2.0])}, measure="value"), {"s": True}
        )
    )
    assert found["estimate"] == pytest.approx(2)
    assert np.isnan(found["p_value"])


@pytest.mark.parametrize("paired", [True, False])
def test_of_what_does_not_differ_one_in_twenty_seems_to(paired: bool) -> None:
    rng = np.random.default_rng(3)
    many = 1500
    grid = pd.MultiIndex.from_product(
        [[f"s{i}" for i in range(many)], ["x", "y", "z"], range(4)], names=["score", "setting", "seed"]
    )
    common = grid.to_frame(index=False).assign(layer="1", k=2, selection="all", exact=True)
    tables = [common.assign(value=numbers, ratio=numbers) for numbers in rng.lognormal(0, 0.3, (2, len(common)))]
    found = contrasts(tables[0], tables[1], dict.fromkeys("xyz", paired))
    for chosen in (found[found["setting"] == ALL_SETTINGS], found[found["setting"] == "x"]):
        assert 0.03 < (chosen["p_value"] < 0.05).mean() < 0.065
        covered = (chosen["low"] < 1) & (chosen["high"] > 1)
        assert (covered == (chosen["p_value"] > 0.05)).all()


def test_holm_within_kinds() -> None:
    rng = np.random.default_rng(1)
    tables = [
        pd.concat(
            [
                cells({s: rng.lognormal(0, 0.3, 4) for s in "xy"}, score, selection=of)
                for score in ("pr", "ipr")
                for of in ("all", "ball(2)")
            ]
        )
        for _ in range(2)
    ]
    found = contrasts(tables[0], tables[1], {"x": True, "y": True})
    assert list(found.columns) == list(COLUMNS)
    pooled = found["setting"] == ALL_SETTINGS
    whole = found["selection"] == "all"
    for kind in (pooled & whole, pooled & ~whole, ~pooled & whole, ~pooled & ~whole):
        assert found[kind]["p_holm"].tolist() == holm(found[kind]["p_value"].tolist())


def test_names_tell_folders_apart() -> None:
    assert names_of(Path("x/mnist"), Path("y/digits")) == ("mnist", "digits")
    assert names_of(Path("x/out"), Path("y/out")) == ("x/out", "y/out")


# -- real studies ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def comparison(two_studies: tuple[Path, Path]) -> Comparison:
    return compare_studies(*two_studies)


def digests(folder: Path) -> dict[str, str]:
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def test_settings_pairs_and_differences(comparison: Comparison) -> None:
    by_name = comparison.settings.set_index("setting")
    assert by_name.loc["width 6"].to_dict() == {"nets_a": 2, "nets_b": 3, "seeds": 2, "paired": True}
    assert by_name.loc["width 4"].to_dict() == {"nets_a": 2, "nets_b": 0, "seeds": 0, "paired": False}
    facts = {row["value"]: (row["a"], row["b"], row["kind"]) for row in comparison.differences.to_dict("records")}
    assert facts == {"epochs": ("1", "4", "network"), "geometry.points": ("4", "6", "measurement")}
    text = "\n".join(comparison.findings)
    for said in (
        "epochs 1 in short, 4 in long.",
        "1 setting is only in short and left out: width 4.",
        "long's PR ratio (trained over initial) at layer hidden1 is",
        "n = 2 pairs",
        "as few as 2 networks",
        "geometry.points 4 and 6); scores are compared at the images that both measured",
        "did not learn",
    ):
        assert said in text


def test_effects_are_those_of_the_stored_tables(two_studies: tuple[Path, Path], comparison: Comparison) -> None:
    logs = []
    points = pd.read_parquet(two_studies[0] / "results.parquet")["point"].unique()
    for folder in two_studies:
        table = pd.read_parquet(folder / "results.parquet")
        table = table[(table["width"] == 6) & (table["step"] == table["step"].max()) & (table["seed"] < 2)]
        chosen = table.query("score == 'pr' and k == 2 and layer == 'hidden2' and selection == 'all'")
        chosen = chosen[chosen["point"].isin(points)]
        logs.append(np.log(chosen.groupby("seed")["ratio"].mean()))
    found = comparison.table.query(
        f"setting == '{ALL_SETTINGS}' and score == 'pr' and k == 2 and layer == 'hidden2' and selection == 'all'"
    )
    assert found["estimate"].item() == pytest.approx(np.exp((logs[1] - logs[0]).mean()), rel=1e-10)
    assert found["p_value"].item() == pytest.approx(stats.ttest_rel(logs[1], logs[0]).pvalue, rel=1e-6)
    accuracy = comparison.table.query(f"setting == '{ALL_SETTINGS}' and score == 'accuracy'")
    assert accuracy["effect"].item() == "difference"
    assert not comparison.table["selection"].str.startswith("window").any()


def test_studies_are_left_as_they_are_and_a_copy_does_not_differ(two_studies: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(two_studies[0], tmp_path / "copy")
    (tmp_path / "copy" / "results.parquet").unlink()
    before = digests(two_studies[0]) | digests(tmp_path / "copy")
    same = compare_studies(two_studies[0], tmp_path / "copy")
    assert digests(two_studies[0]) | digests(tmp_path / "copy") == before
    assert set(same.table["p_value"].dropna()) == {1.0}
    assert same.differences.empty
    text = "\n".join(same.findings)
    assert "trained their networks with the same values" in text
    assert "The networks of both are the same" in text
    assert "All 6 claims that both test have the same verdict." in text


def test_the_command_writes_page_and_table(
    two_studies: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", *map(str, two_studies)])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip().splitlines()[-1] == "short-vs-long.html"
    table = pd.read_csv("short-vs-long.csv", keep_default_na=False)
    assert list(table.columns) == list(COLUMNS)
    again = CliRunner().invoke(app, ["report", *map(str, two_studies), "--json", "--out", "."])
    found = json.loads(again.stdout)
    assert (found["report"], found["table"]) == ("comparison.html", "comparison.csv")
    assert {"settings", "differences", "claims", "effects", "findings"} <= set(found)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "comparison.csv",
        "comparison.html",
        "short-vs-long.csv",
        "short-vs-long.html",
    ]


def test_names_are_escaped_and_the_browser_shows_both(two_studies: tuple[Path, Path], tmp_path: Path) -> None:
    evil = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(two_studies[0], evil)
    comparison = compare_studies(evil, two_studies[1])
    page = comparison.write(tmp_path / "page.html", tmp_path / "page.csv")
    text = page.read_text()
    assert "<img src=x" not in text
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium or Chrome is installed")
    with Browser(executable) as browser:
        for width in (1280, 390):
            browser.open(page, width=width)
            assert browser.problems == []
            assert browser.run("document.documentElement.scrollWidth") <= width
        shown = browser.run("[...document.querySelectorAll('[data-toggle=trainings]')].map((box) => box.value)")
        assert shown[:2] == [f"{evil.name}: standard", "long: standard"]
        rows = browser.run("[...document.querySelectorAll('#compared .scroll')][0].querySelectorAll('tbody tr').length")
        main = comparison.table[(comparison.table["setting"] == ALL_SETTINGS) & (comparison.table["selection"] == "all")]
        assert rows == len(main)
        assert browser.run("document.querySelectorAll('[data-table=runs] a').length") == 0
        assert browser.run("document.querySelectorAll('[data-table=runs] tbody tr').length") == 7


def test_figure(comparison: Comparison) -> None:
    axes = plot_versus(comparison.table, ("short", "long"))
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert "participation ratio (PR), k = 2" in labels
    assert axes.get_xlabel() == "long over short"
    with pytest.raises(NothingToPlot):
        plot_versus(comparison.table.iloc[:0])


def test_claims_side_by_side(comparison: Comparison) -> None:
    claims = comparison.claims
    assert len(claims) == 6
    assert re.fullmatch("1-.*", claims["id"][0])
    assert set(claims["verdict_a"]) | set(claims["verdict_b"]) <= {"reproduced", "not reproduced", "inconclusive"}


def test_the_page_marks_what_differs(comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = comparison.table.assign(p_holm=0.5)
    pooled = table.index[(table["setting"] == ALL_SETTINGS) & (table["selection"] == "all")]
    table.loc[pooled[[3, 7]], "p_holm"] = 0.0004, 0.04
    claims = comparison.claims.assign(verdict_a="inconclusive", verdict_b="inconclusive")
    claims.loc[2, "verdict_b"] = "not reproduced"
    monkeypatch.setattr(Comparison, "claims", claims)
    monkeypatch.setattr("kagscope.report.versus.SHOWN", 5)
    text = replace(comparison, table=table).write(tmp_path / "page.html", tmp_path / "page.csv").read_text()
    main = text[text.index('id="compared"') : text.index("<details>")]
    assert f"The 5 rows of smallest p of {len(pooled)}." in main
    body = re.findall("<tr>(.*?)</tr>", main.partition("<tbody>")[2])
    assert len(body) == 5
    assert [re.findall("<strong>(.*?)</strong>", cells) for cells in body] == [["&lt; 0.001"], ["0.04"], [], [], []]
    verdicts = text[text.index('id="verdicts"') : text.index('id="settings"')]
    rows = re.findall("<tr>(.*?)</tr>", verdicts.partition("<tbody>")[2], re.DOTALL)
    assert [("Another verdict." in cells, "chip not-reproduced" in cells) for cells in rows] == [
        (place == 2, place == 2) for place in range(6)
    ]
