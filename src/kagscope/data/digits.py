"""The embedded data set: scikit-learn's digits, 1,797 handwritten digits of 8 x 8 (UCI, E. Alpaydin and C. Kaynak, CC BY 4.0)."""

from __future__ import annotations

import numpy as np

from kagscope.data.dataset import Dataset


def load_digits() -> Dataset:
    """Real handwriting without a download. Grey levels 0 to 16 are divided by 16.

    The split is stratified and deterministic: every fifth image of each class, in the file's order, is a test image
    (20% of each class, independent of library versions).
    """
    from sklearn.datasets import load_digits as load_sklearn_digits

    bunch = load_sklearn_digits()
    images = (bunch.images / 16).astype(np.float32)
    labels = bunch.target.astype(np.int64)
    rank = np.empty_like(labels)  # index of each image within its class
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    test = rank % 5 == 4
    return Dataset("digits", images[~test], labels[~test], images[test], labels[test])
