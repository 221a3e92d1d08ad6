"""Claim 1: after training the minors are more concentrated than at initialisation and aligned with the axes."""

from __future__ import annotations

import math

import numpy as np

from kagscope.studies.claims.evidence import Evidence, Key, Measure
from kagscope.studies.claims.verdicts import (
    SMALLEST_RATIO,
    UNDEFINED_INTERVAL,
    Claim,
    Notes,
    Part,
    Settings,
    all_of,
    largest,
    mean_above,
    missing_nets,
    side_groups,
    verdict_of,
)

SMALLEST_KL = 0.01  # nats
PARTS: dict[str, tuple[str, Measure, float]] = {
    "pr": ("PR ratio", "ratio", SMALLEST_RATIO),
    "kl_uniform": ("KL trained - KL initial (nats)", "difference", SMALLEST_KL),
    "rr_pr": ("RR of S1", "value", SMALLEST_RATIO),
    "rr_max": ("RR of the maximum", "value", SMALLEST_RATIO),
}


def concentration(evidence: Evidence, settings: Settings) -> Claim:
    """Judge claim 1."""
    notes = Notes()
    training, said = evidence.judged_training()
    notes.add(*said, missing_nets(evidence, training), *evidence.settings_left_out(training))
    nets = evidence.nets(training)
    needed: list[Part] = []
    missing = [] if evidence.layers else ["any hidden layer"]
    for layer in evidence.layers:
        for score, (name, measure, low) in PARTS.items():
            key = Key(layer, 2, "all", score)
            if score == "rr_max" and key not in evidence.blocks:
                continue  # the paper's own ratio counts where the table has it
            part = mean_above(evidence, settings, key, measure, nets, low, name, notes)
            if part is None:
                missing.append(f"{score} in layer {layer}")
            else:
                needed.append(part)
    if missing and not missing_nets(evidence, training):
        notes.add(f"missing: {', '.join(missing)}")
    statuses = [part.status(settings, len(needed) + len(missing)) for part in needed]
    status = all_of(statuses, complete=not missing)
    pr = [part for part in needed if part.name == PARTS["pr"][0]]
    shown = min(pr, key=lambda part: part.effect, default=None)
    effect, interval, n = math.nan, UNDEFINED_INTERVAL, 0
    if shown is not None:
        effect, interval, n = shown.effect, shown.interval(settings.confidence), shown.test.n
    untrained = nets.size > 0 and not evidence.last_step[nets].any()
    if untrained and _ratios_are_one(evidence, training):
        # true of each net by definition, so one seed is enough to say it
        status = "fails"
        notes.add("the nets are untrained: every ratio is exactly 1")
        if shown is None:
            effect, n = 1.0, int(nets.size)
    elif nets.size and not evidence.last_step[nets].all():
        notes.add(f"{int((evidence.last_step[nets] == 0).sum())} of {nets.size} nets have no step after initialisation")
    details = [part.row(settings, one) for part, one in zip(needed, statuses, strict=True)]
    details += _rotation_against_start(evidence, settings, training, notes)
    details += _beside(evidence, settings, training)
    return Claim(
        id="1-concentration",
        statement="After training the minors are more concentrated than at initialisation and aligned with the axes: "
        "PR ratio > 1, KL higher, RR > 1, in every hidden layer.",
        verdict=verdict_of(status),
        effect=effect,
        ci_low=interval.low,
        ci_high=interval.high,
        p_value=largest([part.test.p_value for part in needed], complete=not missing),
        n=n,
        effect_name=f"PR ratio, layer {shown.layer} (the smallest)" if shown else "PR ratio",
        test="one-sided Wilcoxon signed-rank over nets; largest p of all layers and scores",
        criterion=f"in every hidden layer: PR ratio > {SMALLEST_RATIO}, KL rise > {SMALLEST_KL} nats, RR > {SMALLEST_RATIO}; "
        "each interval above its threshold and p < alpha",
        details=details,
        note=notes.text(),
    )


def _ratios_are_one(evidence: Evidence, training: str) -> bool:
    blocks = [block for key, block in evidence.blocks.items() if key.score == "pr" and key.k == 2]
    chosen = [block.ratio[np.isin(block.net, evidence.nets(training)) & np.isfinite(block.ratio)] for block in blocks]
    ratios = np.concatenate(chosen) if chosen else np.zeros(0)
    return ratios.size > 0 and bool((ratios == 1).all())


def _rotation_against_start(evidence: Evidence, settings: Settings, training: str, notes: Notes) -> list[dict[str, object]]:
    """RR against its own initial value: in the details, and in the note where training did not raise it."""
    rows = []
    for layer in evidence.layers:
        for score in ("rr_pr", "rr_max"):
            key, name = Key(layer, 2, "all", score), f"{PARTS[score][0]}, trained over initial"
            found = mean_above(evidence, settings, key, "ratio", evidence.nets(training), 1.0, name)
            if found is None:
                continue
            rows.append(found.row(settings))
            if found.effect <= 1 and evidence.last_step.any():
                notes.add(f"training did not raise {score} in layer {layer} (trained over initial {found.effect:.3g})")
    return rows


def _beside(evidence: Evidence, settings: Settings, training: str) -> list[dict[str, object]]:
    """Other orders, single widths and the other training; they decide nothing."""
    plans = [(evidence.nets(training), k) for k in (1, 3)] + [(nets, 2) for nets in side_groups(evidence, training)]
    rows = []
    for nets, k in plans:
        for layer in evidence.layers:
            for score, (name, measure, low) in PARTS.items():
                found = mean_above(evidence, settings, Key(layer, k, "all", score), measure, nets, low, name)
                if found is not None:
                    rows.append(found.row(settings))
    return rows
