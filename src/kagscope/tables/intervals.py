"""The interval of a mean, as summaries, figures and studies show it."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit


def half_width(spread: np.ndarray, count: np.ndarray, error: np.ndarray | float = 0.0, confidence: float = 0.95) -> np.ndarray:
    """Half the interval of a mean of ``count`` numbers of standard deviation ``spread``: t sqrt(s^2 / n + e^2); NaN for n < 2.

    Args:
        spread: standard deviations (with n - 1).
        count: how many numbers.
        error: standard error e that the numbers have in common, since they were sampled with the same draws.
        confidence: such as 0.95.
    """
    enough = count >= 2
    t = stdtrit(np.where(enough, count - 1, 1), (1 + confidence) / 2)
    return np.where(enough, t * np.hypot(spread / np.sqrt(np.maximum(count, 1)), error), np.nan)
