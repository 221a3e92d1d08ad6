"""What the studies of docs/interventions.md asked beforehand, from their tables; make_study_page.py prints it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kagscope.studies.setting_tables import SAME
from kagscope.studies.statistics.multiple_testing import holm
from kagscope.studies.statistics.student import Estimate, mean_of, t_interval, t_test

Setting = dict[str, object]

PRIMARY, SECONDARY, CONTROL = "primary", "secondary", "control"
CONDITIONAL = "if the primary holds"
UNKNOWN = Estimate(np.nan, np.nan, 0)  # of no seed at all


def command_of(folder: Path, command: str) -> str:
    """The command that made a study, with the folder that a reader would choose."""
    return re.sub(r"--out \S+", f"--out out/{folder.resolve().name}", command)


@dataclass(frozen=True)
class Contrast:
    """One number of each seed, whose mean is asked for.

    Attributes:
        name: what it is, in words.
        values: by seed; seeds without a number are left out and counted.
        kind: "primary" as named beforehand, "secondary" (p corrected for their number), "control", or what is only asked
            where the primary contrast holds.
        logs: whether the values are logarithms, and told as ratios.
        confidence: of the interval.
    """

    name: str
    values: pd.Series
    kind: str = SECONDARY
    logs: bool = True
    confidence: float = 0.95


class Tables:
    """Tables of a study: what geometry did, and outcomes, by setting and seed."""

    def __init__(self, folder: Path) -> None:
        self.runs = pd.read_parquet(folder / "runs.parquet")
        self.results = pd.read_parquet(folder / "results.parquet")

    def outcome(self, name: str, setting: Setting) -> pd.Series:
        """By seed, of one setting."""
        return self.runs_of(setting).set_index("seed")[name]

    def score(self, name: str, layer: str, setting: Setting, k: int = 2, *, logs: bool = True, step: int = -1) -> pd.Series:
        """Change since initialisation of one setting, by seed: mean over points of ln(value / initial), or of the difference.

        ``step``: a kept step, or -1 for the last one.
        """
        table = self._rows(name, layer, k, setting)
        table = table[table["step"] == (table["step"].max() if step < 0 else step)]
        value, before = table["value"], table["baseline"]
        change = _ln(value / before) if logs else value - before
        return change.groupby(table["seed"]).mean()

    def along(self, name: str, layer: str, setting: Setting, k: int = 2) -> pd.DataFrame:
        """(steps, seeds): mean over points of ln(value)."""
        table = self._rows(name, layer, k, setting)
        found: pd.DataFrame = _ln(table["value"]).groupby([table["step"], table["seed"]]).mean().unstack("seed")
        return found

    def accuracy_along(self, setting: Setting) -> pd.DataFrame:
        """(steps, seeds): test accuracy."""
        table = self.results[self.results["run"].isin(self.runs_of(setting)["run"])]
        return table.drop_duplicates(["step", "seed"]).pivot(index="step", columns="seed", values="accuracy").sort_index()

    def _rows(self, name: str, layer: str, k: int, setting: Setting) -> pd.DataFrame:
        table = self.results
        wanted = (table["score"] == name) & (table["layer"] == layer) & (table["k"] == k)
        return table[wanted & table["run"].isin(self.runs_of(setting)["run"])]

    def runs_of(self, setting: Setting) -> pd.DataFrame:
        """The runs of one setting, one a seed; none where the study has it not."""
        found = self.runs
        for name, value in setting.items():
            found = found[found[name] == value]
        assert not found["seed"].duplicated().any(), f"{setting} is no single setting"
        return found


def freeze_and_extend(of: Tables) -> Iterable[Contrast]:
    """PR and its like of the new layer, formed on three kinds of first layer."""

    def formed(first: str, labels: str = "true", score: str = "pr", k: int = 2, logs: bool = True) -> pd.Series:
        return of.score(score, "hidden2", {"labels": labels, "first_layer": first}, k, logs=logs)

    yield Contrast("PR formed on a trained over a drawn layer", formed("trained") - formed("drawn"), PRIMARY)
    for score in ("rr_pr", "kl_uniform"):
        less = formed("trained", score=score) - formed("drawn", score=score)
        yield Contrast(f"`{score}` formed on a trained over a drawn layer", less)
    zero = formed("trained", "true", "zero_rows", 1, False) - formed("drawn", "true", "zero_rows", 1, False)
    yield Contrast("zero rows (k = 1) formed on a trained less a drawn layer", zero, logs=False)
    yield Contrast("PR formed on a like-trained over a drawn layer", formed("like_trained") - formed("drawn"))
    for first in ("drawn", "trained", "like_trained"):
        yield Contrast(f"PR formed on a {_words(first)} layer", formed(first))
    for first in ("drawn", "trained", "like_trained"):
        yield Contrast(f"shuffled labels: PR formed on a {_words(first)} layer", formed(first, "shuffled"), CONTROL)
    for first in ("trained", "like_trained"):
        less = formed(first, "shuffled") - formed("drawn", "shuffled")
        yield Contrast(f"shuffled labels: PR formed on a {_words(first)} over a drawn layer", less, CONTROL)


def initialisation(of: Tables) -> Iterable[Contrast]:
    """Steps to an accuracy, by how the first layer starts."""

    def own(name: str, first: str, data: str = SAME) -> pd.Series:
        found = of.outcome(name, {"first_layer": first, "first_layer_data": data})
        return _ln(found) if name.startswith("steps") else found

    others = ("orthogonal", "axis_aligned", "like_trained_permuted")
    steps = own("steps_to_0.9", "like_trained")
    yield Contrast("steps to 90%, like-trained over drawn", steps - own("steps_to_0.9", "drawn"), PRIMARY)
    yield Contrast("steps to 90%, like-trained over permuted", steps - own("steps_to_0.9", "like_trained_permuted"), PRIMARY)
    for name, what in {"steps_to_0.9": "steps to 90%", "steps_to_0.95": "steps to 95%", "accuracy": "final accuracy"}.items():
        for first in others if name == "steps_to_0.9" else ("like_trained", *others):
            than = "less" if name == "accuracy" else "over"
            yield Contrast(f"{what}, {_words(first)} {than} drawn", own(name, first) - own(name, "drawn"), logs=than == "over")

    def ends(first: str, score: str) -> pd.Series:
        return of.along(score, "hidden1", {"first_layer": first, "first_layer_data": SAME}).iloc[-1]

    for first in ("like_trained", *others):
        yield Contrast(f"PR at the end, {_words(first)} over drawn", ends(first, "pr") - ends("drawn", "pr"))
    other = own("steps_to_0.9", "like_trained", "kagscope.data.variants:small_mnist10k")
    yield Contrast("steps to 90%, like nets of other handwriting over drawn", other - own("steps_to_0.9", "drawn"), CONTROL)


def grokking(of: Tables) -> Iterable[Contrast]:
    """When geometry is half of the way to what it ends with, against when test accuracy is."""
    shown: Setting = {"labels": "true", "weight_decay": 1.0}
    tested = _from_then_on(of.accuracy_along(shown), half_way=False)
    for score, kind in {"rr_pr": PRIMARY, "pr": SECONDARY, "kl_uniform": SECONDARY}.items():
        found = _from_then_on(of.along(score, "hidden1", shown), half_way=True)
        yield Contrast(f"step of geometry (`{score}`) over step of test accuracy", _ln(found / tested), kind)
    yield Contrast("step of test accuracy", _ln(tested), CONTROL)
    cells = [(labels, decay) for labels in ("true", "shuffled") for decay in (1.0, 0.0)]
    for labels, decay in cells:
        along = of.along("rr_pr", "hidden1", {"labels": labels, "weight_decay": decay})
        name = f"{labels} labels, weight decay {decay:g}"
        yield Contrast(f"{name}: last `rr_pr` over first", along.iloc[-1] - along.iloc[0], CONTROL)
        yield Contrast(f"{name}: step of geometry (`rr_pr`)", _ln(_from_then_on(along, half_way=True)), CONTROL)


def _from_then_on(along: pd.DataFrame, *, half_way: bool) -> pd.Series:
    """By seed, the first kept step from which on values stay beyond half of the last one, or half of the way from the first.

    Args:
        along: (steps, seeds).
        half_way: from the first value on; else from 0.
    """
    last = along.iloc[-1]
    first = along.iloc[0] if half_way else last * 0
    beyond = (along - first).div(last - first) > 0.5
    stays = beyond.iloc[::-1].cummin().iloc[::-1]
    return stays.idxmax().astype(float)


def steering(of: Tables) -> Iterable[Contrast]:
    """Robustness and accuracy of nets pushed towards geometry or away from it."""
    attack = "pgd_linf_0.1"

    def cell(weight: float, score: str = "pr", layer: str = "hidden1", labels: str = "true") -> Setting:
        return {"penalty_weight": weight, "penalty_score": score, "penalty_layer": layer, "labels": labels}

    def has(setting: Setting) -> bool:
        return len(of.runs_of(setting)) > 0

    towards, plain = cell(-0.1), cell(0.0)
    yield Contrast(
        "PGD, Linf 0.1: weight -0.1 less 0", of.outcome(attack, towards) - of.outcome(attack, plain), PRIMARY, logs=False
    )
    for norm in ("jacobian_l2", "jacobian_l1"):
        if has(cell(0.1, norm)):
            less = of.outcome(attack, towards) - of.outcome(attack, cell(0.1, norm))
            yield Contrast(f"PGD, Linf 0.1: weight -0.1 less `{norm}` at 0.1", less, CONDITIONAL, logs=False)
    named = {
        "weight -0.3": cell(-0.3),
        "weight -0.1": towards,
        "weight 0.1": cell(0.1),
        "`alignment` at -0.1": cell(-0.1, "alignment"),
        "hidden2 at -0.1": cell(-0.1, layer="hidden2"),
        "`jacobian_l2` at 0.1": cell(0.1, "jacobian_l2"),
        "`jacobian_l1` at 0.1": cell(0.1, "jacobian_l1"),
    }
    outcomes = {
        "accuracy": "clean accuracy",
        attack: "PGD, Linf 0.1",
        "pgd_linf_0.05": "PGD, Linf 0.05",
        "pgd_l2_0.5": "PGD, L2 0.5",
    }
    outcomes |= {"pgd_l2_1": "PGD, L2 1", "steps_to_0.9": "steps to 90%", "steps_to_0.95": "steps to 95%"}
    for what, setting in named.items():
        if not has(setting):
            continue
        for name, said in outcomes.items():
            if setting == towards and name == attack:
                continue
            one, other = of.outcome(name, setting), of.outcome(name, plain)
            steps = name.startswith("steps")
            values = _ln(one / other) if steps else one - other
            yield Contrast(f"{said}: {what} {'over' if steps else 'less'} 0", values, logs=steps)
        reached = of.along("pr", "hidden1", setting).iloc[-1] - of.along("pr", "hidden1", plain).iloc[-1]
        yield Contrast(f"PR of hidden1 at the end: {what} over 0", reached)
    if has(cell(-0.1, labels="shuffled")) and has(cell(0.0, labels="shuffled")):
        ends = [of.along("pr", "hidden1", cell(weight, labels="shuffled")).iloc[-1] for weight in (-0.1, 0.0)]
        yield Contrast("shuffled labels: PR of hidden1 at the end, weight -0.1 over 0", ends[0] - ends[1], CONTROL)


def vision_transformer(of: Tables) -> Iterable[Contrast]:
    """Slopes over blocks, and what each block does."""
    layers = sorted(of.results["layer"].unique(), key=lambda name: int(str(name).removeprefix("hidden")))
    asked = {"axis_alignment": ("axis alignment (ln)", 0, True), "zero_rows": ("zero rows", 1, False)}
    asked |= {"pr": ("PR (ln)", 2, True), "rr_pr": ("`rr_pr` (ln)", 2, True)}

    def blocks(score: str, labels: str, step: int = -1) -> pd.DataFrame:
        _, k, logs = asked[score]
        return pd.DataFrame({name: of.score(score, str(name), {"labels": labels}, k, logs=logs, step=step) for name in layers})

    def slope(changes: pd.DataFrame) -> pd.Series:
        place = np.arange(len(layers)) - (len(layers) - 1) / 2
        found: pd.Series = (changes * place).sum(axis=1) / (place**2).sum()
        return found

    for score, (said, _, _) in asked.items():
        first = score in ("axis_alignment", "zero_rows")
        kind, confidence = (PRIMARY, 0.975) if first else (SECONDARY, 0.95)
        yield Contrast(f"{said}: slope a block", slope(blocks(score, "true")), kind, False, confidence)
    for score, (said, _, _) in asked.items():
        less = slope(blocks(score, "true")) - slope(blocks(score, "shuffled"))
        yield Contrast(f"{said}: slope, true less shuffled labels", less, logs=False)
    for score, (said, _, logs) in asked.items():
        for number, (_, values) in enumerate(blocks(score, "true").items(), start=1):
            yield Contrast(
                f"{said.removesuffix(' (ln)')}, block {number}: trained {'over' if logs else 'less'} initial", values, logs=logs
            )
    for score, (said, _, logs) in asked.items():
        found = blocks(score, "shuffled")
        yield Contrast(f"shuffled labels, {said}: slope a block", slope(found), CONTROL, False)
        for number, (_, values) in enumerate(found.items(), start=1):
            name = f"shuffled labels, {said.removesuffix(' (ln)')}, block {number}: trained {'over' if logs else 'less'} initial"
            yield Contrast(name, values, CONTROL, logs)
    for step in sorted(of.results["step"].unique())[1:-1]:
        for score in ("axis_alignment", "zero_rows"):
            yield Contrast(
                f"{asked[score][0]}: slope a block at step {step}", slope(blocks(score, "true", int(step))), logs=False
            )


def _ln(values: pd.Series) -> pd.Series:
    return values.map(np.log)


def _words(first: str) -> str:
    return first.replace("_", "-").replace("like-trained-permuted", "permuted like-trained")


CONTRASTS: dict[str, Callable[[Tables], Iterable[Contrast]]] = {
    "freeze-and-extend": freeze_and_extend,
    "initialisation": initialisation,
    "grokking": grokking,
    "steering": steering,
    "steering-mnist": steering,
    "vision-transformer": vision_transformer,
}


def contrast_lines(name: str, folder: Path) -> list[str]:
    """The contrasts of a study as lines of Markdown; none where none were named."""
    if name not in CONTRASTS:
        return []
    found = list(CONTRASTS[name](Tables(folder)))
    estimates = [mean_of(one.values.dropna().to_numpy()) if one.values.notna().any() else UNKNOWN for one in found]
    p_values = [float(t_test(estimate)) for estimate in estimates]
    secondary = [place for place, one in enumerate(found) if one.kind == SECONDARY]
    corrected = dict(zip(secondary, holm([p_values[place] for place in secondary]), strict=True))
    lines = [
        "## What was asked beforehand",
        "",
        "Means over seeds with t intervals, 95% unless said; [criteria](../interventions.md). Ratios (over) are geometric means. "
        f"Secondary p-values are corrected for their number ({len(secondary)}, Holm).",
        "",
        "| | contrast | seeds | mean | interval | p |",
        "|---|---|---|---|---|---|",
    ]
    for place, (one, estimate) in enumerate(zip(found, estimates, strict=True)):
        if one.values.notna().sum() < 2:
            lines.append(f"| {one.kind} | {one.name} | {one.values.notna().sum()} of {len(one.values)} | | | |")
            continue
        ends = t_interval(estimate, one.confidence)
        numbers = np.array([estimate.value, *ends], dtype=float)
        middle, low, high = map(float, np.exp(numbers) if one.logs else numbers)
        said = "" if one.confidence == 0.95 else f", {100 * one.confidence:g}%"
        p = corrected.get(place, p_values[place])
        n = f"{one.values.notna().sum()} of {len(one.values)}" if one.values.isna().any() else str(len(one.values))
        kind = f"**{one.kind}**" if one.kind == PRIMARY else one.kind
        lines.append(f"| {kind} | {one.name} | {n} | {middle:.4g} | {low:.4g} to {high:.4g}{said} | {p:.2g} |")
    return [*lines, ""]
