"""Estimate how long a measurement takes from counts of operations."""

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
STATE_OVERHEAD = 0.09  # one layer of one network, however small
MINORS_PER_SECOND = 3e8  # enumerated minors, with everything else that is measured
ZONOGON_STEP = 1e-9  # one vector of a pair, times the logarithm of their number
SAMPLED_PAIRS = 4e-7  # Gram entries, draws and rows of a column pair, for up to 256 rows
TRIPLE_SECONDS, MOST_PER_TRIPLE_POINT = 1e-8, 1.6  # a 3-minor, and a point whose 3-minors are sampled
ROTATION = 1e-9  # a rotated Jacobian, times rows, columns and the smaller of both
PASS_BYTE = 5e-10  # a byte moved by a forward or backward pass
WORTH_SAYING, WORTH_OFFERING = 60.0, 0.7  # seconds; share of them below which a quick measurement is offered

Shape = tuple[int, int, int, float]  # rows, columns and number of a layer's Jacobians; bytes moved to compute each of them


def layer_seconds(rows: int, columns: int, items: int, spec: MeasureSpec, moved: float = 0.0) -> float:
    """Seconds on one core to measure a layer.

    Args:
        rows, columns: shape of its Jacobians before rows are drawn.
        items: number of Jacobians.
        spec: what is measured.
        moved: bytes moved by the passes of one Jacobian.
    """
    needed, budget = moments_for(spec.score_records), spec.budget
    enumerates = not needed <= CHEAP
    seconds = STATE_OVERHEAD + items * moved * PASS_BYTE
    groups, drawn = 1, budget.max_rows is not None and rows > budget.max_rows
    if budget.max_rows is not None and drawn:  # minors are taken within each group of rows
        groups, rows = RowDraws.of(rows, budget.max_rows, max(spec.k), spec.seed).groups.shape
    if 2 in spec.k and needed and min(rows, columns) >= 2:
        minors = comb(rows, 2) * comb(columns, 2) * groups * items
        few = drawn and comb(rows, 2) <= DRAWN
        if enumerates and (budget.exact or few or minors <= budget.exact_minors):
            seconds += minors / MINORS_PER_SECOND
        elif enumerates:
            seconds += items * groups * comb(columns, 2) * SAMPLED_PAIRS * max(1.0, rows / 256)
        if not enumerates or (minors > budget.exact_minors and not few):
            by_rows, by_columns = comb(rows, 2) * columns * log2(columns), comb(columns, 2) * rows * log2(rows)
            cliques = sum(isinstance(selection, All | Window) for selection in spec.selections)
            steps = cliques * min(by_rows, by_columns) + (not enumerates and cliques < len(spec.selections)) * by_columns
            seconds += items * groups * steps * ZONOGON_STEP
    if spec.wants("rr_max") and not drawn:  # undefined for drawn rows
        rotated_points = min(items, budget.rotation_points) * budget.rotations
        seconds += rotated_points * rows * columns * min(rows, columns) * ROTATION
    if 3 in spec.k and enumerates:
        points = min(budget.triple_points or items, items)
        seconds += points * groups * min(TRIPLE_SECONDS * comb(rows, 3) * comb(columns, 3), MOST_PER_TRIPLE_POINT)
    return seconds


def forecast(shapes: Sequence[Shape], spec: MeasureSpec, quick: MeasureSpec, networks: int) -> str:
    """One line on how long measuring these layers will take; "" if less than a minute.

    Args:
        shapes: shapes of the layers.
        spec: what is measured.
        quick: spec of a quick measurement of the same layers.
        networks: number of networks, baselines included.
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
    first_look = networks * _seconds(shapes, quick, fewer)
    quick_text = f"; quick: {duration_text(first_look)}" if first_look < WORTH_OFFERING * seconds else ""
    return f"{text}{more}, about {duration_text(seconds)}{quick_text}"


def _seconds(shapes: Sequence[Shape], spec: MeasureSpec, share: float) -> float:
    """Seconds on all threads, for a share of the Jacobians."""
    each = (layer_seconds(m, n, max(1, round(share * items)), spec, moved) for m, n, items, moved in shapes)
    return sum(each) / threads()


def duration_text(seconds: float) -> str:
    """Seconds as "54 s", "12 min" or "3.5 h"."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
