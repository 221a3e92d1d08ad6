"""What the page shows beside scores: from the data once, from the study's folder from then on, never from the network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from kagscope.base.errors import DataError, InputError
from kagscope.columns.scales import window_centers, window_radii
from kagscope.data import Dataset, load, load_local
from kagscope.measuring.observe import choose_points
from kagscope.measuring.unit_statistics import MEAN_ROW, WEIGHTS
from kagscope.minors.maps import window_moments
from kagscope.studies import page_data as module
from kagscope.studies.collect import Outcome
from kagscope.studies.page_data import page_data, settings_of_runs
from kagscope.studies.store import RunStore
from studies import MEASURE


def found_in(folder: Path) -> dict[str, Any]:
    store = RunStore.existing(folder)
    results = pd.read_parquet(folder / "results.parquet")
    return page_data(store, list(store.study["runs"]), settings_of_runs(results))


@pytest.fixture
def folder(study: Outcome, tmp_path: Path) -> Path:
    return Path(shutil.copytree(study.folder, tmp_path / "study"))


def test_of_each_setting_the_first_net_shows_its_units(folder: Path) -> None:
    results = pd.read_parquet(folder / "results.parquet")
    found = found_in(folder)
    first = results.drop_duplicates(["width", "training"])
    assert list(found["units"]) == [str(run) for run in first["run"]]
    for run, table in found["units"].items():
        layers = dict(iter(table.groupby("layer", sort=False)))
        assert {name: one["what"].unique().tolist() for name, one in layers.items()} == {
            "hidden1": [WEIGHTS],
            "hidden2": [MEAN_ROW],
        }
        weights = load_file(folder / "runs" / run / "weights.safetensors")
        last = max(int(name.partition("/")[0]) for name in weights)
        assert np.array_equal(np.stack(layers["hidden1"]["row"].to_list()), weights[f"{last}/hidden1.0.weight"].numpy())
        for name, one in layers.items():
            rows = results[(results["run"] == run) & (results["step"] == last) & (results["layer"] == name) & (results["k"] == 1)]
            assert one.zero_share.mean() == pytest.approx(rows[rows["score"] == "zero_rows"]["value"].mean())


def test_labels_and_mean_images_are_those_of_the_data(folder: Path) -> None:
    found, digits = found_in(folder), load("digits")
    points = choose_points(len(digits.test_labels), len(found["labels"]))
    assert found["labels"] == dict(zip(points.tolist(), digits.test_labels[points].tolist(), strict=True))
    assert found["pictures"]["mean"] == pytest.approx(digits.test_images.mean(axis=0))
    assert found["pictures"]["classes"][3] == pytest.approx(digits.test_images[digits.test_labels == 3].mean(axis=0))
    assert set(found["configs"]) == set(RunStore(folder).study["runs"])


def test_once_made_they_need_no_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = found_in(folder)
    (kept,) = (folder / "data").iterdir()
    monkeypatch.setattr(module, "load_local", lambda source: None)
    after = found_in(folder)
    assert after["labels"] == before["labels"]
    for run, table in before["units"].items():
        pd.testing.assert_frame_equal(table, after["units"][run])
    kept.write_bytes(kept.read_bytes()[:100])  # damaged: as if it were not there
    assert "labels" not in found_in(folder)
    kept.unlink()
    assert found_in(folder)["units"] == {}


def test_data_that_changed_are_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder / "data", ignore_errors=True)
    digits = load("digits")
    other = Dataset("digits", digits.train_images, digits.train_labels, 1 - digits.test_images, digits.test_labels)
    monkeypatch.setattr(module, "load_local", lambda source: other)
    assert "pictures" not in found_in(folder)
    assert not (folder / "data").exists()


def test_weights_are_read_as_tensors_and_nothing_else(folder: Path) -> None:
    run = next(iter(RunStore(folder).study["runs"]))
    torch.save(torch.nn.Linear(2, 2), folder / "runs" / run / "weights.safetensors")
    with pytest.raises(DataError, match="pickle"):
        found_in(folder)


def test_data_are_looked_for_on_this_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *given: pytest.fail("asked the network"))
    assert load_local("mnist", cache_dir=tmp_path) is None
    assert load_local(str(tmp_path / "nothing")) is None
    here, usual = load_local("digits"), load("digits")
    assert here is not None
    assert here.fingerprint() == usual.fingerprint()


def test_windows_are_measured_at_four_radii(folder: Path) -> None:
    results = pd.read_parquet(folder / "results.parquet")
    names = {str(name) for name in results["selection"].unique() if str(name).startswith("window")}
    centres = window_centers((8, 8), MEASURE["window_map"])
    coarse = [(r, c) for r in np.unique(centres[:, 0])[::2] for c in np.unique(centres[:, 1])[::2]]
    wanted: dict[int, Any] = {1: coarse, 2: centres, 3: coarse, 4: coarse}
    assert names == {f"window({r},{c},{radius})" for radius, places in wanted.items() for r, c in places}


def test_several_radii_share_one_map() -> None:
    J = np.random.default_rng(0).normal(size=(2, 5, 64))
    centres, radii = window_centers((8, 8), 4), window_radii((8, 8))
    together = window_moments(J, centres, radii, (8, 8))
    assert len(together) == len(radii)
    for radius, many in zip(radii, together, strict=True):
        for one, other in zip(many, window_moments(J, centres, radius, (8, 8)), strict=True):
            assert one.count == other.count
            assert np.allclose(one.s1, other.s1, rtol=1e-12)
            assert np.allclose(one.s4, other.s4, rtol=1e-12)


def test_no_more_nets_are_looked_at_than_a_page_shows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = list(found_in(folder)["units"])
    monkeypatch.setattr(module, "ENTRIES", 1)
    assert list(found_in(folder)["units"]) == everything[:1]


def test_no_radius_is_refused() -> None:
    with pytest.raises(InputError, match="radius is empty"):
        window_moments(np.ones((3, 4)), [(0, 0)], [], (2, 2))
