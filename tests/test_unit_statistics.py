"""What each unit looks at: against brute force, beside the scores of the table, and through files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import kagscope as kag
from kagscope.measuring.report import Report
from kagscope.measuring.unit_statistics import MEAN_ROW, WEIGHTS, UnitSums


@given(seed=st.integers(0, 10_000), batches=st.integers(1, 4), scale=st.sampled_from([1e-200, 1.0, 1e150]))
def test_sums_over_batches_are_the_defined_means(seed: int, batches: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    J = rng.normal(size=(7, 4, 5)) * scale
    J[:, 1] = 0.0
    J[2, 2] = 0.0
    sums = UnitSums()
    for part in np.array_split(J, batches):
        sums.update(part)
    threshold = float(np.quantile(np.abs(J).mean(axis=2), 0.3))
    found = sums.table("1", [threshold])
    unit = J / scale
    norms = np.linalg.norm(unit, axis=2)
    assert found["row_norm"].to_numpy() == pytest.approx(norms.mean(axis=0) * scale, rel=1e-12, abs=0)
    assert found["zero_share"].to_numpy() == pytest.approx((np.abs(J).mean(axis=2) <= threshold).mean(axis=0))
    assert found.zero_share[1] == 1
    with np.errstate(invalid="ignore"):
        assert found.alignment[2] == pytest.approx(np.nanmean(np.abs(unit[:, 2]).max(axis=1) / norms[:, 2]))
    assert np.isnan(found.alignment[1])
    if scale == 1.0:
        assert np.stack(found["row"].to_list()) == pytest.approx(J.mean(axis=0), rel=1e-5, abs=1e-6)
    assert (found["what"] == MEAN_ROW).all()


def test_of_one_row_along_an_axis_the_alignment_is_one() -> None:
    sums = UnitSums()
    sums.update(np.array([[[0.0, -3.0, 0.0], [1.0, 1.0, 1.0]]]))
    assert sums.table("1", [])["alignment"].to_numpy() == pytest.approx([1, 1 / np.sqrt(3)])


@pytest.fixture(scope="module")
def nets() -> tuple[nn.Sequential, nn.Sequential, torch.Tensor]:
    torch.manual_seed(0)

    def net() -> nn.Sequential:
        return nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))

    return net(), net(), torch.randn(20, 12)


@pytest.fixture(scope="module")
def report(nets: tuple[nn.Sequential, nn.Sequential, torch.Tensor]) -> Report:
    model, baseline, inputs = nets
    found: Report = kag.measure(model, inputs, layers=["1", "3"], k=(1,), image_shape=(3, 4), baseline=baseline, progress=False)
    return found


def test_units_of_a_measured_model_agree_with_its_table(
    report: Report, nets: tuple[nn.Sequential, nn.Sequential, torch.Tensor]
) -> None:
    first, second = (one for _, one in report.units.groupby("layer", sort=False))
    assert report.units.groupby("layer")["what"].unique().map(list).to_dict() == {"1": [WEIGHTS], "3": [MEAN_ROW]}
    weight = nets[0][0].weight
    assert isinstance(weight, torch.Tensor)
    assert np.stack(first["row"].to_list()) == pytest.approx(weight.detach().numpy(), rel=1e-6)
    J = torch.stack([torch.autograd.functional.jacobian(lambda x: nets[0][:4](x), one) for one in nets[2]])
    assert np.stack(second["row"].to_list()) == pytest.approx(J.mean(dim=0).numpy(), rel=1e-4, abs=1e-6)
    for one in (first, second):
        rows = report.table[(report.table["layer"] == one["layer"].iloc[0]) & (report.table["k"] == 1)]
        assert one.zero_share.mean() == pytest.approx(rows[rows["score"] == "zero_rows"]["value"].mean())


def test_without_a_baseline_nothing_says_which_rows_are_zero(nets: tuple[nn.Sequential, nn.Sequential, torch.Tensor]) -> None:
    found = kag.measure(nets[0], nets[2], layers=["1"], k=(1,), progress=False)
    assert found.units["zero_share"].isna().all()


def test_units_are_saved_and_reports_without_them_still_open(report: Report, tmp_path: Path) -> None:
    folder = report.save(tmp_path / "r")
    pd.testing.assert_frame_equal(
        Report.load(folder).units.drop(columns="row"), report.units.drop(columns="row"), check_dtype=False
    )
    (folder / "units.parquet").unlink()
    opened = Report.load(folder)
    assert opened.units.empty
    assert opened.to_html(tmp_path / "page.html").is_file()
    report.save(folder)
    opened.save(folder)  # of a report without units none of an earlier one stay
    assert not (folder / "units.parquet").exists()


def test_layers_with_too_many_columns_keep_no_rows() -> None:
    model = nn.Sequential(nn.Linear(5000, 3), nn.ReLU(), nn.Linear(3, 2))
    assert kag.measure(model, torch.randn(2, 5000), layers=["1"], k=(1,), progress=False).units.empty
