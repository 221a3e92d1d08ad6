"""Claim 4: larger networks show the effect more strongly."""

from __future__ import annotations

import math

import numpy as np

from kagscope.studies.claims.evidence import Evidence, Indices, Key, Sample, other_trainings
from kagscope.studies.claims.verdicts import (
    SMALLEST_RATIO,
    UNDEFINED_INTERVAL,
    Claim,
    Notes,
    Part,
    Settings,
    all_of,
    largest,
    missing_nets,
    net_labels,
    verdict_of,
)
from kagscope.studies.statistics.bootstrap import Strata
from kagscope.studies.statistics.kendall import trend_test
from kagscope.studies.statistics.student import Array

PART = "PR ratio of the widest over the narrowest"


def larger_networks(evidence: Evidence, settings: Settings) -> Claim:
    """Judge claim 4."""
    notes = Notes()
    training, said = evidence.judged_training()
    no_nets = missing_nets(evidence, training)
    notes.add(*said, no_nets, *evidence.settings_left_out(training))
    needed: list[Part] = []
    missing = [] if evidence.layers else ["any hidden layer"]
    for layer in evidence.layers:
        part = _compare(evidence, settings, Key(layer, 2, "all", "pr"), evidence.nets(training), notes)
        if part is None:
            missing.append(f"pr of two widths in layer {layer}")
        else:
            needed.append(part)
    if missing and not no_nets:
        notes.add(f"missing: {', '.join(missing)}")
    statuses = [part.status(settings, len(needed) + len(missing)) for part in needed]
    details = [part.row(settings, status) for part, status in zip(needed, statuses, strict=True)]
    plans = [(evidence.nets(training), k) for k in (1, 3)]
    plans += [(evidence.nets(other), 2) for other in other_trainings(evidence, training)]
    beside = [_compare(evidence, settings, Key(layer, k, "all", "pr"), nets) for nets, k in plans for layer in evidence.layers]
    details += [part.row(settings) for part in beside if part is not None]
    shown = min(needed, key=lambda part: part.effect, default=None)
    interval = shown.interval(settings.confidence) if shown else UNDEFINED_INTERVAL
    return Claim(
        id="4-larger-networks",
        statement="Larger networks show it more strongly.",
        verdict=verdict_of(all_of(statuses, complete=not missing)),
        effect=shown.effect if shown else math.nan,
        ci_low=interval.low,
        ci_high=interval.high,
        p_value=largest([part.test.p_value for part in needed], complete=not missing),
        n=shown.test.n if shown else 0,
        effect_name=f"{PART}, layer {shown.layer} (the smallest)" if shown else PART,
        test="one-sided trend over widths, Kendall's tau-b (Jonckheere–Terpstra); largest p of the layers",
        criterion=f"in every hidden layer: widest over narrowest > {SMALLEST_RATIO}, interval above it; rising trend, p < alpha",
        details=details,
        note=notes.text(),
    )


def _widest_over_narrowest(means: Array, strata: Strata) -> Array:
    """(draws, 1, nets) -> (draws, 1)."""
    widest, narrowest = means[..., strata == strata.max()].mean(axis=-1), means[..., strata == strata.min()].mean(axis=-1)
    return np.divide(widest, narrowest, out=np.full(widest.shape, np.nan), where=narrowest > 0)


def _compare(evidence: Evidence, settings: Settings, key: Key, nets: Indices, notes: Notes | None = None) -> Part | None:
    sample = evidence.sample([key], "ratio", nets)
    if notes is not None:
        notes.take(sample)
    widths = np.unique(sample.strata)
    if widths.size < 2:
        return None
    # widths between take part in the trend; the ratio, and its degrees of freedom, are of the two ends alone
    ends = np.isin(sample.strata, widths[[0, -1]])
    extremes = Sample(sample.values[:, ends], sample.nets[ends], sample.strata[ends], 0, ())
    labels = {"k": key.k} | net_labels(evidence, nets) | {"width": f"{widths[-1]} over {widths[0]}"}
    boot = settings.bootstrap(extremes, _widest_over_narrowest)
    test = trend_test(sample.strata, sample.means[0])
    return Part(PART, key.layer, boot, test, SMALLEST_RATIO, undefined=sample.undefined, labels=labels)
