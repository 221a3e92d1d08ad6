"""Claims 1, 4 and 6: concentration, larger networks, locally constant units."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from kagscope.studies.claims.parts import (
    SMALLEST_RATIO,
    Claim,
    Part,
    Status,
    correct_all,
    correct_any,
    decide,
    judge_within,
    make_claim,
)
from kagscope.studies.claims.seeds import Evidence, Notes, Sample
from kagscope.studies.nets import DIFFERENCE, RATIO, VALUE, Indices, Key

SMALLEST_KL = 0.01  # nats
SMALLEST_RISE = 0.01  # of the share of zero rows
SAME_OUTPUT = 1e-5  # relative change of any output: rounding of float32
CONCENTRATION = {
    "pr": ("PR, trained over initial", RATIO, SMALLEST_RATIO),
    "kl_uniform": ("KL, trained minus initial (nats)", DIFFERENCE, SMALLEST_KL),
    "rr_pr": ("rr_pr, trained over initial", RATIO, SMALLEST_RATIO),
}
BESIDE = {  # score and order
    ("rr_max", 2): "rr_max, trained over initial",
    ("rr_sampled", 2): "rr_sampled, as the authors' code draws it, trained over initial",
    ("pr", 1): "PR, trained over initial",
    ("pr", 3): "PR, trained over initial",
}
ABOVE_ONE = (SMALLEST_RATIO, math.inf)


def mean_above(
    evidence: Evidence,
    key: Key,
    measure: str,
    low: float,
    name: str,
    notes: Notes,
    *,
    training: str,
    decides: bool = True,
) -> Part | None:
    """Part of a claim that the mean lies above ``low``; None if not in the table."""
    sample = evidence.sample([key], measure, evidence.of_training(training), notes)
    facts = {"k": key.k, "selection": key.selection, "training": training}
    return judge_within(evidence, name, key.layer, sample, (low, math.inf), decides=decides, facts=facts)


def concentration(evidence: Evidence) -> Claim:
    """Judge claim 1."""
    notes = Notes()
    training = evidence.training(notes)
    parts, missing = [], [] if evidence.layers else ["any hidden layer"]
    for layer in evidence.layers:
        for score, (name, measure, low) in CONCENTRATION.items():
            part = mean_above(evidence, Key(layer, 2, "all", score), measure, low, name, notes, training=training)
            if part is None:
                missing.append(f"{score} in layer {layer}")
            else:
                parts.append(part)
    if missing:
        notes.add(f"missing: {', '.join(missing)}")
    parts = correct_all(parts)
    outcome = decide(parts, bool(missing))
    if is_untrained(evidence):
        notes.add("the nets are untrained: every ratio is exactly 1")
        outcome = "fails", next((part for part in parts if part.effect == 1), None)
    for (score, k), name in BESIDE.items():
        for layer in evidence.layers:
            key = Key(layer, k, "all", score)
            ratio_part = mean_above(evidence, key, RATIO, SMALLEST_RATIO, name, Notes(), training=training, decides=False)
            parts += [ratio_part] if ratio_part else []
    return make_claim(
        parts,
        notes,
        outcome,
        id="1-concentration",
        statement="After training the minors are more concentrated than at initialisation and aligned with the axes: "
        "PR, KL and rotation ratio higher, in every hidden layer.",
        criterion=f"in every hidden layer, trained against initial: PR > {SMALLEST_RATIO} times, KL > {SMALLEST_KL} nats more, "
        f"rr_pr > {SMALLEST_RATIO} times",
    )


def is_untrained(evidence: Evidence) -> bool:
    """Whether no net took a training step; one seed suffices, as this holds by definition."""
    steps = evidence.results["step"].to_numpy()
    return steps.size > 0 and not steps.any()


def larger_networks(evidence: Evidence) -> Claim:
    """Judge claim 4."""
    notes = Notes()
    training = evidence.training(notes)
    nets = evidence.of_training(training)
    widths = evidence.widths(nets)
    parts: list[Part] = []
    missing = [] if evidence.layers else ["any hidden layer"]
    for layer in evidence.layers:
        ends = _compare(evidence, layer, nets, (widths[0], widths[-1]), notes) if len(widths) > 1 else None
        parts += [ends] if ends else []
        missing += [] if ends else [f"pr of two widths in layer {layer}"]
    parts = correct_all(parts)
    if missing:
        notes.add(f"missing: {', '.join(missing)}")
    outcome = decide(parts, bool(missing))
    if len(widths) > 2:
        pairs = [_compare(evidence, layer, nets, two, Notes(), False) for layer in evidence.layers for two in pairwise(widths)]
        parts += [part for part in pairs if part is not None]
    statement, criterion = (
        "Larger networks show it more strongly.",
        f"in every hidden layer: widest over narrowest > {SMALLEST_RATIO}",
    )
    return make_claim(parts, notes, outcome, id="4-larger-networks", statement=statement, criterion=criterion)


def _compare(
    evidence: Evidence,
    layer: str,
    trained: Indices,
    widths: tuple[int, int],
    notes: Notes,
    decides: bool = True,
) -> Part | None:
    """Compare PR ratios of wider and narrower nets of the same seed and settings."""
    narrow, wide = evidence.pairs("width", *widths)
    inside = np.isin(narrow, trained) & np.isin(wide, trained)
    narrow, wide = narrow[inside], wide[inside]
    grid = evidence.nets.grid(Key(layer, 2, "all", "pr"), RATIO)
    notes.undefined += sum(int((grid.recorded[nets] & ~np.isfinite(grid.values[nets])).sum()) for nets in (wide, narrow))
    values = np.stack([grid.values[wide], grid.values[narrow]])
    values = np.where(np.isfinite(values).all(axis=0), values, np.nan)
    both = evidence.average(values, narrow, notes, f"pr of two widths, layer {layer}", but="width")
    name, facts = "PR ratio of the widest over the narrowest", {"width": f"{widths[1]} over {widths[0]}"}
    name = name if decides else "PR ratio of the wider over the narrower"
    ratios, reference = Sample(both.values[:1], both.seeds), both.values[1]
    return judge_within(evidence, name, layer, ratios, ABOVE_ONE, whole=reference, decides=decides, facts=facts)


def locally_constant_units(evidence: Evidence) -> Claim:
    """Judge claim 6."""
    notes = Notes()
    training = evidence.training(notes)
    rise = "(a) rise of the share of zero rows"
    candidates = [
        mean_above(evidence, Key(layer, 1, "all", "zero_rows"), DIFFERENCE, SMALLEST_RISE, rise, notes, training=training)
        for layer in evidence.layers
    ]
    appear = correct_any([part for part in candidates if part is not None])
    lacking = [layer for layer, part in zip(evidence.layers, candidates, strict=True) if part is None]
    if lacking or not appear:
        notes.add(f"missing: zero_rows in layer {', '.join(lacking) or '(none)'}")
    removal = _judge_removal(evidence, evidence.of_training(training), notes)
    outcome = _decide_appearance(appear, bool(lacking) or not appear)
    if removal.status == "fails" or (outcome[0] == "holds" and removal.status == "open" and not removal.facts["untestable"]):
        outcome = removal.status, removal
    parts = [*appear, removal]
    for layer in evidence.layers:
        key, name = Key(layer, 1, "all", "zero_rows_exact"), "rise of the share of rows exactly zero"
        exact_rows = mean_above(evidence, key, DIFFERENCE, SMALLEST_RISE, name, Notes(), training=training, decides=False)
        key, name = Key(layer, 0, "all", "constant_units"), "rise of the number of units constant at every point"
        constant = mean_above(evidence, key, DIFFERENCE, 0.0, name, Notes(), training=training, decides=False)
        parts += [part for part in (exact_rows, constant) if part is not None]
    return make_claim(
        parts,
        notes,
        outcome,
        id="6-locally-constant-units",
        statement="(a) Locally constant units (zero rows) appear with training; "
        "(b) units constant at every point can be removed without changing the function.",
        criterion=f"(a) share of zero rows rises by more than {SMALLEST_RISE} in some hidden layer; (b) removal changes no "
        f"output by more than {SAME_OUTPUT:g} in any net that has constant units, where one has",
    )


def _decide_appearance(parts: list[Part], missing: bool) -> tuple[Status, Part | None]:
    """Status by the clearest layer, as any layer suffices."""
    if not parts:
        return "open", None
    clearest = min(parts, key=lambda part: (part.p_value, -part.effect))
    if clearest.status == "holds":
        return "holds", clearest
    return ("fails" if not missing and all(part.status == "fails" for part in parts) else "open"), clearest


def _judge_removal(evidence: Evidence, nets: Indices, notes: Notes) -> Part:
    """Part (b): whether removing constant units leaves the outputs unchanged in every net that has any."""
    layers = [layer for layer in evidence.layers if Key(layer, 0, "all", "constant_units") in evidence.nets.places]
    counts = np.zeros(nets.size)
    for layer in layers:
        counts += np.nansum(evidence.nets.grid(Key(layer, 0, "all", "constant_units"), VALUE).values[nets], axis=1)
    concerned = counts > 0
    grid = evidence.nets.grid(Key("", 0, "all", "prune_change"), VALUE).values[nets]
    changes = np.where(np.isfinite(grid), grid, -np.inf).max(axis=1, initial=-np.inf)
    known = concerned & np.isfinite(changes)
    worst = float(changes[known].max()) if known.any() else math.nan
    status: Status = "fails" if worst > SAME_OUTPUT else "holds" if concerned.any() and (known == concerned).all() else "open"
    untestable = bool(layers) and not concerned.any()
    if untestable:
        notes.add("(b) is untestable: no unit is constant at every point in any net (try relu); the verdict is that of (a)")
    elif status == "open":
        notes.add("(b) is open: constant_units or prune_change was not measured in every net")
    elif status == "fails":
        notes.add(f"(b) fails: removal changes outputs in {int((changes[known] > SAME_OUTPUT).sum())} of {int(known.sum())} nets")
    facts: dict[str, object] = {"k": 0, "nets": int(known.sum()), "untestable": untestable}
    nan = math.nan
    name = "(b) largest relative change of an output on removal, worst net"
    seeds = np.isin(evidence.seeds, evidence.nets.runs["seed"].to_numpy()[nets[known]])
    margins = np.where(seeds, 0.0, nan)[None]
    return Part(name, "", worst, nan, nan, (-math.inf, SAME_OUTPUT), margins, nan, nan, status, facts=facts)
