"""Claims 2 and 3: the PR ratio is nearly the same at every ball radius, and at every minimum distance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kagscope.studies.claims.evidence import Evidence, Indices, Key
from kagscope.studies.claims.verdicts import (
    SMALLEST_RATIO,
    Claim,
    Notes,
    Part,
    Settings,
    all_of,
    largest,
    missing_nets,
    net_labels,
    side_groups,
    verdict_of,
)
from kagscope.studies.statistics.bootstrap import Interval, Strata, balanced_mean
from kagscope.studies.statistics.signed_rank import equivalence_test, signed_rank_test
from kagscope.studies.statistics.student import Array

MARGIN = 0.10  # "nearly the same": deviations below 10% of the mean over the scales
SMALLEST_SHARE = 0.05  # of all column pairs; fewer lie between opposite edges alone
DEVIATION, PRESENCE = "deviation from the mean over scales", "PR ratio at this scale"


def scale_agnostic(evidence: Evidence, settings: Settings) -> Claim:
    """Judge claim 2."""
    return _judge(
        evidence,
        settings,
        kind="ball",
        name="2-scale-agnostic",
        statement="The PR ratio is nearly the same for pixel pairs within 1/4, 1/2, 3/4 and the whole of the image side.",
        choose=_measured_radii,
    )


def minimum_distance(evidence: Evidence, settings: Settings) -> Claim:
    """Judge claim 3."""
    return _judge(
        evidence,
        settings,
        kind="apart",
        name="3-minimum-distance",
        statement="The PR ratio is stable for pixel pairs at least 1/4, 1/2, 3/4 of the image side apart.",
        choose=_usable_distances,
    )


@dataclass(frozen=True)
class Layer:
    """What one layer says: two sub-hypotheses per scale, and the largest absolute mean deviation over the scales."""

    layer: str
    parts: list[Part]

    def _of(self, name: str) -> list[Part]:
        return [part for part in self.parts if part.name == name]

    @property
    def effect(self) -> float:
        return max(abs(part.effect) for part in self._of(DEVIATION))

    def interval(self, settings: Settings, hypotheses: int) -> Interval:
        """From the nearest that the widened intervals leave possible to the farthest end of the intervals.

        A maximum of noisy numbers is too large on average, so percentiles of the maximum itself would not do.
        """
        wide = [part.interval(settings.widened(hypotheses)) for part in self._of(DEVIATION)]
        narrow = [part.interval(settings.confidence) for part in self._of(DEVIATION)]
        nearest = max(max(ends.low, -ends.high, 0.0) for ends in wide)
        farthest = max(max(abs(ends.low), abs(ends.high)) for ends in narrow)
        return Interval(nearest, farthest, settings.confidence)


def _judge(
    evidence: Evidence,
    settings: Settings,
    *,
    kind: str,
    name: str,
    statement: str,
    choose: Callable[[Evidence, Settings, Indices, int, Notes], list[str]],
) -> Claim:
    notes = Notes()
    training, said = evidence.judged_training()
    no_nets = missing_nets(evidence, training)
    notes.add(*said, no_nets, *evidence.settings_left_out(training))
    nets = evidence.nets(training)
    scales = [] if no_nets else choose(evidence, settings, nets, 2, notes)
    layers: list[Layer] = []
    missing = [] if evidence.layers else ["any hidden layer"]
    if len(scales) < 2 and not no_nets:
        notes.add(f"fewer than two {kind} selections: nothing to compare ({', '.join(scales) or 'none'})")
    for layer in evidence.layers:
        found = _layer(evidence, settings, layer, 2, scales, nets, notes)
        if found is None:
            missing.append(f"layer {layer} at every {kind} selection")
        else:
            layers.append(found)
    if missing and len(scales) >= 2:
        notes.add(f"missing: {', '.join(missing)}")
    needed = [part for layer in layers for part in layer.parts]
    hypotheses = 2 * len(scales) * len(evidence.layers)
    statuses = [part.status(settings, hypotheses) for part in needed]
    details = [part.row(settings, status) for part, status in zip(needed, statuses, strict=True)]
    details += _beside(evidence, settings, training, scales, choose)
    shown = max(layers, key=lambda layer: layer.effect, default=None)
    interval = shown.interval(settings, hypotheses) if shown else Interval(math.nan, math.nan, settings.confidence)
    what = "ball radii" if kind == "ball" else "minimum distances"
    return Claim(
        id=name,
        statement=statement,
        verdict=verdict_of(all_of(statuses, complete=not missing)),
        effect=shown.effect if shown else math.nan,
        ci_low=interval.low,
        ci_high=interval.high,
        p_value=largest([part.test.p_value for part in needed], complete=not missing),
        n=shown.parts[0].test.n if shown else 0,
        effect_name=f"largest deviation of the PR ratio over {what}" + (f", layer {shown.layer}" if shown else ""),
        test="two one-sided Wilcoxon signed-rank tests over nets per layer and scale, and one of presence; largest p",
        criterion=f"at every scale of every hidden layer: |deviation| < {MARGIN:.0%} and PR ratio > {SMALLEST_RATIO}; "
        "each interval inside and p < alpha",
        details=details,
        note=notes.text(),
    )


def _deviations_and_levels(means: Array, strata: Strata) -> Array:
    """(draws, scales, nets) -> (draws, 2 scales): mean deviation of each scale, then its mean PR ratio."""
    return np.concatenate([balanced_mean(_deviations(means), strata), balanced_mean(means, strata)], axis=1)


def _deviations(means: Array) -> Array:
    """(..., scales, nets): each scale over the mean over scales, minus 1."""
    middle = np.broadcast_to(means.mean(axis=-2, keepdims=True), means.shape)
    return np.divide(means, middle, out=np.full(means.shape, np.nan), where=middle > 0) - 1


def _layer(
    evidence: Evidence, settings: Settings, layer: str, k: int, scales: Sequence[str], nets: Indices, notes: Notes | None = None
) -> Layer | None:
    if len(scales) < 2:
        return None
    sample = evidence.sample([Key(layer, k, scale, "pr") for scale in scales], "ratio", nets)
    if notes is not None:
        notes.take(sample)
    if not sample.size:
        return None
    boot = settings.bootstrap(sample, _deviations_and_levels)
    means = sample.means
    deviations = _deviations(means)
    parts = []
    for i, scale in enumerate(scales):
        labels = {"k": k, "selection": scale} | net_labels(evidence, nets)
        equal = equivalence_test(deviations[i], -MARGIN, MARGIN)
        present = signed_rank_test(means[i] - SMALLEST_RATIO)
        parts.append(Part(DEVIATION, layer, boot, equal, -MARGIN, MARGIN, i, sample.undefined, labels))
        parts.append(Part(PRESENCE, layer, boot, present, SMALLEST_RATIO, math.inf, len(scales) + i, sample.undefined, labels))
    return Layer(layer, parts)


def _beside(
    evidence: Evidence,
    settings: Settings,
    training: str,
    scales: Sequence[str],
    choose: Callable[[Evidence, Settings, Indices, int, Notes], list[str]],
) -> list[dict[str, object]]:
    """Order 3, single widths and the other training; they decide nothing. (For k = 1 a selection of pairs selects nothing.)"""
    everyone = evidence.nets(training)
    plans = [(everyone, 3, choose(evidence, settings, everyone, 3, Notes()))]
    plans += [(nets, 2, list(scales)) for nets in side_groups(evidence, training)]
    found = [_layer(evidence, settings, layer, k, names, nets) for nets, k, names in plans for layer in evidence.layers]
    return [part.row(settings) for layer in found if layer is not None for part in layer.parts]


def _undefined_share(evidence: Evidence, nets: Indices, k: int, name: str) -> float:
    """Largest share over layers of values that are undefined; 1 where nothing was recorded."""
    shares = [0.0]
    for layer in evidence.layers:
        _, grid, undefined = evidence.grid(Key(layer, k, name, "pr"), "ratio", nets)
        defined = int(np.isfinite(grid).sum())
        shares.append(undefined / (defined + undefined) if defined + undefined else 0.0)
    return max(shares)


def _measured_radii(evidence: Evidence, settings: Settings, nets: Indices, k: int, notes: Notes) -> list[str]:
    kept = []
    for name in evidence.selections("ball", k=k).values():
        if _undefined_share(evidence, nets, k, name) == 1:
            notes.add(f"{name} dropped: no defined value")
        else:
            kept.append(name)
    return kept


def _usable_distances(evidence: Evidence, settings: Settings, nets: Indices, k: int, notes: Notes) -> list[str]:
    sizes = evidence.selections("apart", k=k)
    shares = _pair_shares(evidence, settings, sizes)
    kept = []
    for size, name in sizes.items():
        share, undefined = shares.get(size, math.nan), _undefined_share(evidence, nets, k, name)
        if share == 0:
            notes.add(f"{name} dropped: no pair of columns is that far apart")
        elif undefined > 0.5:
            notes.add(f"{name} dropped: {undefined:.0%} of its values are undefined")
        elif share < SMALLEST_SHARE:
            notes.add(f"{name} dropped: it leaves {share:.1%} of the column pairs, fewer than {SMALLEST_SHARE:.0%}")
        else:
            kept.append(name)
    return kept


def _pair_shares(evidence: Evidence, settings: Settings, sizes: dict[float, str]) -> dict[float, float]:
    """Share of all column pairs at each distance: from the image's shape, else as recorded, else of a square's quarters."""
    if settings.image_shape is not None:
        return {size: pair_share(settings.image_shape, size) for size in sizes}
    recorded = {name: _recorded_pairs(evidence, name) for name in ("all", *sizes.values())}
    if recorded["all"] > 0:
        return {size: recorded[name] / recorded["all"] for size, name in sizes.items()}
    distances = np.array(list(sizes))
    if distances.size == 4 and np.allclose(distances, distances[-1] * np.arange(1, 5) / 4, atol=1e-9):
        side = max(round(distances[-1]), 1)
        return {size: pair_share((side, side), size) for size in sizes}
    return {}


def _recorded_pairs(evidence: Evidence, selection: str) -> float:
    counts = [
        float(np.max(block.value[np.isfinite(block.value)], initial=-1.0))
        for key, block in evidence.blocks.items()
        if key.score == "column_subsets" and key.k == 2 and key.selection == selection
    ]
    found = max(counts, default=-1.0)
    return found if found >= 0 else math.nan


def pair_share(image_shape: tuple[int, int], distance: float) -> float:
    """Share of the pairs of pixels of an image (height, width) at least ``distance`` apart, by counting displacements."""
    height, width = image_shape
    down, right = np.arange(height)[:, None], np.arange(-width + 1, width)[None, :]
    pairs = (height - down) * (width - np.abs(right))
    once = (down > 0) | (right > 0)  # each pair by one of its two displacements
    total = int(pairs[once].sum())
    far = int(pairs[once & (down**2 + right**2 >= distance**2)].sum())
    return far / total if total else 0.0
