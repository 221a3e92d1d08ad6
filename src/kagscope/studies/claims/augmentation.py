"""Claim 5: the effect holds with spatial augmentation too, with ratios roughly 30% lower."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kagscope.studies.claims.evidence import Evidence, Key, Sample
from kagscope.studies.claims.pairs import at_step, common_steps, equal_accuracy, last_common, matched_pairs, pair_sample
from kagscope.studies.claims.verdicts import (
    SMALLEST_RATIO,
    UNDEFINED_INTERVAL,
    Claim,
    Notes,
    Part,
    Settings,
    Status,
    all_of,
    any_of,
    largest,
    mean_above,
    smallest,
    verdict_of,
)
from kagscope.studies.statistics.bootstrap import Strata
from kagscope.studies.statistics.multiple_testing import holm
from kagscope.studies.statistics.signed_rank import TestResult, signed_rank_test
from kagscope.studies.statistics.student import Array

BAND = (0.55, 0.85)  # what "roughly 30% lower" leaves: 30% give or take 15 points
LITERAL = 0.70
SMALLEST_EXCESS = 0.01  # of the standard net; below it a ratio of excesses is undefined
READ = {"equal epochs": last_common, "equal accuracy": equal_accuracy}
MEASURES = {"ratio of ratios": 0.0, "ratio of excesses over 1": 1.0}
PART_A = "A: PR ratio of augmented nets"
LITERAL_READING = "ratio of ratios, equal epochs"


@dataclass(frozen=True)
class Reading:
    """One reading of "roughly 30% lower": a part for each hidden layer, all needed."""

    name: str
    parts: list[Part]

    @property
    def p_value(self) -> float:
        """Before correction over the readings."""
        return largest([part.test.p_value for part in self.parts])

    def status(self, settings: Settings, corrected: float, hypotheses: int) -> Status:
        """Holds by the corrected p-value, fails by some layer's widened interval."""
        return all_of([part.status(settings, hypotheses, corrected) for part in self.parts])


def augmentation(evidence: Evidence, settings: Settings) -> Claim:
    """Judge claim 5."""
    notes = Notes()
    blocked = _blocked(evidence)
    notes.add(blocked)
    if not blocked:
        notes.add(*evidence.settings_left_out("augmented"), *_unpaired(evidence))
    layers = [] if blocked else evidence.layers
    found_a = [
        mean_above(
            evidence, settings, Key(layer, 2, "all", "pr"), "ratio", evidence.nets("augmented"), SMALLEST_RATIO, PART_A, notes
        )
        for layer in layers
    ]
    parts_a = [part for part in found_a if part is not None]
    readings = _readings(evidence, settings, layers, notes)
    hypotheses = 2 * max(len(layers), 1)  # the layers of part A and those of a reading of part B
    complete_a = bool(parts_a) and len(parts_a) == len(layers)
    statuses_a = [part.status(settings, hypotheses) for part in parts_a]
    status_a = all_of(statuses_a, complete_a)
    corrected = holm([reading.p_value for reading in readings])
    statuses_b = [reading.status(settings, p, hypotheses) for reading, p in zip(readings, corrected, strict=True)]
    status_b = any_of(statuses_b)
    if not blocked:
        notes.add(
            f"part A (present with augmentation) {_say(status_a)}",
            f"part B (roughly 30% lower) {_say(status_b)}{_which(readings, statuses_b)}",
        )
        if not complete_a:
            notes.add("missing: pr of augmented nets in some hidden layer")
        if not readings:
            notes.add("missing: pr of both nets of a pair at comparable moments in every hidden layer")
    details = [part.row(settings, status) for part, status in zip(parts_a, statuses_a, strict=True)]
    for reading, p in zip(readings, corrected, strict=True):
        for part in reading.parts:
            details.append(part.row(settings, part.status(settings, hypotheses, p)) | {"p_holm": p})
    details += _along_training(evidence, settings, layers)
    literal = next((reading.parts for reading in readings if reading.name == LITERAL_READING), [])
    shown = max(literal, key=lambda part: abs(part.effect - LITERAL), default=None)
    interval = shown.interval(settings.confidence) if shown else UNDEFINED_INTERVAL
    p_b = smallest(corrected)
    return Claim(
        id="5-augmentation",
        statement="It holds with spatial augmentation too, with ratios roughly 30% lower.",
        verdict=verdict_of(all_of([status_a, status_b])),
        effect=shown.effect if shown else math.nan,
        ci_low=interval.low,
        ci_high=interval.high,
        p_value=largest([*(part.test.p_value for part in parts_a), p_b], complete_a),
        n=shown.test.n if shown else 0,
        effect_name=f"{LITERAL_READING}, augmented over standard"
        + (f", layer {shown.layer} (farthest from 0.70)" if shown else ""),
        test="A: one-sided Wilcoxon signed-rank over nets. B: two one-sided ones over pairs, Holm over the readings. Larger p",
        criterion=f"A: PR ratio of augmented nets > {SMALLEST_RATIO} in every hidden layer; B: under some reading, "
        f"what is left is within {BAND[0]:g} to {BAND[1]:g} of the standard in every hidden layer",
        details=details,
        note=notes.text(),
    )


def _blocked(evidence: Evidence) -> str:
    if not evidence.runs:
        return "the table has no rows"
    lacking = [name for name in ("standard", "augmented") if not evidence.nets(name).size]
    if lacking:
        return f"no {' and no '.join(lacking)} nets: nothing to compare"
    standard, _ = matched_pairs(evidence)
    if not standard.size:
        return "no standard and augmented net have equal width and seed: there are no pairs"
    if np.unique(evidence.width[standard], return_counts=True)[1].max() < 2:
        return "no width has two pairs of seeds: nothing shows the spread between nets"
    return ""


def _unpaired(evidence: Evidence) -> list[str]:
    standard, augmented = matched_pairs(evidence)
    alone = evidence.nets("standard").size + evidence.nets("augmented").size - standard.size - augmented.size
    widths, counts = np.unique(evidence.width[standard], return_counts=True)
    small = widths[counts < 2]
    notes = [f"{alone} nets without a partner of equal width and seed"] if alone else []
    return notes + ([f"left out, fewer than two pairs: width {', '.join(map(str, small))}"] if small.size else [])


def _say(status: Status) -> str:
    return {"holds": "holds", "fails": "fails", "open": "is open"}[status]


def _which(readings: Sequence[Reading], statuses: Sequence[Status]) -> str:
    if not readings:
        return ""
    return " (" + "; ".join(f"{reading.name}: {status}" for reading, status in zip(readings, statuses, strict=True)) + ")"


def _readings(evidence: Evidence, settings: Settings, layers: Sequence[str], notes: Notes) -> list[Reading]:
    """The readings that the table allows: those with a number in every hidden layer."""
    allowed = []
    for comparison, read in READ.items():
        samples = [pair_sample(evidence, layer, read, f"pr at {comparison}") for layer in layers]
        for sample in samples:
            notes.take(sample)
        for measure in MEASURES:
            name = f"{measure}, {comparison}"
            found = [_share(settings, sample, layer, measure, name) for sample, layer in zip(samples, layers, strict=True)]
            parts = [part for part in found if part is not None]
            if parts and len(parts) == len(layers):
                allowed.append(Reading(f"{measure}, {comparison}", parts))
            elif layers:
                notes.add(f"not possible: {name}")
    return allowed


def _share(settings: Settings, sample: Sample, layer: str, measure: str, name: str) -> Part | None:
    """What of the standard is left in the augmented nets, against the band; None where it is undefined."""
    if not sample.size:
        return None
    offset = MEASURES[measure]
    excess = sample.means - offset
    keep = np.ones(sample.size, dtype=bool) if offset == 0 else excess[1] >= SMALLEST_EXCESS
    widths, counts = np.unique(sample.strata[keep], return_counts=True)
    keep &= np.isin(sample.strata, widths[counts >= 2])
    if not keep.any():
        return None
    dropped = int((~keep).sum())
    sample = replace(sample, values=sample.values[:, keep], nets=sample.nets[keep], strata=sample.strata[keep])
    left, whole = sample.means - offset
    above, below = signed_rank_test(left - BAND[0] * whole), signed_rank_test(BAND[1] * whole - left)
    test = TestResult(max(above.p_value, below.p_value), above.n)
    labels = {"training": "augmented over standard", "pairs_undefined": dropped}
    boot = settings.bootstrap(sample, _statistic(offset))
    return Part(f"B: {name}", layer, boot, test, *BAND, undefined=sample.undefined, labels=labels)


def _statistic(offset: float) -> Callable[[Array, Strata], Array]:
    def mean_share(means: Array, strata: Strata) -> Array:
        """(draws, 2, pairs) -> (draws, 1): balanced mean over the pairs whose share is defined."""
        left, whole = means[:, 0] - offset, means[:, 1] - offset
        smallest_whole = SMALLEST_EXCESS if offset else 0.0
        shares = np.divide(left, whole, out=np.full(left.shape, np.nan), where=whole > smallest_whole)
        by_width = [_mean_defined(shares[:, strata == width]) for width in np.unique(strata)]
        return _mean_defined(np.stack(by_width, axis=1))[:, None]

    return mean_share


def _mean_defined(values: Array) -> Array:
    defined = np.isfinite(values)
    counts = defined.sum(axis=1)
    return np.divide(np.where(defined, values, 0.0).sum(axis=1), counts, out=np.full(len(values), np.nan), where=counts > 0)


def _along_training(evidence: Evidence, settings: Settings, layers: Sequence[str]) -> list[dict[str, object]]:
    """Every common step of every layer, under both measures; they decide nothing."""
    rows = []
    for layer in layers:
        for step in common_steps(evidence, layer):
            sample = pair_sample(evidence, layer, at_step(step), "")
            for measure in MEASURES:
                found = _share(settings, sample, layer, measure, f"{measure}, step {step}")
                if found is not None:
                    rows.append(found.row(settings) | {"step": step})
    return rows
