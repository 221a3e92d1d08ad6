"""Default spatial scales of an image: balls, minimum distances and windows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from kagscope.columns.selections import All, Apart, Ball, Selection


def scales(image_shape: tuple[int, ...]) -> tuple[float, ...]:
    """A quarter, half, three quarters and all of the image's longer side: 7, 14, 21, 28 for MNIST."""
    side = max(image_shape[-2:])
    return tuple(side * quarters / 4 for quarters in (1, 2, 3, 4))


def all_selections(image_shape: tuple[int, ...]) -> tuple[Selection, ...]:
    """All, the four balls and the four minimum distances."""
    sizes = scales(image_shape)
    return (All(), *(Ball(size) for size in sizes), *(Apart(size) for size in sizes))


def window_centers(image_shape: tuple[int, ...], grid: int) -> Int64[np.ndarray, "count 2"]:
    """(count, 2) centres on an even grid of at most ``grid`` by ``grid`` pixels."""
    axes = [np.unique(np.linspace(0, side - 1, min(grid, side)).round().astype(int)) for side in image_shape[-2:]]
    return np.array([(r, c) for r in axes[0] for c in axes[1]])


def window_radii(image_shape: tuple[int, ...]) -> tuple[float, ...]:
    """An eighth, a quarter, three eighths and half of the image's longer side."""
    return tuple(scale / 2 for scale in scales(image_shape))
