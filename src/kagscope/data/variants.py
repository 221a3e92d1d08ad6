"""Variants of data sets: fewer training images, wrong training labels, smaller images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.data.dataset import Dataset
from kagscope.data.registry import load


def small_mnist10k() -> Dataset:
    """mnist10k on 8 x 8 pixels, means over 3 x 3 of the central 24 x 24: other handwriting than ``digits`` at the same size.

    In study files it is ``data = "kagscope.data.variants:small_mnist10k"``.
    """
    full = load("mnist10k", progress=False)

    def small(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return images[:, 2:26, 2:26].reshape(-1, 8, 3, 8, 3).mean((2, 4))

    images = small(full.train_images), small(full.test_images)
    return Dataset("small_mnist10k", images[0], full.train_labels, images[1], full.test_labels)


def degrade(dataset: Dataset, train_size: int | None = None, label_noise: float = 0.0, seed: int = 0) -> Dataset:
    """Return the same test part with a training part that is smaller or partly mislabelled.

    Args:
        dataset: the data set, not changed.
        train_size: training images to keep, drawn without replacement; subsets of the same seed are nested.
            None keeps all.
        label_noise: fraction of the training labels, rounded to whole images, that are drawn anew from the *other* classes,
            uniformly (symmetric noise); the wrong labels of a smaller fraction are among those of a larger one.
        seed: seed of the draws.

    Raises:
        InputError: there are fewer images, or a fraction is outside [0, 1].
    """
    images, labels = dataset.train_images, dataset.train_labels
    if train_size is not None and not 1 <= train_size <= len(labels):
        raise InputError(
            f"train_size is {train_size}, but {dataset.name} has {len(labels)} training images; expected 1 to that many"
        )
    if not 0 <= label_noise <= 1:
        raise InputError(f"label_noise is {label_noise!r}; expected a fraction from 0 to 1")
    if train_size is None and not label_noise:
        return dataset
    targets = dataset.train_targets
    if label_noise and targets is not None:
        raise InputError(f"label_noise is {label_noise:g}, but {dataset.name} is a regression without labels; use 0")
    if train_size is not None:
        chosen = np.random.default_rng([seed, 1]).permutation(len(labels))[:train_size]
        images, labels = images[chosen], labels[chosen]
        targets = None if targets is None else targets[chosen]
    rng = np.random.default_rng([seed, 2])
    wrong = rng.permutation(len(labels))[: round(label_noise * len(labels))]
    shift = rng.integers(1, max(dataset.n_classes, 2), size=len(labels))
    labels = labels.copy()
    labels[wrong] = (labels[wrong] + shift[wrong]) % dataset.n_classes
    return Dataset(dataset.name, images, labels, dataset.test_images, dataset.test_labels, targets, dataset.test_targets)
