"""Random rotation, translation and scale, against scipy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from kagscope.base.errors import InputError
from kagscope.training import Augmentation
from kagscope.training.augmentation import Warper, affine_maps, draw_maps


def warp(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    out = torch.full((len(images), images[0].numel()), -1.0)
    Warper(images).warp(torch.arange(len(images)), maps, out)
    return out.view_as(images)


def one_map(angle: float, zoom: float, down: float, right: float, shape: tuple[int, int]) -> torch.Tensor:
    return affine_maps(torch.tensor([angle]), torch.tensor([zoom]), torch.tensor([[down], [right]]), shape)


SHAPES = st.tuples(st.integers(1, 30), st.integers(1, 30))


@settings(deadline=None)
@given(
    shape=SHAPES,
    angle=st.floats(-3.2, 3.2),
    zoom=st.floats(0.3, 2),
    down=st.floats(-6, 6),
    right=st.floats(-6, 6),
    seed=st.integers(0, 99),
)
def test_agrees_with_scipy(shape: tuple[int, int], angle: float, zoom: float, down: float, right: float, seed: int) -> None:
    image = np.random.default_rng(seed).random(shape).astype(np.float32)
    # Written apart from the code under test: output pixel p shows the original at c + R(-angle) (p - c - shift) / zoom
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    centre = (np.array(shape) - 1) / 2
    matrix = rotation / zoom
    framed = np.pad(image.astype(np.float64), 2)  # bilinear towards 0 at the border, as the frame makes scipy do
    offset = centre + 2 - matrix @ (centre + np.array([down, right]))
    expected = ndimage.affine_transform(framed, matrix, offset, output_shape=shape, order=1, mode="constant")
    result = warp(torch.from_numpy(image)[None], one_map(angle, zoom, down, right, shape))[0].numpy()
    np.testing.assert_allclose(result, expected, atol=2e-4)


@pytest.mark.parametrize("shape", [(28, 28), (5, 9), (1, 4)])
def test_identity_leaves_images_unchanged(shape: tuple[int, int]) -> None:
    images = torch.rand(6, *shape)
    maps = draw_maps(Augmentation(0, 0, 0), 6, shape, torch.Generator().manual_seed(0))
    torch.testing.assert_close(warp(images, maps), images, rtol=0, atol=1e-5)


def test_whole_shifts_and_quarter_turns_move_pixels() -> None:
    image = torch.rand(1, 4, 7)
    expected = torch.zeros_like(image)
    expected[0, 1:, :-2] = image[0, :-1, 2:]
    torch.testing.assert_close(warp(image, one_map(0, 1, 1, -2, (4, 7))), expected, atol=1e-5, rtol=0)
    square = torch.rand(1, 5, 5)
    turned = warp(square, one_map(math.pi / 2, 1, 0, 0, (5, 5)))
    torch.testing.assert_close(turned, torch.rot90(square, 1, (1, 2)), atol=1e-5, rtol=0)


def test_a_disc_stays_round_on_an_image_that_is_not_square() -> None:
    row, column = np.mgrid[:21, :41]
    disc = torch.from_numpy(np.clip(6 - np.hypot(row - 10, column - 20), 0, 1).astype(np.float32))[None]
    turned = warp(disc, one_map(0.7, 1, 0, 0, (21, 41)))
    assert (turned - disc).abs().max() < 0.25
    assert abs(turned.sum() - disc.sum()) < 0.01 * disc.sum()


def test_draws_fill_their_ranges() -> None:
    augmentation, shape = Augmentation(), (28, 14)
    maps = draw_maps(augmentation, 20_000, shape, torch.Generator().manual_seed(3)).double()
    zoom = torch.linalg.det(maps[:, :, :2]) ** -0.5
    angle = torch.rad2deg(torch.atan2(maps[:, 0, 1], maps[:, 0, 0]))
    centre = torch.tensor([13.5, 6.5], dtype=torch.float64)
    shift = -torch.linalg.solve(maps[:, :, :2], maps[:, :, :2] @ centre + maps[:, :, 2] - centre)
    for values, bound in ((zoom - 1, 0.1), (angle, 10), (shift[:, 0], 2), (shift[:, 1], 1)):
        assert values.abs().max() <= bound * 1.001
        assert values.abs().max() > 0.99 * bound
        assert abs(values.mean()) < 0.03 * bound
        assert abs(values.std() - bound / 3**0.5) < 0.02 * bound
    assert torch.corrcoef(torch.stack([zoom, angle, *shift.T])).fill_diagonal_(0).abs().max() < 0.03


@pytest.mark.parametrize(
    "bad", [{"rotation": -1}, {"rotation": 200}, {"translation": 2}, {"scale": 1.0}, {"scale": math.nan}, {"rotation": "10"}]
)
def test_bad_ranges(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(bad))} is"):
        Augmentation(**bad)
