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


def draw_maps(augmentation: Augmentation, n: int, image_shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw ``n`` random maps. Returns what :func:`affine_maps` returns."""
    uniform = torch.rand(4, n, generator=generator) * 2 - 1
    angle = uniform[0] * math.radians(augmentation.rotation)
    zoom = 1 + uniform[1] * augmentation.scale
    shift = uniform[2:] * augmentation.translation * torch.tensor(image_shape[-2:], dtype=torch.float32)[:, None]
    return affine_maps(angle, zoom, shift, image_shape)


def affine_maps(angle: Tensor, zoom: Tensor, shift: Tensor, image_shape: tuple[int, ...]) -> Tensor:
    """Maps from each pixel of a transformed image to the position in the original where its grey level is read.

    The image is scaled by ``zoom`` and rotated by ``angle`` about its centre, then shifted by ``shift``, all in
    pixels, so that non-square images are not sheared.

    Args:
        angle: ``(n,)`` radians, positive from the row axis (down) towards the column axis (right).
        zoom: ``(n,)`` factors.
        shift: ``(2, n)`` pixels down and right.
        image_shape: shape whose last two entries are height and width.

    Returns:
        float32 ``(n, 2, 3)``: (source row, source column) = map @ (row, column, 1).
    """
    centre = torch.tensor([(side - 1) / 2 for side in image_shape[-2:]])
    c, s = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    linear = torch.stack([torch.stack([c, s], 1), torch.stack([-s, c], 1)], 1)
    offset = centre - (linear @ (centre + shift.T)[:, :, None])[:, :, 0]
    return torch.cat([linear, offset[:, :, None]], 2)


class Warper:
    """Transforms selected images of a set, all channels alike: bilinear between pixels, 0 outside the image."""

    def __init__(self, images: Tensor) -> None:
        """Pad a copy of the images, float32 ``(N, H, W)`` or ``(N, C, H, W)``, and find the bounding box of nonzeros in each."""
        self.shape, self.channels = images.shape[-2:], math.prod(images.shape[1:-2])
        images = images.reshape(-1, *self.shape)  # each channel as a separate image
        self._framed = functional.pad(images, (_FRAME,) * 4).flatten(1).numpy()
        self._boxes = np.stack([*_extent((images != 0).any(2)), *_extent((images != 0).any(1))], 1)

    def warp(self, index: Tensor, maps: Tensor, out: Tensor) -> None:
        """Write images ``index`` (int64 ``(B,)``) transformed by ``maps`` (``(B, 2, 3)``) to ``out`` (``(B, C * H * W)``)."""
        if self.channels > 1:
            index = (index[:, None] * self.channels + torch.arange(self.channels)).flatten()
            maps = maps.repeat_interleave(self.channels, 0)
        _warp(self._framed, self._boxes, index.numpy(), maps.numpy(), out.view(-1, *self.shape).numpy())


_FRAME = 2  # pixels of zeros around each image: one for interpolation, one for rounding


def _extent(used: Tensor) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """First and last used index per image, counted with the frame; first > last if none is used."""
    n = used.shape[1]
    index = torch.arange(n, dtype=torch.float32)
    first = torch.where(used, index, float(n)).amin(1) + _FRAME
    last = torch.where(used, index, -1.0).amax(1) + _FRAME
    return first.numpy(), last.numpy()


@njit(cache=True, nogil=True, error_model="numpy")
def _span(
    start: np.float32, slope: np.float32, low: np.float32, high: np.float32, within: tuple[np.float32, np.float32]
) -> tuple[np.float32, np.float32]:
    """Part of the interval ``within`` where low < start + slope j < high; an empty interval ends before it begins."""
    if abs(slope) < np.float32(1e-6):
        return within if low < start < high else (np.float32(0), np.float32(-1))
    first, last = (low - start) / slope, (high - start) / slope
    return max(within[0], min(first, last)), min(within[1], max(first, last))


@njit(cache=True, nogil=True, error_model="numpy")
def _warp(
    framed: npt.NDArray[np.float32],
    boxes: npt.NDArray[np.float32],
    index: npt.NDArray[np.int64],
    maps: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Visit only pixels whose source lies within one pixel of the image's box: half of MNIST, and no bounds checks.

    Each row takes two passes, over positions and over grey levels, because only the first can be vectorised.
    """
    batch, height, width = out.shape
    stride = np.int32(width + 2 * _FRAME)
    right, below = np.uint64(1), np.uint64(stride)  # unsigned, or Numba would check for negative indices
    one_f, frame = np.float32(1), np.float32(_FRAME)
    column_of = np.empty(width, np.int32)
    part_y, part_x = np.empty(width, np.float32), np.empty(width, np.float32)
    for b in range(batch):
        image, box = framed[index[b]], boxes[index[b]]
        yy, yx, y_shift = maps[b, 0, 0], maps[b, 0, 1], maps[b, 0, 2] + frame
        xy, xx, x_shift = maps[b, 1, 0], maps[b, 1, 1], maps[b, 1, 2] + frame
        for i in range(height):
            y0, x0 = yy * np.float32(i) + y_shift, xy * np.float32(i) + x_shift
            span = (-one_f, np.float32(width) - one_f)
            span = _span(y0, yx, box[0] - one_f, box[1] + one_f, span)
            span = _span(x0, xx, box[2] - one_f, box[3] + one_f, span)
            first, n = 0, 0
            if span[0] <= span[1]:
                first = int(np.int32(span[0] + one_f))
                n = max(0, int(np.int32(span[1] + one_f)) - first)
            for t in range(n):
                j = np.float32(np.int32(first + t))
                y, x = y0 + yx * j, x0 + xx * j
                row, column = np.int32(y), np.int32(x)
                part_y[t], part_x[t] = y - np.float32(row), x - np.float32(column)
                column_of[t] = row * stride + column
            line = out[b, i]
            line[:first] = np.float32(0)
            for t in range(n):
                o = np.uint64(np.uint32(column_of[t]))
                upper = image[o] + part_x[t] * (image[o + right] - image[o])
                lower = image[o + below] + part_x[t] * (image[o + below + right] - image[o + below])
                line[first + t] = upper + part_y[t] * (lower - upper)
            line[first + n :] = np.float32(0)
