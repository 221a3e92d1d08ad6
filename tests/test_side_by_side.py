"""Studies side by side: one table with a column ``study``, tested along it as along any other axis, and the page in a browser."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from browser import Browser, find_chromium
from kagscope.base.errors import InputError
from kagscope.cli import app
from kagscope.studies.inference.comparisons import COLUMNS
from kagscope.studies.side_by_side import SideBySide, compare_studies, folder_names


@pytest.fixture(scope="module")
def compared(two_studies: tuple[Path, Path]) -> SideBySide:
    return compare_studies(*two_studies)


def digests(folder: Path) -> dict[str, str]:
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def codes(compared: SideBySide) -> dict[str, dict[str, object]]:
    """The numbers of the findings by code; the last of a code."""
    return {finding.code: dict(finding.numbers) for finding in compared.findings}


def test_names_tell_folders_apart() -> None:
    assert folder_names([Path("x/mnist"), Path("y/digits")]) == ["mnist", "digits"]
    assert folder_names([Path("x/out"), Path("y/out"), Path("y/other")]) == ["x/out", "y/out", "y/other"]
    with pytest.raises(InputError, match="same folder"):
        folder_names([Path("x"), Path("y"), Path("x")])
    with pytest.raises(InputError, match="1 folders were given"):
        folder_names([Path("x")])


def test_what_differs_and_what_is_shared(compared: SideBySide) -> None:
    assert compared.axes == ("study", "epochs", "width")
    assert compared.tied == ("epochs",)
    assert set(compared.table["also_changes"]) == {"epochs"}
    assert list(compared.runs.groupby("study", sort=False).size()) == [4, 3]
    found = codes(compared)
    assert found["other_networks"] == {"values": 1, "names": "epochs"}
    assert found["settings_not_shared"] == {"settings": 1}
    assert found["few_seeds"] == {"seeds": 2}
    assert found["other_measurement"] == {"names": "points"}
    assert found["same_verdicts"] == {"claims": 6}
    assert {"study_effect", "category_effect"} <= set(found)
    assert {finding.numbers["study"] for finding in compared.findings if finding.code == "not_learned"} <= {"short", "long"}
    assert not {"not_paired", "other_versions", "same_networks", "same_scores"} & set(found)


def test_effects_are_those_of_the_stored_tables(two_studies: tuple[Path, Path], compared: SideBySide) -> None:
    logs = []
    points = pd.read_parquet(two_studies[0] / "results.parquet")["point"].unique()
    for folder in two_studies:
        table = pd.read_parquet(folder / "results.parquet")
        table = table[(table["width"] == 6) & (table["step"] == table["step"].max()) & (table["seed"] < 2)]
        chosen = table[(table["score"] == "pr") & (table["k"] == 2) & (table["selection"] == "all")]
        chosen = chosen[(chosen["layer"] == chosen["layer"].iloc[-1]) & chosen["point"].isin(points)]
        logs.append(np.log(chosen["ratio"]).groupby(chosen["seed"]).mean())
    rows = compared.table[(compared.table["score"] == "pr") & (compared.table["k"] == 2) & (compared.table["selection"] == "all")]
    found = rows.iloc[-1]
    assert (found["first"], found["category"], found["n"], found["pairs"]) == ("short", "long", 2, 2)
    assert found["effect"] == pytest.approx(np.exp((logs[1] - logs[0]).mean()), rel=1e-10)
    assert found["p_value"] == pytest.approx(stats.ttest_rel(logs[1], logs[0]).pvalue, rel=1e-6)
    accuracy = compared.table[compared.table["score"] == "accuracy"].iloc[0]
    each = [study.settings[study.settings["width"] == 6].set_index("seed")["accuracy"] for study in compared.studies]
    assert accuracy["effect"] == pytest.approx((each[1] - each[0]).mean())
    assert accuracy["measure"] == "value"


def test_studies_are_left_as_they_are_and_a_copy_does_not_differ(two_studies: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(two_studies[0], tmp_path / "copy")
    (tmp_path / "copy" / "results.parquet").unlink()
    before = digests(two_studies[0]) | digests(tmp_path / "copy")
    same = compare_studies(two_studies[0], tmp_path / "copy")
    assert digests(two_studies[0]) | digests(tmp_path / "copy") == before
    assert same.table["p_value"].isna().all()
    assert same.tied == ()
    assert {"same_networks", "same_scores", "same_verdicts"} <= set(codes(same))


def test_data_of_one_name_and_another_content_are_told_apart(two_studies: tuple[Path, Path], tmp_path: Path) -> None:
    """The images then are others too, so nothing is paired by point."""
    from kagscope.studies.side_by_side import _name_data

    runs = pd.DataFrame({"data": ["x", "x", "y", "x"], "data_fingerprint": ["a" * 9, "b" * 9, "c" * 9, "a" * 9]})
    assert _name_data(runs)["data"].tolist() == ["x (aaaaaaaa)", "x (bbbbbbbb)", "y", "x (aaaaaaaa)"]
    renamed = pd.DataFrame({"data": ["x", "folder/x"], "data_fingerprint": ["a" * 9, "a" * 9]})
    assert _name_data(renamed)["data"].nunique() == 1


def test_verdicts_that_differ_are_named(compared: SideBySide) -> None:
    first, second = (copy(study) for study in compared.studies)
    alike = dict.fromkeys(second.verdicts, "inconclusive")
    vars(first)["verdicts"] = alike | {"1-concentration": "inconclusive"}
    vars(second)["verdicts"] = alike | {"3-minimum-distance": "reproduced"}
    found = codes(replace(compared, studies=(first, second)))["other_verdicts"]
    assert found == {"differ": 1, "of": 6, "claims": "3-minimum-distance"}


def test_the_command_writes_page_and_table(
    two_studies: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", *map(str, two_studies)])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip().splitlines()[-1] == "short-vs-long.html"
    assert list(pd.read_csv("short-vs-long.csv", keep_default_na=False).columns) == list(COLUMNS)
    again = CliRunner().invoke(app, ["report", *map(str, two_studies), "--json", "--out", "."])
    found = json.loads(again.stdout)
    assert (found["report"], found["table"]) == ("comparison.html", "comparison.csv")
    assert {row["axis"] for row in found["effects"]} == {"study"}
    assert found["findings"]
    names = {f"{name}.{kind}" for name in ("comparison", "short-vs-long") for kind in ("csv", "html")}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_three_studies_are_compared_with_the_first(two_studies: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(two_studies[1], tmp_path / "again")
    three = compare_studies(*two_studies, tmp_path / "again")
    assert list(three.table["category"].unique()) == ["long", "again"]
    long, again = (three.table[three.table["category"] == name].reset_index(drop=True) for name in ("long", "again"))
    pd.testing.assert_series_equal(long["effect"], again["effect"])
    text = three.write(tmp_path / "page.html", tmp_path / "page.csv").read_text()
    assert "long, again compared with short" in text


@pytest.mark.slow
def test_names_are_escaped_and_the_browser_shows_both(two_studies: tuple[Path, Path], tmp_path: Path) -> None:
    evil = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(two_studies[0], evil)
    compared = compare_studies(evil, two_studies[1])
    page = compared.write(tmp_path / "page.html", tmp_path / "page.csv")
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
        shown = browser.run("[...document.querySelector('select[data-key=training]').options].map((one) => one.value)")
        assert shown[1:3] == [f"{evil.name}: standard", "long: standard"]
        rows = browser.run("[...document.querySelectorAll('#compared-study .scroll')][0].querySelectorAll('tbody tr').length")
        assert rows == compared.table["selection"].isin(["all", ""]).sum()
        assert browser.run("document.querySelectorAll('[data-table=runs] a').length") == 0
        assert browser.run("document.querySelectorAll('[data-table=runs] tbody tr').length") == 7


def test_the_page_marks_what_differs(compared: SideBySide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = compared.table.assign(p_holm=0.5, p_joint=np.nan)
    whole = table.index[table["selection"].isin(["all", ""])]
    table.loc[whole[[3, 7]], "p_holm"] = 0.0004, 0.04
    monkeypatch.setattr("kagscope.report.comparison.SHOWN", 5)
    text = replace(compared, table=table).write(tmp_path / "page.html", tmp_path / "page.csv").read_text()
    start = text.index('id="compared-study"')
    main = text[start : text.index("<details>", start)]
    assert f"The 5 rows of smallest p of {len(whole)}." in main
    body = re.findall("<tr>(.*?)</tr>", main.partition("<tbody>")[2])
    assert len(body) == 5
    assert [re.findall("<strong>(.*?)</strong>", cells) for cells in body] == [["&lt; 0.001"], ["0.04"], [], [], []]
