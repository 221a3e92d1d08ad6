"""Addition modulo p, ``modular<p>`` such as ``modular31``: a task on which networks generalise long after memorising.

Power et al. 2022 (arXiv 2201.02177). All p^2 pairs (a, b), each as an image of two one-hot rows of p pixels, and
the class (a + b) mod p.
"""

from __future__ import annotations

import re

import numpy as np

from kagscope.base.errors import InputError
from kagscope.data.dataset import Dataset

SMALLEST, LARGEST = 5, 113
TRAIN_SHARE = 0.7


def is_modular(name: str) -> bool:
    """Whether the name of a data set is that of modular addition."""
    return re.fullmatch(r"modular\d+", name) is not None


def load_modular(name: str) -> Dataset:
    """Load all pairs, of which a fixed 70% (rounded down) are for training.

    Raises:
        InputError: the modulus is outside 5 … 113.
    """
    digits = name.removeprefix("modular")
    p = int(digits) if len(digits) <= 3 else LARGEST + 1
    if not SMALLEST <= p <= LARGEST:
        raise InputError(f"data set {name!r}: expected a modulus from {SMALLEST} to {LARGEST}, such as 'modular31'")
    order = np.random.default_rng(20220106).permutation(p * p)
    a, b = np.divmod(order, p)
    images = np.stack([np.eye(p, dtype=np.float32)[a], np.eye(p, dtype=np.float32)[b]], axis=1)
    labels = ((a + b) % p).astype(np.int64)
    count = int(TRAIN_SHARE * p * p)
    return Dataset(name, images[:count], labels[:count], images[count:], labels[count:])
