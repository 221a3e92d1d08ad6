"""Pairs of a standard and an augmented net of equal width and seed, read at comparable checkpoints (claim 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kagscope.studies.claims.evidence import Checkpoint, Evidence, Indices, Sample, settle
from kagscope.studies.statistics.student import Array

Reading = tuple[Indices, Array]
"""Data points (points,), sorted, and PR ratios (points,) of one net at one checkpoint."""
Checkpoints = Sequence[Checkpoint]


def matched_pairs(evidence: Evidence) -> tuple[Indices, Indices]:
    """Indices of the standard and of the augmented net of each pair; a net without its like is in none."""
    augmented = {(int(evidence.width[i]), int(evidence.seed[i])): int(i) for i in evidence.nets("augmented")}
    pairs = []
    for i in evidence.nets("standard"):
        key = (int(evidence.width[i]), int(evidence.seed[i]))
        if key in augmented:
            pairs.append((int(i), augmented.pop(key)))
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def common_steps(evidence: Evidence, layer: str) -> list[int]:
    """Steps after initialisation that both nets of at least two pairs have, ascending."""
    counts: dict[int, int] = {}
    for i, j in zip(*matched_pairs(evidence), strict=True):
        for step in set(_steps(evidence.checkpoints(layer, i))) & set(_steps(evidence.checkpoints(layer, j))):
            counts[step] = counts.get(step, 0) + 1
    return sorted(step for step, count in counts.items() if step > 0 and count >= 2)


def last_common(standard: Checkpoints, augmented: Checkpoints) -> tuple[Reading, Reading] | None:
    """Both at equal epochs: the last step that both have."""
    common = set(_steps(standard)) & set(_steps(augmented))
    trained = {checkpoint.step for checkpoints in (standard, augmented) for checkpoint in checkpoints} != {0}
    if not common or (trained and max(common) == 0):  # before training there is nothing to compare
        return None
    return at_step(max(common))(standard, augmented)


def at_step(step: int) -> Callable[[Checkpoints, Checkpoints], tuple[Reading, Reading] | None]:
    """Both at a given step."""

    def read(standard: Checkpoints, augmented: Checkpoints) -> tuple[Reading, Reading] | None:
        found = [[(m.points, m.ratio) for m in checkpoints if m.step == step] for checkpoints in (standard, augmented)]
        return (found[0][0], found[1][0]) if all(found) else None

    return read


def equal_accuracy(standard: Checkpoints, augmented: Checkpoints) -> tuple[Reading, Reading] | None:
    """Both when their test accuracy first reaches the lower of the two final accuracies."""
    if not standard or not augmented:
        return None
    target = min(standard[-1].accuracy, augmented[-1].accuracy)
    if not np.isfinite(target):
        return None
    return _reach(standard, target), _reach(augmented, target)


def _reach(checkpoints: Checkpoints, target: float) -> Reading:
    """A net when it first reaches the accuracy ``target``: between recorded steps, each point linear in the accuracy."""
    known = [checkpoint for checkpoint in checkpoints if np.isfinite(checkpoint.accuracy)]
    first = next(i for i, checkpoint in enumerate(known) if checkpoint.accuracy >= target)
    after = known[first]
    if first == 0 or after.accuracy == target:
        return after.points, after.ratio
    before = known[first - 1]
    share = (target - before.accuracy) / (after.accuracy - before.accuracy)
    points, i, j = np.intersect1d(before.points, after.points, return_indices=True)
    return points, (1 - share) * before.ratio[i] + share * after.ratio[j]


def pair_sample(
    evidence: Evidence, layer: str, read: Callable[[Checkpoints, Checkpoints], tuple[Reading, Reading] | None], what: str
) -> Sample:
    """PR ratios of pairs at the data points where both are defined: quantity 0 augmented, quantity 1 standard."""
    standard, augmented = matched_pairs(evidence)
    readings = [
        read(evidence.checkpoints(layer, int(i)), evidence.checkpoints(layer, int(j)))
        for i, j in zip(standard, augmented, strict=True)
    ]
    points = np.unique(np.concatenate([np.zeros(0, np.int64)] + [net[0] for both in readings if both for net in both]))
    values = np.full((2, standard.size, points.size), np.nan)
    recorded = np.zeros(values.shape, dtype=bool)
    for pair, both in enumerate(readings):
        for quantity, (where, ratio) in enumerate(reversed(both or ())):
            column = np.searchsorted(points, where)
            values[quantity, pair, column] = ratio
            recorded[quantity, pair, column] = True
    defined = np.isfinite(values)
    values = np.where(defined.all(axis=0), values, np.nan)
    undefined = int((recorded & ~defined).sum())
    return settle(values, standard, evidence.width[standard], undefined, f"{what}, layer {layer} (pairs)")


def _steps(checkpoints: Checkpoints) -> list[int]:
    return [checkpoint.step for checkpoint in checkpoints]
