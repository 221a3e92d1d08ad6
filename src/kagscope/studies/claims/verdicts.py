"""From sub-hypotheses to verdicts: what holds, fails or stays open, alone and together (``docs/claims.md``, "Common to all")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from kagscope.base.errors import InputError
from kagscope.studies.claims.evidence import Evidence, Indices, Key, Measure, Sample, other_trainings
from kagscope.studies.statistics import (
    Bootstrap,
    Interval,
    Statistic,
    TestResult,
    balanced_mean,
    hierarchical_bootstrap,
    holm,
    paired_test,
)
from kagscope.tables.schema import VERDICTS

State = Literal["holds", "fails", "open"]

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
class Finding:
    """One sub-hypothesis, "the effect lies above ``low`` (and below ``high``)", and what the data say of it."""

    part: str
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

    def state(self, settings: Settings, hypotheses: int = 1, p_value: float | None = None) -> State:
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

    def row(self, settings: Settings, state: State | None = None) -> dict[str, Any]:
        """A row of details; ``state`` where it takes part in the verdict."""
        interval = self.interval(settings.confidence)
        return {
            "part": self.part,
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
            "state": state or "",
            "decides": state is not None,
            "undefined": self.undefined,
        } | self.labels


def all_of(states: Sequence[State], complete: bool = True) -> State:
    """All are needed: one failure is enough, and nothing holds while something is missing."""
    if "fails" in states:
        return "fails"
    return "holds" if complete and states and all(state == "holds" for state in states) else "open"


def any_of(states: Sequence[State], complete: bool = True) -> State:
    """Any would do: all must fail."""
    if "holds" in states:
        return "holds"
    return "fails" if complete and states and all(state == "fails" for state in states) else "open"


def holm_states(findings: Sequence[Finding], settings: Settings) -> tuple[list[State], list[float]]:
    """States and corrected p-values of sub-hypotheses of which any would do."""
    corrected = holm([finding.test.p_value for finding in findings])
    return [finding.state(settings, p_value=p) for finding, p in zip(findings, corrected, strict=True)], corrected


def verdict_of(state: State) -> str:
    """The verdict on a claim that needs just this."""
    return {"holds": REPRODUCED, "fails": NOT_REPRODUCED, "open": INCONCLUSIVE}[state]


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
    part: str,
    notes: Notes | None = None,
) -> Finding | None:
    """The sub-hypothesis that the mean over settings lies above ``low``; None where no setting has two nets with values."""
    sample = evidence.sample([key], measure, nets)
    if notes is not None:
        notes.take(sample)
    if not sample.size:
        return None
    return Finding(
        part,
        key.layer,
        settings.bootstrap(sample),
        paired_test(sample.means[0] - low),
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
