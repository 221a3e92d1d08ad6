"""Moments of the minors of one layer's Jacobians, each in the way that the budget pays for."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, log2, sqrt
from typing import Any, NamedTuple

import numpy as np

from kagscope.columns.layout import make_layout
from kagscope.columns.selections import All, Selection, Subsets, Window
from kagscope.jacobians.forms import FactoredJacobian, LayerJacobian
from kagscope.measuring.spec import MeasureSpec
from kagscope.measuring.state import LayerState
from kagscope.minors._input import MOMENTS
from kagscope.minors.engine import minor_moments
from kagscope.minors.factored import FactoredMoments
from kagscope.minors.moments import CHEAP, Moments

DRAWN = 128.0  # minors of a pass over W in the time of the draws for one item, for each pair of columns
TRIPLE_ERROR = 5.0  # times the error of pairs, which cost less, is asked of larger minors
VISITED_TRIPLES = comb(32, 3) * comb(64, 3)  # minors of order 3 and more, visited within a second a point


class Part(NamedTuple):
    """Moments of ``some`` of a batch over each of the selections ``chosen``, for those scores ``only``, or all (None)."""

    some: Any
    chosen: Sequence[Selection]
    only: Sequence[str] | None
    found: list[Moments]


class LayerMinors:
    """Moments of a layer's Jacobians, batch after batch.

    Args:
        spec: what to measure.
        state: of the layer: its items, the rows drawn of it, and where minors are rounding noise.
    """

    def __init__(self, spec: MeasureSpec, state: LayerState) -> None:
        self.spec, self.state, self.drawn = spec, state, state.drawn
        self._tables: dict[int, tuple[np.ndarray, FactoredMoments]] = {}
        self._scores = [one for one in spec.asked if one.is_of("moments")]
        self._needed = frozenset(moment for one in self._scores for moment in one.moments)
        if spec.own_scores:
            self._needed |= set(MOMENTS)

    @property
    def groups(self) -> int:
        """Groups of rows that are looked at, each for itself."""
        return 1 if self.drawn is None else len(self.drawn.groups)

    def rows(self, J: np.ndarray) -> int:
        """Rows among which minors are looked at."""
        return int(J.shape[1] if self.drawn is None else self.drawn.groups.shape[1])

    def moments(self, k: int, J: np.ndarray, form: LayerJacobian, ids: np.ndarray) -> list[Part]:
        """Moments of the whole layer's minors, estimated where only some of its rows were drawn.

        Args:
            k: order of the minors.
            J: (B, rows, columns) float64 Jacobians.
            form: the same.
            ids: (B,) their places among the layer's items.
        """
        if not self._needed:
            return []
        if self.drawn is None:
            return self._found(k, J, form, ids)
        groups = [self._found(k, J[:, rows], form.select_rows(rows), ids, one) for one, rows in enumerate(self.drawn.groups)]
        parts = []
        for same in zip(*groups, strict=True):
            uneven = self.drawn.uneven(J[same[0].some])
            whole = [self.drawn.whole(each, uneven) for each in zip(*(part.found for part in same), strict=True)]
            parts.append(same[0]._replace(found=whole))
        return parts

    def _found(self, k: int, J: np.ndarray, form: LayerJacobian, ids: np.ndarray, group: int = 0) -> list[Part]:
        """Moments of some Jacobians, of all their rows or of a group that was drawn."""
        if k == 2:
            return self._pairs(J, form, group)
        if k == 1:
            # a ball or a distance says nothing of single columns, so that they all stand under "all"; a window does
            layout = make_layout(J.shape[2], **layout_of(self.spec))
            narrower = (one for one in self.spec.selections if isinstance(one, Window | Subsets) or not one.columns(layout).all())
            chosen = [All(), *narrower]
            return [Part(slice(None), chosen, None, self._moments(J, 1, chosen, method="exact"))]
        some = ids < most(self.spec.budget.triple_points)
        if not some.any():
            return []
        cheap = comb(J.shape[1], k) * comb(J.shape[2], k) * self.groups <= VISITED_TRIPLES
        method = "exact" if self.spec.budget.exact else "auto" if cheap else "sampled"
        rel_error = min(0.5, TRIPLE_ERROR * self.spec.budget.rel_error * sqrt(self.groups))
        told = without_noise(self.state, k, J[some], ids[some])
        options = {"method": method, "rel_error": rel_error, "seed": self.spec.seed + group}
        return [Part(some, self.spec.selections, None, self._moments(told, k, self.spec.selections, **options))]

    def _pairs(self, J: np.ndarray, form: LayerJacobian, group: int) -> list[Part]:
        """k = 2: formulas and one pass over a shared W where they give it; every minor where that is cheap; else drawn pairs."""
        chosen, budget = self.spec.selections, self.spec.budget
        every = slice(None)
        if self._needed <= CHEAP:
            return [Part(every, chosen, None, self._moments(J, 2, chosen))]
        total = comb(J.shape[1], 2) * comb(J.shape[2], 2)
        few = self.drawn is not None and comb(J.shape[1], 2) <= DRAWN
        if budget.exact or few or total * self.groups * len(self.state.items) <= budget.exact_minors:
            return [Part(every, chosen, None, self._moments(J, 2, chosen, method="exact"))]
        known, left, parts = None, self._needed, []
        if isinstance(form, FactoredJacobian) and total * self.groups <= min(
            budget.exact_minors, DRAWN * comb(J.shape[2], 2) * len(self.state.items)
        ):
            known = self._factored_moments(form, self._needed - {"histogram"}, group)
            parts = [Part(every, chosen, None, known)]
            left = self._needed & {"histogram"}
        elif isinstance(form, FactoredJacobian) and self._pays_for_all(*J.shape[1:]):
            known = self._factored_moments(form, self._needed & CHEAP, group)
        if left:
            only = None if left == self._needed else [one.name for one in self._scores if "histogram" in one.moments]
            seed = self.spec.seed + group
            found = self._moments(J, 2, chosen, moments=left, method="sampled", known=known, seed=seed)
            parts.append(Part(every, chosen, only, found))
        return parts

    def _pays_for_all(self, m: int, n: int) -> bool:
        """Whether sums over all pairs of columns, row pair by row pair of W, cost less than those of every item by itself."""
        by_rows, by_columns = comb(m, 2) * n * log2(n), comb(n, 2) * m * log2(m)
        fits = 8 * len(MOMENTS) * comb(m, 2) <= self.spec.budget.memory_budget // 4
        return fits and self.spec.selections == (All(),) and by_rows < by_columns * len(self.state.items)

    def _factored_moments(self, form: FactoredJacobian, moments: frozenset[str], group: int) -> list[Moments]:
        """Moments of a batch, from one pass over W that serves every item of the layer."""
        if group not in self._tables or not np.array_equal(self._tables[group][0], form.W):
            wanted = tuple(name for name in MOMENTS if name in moments)
            table = FactoredMoments(form.W, 2, list(self.spec.selections), moments=wanted, **layout_of(self.spec))
            self._tables[group] = (form.W, table)
        found = self._tables[group][1].at(form.d)
        return found if isinstance(found, list) else [found]

    def _moments(
        self, J: np.ndarray, k: int, chosen: Sequence[Selection], *, moments: Any = None, **options: Any
    ) -> list[Moments]:
        wanted = self._needed if moments is None else moments
        options = {"rel_error": self.spec.budget.rel_error, "seed": self.spec.seed, **options, **layout_of(self.spec)}
        options["memory_budget"] = self.spec.budget.memory_budget
        return minor_moments(J, k, list(chosen), moments=tuple(name for name in MOMENTS if name in wanted), **options)


def without_noise(state: LayerState, k: int, J: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Zeros in place of Jacobians whose k-minors are rounding noise, which it would cost much to tell apart."""
    noise = np.isin(ids, state.noise.get(k, []))
    return np.where(noise[:, None, None], 0.0, J) if noise.any() else J


def layout_of(spec: MeasureSpec) -> dict[str, Any]:
    """Where the columns lie."""
    return {name: getattr(spec, name) for name in ("image_shape", "positions", "groups")}


def most(limit: int | None) -> float:
    """How many items a limit comes to."""
    return np.inf if limit is None else limit
