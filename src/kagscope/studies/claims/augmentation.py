"""Claim 5: the effect holds with spatial augmentation too, with ratios roughly 30% lower.

Pairs of a standard and an augmented net are compared at matching times of their training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from kagscope.studies.claims.parts import SMALLEST_RATIO, Claim, Part, correct_all, decide, judge_within, make_claim
from kagscope.studies.claims.seeds import Checkpoint, Evidence, Notes, Sample
from kagscope.studies.nets import RATIO, Key

BAND = (0.55, 0.85)  # "roughly 30% lower": 15% to 45% lower
SMALLEST_EXCESS = 0.01  # of the standard nets, below which a share of their excess is undefined
EXCESS, RATIOS = "augmented over standard, excess of the PR ratio over 1", "augmented over standard, PR ratio"

Checkpoints = Sequence[Checkpoint]
Read = Callable[[Checkpoints, Checkpoints], tuple[Checkpoint, Checkpoint] | None]


def augmentation(evidence: Evidence) -> Claim:
    """Judge claim 5, by the share of the excess over 1 at equal epochs."""
    notes = Notes()
    blocked = _untestable_reason(evidence)
    notes.add(blocked)
    layers = [] if blocked else evidence.layers
    parts: list[Part] = []
    secondary: list[Part | None] = []
    missing = not layers
    for layer in layers:
        sample = evidence.sample([Key(layer, 2, "all", "pr")], RATIO, evidence.of_training("augmented"), notes)
        name, band = "PR ratio of augmented nets", (SMALLEST_RATIO, math.inf)
        present = judge_within(evidence, name, layer, sample, band, facts={"training": "augmented"})
        primary = _share_part(evidence, layer, equal_epochs, notes, "equal epochs", decides=True)
        parts += [part for part in (present, primary) if part is not None]
        missing |= present is None or primary is None
        secondary += [
            _share_part(evidence, layer, equal_epochs, Notes(), "equal epochs", excess=False),
            *(_share_part(evidence, layer, equal_accuracy, Notes(), "equal accuracy", excess=excess) for excess in (True, False)),
        ]
        steps = common_steps(evidence, layer)
        secondary += [_share_part(evidence, layer, at_step(step), Notes(), f"step {step}", step=step) for step in steps]
    if missing and not blocked:
        notes.add("missing: pr of augmented nets, or of pairs at equal epochs, in some hidden layer")
    parts = correct_all(parts)
    outcome = decide(parts, missing)
    return make_claim(
        [*parts, *(part for part in secondary if part is not None)],
        notes,
        outcome,
        id="5-augmentation",
        statement="It holds with spatial augmentation too, with ratios roughly 30% lower.",
        criterion=f"in every hidden layer: PR ratio of augmented nets > {SMALLEST_RATIO}; of the standard nets' excess over 1, "
        f"at equal epochs, {BAND[0]:.0%} to {BAND[1]:.0%} is left",
    )


def _untestable_reason(evidence: Evidence) -> str:
    if lacking := [name for name in ("standard", "augmented") if name not in evidence.trainings()]:
        return f"no {' and no '.join(lacking)} nets: nothing to compare"
    if evidence.standard_and_augmented.size:
        return ""
    return "no standard and augmented net have equal seed and settings: there are no pairs"


def _share_part(
    evidence: Evidence,
    layer: str,
    read: Read,
    notes: Notes,
    moment: str,
    *,
    excess: bool = True,
    decides: bool = False,
    step: int | None = None,
) -> Part | None:
    sample = pair_sample(evidence, layer, read, notes, f"pr at {moment}")
    augmented, standard = sample.values - excess
    name, smallest = f"{EXCESS if excess else RATIOS}, at {moment}", SMALLEST_EXCESS if excess else 0.0
    facts = {"training": "augmented over standard"} | ({} if step is None else {"step": step})
    numerator = Sample(augmented[None], sample.seeds)
    return judge_within(evidence, name, layer, numerator, BAND, whole=standard, least=smallest, decides=decides, facts=facts)


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
