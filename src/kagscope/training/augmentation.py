"""Random rotation, translation and scale of images, drawn and applied in batches."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
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
        """Keep a framed copy of the images, float32 ``(N, H, W)``, and the box of each that holds all that is not 0."""
        self.shape = (images.shape[1], images.shape[2])
        self._framed = functional.pad(images, (_FRAME,) * 4).flatten(1).numpy()
        self._boxes = np.stack([*_extent((images != 0).any(2)), *_extent((images != 0).any(1))], 1)

    def warp(self, index: Tensor, maps: Tensor, out: Tensor) -> None:
        """Write images ``index`` (int64 ``(B,)``), transformed by ``maps`` (``(B, 2, 3)``), to ``out`` (``(B, H * W)``)."""
        _warp(self._framed, self._boxes, index.numpy(), maps.numpy(), out.view(-1, *self.shape).numpy())


_FRAME = 2  # of zeros around each image: one pixel to interpolate towards, one for rounding


def _extent(used: Tensor) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """First and last index used, per image, within the frame; first > last where none is."""
    n = used.shape[1]
    place = torch.arange(n, dtype=torch.float32)
    first = torch.where(used, place, float(n)).amin(1) + _FRAME
    last = torch.where(used, place, -1.0).amax(1) + _FRAME
    return first.numpy(), last.numpy()


@njit(cache=True, nogil=True, error_model="numpy")
def _span(start: float, slope: float, low: float, high: float, n: int) -> tuple[int, int]:
    """The range of j in 0 … n with low < start + slope j < high."""
    if abs(slope) < 1e-6:
        return (0, n) if low < start < high else (0, 0)
    first, last = (low - start) / slope, (high - start) / slope
    if first > last:
        first, last = last, first
    return max(0, math.ceil(max(first, -1.0))), min(n, math.floor(min(last, float(n))) + 1)


@njit(cache=True, nogil=True, error_model="numpy")
def _warp(
    framed: npt.NDArray[np.float32],
    boxes: npt.NDArray[np.float32],
    index: npt.NDArray[np.int64],
    maps: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Visit only pixels whose source lies within one pixel of an image's box: half of MNIST, and no bounds to check."""
    batch, height, width = out.shape
    stride = np.uint32(width + 2 * _FRAME)
    one = np.uint32(1)
    for b in range(batch):
        image = framed[index[b]]
        top, bottom, left, right = boxes[index[b]]
        m = maps[b]
        for i in range(height):
            row = out[b, i]
            row[:] = np.float32(0)
            y0 = m[0, 0] * np.float32(i) + m[0, 2] + np.float32(_FRAME)
            x0 = m[1, 0] * np.float32(i) + m[1, 2] + np.float32(_FRAME)
            from_y, to_y = _span(y0, m[0, 1], top - 1, bottom + 1, width)
            from_x, to_x = _span(x0, m[1, 1], left - 1, right + 1, width)
            for j in range(max(from_y, from_x), min(to_y, to_x)):
                y, x = y0 + m[0, 1] * np.float32(j), x0 + m[1, 1] * np.float32(j)
                iy, ix = np.uint32(y), np.uint32(x)
                fy, fx = y - np.float32(iy), x - np.float32(ix)
                o = iy * stride + ix
                above = image[o] + fx * (image[o + one] - image[o])
                below = image[o + stride] + fx * (image[o + stride + one] - image[o + stride])
                row[j] = above + fy * (below - above)
