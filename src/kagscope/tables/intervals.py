"""The interval of a mean, as summaries, figures and studies show it."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit


def half_width(spread: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Half the 95% interval of a mean: t_{0.975, n-1} s / sqrt(n); NaN for n < 2."""
    enough = count >= 2
    freedom = np.where(enough, count - 1, 1)
    return np.where(enough, stdtrit(freedom, 0.975) * spread / np.sqrt(np.maximum(count, 1)), np.nan)
