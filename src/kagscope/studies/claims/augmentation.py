"""Claim 5: the effect holds with spatial augmentation too, with ratios roughly 30% lower."""

from __future__ import annotations

import math

from kagscope.studies.claims.along import Read, at_step, common_steps, equal_accuracy, equal_epochs, pair_sample
from kagscope.studies.claims.parts import SMALLEST_RATIO, Claim, Part, compare, correct_all, decide, make_claim
from kagscope.studies.claims.seeds import Evidence, Notes, Sample
from kagscope.studies.nets import RATIO, Key

BAND = (0.55, 0.85)  # "roughly 30% lower": 15% to 45% lower
SMALLEST_EXCESS = 0.01  # of the standard nets, below which a share of their excess is undefined
EXCESS, RATIOS = "augmented over standard, excess of the PR ratio over 1", "augmented over standard, PR ratio"


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
        present = compare(evidence, name, layer, sample, band, about={"training": "augmented"})
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
    return compare(evidence, name, layer, numerator, BAND, whole=standard, least=smallest, decides=decides, about=facts)
