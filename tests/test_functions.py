"""The functions of three variables are what their names say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagscope.base.errors import InputError
from kagscope.data import load
from kagscope.data.functions import N_TEST, N_TRAIN, NAMES, accuracy_name, is_function, load_function, rotation

ALL = ("xor3", "linear3", "random3", "rotated3:0.5", "mixed3:0.5")


def points_and_targets(name: str) -> tuple[np.ndarray, np.ndarray]:
    data = load_function(name)
    points = np.concatenate([data.train_images, data.test_images]).reshape(-1, 3).astype(float)
    assert data.train_targets is not None
    assert data.test_targets is not None
    return points, np.concatenate([data.train_targets, data.test_targets])[:, 0].astype(float)


def same(a: str, b: str) -> bool:
    return np.allclose(points_and_targets(a)[1], points_and_targets(b)[1], atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_points_fill_the_cube_and_are_the_same_for_every_function(name: str) -> None:
    x, y = points_and_targets(name)
    data = load_function(name)
    assert data.train_images.shape == (N_TRAIN, 1, 3)
    assert data.test_images.shape == (N_TEST, 1, 3)
    assert data.is_regression
    assert data.n_inputs == 3
    assert np.array_equal(x, points_and_targets("xor3")[0])
    assert np.abs(x).max() <= 1
    assert np.allclose(np.histogram(x, bins=4, range=(-1, 1))[0] / x.size, 0.25, atol=0.02)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("name", ALL)
def test_loading_twice_gives_the_same(name: str) -> None:
    assert load_function(name).fingerprint() == load(name).fingerprint()
    assert len({load_function(other).fingerprint() for other in ALL}) == len(ALL)


def test_exclusive_or() -> None:
    x, y = points_and_targets("xor3")
    assert np.allclose(
        y, math.sqrt(8) * np.sin(math.pi * x[:, 0]) * np.sin(math.pi * x[:, 1]) * np.sin(math.pi * x[:, 2]), atol=1e-5
    )
    assert ((np.sign(y) > 0) == (np.sign(x).prod(axis=1) > 0))[np.abs(y) > 1e-3].all(), "the sign is the parity of the signs"


def test_linear_is_linear() -> None:
    x, y = points_and_targets("linear3")
    w, rest, *_ = np.linalg.lstsq(x, y, rcond=None)
    assert rest[0] < 1e-8
    assert np.linalg.norm(w) == pytest.approx(math.sqrt(3), rel=1e-5)  # variance 1: that of a coordinate is 1/3


def test_random_targets_know_nothing_of_the_points() -> None:
    x, y = points_and_targets("random3")
    assert abs(y.mean()) < 0.06
    assert y.std() == pytest.approx(1, abs=0.05)
    assert np.abs(np.corrcoef(x.T, y)[-1, :3]).max() < 0.06
    assert len(np.unique(y)) > 0.99 * len(y)


@given(st.floats(-10, 10), st.floats(-10, 10))
def test_rotations_are_rotations(a: float, b: float) -> None:
    R = rotation(a)
    assert np.allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1)
    assert np.allclose(R @ np.ones(3), 1, atol=1e-12), "the axis stays"
    assert np.trace(R) == pytest.approx(1 + 2 * math.cos(a), abs=1e-12)
    assert np.allclose(R @ rotation(b), rotation(a + b), atol=1e-12)


def test_the_rotated_family() -> None:
    assert same("rotated3:0", "xor3")
    assert not same("rotated3:1", "xor3")
    x, y = points_and_targets("rotated3:0.5")
    turned = x @ rotation(math.pi / 6).T
    assert np.allclose(y, math.sqrt(8) * np.sin(math.pi * turned).prod(axis=1), atol=1e-5)
    xor = points_and_targets("xor3")[1]
    alike = [np.corrcoef(points_and_targets(f"rotated3:{a}")[1], xor)[0, 1] for a in (0, 0.25, 0.5, 0.75, 1)]
    assert all(np.diff(alike) < 0), "farther from xor3 step by step"
    assert np.allclose(rotation(2 * math.pi / 3), np.roll(np.eye(3), 1, axis=0), atol=1e-12), "a third of a turn swaps the axes"


@given(st.floats(0, 1))
def test_the_mixed_family(t: float) -> None:
    linear, xor, mixed = (points_and_targets(name)[1] for name in ("linear3", "xor3", f"mixed3:{t}"))
    assert np.allclose(mixed * math.hypot(1 - t, t), (1 - t) * linear + t * xor, atol=1e-5)


def test_the_ends_of_the_mixed_family_and_variances() -> None:
    assert same("mixed3:0", "linear3")
    assert same("mixed3:1", "xor3")
    for name in ("xor3", "linear3", "mixed3:0.3", "mixed3:0.8"):
        assert points_and_targets(name)[1].var() == pytest.approx(1, abs=0.12), name
    assert points_and_targets("rotated3:1")[1].var() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    "name", ["xor3:1", "rotated3", "rotated3:", "mixed3:2", "mixed3:-0.1", "mixed3:x", "mixed3:nan", "linear3:0"]
)
def test_bad_numbers(name: str) -> None:
    assert is_function(name)
    with pytest.raises(InputError, match=r"takes no number|from 0 to 1"):
        load_function(name)


def test_names() -> None:
    assert all(is_function(name) for name in NAMES)
    assert not is_function("xor")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (["xor3"], "R²"),
        (["xor3", "mixed3:0.5"], "R²"),
        (["digits"], "accuracy"),
        (["xor3", "digits"], "accuracy"),
        ([], "accuracy"),
    ],
)
def test_accuracy_is_called_r_squared_where_every_net_learns_a_number(data: list[str], name: str) -> None:
    assert accuracy_name(data) == name
