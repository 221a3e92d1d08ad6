"""Random rotation, translation and scale of images, drawn and applied in batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from kagscope.training.settings import Augmentation


def draw_maps(augmentation: Augmentation, n: int, image_shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw ``n`` random maps. Returns what :func:`affine_maps` returns."""
    uniform = torch.rand(4, n, generator=generator) * 2 - 1
    angle = uniform[0] * math.radians(augmentation.rotation)
    zoom = 1 + uniform[1] * augmentation.scale
    shift = uniform[2:] * augmentation.translation * torch.tensor(image_shape, dtype=torch.float32)[:, None]
    return affine_maps(angle, zoom, shift, image_shape)


def affine_maps(angle: Tensor, zoom: Tensor, shift: Tensor, image_shape: tuple[int, int]) -> Tensor:
    """From each pixel of the transformed image to the place in the original where its grey level is read.

    The image is enlarged by ``zoom`` and turned by ``angle`` about its centre, then moved by ``shift``; everything is measured in
    pixels, so that images that are not square are not sheared.

    Args:
        angle: radians ``(n,)``, positive from the row axis (down) towards the column axis (right).
        zoom: factors ``(n,)``.
        shift: pixels down and right, ``(2, n)``.
        image_shape: height and width.

    Returns:
        float32 ``(n, 2, 3)``: row and column = map @ (row, column, 1).
    """
    centre = torch.tensor([(image_shape[0] - 1) / 2, (image_shape[1] - 1) / 2])
    c, s = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    linear = torch.stack([torch.stack([c, s], 1), torch.stack([-s, c], 1)], 1)
    offset = centre - (linear @ (centre + shift.T)[:, :, None])[:, :, 0]
    return torch.cat([linear, offset[:, :, None]], 2)


class Warper:
    """Transforms chosen images of a set; outside of an image everything is 0, between pixels it is bilinear."""

    def __init__(self, images: Tensor) -> None:
        """Keep the images, float32 ``(N, H, W)``."""
        self.images = images

    def warp(self, index: Tensor, maps: Tensor, out: Tensor) -> None:
        """Write images ``index`` (int64 ``(B,)``), transformed by ``maps`` (``(B, 2, 3)``), to ``out`` (``(B, H * W)``)."""
        height, width = self.images.shape[1:]
        chosen = self.images[index].unsqueeze(1)
        grid = functional.affine_grid(_normalised(maps, height, width), list(chosen.shape), align_corners=False)
        out.copy_(functional.grid_sample(chosen, grid, "bilinear", "zeros", align_corners=False).flatten(1))


def _normalised(maps: Tensor, height: int, width: int) -> Tensor:
    """The same maps in the coordinates of grid_sample: (x, y, 1), each side from -1 to 1."""
    sides = torch.tensor([float(height), float(width)])
    linear = maps[:, :, :2] * sides / sides[:, None]
    centre = (sides - 1) / 2
    offset = (maps[:, :, :2] @ centre + maps[:, :, 2] - centre) * 2 / sides
    return torch.cat([linear, offset[:, :, None]], 2)[:, [1, 0]][:, :, [1, 0, 2]]
