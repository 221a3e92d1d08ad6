"""Parts of a claim, and how its verdict follows from them (``docs/claims.md``, "Common to all")."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from kagscope.base.provenance import json_values
from kagscope.studies.claims.seeds import Evidence, Notes, Sample
from kagscope.studies.statistics.bootstrap import defined_means, hierarchical_bootstrap
from kagscope.studies.statistics.multiple_testing import step_down
from kagscope.studies.statistics.permutation import fewest_pairs, flip_draws, one_sided
from kagscope.studies.statistics.student import Array
from kagscope.tables.schema import ALPHA, VERDICTS

Status = Literal["holds", "fails", "open"]

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = VERDICTS
SMALLEST_RATIO = 1.01  # "above 1": effects under 1% are smaller than any in the paper
VERDICT_OF: dict[Status, str] = {"holds": REPRODUCED, "fails": NOT_REPRODUCED, "open": INCONCLUSIVE}


@dataclass(frozen=True)
class Part:
    """One effect in one layer: the claim about it and the evidence of the seeds.

    Attributes:
        name, layer: name and layer of the effect.
        effect, ci_low, ci_high: effect and interval over seeds and data points.
        band: open interval in which the effect is claimed to lie.
        margins: (sides, all seeds) distance of each seed inside the band from each finite end; NaN for seeds without a value.
        p_value: p-value of lying inside, the larger of the sides.
        p_against: uncorrected p-value of lying outside, the smaller of the sides.
        decides: whether the claim's verdict depends on it.
        status: "holds", "fails", "open".
        facts: further columns of its row.
    """

    name: str
    layer: str
    effect: float
    ci_low: float
    ci_high: float
    band: tuple[float, float]
    margins: Array
    p_value: float
    p_against: float
    status: Status
    decides: bool = True
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of seeds."""
        return int(np.isfinite(self.margins).all(axis=0).sum())

    def row(self) -> dict[str, Any]:
        """Its row in ``claims.json``."""
        low, high = self.band
        ends = f"> {low:g}" if math.isinf(high) else f"<= {high:g}" if math.isinf(low) else f"{low:g} to {high:g}"
        return (
            {"part": self.name, "layer": self.layer, "k": 2, "selection": "all"}
            | self.facts
            | {"effect": self.effect, "ci_low": self.ci_low, "ci_high": self.ci_high}
            | {"p_value": self.p_value, "p_against": self.p_against, "n": self.n, "held_against": ends}
            | {"verdict": VERDICT_OF[self.status], "decides": self.decides}
        )


@dataclass(frozen=True)
class Claim:
    """A judged claim. ``n`` counts seeds; numbers that the table does not allow are NaN."""

    id: str
    statement: str
    verdict: str
    effect: float
    ci_low: float
    ci_high: float
    p_value: float
    n: int
    decided_by: str
    criterion: str
    parts: list[dict[str, Any]] = field(default_factory=list)
    control: str | None = None
    remarks: list[str] = field(default_factory=list)
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``claims.json``, with None for non-finite numbers."""
        return json_values(vars(self))


def judge_within(
    evidence: Evidence,
    name: str,
    layer: str,
    sample: Sample,
    band: tuple[float, float],
    *,
    whole: Array | None = None,
    least: float = 0.0,
    decides: bool = True,
    facts: dict[str, Any] | None = None,
) -> Part | None:
    """Part of a claim that a quantity, or its share of a whole, lies within a band; None if no seed has a value.

    Args:
        evidence: evidence from which the sample is taken.
        name, layer: name and layer of the part.
        sample: sample whose first quantity is judged.
        band: open interval; either end may be infinite.
        whole: (seeds, points) of which the quantity is a share; the mean share is the ratio of the means.
        least: mean of the whole at or below which the share is undefined.
        decides: whether the part enters the verdict.
        facts: further columns of its row.
    """
    quantity, facts = sample.values[0], dict(facts or {})
    if not quantity.size:
        return None
    both = np.stack([quantity, np.ones_like(quantity) if whole is None else whole])
    both = np.where(np.isfinite(both).all(axis=0), both, np.nan)
    judged, base = defined_means(both)
    sides = [judged - band[0] * base] * math.isfinite(band[0]) + [band[1] * base - judged] * math.isfinite(band[1])
    margins = np.full((len(sides), evidence.seeds.size), np.nan)
    margins[:, sample.seeds] = sides
    effect, low, high = math.nan, math.nan, math.nan
    if base.mean() > least:
        effect = float(judged.mean() / base.mean())
        if quantity.shape[0] > 1 and evidence.resamples:
            boot = hierarchical_bootstrap(both, _share, resamples=evidence.resamples)
            low, high = (float(end[0]) for end in boot.t_intervals())
    else:
        facts |= {"reason": f"undefined: the whole is {base.mean():.3g}"}
    p_value, p_against = float(_negate(margins).max()), float(_negate(-margins).min())
    known = not math.isnan(effect)
    status: Status = "holds" if known and p_value < ALPHA else "fails" if known and p_against < ALPHA else "open"
    return Part(name, layer, effect, low, high, band, margins, p_value, p_against, status, decides, facts)


def _share(means: Array) -> Array:
    """(draws, 2, seeds) to (draws, 1)."""
    judged, base = means[:, 0].mean(axis=1), means[:, 1].mean(axis=1)
    return np.divide(judged, base, out=np.full(judged.shape, np.nan), where=base > 0)[:, None]


def _negate(margins: Array) -> Array:
    return one_sided(flip_draws(margins.T))


def correct_all(parts: Sequence[Part]) -> list[Part]:
    """Correct parts that must all hold: failure is corrected for the number of sides, over all parts, that do not hold."""
    sides = np.concatenate([part.margins for part in parts]) if parts else np.zeros((0, 0))
    owner = np.repeat(np.arange(len(parts)), [len(part.margins) for part in parts])
    doubtful = np.flatnonzero(_negate(sides) >= ALPHA) if sides.size else np.zeros(0, dtype=np.int64)
    settled = list(parts)
    if doubtful.size:
        corrected = step_down(flip_draws(-sides[doubtful].T), "greater")
        for index in np.unique(owner[doubtful]):
            p = float(corrected[owner[doubtful] == index].min())
            fails = parts[index].status == "fails" and p < ALPHA
            settled[index] = replace(parts[index], p_against=p, status="fails" if fails else "open")
    return settled


def correct_any(parts: Sequence[Part]) -> list[Part]:
    """Correct one-sided parts of which any suffices: p-values are corrected for the number of parts that do not fail."""
    hopeful = [i for i, part in enumerate(parts) if part.status != "fails"]
    corrected = list(parts)
    if hopeful:
        margins = np.concatenate([parts[i].margins for i in hopeful]).T
        for i, p in zip(hopeful, step_down(flip_draws(margins), "greater"), strict=True):
            corrected[i] = replace(parts[i], p_value=float(p), status="holds" if p < ALPHA else "open")
    return corrected


def decide(parts: Sequence[Part], missing: bool, clearance: Callable[[Part], float] | None = None) -> tuple[Status, Part | None]:
    """Status from parts that must all hold, and the deciding part: of those that hold, the one with the largest p and, among
    equals, the least ``clearance``, by default the mean margin in its standard deviations."""
    clearance = clearance or _clearance
    needed = [part for part in parts if part.decides]
    failing = [part for part in needed if part.status == "fails"]
    if failing:
        return "fails", min(failing, key=lambda part: part.p_against)
    if needed and not missing and all(part.status == "holds" for part in needed):
        return "holds", max(needed, key=lambda part: (part.p_value, -clearance(part)))
    return "open", next((part for part in needed if part.status == "open"), needed[0] if needed else None)


def _clearance(part: Part) -> float:
    """Mean margin in units of its standard deviation."""
    margins = part.margins[:, np.isfinite(part.margins).all(axis=0)]
    spread = margins.std(axis=1)
    return float(
        np.min(np.divide(margins.mean(axis=1), spread, out=np.full(spread.shape, np.inf), where=spread > 0), initial=np.inf)
    )


def make_claim(
    parts: Sequence[Part],
    notes: Notes,
    outcome: tuple[Status, Part | None],
    *,
    id: str,
    statement: str,
    criterion: str,
) -> Claim:
    """Make the claim, with the numbers of the deciding part."""
    status, part = outcome
    numbers: dict[str, Any] = dict.fromkeys(("effect", "ci_low", "ci_high", "p_value"), math.nan) | {"n": 0}
    if part is not None:
        numbers = {name: getattr(part, name) for name in numbers}
        if not math.isnan(part.p_value):
            notes.add(too_few(part.n))
    return Claim(
        id=id,
        statement=statement,
        criterion=criterion,
        verdict=VERDICT_OF[status],
        decided_by="" if part is None else _name(part),
        **numbers,
        parts=[part.row() for part in parts],
        note=notes.text(),
    )


def too_few(seeds: int) -> str:
    """A sentence if there are too few seeds to decide, else ""."""
    needed = fewest_pairs(ALPHA)
    if seeds >= needed:
        return ""
    return f"{seeds} seed{'s' * (seeds != 1)} cannot reach p < {ALPHA}; {needed} can"


def _name(part: Part) -> str:
    selection = part.facts.get("selection", "all")
    location = f"layer {part.layer}" + (f", {selection}" if selection != "all" else "")
    return f"{part.name}, {location}" if part.layer else part.name
