"""Claims 2 and 3: the PR ratio is nearly the same at every ball radius, and at every minimum distance."""

from __future__ import annotations

import math

import numpy as np

from kagscope.studies.claims.parts import SMALLEST_RATIO, Claim, Part, correct_all, decide, judge_within, make_claim
from kagscope.studies.claims.seeds import Evidence, Notes, Sample
from kagscope.studies.nets import RATIO, Indices, Key

MARGIN = 0.10  # "nearly the same": deviations below 10% of the mean over the scales
SMALLEST_SHARE = 0.05  # of all column pairs; smaller shares are pairs between opposite edges only
DEVIATION, PRESENCE = "PR ratio over its mean over scales, minus 1", "PR ratio at this scale"


def scale_agnostic(evidence: Evidence, image_shape: tuple[int, ...] | None) -> Claim:
    """Judge claim 2."""
    statement = "The PR ratio is nearly the same for pixel pairs within 1/4, 1/2, 3/4 and the whole of the image side."
    return _judge(evidence, "ball", None, "2-scale-agnostic", statement)


def minimum_distance(evidence: Evidence, image_shape: tuple[int, ...] | None) -> Claim:
    """Judge claim 3."""
    statement = "The PR ratio is stable for pixel pairs at least 1/4, 1/2, 3/4 of the image side apart."
    return _judge(evidence, "apart", image_shape, "3-minimum-distance", statement)


def _judge(evidence: Evidence, kind: str, image_shape: tuple[int, ...] | None, name: str, statement: str) -> Claim:
    notes = Notes()
    nets = evidence.of_training(evidence.training(notes))
    scales = _select(evidence, nets, kind, image_shape, notes)
    missing = not evidence.layers
    parts: list[Part] = []
    if len(scales) < 2:
        notes.add(f"fewer than two {kind} selections: nothing to compare ({', '.join(scales) or 'none'})")
        missing = True
    else:
        for layer in evidence.layers:
            layer_parts = _layer_parts(evidence, layer, scales, nets, notes)
            if not layer_parts:
                notes.add(f"missing: layer {layer} at every {kind} selection")
                missing = True
            parts += layer_parts
    parts = correct_all(parts)
    criterion = (
        f"at every scale of every hidden layer: within {MARGIN:.0%} of the mean over scales, and PR ratio > {SMALLEST_RATIO}"
    )
    outcome = decide(parts, missing, lambda part: -abs(part.effect) if part.name == DEVIATION else math.inf)
    return make_claim(parts, notes, outcome, id=name, statement=statement, criterion=criterion)


def _layer_parts(evidence: Evidence, layer: str, scales: list[str], nets: Indices, notes: Notes) -> list[Part]:
    sample = evidence.sample([Key(layer, 2, scale, "pr") for scale in scales], RATIO, nets, notes)
    middle = sample.values.mean(axis=0)
    parts = []
    for scale, values in zip(scales, sample.values, strict=True):
        deviations, level = Sample((values - middle)[None], sample.seeds), Sample(values[None], sample.seeds)
        band = (-MARGIN, MARGIN)
        parts.append(judge_within(evidence, DEVIATION, layer, deviations, band, whole=middle, facts={"selection": scale}))
        parts.append(judge_within(evidence, PRESENCE, layer, level, (SMALLEST_RATIO, math.inf), facts={"selection": scale}))
    return [part for part in parts if part is not None]


def _select(evidence: Evidence, nets: Indices, kind: str, image_shape: tuple[int, ...] | None, notes: Notes) -> list[str]:
    """Selections of a kind, ascending, without distances that leave too few pairs or mostly undefined values."""
    keys = evidence.nets.keys
    names = keys["selection"][(keys["score"] == "pr") & (keys["k"] == 2) & (keys["kind"] == kind)].unique()
    sizes = {float(name.partition("(")[2].rstrip(")")): str(name) for name in names}
    shares = _pair_shares(evidence, sizes, image_shape) if kind == "apart" else {}
    kept = []
    for size, name in sorted(sizes.items()):
        undefined = max(_undefined_share(evidence, Key(layer, 2, name, "pr"), nets) for layer in evidence.layers or [""])
        if shares.get(size) == 0:
            notes.add(f"{name} dropped: no pair of columns is that far apart")
        elif undefined > 0.5:
            notes.add(f"{name} dropped: {undefined:.0%} of its values are undefined")
        elif shares.get(size, 1.0) < SMALLEST_SHARE:
            notes.add(f"{name} dropped: it leaves {shares[size]:.1%} of the column pairs, fewer than {SMALLEST_SHARE:.0%}")
        else:
            kept.append(name)
    return kept


def _undefined_share(evidence: Evidence, key: Key, nets: Indices) -> float:
    grid = evidence.nets.grid(key, RATIO)
    recorded = int(grid.recorded[nets].sum())
    return 1 - int(np.isfinite(grid.values[nets]).sum()) / recorded if recorded else 1.0


def _pair_shares(evidence: Evidence, sizes: dict[float, str], image_shape: tuple[int, ...] | None) -> dict[float, float]:
    """Share of all column pairs at each distance, from the image shape, else as recorded, else unknown."""
    if image_shape is not None:
        return {size: pair_share(image_shape, size) for size in sizes}
    rows = evidence.results
    counted = rows[(rows["score"] == "column_subsets") & (rows["k"] == 2)]
    largest = counted.groupby(counted["selection"].astype(str))["value"].max()
    everything = largest.get("all", 0.0)
    return {size: largest[name] / everything for size, name in sizes.items() if everything > 0 and name in largest}


def pair_share(image_shape: tuple[int, ...], distance: float) -> float:
    """Share of the pairs of entries of an image, (H, W) or (C, H, W), at least ``distance`` apart, by counting displacements."""
    *channels, height, width = image_shape
    down, right = np.arange(height)[:, None], np.arange(-width + 1, width)[None, :]
    channel_count = math.prod(channels)
    pairs = channel_count**2 * (height - down) * (width - np.abs(right))
    pairs[0, width - 1] = math.comb(channel_count, 2) * height * width  # pairs of channels of one pixel
    once = (down > 0) | (right >= 0)  # counts each pair by one of its two displacements
    total = int(pairs[once].sum())
    far = int(pairs[once & (down**2 + right**2 >= distance**2)].sum())
    return far / total if total else 0.0
