"""From sub-hypotheses to verdicts: what holds, fails or stays open, alone and together (``docs/claims.md``, "Common to all")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from kagscope.base.errors import InputError
from kagscope.studies.claims.evidence import Evidence, Indices, Key, Measure, Sample, other_trainings
from kagscope.studies.statistics.bootstrap import Bootstrap, Interval, Statistic, balanced_mean, hierarchical_bootstrap
from kagscope.studies.statistics.multiple_testing import holm
from kagscope.studies.statistics.signed_rank import TestResult, signed_rank_test
from kagscope.tables.schema import VERDICTS

Status = Literal["holds", "fails", "open"]

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = VERDICTS
SMALLEST_RATIO = 1.01  # "above 1": an effect under 1% is smaller than anything the paper would call one
UNDEFINED_INTERVAL = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Settings:
    """How certain, how many resamples, which draws; the image's shape where it is known."""

    confidence: float = 0.95
    resamples: int = 4000
    seed: int = 0
    image_shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence={self.confidence}, expected a number between 0 and 1, such as 0.95")
        if self.resamples < 1:
            raise InputError(f"resamples={self.resamples}, expected a positive number, such as 4000")

    @property
    def alpha(self) -> float:
        """Level of the tests."""
        return 1 - self.confidence

    def widened(self, hypotheses: int) -> float:
        """Bonferroni confidence for one of several sub-hypotheses."""
        return 1 - self.alpha / max(hypotheses, 1)

    def bootstrap(self, sample: Sample, statistic: Statistic = balanced_mean) -> Bootstrap:
        """Two-level bootstrap of the sample; the draws depend on the seed and on the shape alone."""
        return hierarchical_bootstrap(sample.values, sample.strata, statistic, resamples=self.resamples, seed=self.seed)


@dataclass(frozen=True)
class Claim:
    """One claim, judged. ``n`` counts nets (claim 5: pairs of nets); NaN where the table does not allow a number."""

    id: str
    statement: str
    verdict: str
    effect: float
    ci_low: float
    ci_high: float
    p_value: float
    n: int
    effect_name: str
    test: str
    criterion: str
    details: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``claims.json``; numbers that are not finite become None."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Part:
    """One sub-hypothesis, "the effect lies above ``low`` (and below ``high``)", and what the data say of it."""

    name: str
    layer: str
    boot: Bootstrap
    test: TestResult
    low: float
    high: float = math.inf
    component: int = 0
    undefined: int = 0
    labels: dict[str, Any] = field(default_factory=dict)

    @property
    def effect(self) -> float:
        """The estimate."""
        return float(self.boot.estimate[self.component])

    def interval(self, confidence: float) -> Interval:
        """Its interval."""
        return self.boot.interval(confidence, self.component)

    def status(self, settings: Settings, hypotheses: int = 1, p_value: float | None = None) -> Status:
        """Whether it holds, fails or stays open.

        Args:
            settings: level.
            hypotheses: of how many that are all needed it is one; failing is judged on an interval widened accordingly.
            p_value: the corrected p-value where any of several would do.
        """
        narrow, wide = self.interval(settings.confidence), self.interval(settings.widened(hypotheses))
        p = self.test.p_value if p_value is None else p_value
        if narrow.low > self.low and narrow.high < self.high and p < settings.alpha:
            return "holds"
        return "fails" if wide.high <= self.low or wide.low >= self.high else "open"

    def row(self, settings: Settings, status: Status | None = None) -> dict[str, Any]:
        """A row of details; ``status`` where it takes part in the verdict."""
        interval = self.interval(settings.confidence)
        return {
            "part": self.name,
            "layer": self.layer,
            "k": 2,
            "selection": "all",
            "training": "",
            "width": "all",
            "effect": self.effect,
            "ci_low": interval.low,
            "ci_high": interval.high,
            "p_value": self.test.p_value,
            "n": self.test.n,
            "held_against": f"> {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}",
            "state": status or "",
            "decides": status is not None,
            "undefined": self.undefined,
        } | self.labels


def all_of(statuses: Sequence[Status], complete: bool = True) -> Status:
    """All are needed: one failure is enough, and nothing holds while something is missing."""
    if "fails" in statuses:
        return "fails"
    return "holds" if complete and statuses and all(status == "holds" for status in statuses) else "open"


def any_of(statuses: Sequence[Status], complete: bool = True) -> Status:
    """Any would do: all must fail."""
    if "holds" in statuses:
        return "holds"
    return "fails" if complete and statuses and all(status == "fails" for status in statuses) else "open"


def holm_statuses(parts: Sequence[Part], settings: Settings) -> tuple[list[Status], list[float]]:
    """States and corrected p-values of sub-hypotheses of which any would do."""
    corrected = holm([part.test.p_value for part in parts])
    return [part.status(settings, p_value=p) for part, p in zip(parts, corrected, strict=True)], corrected


def verdict_of(status: Status) -> str:
    """The verdict on a claim that needs just this."""
    return {"holds": REPRODUCED, "fails": NOT_REPRODUCED, "open": INCONCLUSIVE}[status]


def largest(p_values: Sequence[float], complete: bool = True) -> float:
    """p of an intersection–union test; NaN where one of the tests is missing."""
    return float(np.max(p_values)) if complete and len(p_values) else math.nan


def smallest(p_values: Sequence[float]) -> float:
    """p of several corrected tests of which any would do; NaN without any."""
    defined = [p for p in p_values if not math.isnan(p)]
    return min(defined) if defined else math.nan


@dataclass
class Notes:
    """What has to be said, each thing once."""

    said: dict[str, None] = field(default_factory=dict)
    undefined: int = 0

    def add(self, *texts: str) -> None:
        """Add sentences."""
        self.said.update(dict.fromkeys(text for text in texts if text))

    def take(self, sample: Sample) -> None:
        """Add what a sample left out."""
        self.add(*sample.notes)
        self.undefined += sample.undefined

    def text(self) -> str:
        """All of it, in one line."""
        counted = [f"{self.undefined} undefined values left out"] if self.undefined else []
        return "; ".join([*self.said, *counted])


def mean_above(
    evidence: Evidence,
    settings: Settings,
    key: Key,
    measure: Measure,
    nets: Indices,
    low: float,
    name: str,
    notes: Notes | None = None,
) -> Part | None:
    """The sub-hypothesis that the mean over settings lies above ``low``; None where no setting has two nets with values."""
    sample = evidence.sample([key], measure, nets)
    if notes is not None:
        notes.take(sample)
    if not sample.size:
        return None
    return Part(
        name,
        key.layer,
        settings.bootstrap(sample),
        signed_rank_test(sample.means[0] - low),
        low,
        undefined=sample.undefined,
        labels={"k": key.k, "selection": key.selection} | net_labels(evidence, nets),
    )


def net_labels(evidence: Evidence, nets: Indices) -> dict[str, Any]:
    """Training and, where all are equal, width of these nets."""
    widths, trainings = np.unique(evidence.width[nets]), {evidence.training[i] for i in nets}
    return {"training": " and ".join(sorted(trainings)), "width": int(widths[0]) if widths.size == 1 else "all"}


def side_groups(evidence: Evidence, training: str) -> list[Indices]:
    """Groups of nets that are shown in details and decide nothing: single widths, then the other training."""
    widths = evidence.widths(training)
    groups = [evidence.nets(training, width) for width in widths] if len(widths) > 1 else []
    return [*groups, *(evidence.nets(other) for other in other_trainings(evidence, training))]


def missing_nets(evidence: Evidence, training: str) -> str:
    """Why no test was possible at all, or ""."""
    if not evidence.runs:
        return "the table has no rows"
    if not any(evidence.nets(training, width).size >= 2 for width in evidence.widths(training)):
        return f"no setting of the {training} training has two seeds: nothing shows the spread between nets"
    return ""
