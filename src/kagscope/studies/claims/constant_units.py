"""Claim 6: locally constant units appear with training, and removing them does not change the function."""

from __future__ import annotations

import math

import numpy as np

from kagscope.studies.claims.evidence import Evidence, Indices, Key, settle
from kagscope.studies.claims.verdicts import (
    UNDEFINED_INTERVAL,
    Claim,
    Notes,
    Part,
    Settings,
    Status,
    any_of,
    holm_statuses,
    largest,
    mean_above,
    missing_nets,
    net_labels,
    side_groups,
    smallest,
    verdict_of,
)
from kagscope.studies.statistics.signed_rank import signed_rank_test

SMALLEST_RISE = 0.01  # of the share of zero rows
SAME_OUTPUT = 1e-5  # relative change of any output: rounding of float32
RISE, FOR_GOOD = "rise of the share of zero rows", "rise of the number of constant units"


def locally_constant_units(evidence: Evidence, settings: Settings) -> Claim:
    """Judge claim 6."""
    notes = Notes()
    training, said = evidence.judged_training()
    no_nets = missing_nets(evidence, training)
    notes.add(*said, no_nets, *evidence.settings_left_out(training))
    nets = evidence.nets(training)
    found = [
        mean_above(evidence, settings, Key(layer, 1, "all", "zero_rows"), "difference", nets, SMALLEST_RISE, RISE, notes)
        for layer in evidence.layers
    ]
    rises = [part for part in found if part is not None]
    lacking = [layer for layer, part in zip(evidence.layers, found, strict=True) if part is None]
    statuses, corrected = holm_statuses(rises, settings)
    appear = any_of(statuses, complete=not lacking)
    details = [part.row(settings, status) for part, status in zip(rises, statuses, strict=True)]
    if not no_nets and (lacking or not rises):
        notes.add(f"missing: zero_rows in layer {', '.join(lacking)}" if lacking else "missing: zero_rows")

    constant = _constant_units(evidence, settings, nets, notes)
    for_good: Status = constant.status(settings) if constant else "open"
    if constant:
        details.append(constant.row(settings, for_good))
    elif not no_nets:
        notes.add("missing: constant_units with its initial value")
    removal = _removal(evidence, nets, notes, details)

    # a number of constant units that did not rise refutes nothing that the page names: it leaves the removal untested
    status: Status = "open"
    if "fails" in (appear, removal):
        status = "fails"
    elif appear == for_good == removal == "holds":
        status = "holds"
    details += _beside(evidence, settings, training)
    shown = max(rises, key=lambda part: part.effect, default=None)
    interval = shown.interval(settings.confidence) if shown else UNDEFINED_INTERVAL
    return Claim(
        id="6-locally-constant-units",
        statement="Locally constant units (zero rows) appear with training; removing them does not change the function.",
        verdict=verdict_of(status),
        effect=shown.effect if shown else math.nan,
        ci_low=interval.low,
        ci_high=interval.high,
        p_value=largest([smallest(corrected), constant.test.p_value]) if constant and rises else math.nan,
        n=shown.test.n if shown else 0,
        effect_name=f"{RISE}, layer {shown.layer} (the largest)" if shown else RISE,
        test="one-sided Wilcoxon over nets: zero rows (Holm over layers), constant units; larger p. Removal: each net",
        criterion=f"share of zero rows rises by more than {SMALLEST_RISE} in some hidden layer; constant units become more; "
        f"removing them changes no output by more than {SAME_OUTPUT:g} in any net",
        details=details,
        note=notes.text(),
    )


def _constant_units(evidence: Evidence, settings: Settings, nets: Indices, notes: Notes | None = None) -> Part | None:
    """Units constant at every data point, added over the layers, against initialisation."""
    keys = [key for key in evidence.blocks if key.score == "constant_units"]
    if not keys:
        return None
    grids = [evidence.grid(key, "difference", nets) for key in keys]
    # one number of each layer (point -1); a net counts where every layer of the table has its own
    rises = np.stack([grid[:, :1] if grid.shape[1] else np.full((nets.size, 1), np.nan) for _, grid, _ in grids]).sum(axis=0)
    sample = settle(rises[None], nets, evidence.width[nets], sum(count for _, _, count in grids), "constant_units")
    if notes is not None:
        notes.take(sample)
    if not sample.size:
        return None
    labels = {"k": 0} | net_labels(evidence, nets)
    return Part(
        FOR_GOOD,
        "all",
        settings.bootstrap(sample),
        signed_rank_test(sample.means[0]),
        0.0,
        labels=labels,
        undefined=sample.undefined,
    )


def _removal(evidence: Evidence, nets: Indices, notes: Notes, details: list[dict[str, object]]) -> Status:
    """Whether removal leaves the outputs alone in every net that has constant units, be its setting's only one or not."""
    counts = np.zeros(nets.size)
    for key in evidence.blocks:
        if key.score == "constant_units":
            counts += np.nansum(evidence.grid(key, "value", nets)[1], axis=1)
    concerned = counts > 0
    if not concerned.any():
        notes.add("no unit is constant at every data point in any net: removal cannot be tested")
        return "open"
    block = next((key for key in evidence.blocks if key.score == "prune_change"), None)
    grid = evidence.grid(block, "value", nets)[1] if block else np.full((nets.size, 0), np.nan)
    changes = np.where(np.isfinite(grid), grid, -np.inf).max(axis=1, initial=-np.inf)
    known = concerned & np.isfinite(changes)
    worst = float(changes[known].max()) if known.any() else math.nan
    status: Status = "fails" if worst > SAME_OUTPUT else "holds" if (known == concerned).all() else "open"
    if not (known == concerned).all():
        notes.add(
            f"missing: prune_change of {int((concerned & ~known).sum())} of {int(concerned.sum())} nets with constant units"
        )
    if status == "fails":
        above = int((changes[known] > SAME_OUTPUT).sum())
        notes.add(f"removal changes outputs in {above} of {int(known.sum())} nets, by up to {worst:.2g}")
    details.append(
        {
            "part": "largest relative change of an output on removal, worst net",
            "layer": "all",
            "k": 0,
            "selection": "all",
            **net_labels(evidence, nets),
            "effect": worst,
            "n": int(known.sum()),
            "held_against": f"<= {SAME_OUTPUT:g} in every net",
            "state": status,
            "decides": True,
        }
    )
    return status


def _beside(evidence: Evidence, settings: Settings, training: str) -> list[dict[str, object]]:
    """Rows exactly zero, single widths and the other training; they decide nothing."""
    everyone = evidence.nets(training)
    plans = [(everyone, 1, "zero_rows_exact"), (everyone, 2, "zero_rows"), (everyone, 3, "zero_rows")]
    plans += [(nets, 1, "zero_rows") for nets in side_groups(evidence, training)]
    rows = []
    for nets, k, score in plans:
        for layer in evidence.layers:
            name = RISE if score == "zero_rows" else "rise of the share of rows exactly zero"
            found = mean_above(evidence, settings, Key(layer, k, "all", score), "difference", nets, SMALLEST_RISE, name)
            if found is not None:
                rows.append(found.row(settings))
    groups = [_constant_units(evidence, settings, nets) for nets in side_groups(evidence, training)]
    return rows + [part.row(settings) for part in groups if part is not None]
