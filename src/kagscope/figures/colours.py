"""Perceptually uniform colours of maps; ratios below and above 1 differ in hue."""

from __future__ import annotations

from functools import cache

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize, to_rgb

SEQUENTIAL = "cividis"  # uniform for normal and red-green colour-blind vision (Nuñez, Anderton & Renslow 2018)

# sRGB to XYZ of a D65 white, by the standard's matrix (IEC 61966-2-1)
_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])


def ratio_norm(values: np.ndarray) -> Normalize:
    """A log scale for ratios, centred at 1 if they lie on both sides of it, else from the smallest to the largest.

    It is also centred at 1 if all ratios are within 5% of 1, so that the map is pale instead of showing noise.
    """
    finite = values[np.isfinite(values) & (values > 0)]
    if not len(finite):
        return LogNorm(vmin=0.5, vmax=2.0, clip=True)
    low, high = float(finite.min()), float(finite.max())
    if low < 1 < high or max(abs(np.log(low)), abs(np.log(high))) < np.log(1.05) or low == high:
        reach = max(abs(np.log(low)), abs(np.log(high)), np.log(1.05))
        return LogNorm(vmin=float(np.exp(-reach)), vmax=float(np.exp(reach)), clip=True)
    return LogNorm(vmin=low, vmax=high, clip=True)


def ratio_colours(norm: Normalize) -> Colormap:
    """Colormap for a norm: diverging if it is centred at 1, else sequential."""
    low, high = float(norm.vmin or 1.0), float(norm.vmax or 1.0)
    return diverging() if np.isclose(low * high, 1.0) else mpl.colormaps[SEQUENTIAL]


@cache
def diverging() -> Colormap:
    """Blue to white to brown, each half in even steps of CIE Lab."""
    halves = [_even_steps(("#0b3c6f", "#4b8fc4", "#f7f7f7")), _even_steps(("#f7f7f7", "#d98b3a", "#6b2a04"))]
    return LinearSegmentedColormap.from_list("kagscope_ratio", np.concatenate([halves[0][:-1], halves[1]]), N=513)


def palettes() -> dict[str, list[list[int]]]:
    """Both palettes for the page: 65 colours (red, green, blue) in 0 … 255, to be interpolated linearly."""
    places = np.linspace(0, 1, 65)
    both = {"sequential": mpl.colormaps[SEQUENTIAL], "diverging": diverging()}
    return {name: colours(places, bytes=True)[:, :3].astype(int).tolist() for name, colours in both.items()}


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab (D65) of colours (…, 3) of sRGB in [0, 1]."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _XYZ.T / _XYZ.sum(axis=1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def _even_steps(stops: tuple[str, ...]) -> np.ndarray:
    """Piecewise linear path through colours, at even distances in Lab: sRGB, (129, 3)."""
    corners = np.array([to_rgb(stop) for stop in stops])
    fine = np.linspace(0, len(stops) - 1, 4097)
    line = np.stack([np.interp(fine, range(len(stops)), corners[:, channel]) for channel in range(3)], axis=1)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(to_lab(line), axis=0), axis=1))])
    at = np.interp(np.linspace(0, length[-1], 129), length, fine)
    return np.stack([np.interp(at, fine, line[:, channel]) for channel in range(3)], axis=1)
