"""Addition modulo p: its data set, and the ready study of it, shrunk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kagscope as kag
from kagscope import data
from kagscope.studies.file import read_study_file
from kagscope.studies.study import run_study
from studies import Here


@pytest.mark.parametrize("p", [5, 31])
def test_every_pair_once_with_its_sum(p: int) -> None:
    made = data.load(f"modular{p}")
    images = np.concatenate([made.train_images, made.test_images])
    labels = np.concatenate([made.train_labels, made.test_labels])
    assert made.image_shape == (2, p)
    assert np.array_equal(images.sum(axis=2), np.ones((p * p, 2)))
    a, b = images.argmax(axis=2).T
    assert len(set(zip(a.tolist(), b.tolist(), strict=True))) == p * p
    assert np.array_equal(labels, (a + b) % p)
    assert len(made.train_labels) == int(0.7 * p * p)
    assert made.fingerprint() == data.load(f"modular{p}").fingerprint()


@pytest.mark.parametrize("name", ["modular4", "modular114", "modular99999999", "modular"])
def test_bad_moduli(name: str) -> None:
    with pytest.raises(kag.InputError, match=r"modulus from 5 to 113|unknown data set"):
        data.load(name)


def test_the_study_of_grokking_shrunk(tmp_path: Path) -> None:
    smaller = ["run.data=modular5", "run.width=8", "run.batch_size=17", "run.epochs=20", "grid.seed=[0]"]
    study = read_study_file("grokking", [*smaller, "measure.points=4", "measure.checkpoints=4", "measure.along.points=4"])
    run_study(study, tmp_path / "out", executor=Here(), pictures=False)
    table = kag.open_study(tmp_path / "out").table
    assert table["run"].nunique() == 4
    assert {"pr", "kl_uniform", "rr_pr"} <= set(table.loc[table["step"] == 1, "score"])
