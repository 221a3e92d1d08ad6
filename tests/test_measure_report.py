"""Reports: columns, files, comparison, sentences, pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from torch import Tensor, nn

import kagscope as kag
import layer_models as zoo
from kagscope.base.errors import DataError, InputError, OutputError
from kagscope.tables.schema import SCORE_COLUMNS
from layer_models import Odd, trained, values

COLUMNS = list(SCORE_COLUMNS)


@pytest.fixture(scope="module")
def report() -> kag.Report:
    return kag.measure(zoo.seeded(Odd), zoo.numbers(12, 5), layers="*", baseline="reinit", labels=np.arange(12) % 3)


@pytest.fixture(scope="module")
def token_report() -> kag.Report:
    return kag.measure(zoo.seeded(zoo.encoder), zoo.numbers(3, 4, 4), layers="layers.*.linear1", layer_map="block", tokens=(0, 2))


def test_columns_and_dtypes_are_those_of_the_design(report: kag.Report, token_report: kag.Report) -> None:
    assert report.table.columns.tolist() == COLUMNS
    assert token_report.table.columns.tolist() == [*COLUMNS[:4], "token", *COLUMNS[4:]]
    for one in (report, token_report):
        dtypes = {name: str(dtype) for name, dtype in one.table.dtypes.items() if name != "token"}
        assert dtypes == SCORE_COLUMNS
        undefined = one.table["value"].isna()
        assert (one.table.loc[undefined, "reason"].astype(str) != "").all()
        assert (one.table.loc[~undefined, "reason"].astype(str) == "").all()
        assert not one.table.duplicated(
            [c for c in one.table.columns if c not in ("value", "baseline", "ratio", "stderr", "exact")]
        ).any()


def test_save_and_load(tmp_path: Path, report: kag.Report, token_report: kag.Report) -> None:
    for name, one in (("plain", report), ("tokens", token_report)):
        loaded = kag.Report.load(one.save(tmp_path / name))
        pd.testing.assert_frame_equal(loaded.table, one.table)
        pd.testing.assert_frame_equal(loaded.curves, one.curves)
        assert (loaded.layers, loaded.settings, loaded.notes, loaded.provenance) == (
            one.layers,
            one.settings,
            one.notes,
            one.provenance,
        )
        assert loaded.findings == one.findings
        assert repr(loaded) == repr(one)
        one.save(tmp_path / name)  # again into the same folder
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="something else"):
        report.save(tmp_path / "other")
    with pytest.raises(DataError, match="no report"):
        kag.Report.load(tmp_path / "other")
    (tmp_path / "plain" / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="damaged"):
        kag.Report.load(tmp_path / "plain")


def test_compare(report: kag.Report, token_report: kag.Report) -> None:
    same = report.compare(report)
    assert (same["ratio"].dropna() == 1).all()
    assert len(same[same["ratio"].notna()]) > 10
    model, other, x = zoo.seeded(zoo.mlp), trained(), zoo.numbers(6, 5)
    first, second = (kag.measure(one, x, layers=layers) for one, layers in ((model, ["1", "3"]), (other, ["1"])))
    found = first.compare(second)
    assert set(found["layer"]) == {"1"}
    row = found[(found["score"] == "pr") & (found["k"] == 2)].iloc[0]
    ratios = values(first, "1", 2, "pr") / values(second, "1", 2, "pr")
    assert row["ratio"] == pytest.approx(ratios.mean(), rel=1e-12)
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    assert row["points"] == 6
    assert set(token_report.compare(token_report)["ratio"].dropna()) == {1.0}
    with pytest.raises(InputError, match="nothing in common"):
        first.compare(token_report)


def test_summary_is_the_mean_with_a_t_interval() -> None:
    from scipy import stats

    found = kag.measure(trained(), zoo.numbers(6, 5), layers="3", baseline="reinit", baseline_seeds=2)
    row = found.summary().query("score == 'pr' and k == 2").iloc[0]
    baseline, spread = (values(found, "3", 2, "pr", column=column) for column in ("baseline", "baseline_stderr"))
    ratio = values(found, "3", 2, "pr", column="ratio")
    assert (spread > 0).all()  # how much the two baselines differ
    for column, common in (("value", 0.0), ("baseline", spread.mean()), ("ratio", (ratio * spread / baseline).mean())):
        sample = values(found, "3", 2, "pr", column=column)
        low, high = stats.t.interval(0.95, 5, sample.mean(), np.hypot(sample.std(ddof=1) / np.sqrt(6), common))
        assert row[column] == pytest.approx(sample.mean(), rel=1e-12)
        assert (row[f"{column}_low"], row[f"{column}_high"]) == pytest.approx((low, high), rel=1e-9)


def test_findings_say_what_a_reader_must_know(report: kag.Report) -> None:
    text = "\n".join(report.findings)
    assert "was skipped" in text
    assert "Intervals are over data points of one network" in text
    few = kag.measure(zoo.seeded(zoo.mlp), zoo.numbers(1, 5))
    said = "\n".join(few.findings)
    assert "Only 1 data point:" in said
    assert "There is no baseline" in said
    dead = zoo.seeded(lambda: zoo.mlp(6, nn.ReLU))
    with torch.no_grad():
        dead[0].bias[:2] = -1e6
    found = kag.measure(dead, zoo.numbers(12, 5), layers="1", baseline="reinit").findings
    assert any("2 of 6 units of layer 1" in one for one in found if one.code == "constant_units")


def test_dead_units_are_not_felt_by_the_output() -> None:
    model = zoo.seeded(zoo.mlp)
    with torch.no_grad():
        model[2].weight[:, :3] = 0
    report = kag.measure(model, zoo.numbers(12, 5), layers="1", layer_map="output", baseline=zoo.seeded(zoo.mlp))
    assert values(report, "1", 0, "unfelt_units") == [3.0]
    assert any("3 of 6 units of layer 1" in one for one in report.findings if one.code == "unfelt_units")


@pytest.mark.usefixtures("every_figure")
def test_page_csv_and_notebook(tmp_path: Path, report: kag.Report, token_report: kag.Report) -> None:
    for one in (report, token_report):
        page = one.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
        assert re.findall(r"(?:src|href)=[\"'](?!#|data:)|url\((?!data:)|https?://(?!www\.w3\.org/)|@import", page) == []
        assert "<html" in page
        captions = re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)
        assert captions
        assert not any("seeds" in one or "figures/" in one for one in captions)  # there are neither
        table = pd.read_csv(one.to_csv(tmp_path / "table.csv"), keep_default_na=False, na_values=["", "nan"])
        assert table.columns.tolist() == one.table.columns.tolist()
        np.testing.assert_allclose(table["value"], one.table["value"], rtol=1e-14)
    assert "spare" in report._repr_html_()


def test_figures_of_a_report_find_the_order_of_what_they_draw() -> None:
    model, x = zoo.seeded(zoo.mlp), zoo.numbers(4, 5)
    report = kag.measure(model, x, layers="1", k=1, progress=False)
    for draw in (report.plot_layers, report.plot_depth, report.plot_zipf, report.plot_histogram):
        assert "k = 1" in " ".join(text.get_text() for text in draw().figure.findobj(Text)), draw
    assert report.plot_layers("effective_rank").get_ylabel() == "effective rank"


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module(evil, nn.Sequential(nn.Linear(5, 4), nn.ReLU()))

        def forward(self, x: Tensor) -> Any:
            return self._modules[evil](x)  # type: ignore[misc]

    found = kag.measure(zoo.seeded(Named), zoo.numbers(3, 5), baseline="reinit", baseline_seeds=1)
    for text in (found._repr_html_(), found.to_html(tmp_path / "page.html").read_text(encoding="utf-8")):
        assert "<img src=x" not in text
    assert evil in repr(found)
