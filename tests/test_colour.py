"""Colour images, from arrays through augmentation and studies to the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kagscope.base.errors import DataError
from kagscope.columns.layout import join_channels
from kagscope.columns.scales import window_centers
from kagscope.data import load
from kagscope.report import write_report
from kagscope.report.payload import build_payload
from kagscope.report.units import pack_units
from kagscope.studies.page_data import page_data, settings_of_runs
from kagscope.studies.store import RunStore
from kagscope.studies.study import run_study
from kagscope.tables.means import curve_means
from kagscope.training import Augmentation
from kagscope.training.augmentation import Warper, draw_maps
from studies import Here, small_study

RNG = np.random.default_rng(1)
IMAGES = RNG.integers(0, 256, (24, 3, 8, 8), dtype=np.uint8)
COLOUR: dict[str, Any] = {
    "train_images": IMAGES,
    "train_labels": np.arange(24) % 3,
    "test_images": IMAGES[:9],
    "test_labels": np.arange(9) % 3,
}


def test_colour_arrays_with_channels_first_or_last(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{**COLOUR, "test_images": np.moveaxis(IMAGES[:9], 1, 3)})
    data = load(tmp_path)
    assert (data.image_shape, data.n_inputs) == ((3, 8, 8), 192)
    assert "of 3 x 8 x 8" in repr(data)
    for images in (data.train_images[:9], data.test_images):
        assert images.dtype == np.float32
        np.testing.assert_array_equal(np.rint(255 * images), IMAGES[:9])
    wide = IMAGES.reshape(24, 3, 4, 16).astype(np.float64) / 255
    np.savez(tmp_path / "a.npz", **{**COLOUR, "train_images": wide, "test_images": np.moveaxis(wide[:9], 1, 3)})
    assert load(tmp_path).image_shape == (3, 4, 16)
    np.savez(tmp_path / "a.npz", **{**COLOUR, "test_images": IMAGES[:9, 0]})
    with pytest.raises(DataError, match="3 x 8 x 8 pixels and test images 8 x 8"):
        load(tmp_path)


def test_channels_are_transformed_alike() -> None:
    images = torch.rand(4, 3, 7, 9)
    maps = draw_maps(Augmentation(30, 0.2, 0.3), 4, (3, 7, 9), torch.Generator().manual_seed(0))
    index, out = torch.tensor([2, 0, 3]), torch.empty(3, 3 * 7 * 9)
    Warper(images).warp(index, maps[:3], out)
    for channel in range(3):
        alone = torch.empty(3, 7 * 9)
        Warper(images[:, channel].contiguous()).warp(index, maps[:3], alone)
        assert torch.equal(out.view(3, 3, 63)[:, channel], alone)


def test_pictures_of_units_show_channels_side_by_side() -> None:
    rows = np.zeros((2, 12))
    rows[0, [0, 5, 11]] = 1, -2, 3  # red at (0, 0), green at (0, 1), blue at (1, 1) of 2 x 2
    (picture, _) = join_channels(rows, (3, 2, 2))
    assert picture.tolist() == [[1, 0, 0, -2, 0, 0], [0, 0, 0, 0, 0, 3]]
    assert join_channels(rows, (3, 4))[0].tolist() == rows[0].reshape(3, 4).tolist()
    assert window_centers((3, 8, 6), 3).max(axis=0).tolist() == [7, 5]
    units = pd.DataFrame(
        {"layer": "hidden1", "what": "weights", "row": list(rows)} | dict.fromkeys(("row_norm", "zero_share", "alignment"), 1.0)
    )
    nets = pd.DataFrame({"run": ["a"], "width": [2], "training": ["standard"], "seed": [0]})
    (entry,) = pack_units({"a": units}, nets, [3, 2, 2])
    assert (entry["shape"], entry["channels"]) == ([2, 6], 3)


def test_a_study_in_colour_from_data_to_page(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "a.npz", **COLOUR)
    few = {"k": [1, 2], "checkpoints": 2, "points": 3, "window_points": 1, "rotation_points": 1, "rotations": 2, "samples": 10}
    few["unit_points"] = 10
    study = small_study(
        widths=(4,),
        seeds=1,
        claims=False,
        data=str(tmp_path / "data"),
        epochs=1,
        batch_size=12,
        measure=few,
    )
    folder = run_study(study, tmp_path / "out", executor=Here(), pictures=False).folder
    results = pd.read_parquet(folder / "results.parquet")
    assert results["training"].nunique() == 2
    pairs = (
        results[(results["score"] == "column_subsets") & (results["k"] == 2)].groupby("selection", observed=True)["value"].max()
    )
    assert pairs["all"] == 192 * 191 / 2
    assert pairs["apart(8)"] % 9 == 0  # distance ignores the channel
    windows = results[results["selection"].astype(str).str.startswith("window(")]
    assert windows["selection"].nunique() > 4
    assert windows["value"].notna().any()
    store = RunStore.existing(folder)
    found = page_data(store, list(store.study["runs"]), settings_of_runs(results))
    expected = load(tmp_path / "data").test_images.mean(axis=(0, 1))
    np.testing.assert_allclose(found["pictures"]["mean"], expected, rtol=1e-6)
    assert found["pictures"]["classes"][2].shape == (8, 8)
    assert {len(row) for table in found["units"].values() for row in table["row"]} == {192}
    about: dict[str, Any] = {"image_shape": [3, 8, 8], "figures": [], "without": ["claims"], **found}
    page = write_report(
        tmp_path / "page.html", results=results, curves=pd.read_parquet(folder / "curves.parquet"), claims=[], provenance=about
    )
    assert "(3 × 8 × 8 pixels)" in page.read_text()
    payload = build_payload(results, curve_means(pd.read_parquet(folder / "curves.parquet")), about)
    assert payload["settings"]["imageShape"] == [8, 8]
    assert {(*entry["shape"], entry["channels"]) for entry in payload["units"]} == {(8, 24, 3)}
