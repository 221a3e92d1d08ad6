"""Estimates of how long measuring takes, from counts alone, for what takes more than a minute."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, log2

from kagscope.columns.selections import All, Window
from kagscope.measuring.layer_minors import DRAWN
from kagscope.measuring.spec import MeasureSpec
from kagscope.minors.moments import CHEAP
from kagscope.minors.row_draws import RowDraws
from kagscope.minors.threads import threads
from kagscope.registry import moments_for

# Seconds on one core of a recent server CPU, fitted to finished runs; docs/studies.md says how well.
STATE_OVERHEAD = 0.09  # to measure one layer of one network, however small
MINORS_PER_SECOND = 3e8  # visited, with everything that is measured beside them
ZONOGON_STEP = 1e-9  # a vector of a pair, times the logarithm of how many there are
SAMPLED_PAIRS = 4e-7  # a column pair's Gram, draws and rows, of a Jacobian of up to 256 rows
TRIPLE_SECONDS, MOST_PER_TRIPLE_POINT = 1e-8, 1.6  # a 3-minor's, up to what a sampled point takes
ROTATION = 1e-9  # a rotated Jacobian's, times rows, columns and the smaller of both
PASS_BYTE = 5e-10  # a byte that a pass back or forward moves through
WORTH_SAYING, WORTH_OFFERING = 60.0, 0.7  # seconds; of them, what a first look must take less than

Shape = tuple[int, int, int, float]  # rows, columns, Jacobians of a layer; bytes that passes move through for each of them


def layer_seconds(rows: int, columns: int, items: int, spec: MeasureSpec, moved: float = 0.0) -> float:
    """Seconds on one core to measure a layer.

    Args:
        rows, columns: of its Jacobians, whole: how many rows are drawn of them, the budget says.
        items: how many Jacobians.
        spec: what is measured.
        moved: bytes that the passes of one Jacobian move through.
    """
    needed, budget = moments_for(spec.asked), spec.budget
    looks = not needed <= CHEAP
    seconds = STATE_OVERHEAD + items * moved * PASS_BYTE
    groups, drawn = 1, budget.max_rows is not None and rows > budget.max_rows
    if budget.max_rows is not None and drawn:  # the minors are those of each group of rows
        groups, rows = RowDraws.of(rows, budget.max_rows, max(spec.k), spec.seed).groups.shape
    if 2 in spec.k and needed and min(rows, columns) >= 2:
        minors = comb(rows, 2) * comb(columns, 2) * groups * items
        few = drawn and comb(rows, 2) <= DRAWN
        if looks and (budget.exact or few or minors <= budget.exact_minors):
            seconds += minors / MINORS_PER_SECOND
        elif looks:
            seconds += items * groups * comb(columns, 2) * SAMPLED_PAIRS * max(1.0, rows / 256)
        if not looks or (minors > budget.exact_minors and not few):
            by_rows, by_columns = comb(rows, 2) * columns * log2(columns), comb(columns, 2) * rows * log2(rows)
            cliques = sum(isinstance(one, All | Window) for one in spec.selections)
            steps = cliques * min(by_rows, by_columns) + (not looks and cliques < len(spec.selections)) * by_columns
            seconds += items * groups * steps * ZONOGON_STEP
    if spec.wants("rr_max") and not drawn:  # which drawn rows do not tell
        turned = min(items, budget.rotation_points) * budget.rotations
        seconds += turned * rows * columns * min(rows, columns) * ROTATION
    if 3 in spec.k and looks:
        points = min(budget.triple_points or items, items)
        seconds += points * groups * min(TRIPLE_SECONDS * comb(rows, 3) * comb(columns, 3), MOST_PER_TRIPLE_POINT)
    return seconds


def forecast(shapes: Sequence[Shape], spec: MeasureSpec, quick: MeasureSpec, networks: int) -> str:
    """One line on what measuring some layers of some networks will take; "" where that is less than a minute.

    Args:
        shapes: of the layers.
        spec: what is measured.
        quick: the spec of a first look at the same.
        networks: how many, baselines included.
    """
    seconds = networks * _seconds(shapes, spec, 1.0)
    if seconds < WORTH_SAYING:
        return ""
    kinds = dict.fromkeys((rows, columns) for rows, columns, _, _ in shapes)
    counts = [(networks * sum(n for r, c, n, _ in shapes if (r, c) == kind), kind) for kind in kinds]
    text = ", ".join(f"{count:,} Jacobians of {rows} x {columns}" for count, (rows, columns) in counts[:4])
    more = ", …" if len(counts) > 4 else ""
    most = max(items for _, _, items, _ in shapes)
    fewer = min(1.0, (quick.points or most) / (spec.points or most))
    look = networks * _seconds(shapes, quick, fewer)
    return f"{text}{more}, about {clock(seconds)}" + (f"; quick: {clock(look)}" if look < WORTH_OFFERING * seconds else "")


def _seconds(shapes: Sequence[Shape], spec: MeasureSpec, share: float) -> float:
    """On all threads, of a share of the Jacobians."""
    each = (layer_seconds(m, n, max(1, round(share * items)), spec, moved) for m, n, items, moved in shapes)
    return sum(each) / threads()


def clock(seconds: float) -> str:
    """Seconds as "54 s", "12 min" or "3.5 h"."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
