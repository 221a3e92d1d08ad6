"""PR ratios along training, and pairs of a standard and an augmented net compared at matching times (claim 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kagscope.studies.claims.seeds import Checkpoint, Evidence, Notes, Sample

Checkpoints = Sequence[Checkpoint]
Read = Callable[[Checkpoints, Checkpoints], tuple[Checkpoint, Checkpoint] | None]


def pair_sample(evidence: Evidence, layer: str, read: Read, notes: Notes, name: str) -> Sample:
    """PR ratios of each seed's pairs at the data points where both are defined: quantity 0 augmented, 1 standard."""
    standard, augmented = evidence.standard_and_augmented
    known, runs = evidence.checkpoints, evidence.names
    readings = [
        read(known.get((layer, runs[i]), ()), known.get((layer, runs[j]), ())) for i, j in zip(standard, augmented, strict=True)
    ]
    points = np.unique(np.concatenate([np.zeros(0, np.int64)] + [net.points for both in readings if both for net in both]))
    values = np.full((2, standard.size, points.size), np.nan)
    for pair, both in enumerate(readings):
        for quantity, net in enumerate(reversed(both or ())):
            values[quantity, pair, np.searchsorted(points, net.points)] = net.ratio
            notes.undefined += int((~np.isfinite(net.ratio)).sum())
    values = np.where(np.isfinite(values).all(axis=0), values, np.nan)
    return evidence.average(values, standard, notes, f"{name}, layer {layer}", but="training")


def common_steps(evidence: Evidence, layer: str) -> list[int]:
    """Steps after initialisation recorded for both nets of at least two pairs, ascending."""
    known, runs = evidence.checkpoints, evidence.names
    counts: dict[int, int] = {}
    for i, j in zip(*evidence.standard_and_augmented, strict=True):
        for step in _steps(known.get((layer, runs[i]), ())) & _steps(known.get((layer, runs[j]), ())):
            counts[step] = counts.get(step, 0) + 1
    return sorted(step for step, count in counts.items() if step > 0 and count >= 2)


def equal_epochs(standard: Checkpoints, augmented: Checkpoints) -> tuple[Checkpoint, Checkpoint] | None:
    """Both at their last common step; None if that is before training."""
    common = _steps(standard) & _steps(augmented) - {0}
    return at_step(max(common))(standard, augmented) if common else None


def at_step(step: int) -> Read:
    """Both at a given step."""

    def read(standard: Checkpoints, augmented: Checkpoints) -> tuple[Checkpoint, Checkpoint] | None:
        pair = [[checkpoint for checkpoint in net if checkpoint.step == step] for net in (standard, augmented)]
        return (pair[0][0], pair[1][0]) if all(pair) else None

    return read


def equal_accuracy(standard: Checkpoints, augmented: Checkpoints) -> tuple[Checkpoint, Checkpoint] | None:
    """Both at the time when test accuracy first reaches the lower of the two final accuracies."""
    if not standard or not augmented:
        return None
    target = min(standard[-1].accuracy, augmented[-1].accuracy)
    return (_reach(standard, target), _reach(augmented, target)) if np.isfinite(target) else None


def _reach(net: Checkpoints, target: float) -> Checkpoint:
    """A net when it first reaches the accuracy ``target``, interpolated linearly in accuracy between recorded steps."""
    known = [checkpoint for checkpoint in net if np.isfinite(checkpoint.accuracy)]
    first = next(i for i, checkpoint in enumerate(known) if checkpoint.accuracy >= target)
    after = known[first]
    if first == 0 or after.accuracy == target:
        return after
    before = known[first - 1]
    share = (target - before.accuracy) / (after.accuracy - before.accuracy)
    points, i, j = np.intersect1d(before.points, after.points, return_indices=True)
    return Checkpoint(after.step, target, points, (1 - share) * before.ratio[i] + share * after.ratio[j])


def _steps(net: Checkpoints) -> set[int]:
    return {checkpoint.step for checkpoint in net}
