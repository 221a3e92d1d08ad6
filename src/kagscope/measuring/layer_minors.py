"""Moments of the minors of one layer's Jacobians, exact or sampled as the budget allows."""

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

DRAWN = 128.0  # minors per column pair in a pass over W that take as long as the draws for one item
TRIPLE_ERROR = 5.0  # error allowed for larger minors, in units of that for pairs
VISITED_TRIPLES = comb(32, 3) * comb(64, 3)  # minors of order 3 and more that are enumerated in a second per point


class BatchMoments(NamedTuple):
    """Moments of the items ``mask`` of a batch over each of ``selections``, for the scores ``only``, or all (None)."""

    mask: Any
    selections: Sequence[Selection]
    only: Sequence[str] | None
    moments: list[Moments]


class LayerMinors:
    """Compute moments of a layer's Jacobians, batch by batch.

    Args:
        spec: what to measure.
        state: state of the layer: its items, its drawn rows, and where minors are rounding noise.
    """

    def __init__(self, spec: MeasureSpec, state: LayerState) -> None:
        self.spec, self.state, self.drawn = spec, state, state.drawn
        self._tables: dict[int, tuple[np.ndarray, FactoredMoments]] = {}
        self._scores = [score for score in spec.score_records if score.is_of("moments")]
        self._needed = frozenset(moment for score in self._scores for moment in score.moments)
        if spec.own_scores:
            self._needed |= set(MOMENTS)

    @property
    def groups(self) -> int:
        """Number of row groups, each measured separately."""
        return 1 if self.drawn is None else len(self.drawn.groups)

    def rows(self, J: np.ndarray) -> int:
        """Number of rows in a group."""
        return int(J.shape[1] if self.drawn is None else self.drawn.groups.shape[1])

    def moments(self, k: int, J: np.ndarray, form: LayerJacobian, ids: np.ndarray) -> list[BatchMoments]:
        """Moments of the whole layer's minors, estimated if its rows were drawn.

        Args:
            k: order of the minors.
            J: (B, rows, columns) float64 Jacobians.
            form: the same, with their structure.
            ids: (B,) their indices among the layer's items.
        """
        if not self._needed:
            return []
        if self.drawn is None:
            return self._group_moments(k, J, form, ids)
        drawn = enumerate(self.drawn.groups)
        groups = [self._group_moments(k, J[:, rows], form.select_rows(rows), ids, group) for group, rows in drawn]
        parts = []
        for same in zip(*groups, strict=True):
            dominated = self.drawn.dominated_sums(J[same[0].mask])
            whole = [self.drawn.combine(each, dominated) for each in zip(*(group.moments for group in same), strict=True)]
            parts.append(same[0]._replace(moments=whole))
        return parts

    def _group_moments(self, k: int, J: np.ndarray, form: LayerJacobian, ids: np.ndarray, group: int = 0) -> list[BatchMoments]:
        """Moments over all rows, or over one drawn group."""
        if k == 2:
            return self._pair_moments(J, form, group)
        if k == 1:
            # balls and distances do not constrain single columns, so they all equal "all"; windows do
            layout = make_layout(J.shape[2], **layout_options(self.spec))
            narrower = (s for s in self.spec.selections if isinstance(s, Window | Subsets) or not s.columns(layout).all())
            chosen = [All(), *narrower]
            return [BatchMoments(slice(None), chosen, None, self._moments(J, 1, chosen, method="exact"))]
        mask = ids < as_limit(self.spec.budget.triple_points)
        if not mask.any():
            return []
        cheap = comb(J.shape[1], k) * comb(J.shape[2], k) * self.groups <= VISITED_TRIPLES
        method = "exact" if self.spec.budget.exact else "auto" if cheap else "sampled"
        rel_error = min(0.5, TRIPLE_ERROR * self.spec.budget.rel_error * sqrt(self.groups))
        denoised = zero_noise(self.state, k, J[mask], ids[mask])
        options = {"method": method, "rel_error": rel_error, "seed": self.spec.seed + group}
        return [BatchMoments(mask, self.spec.selections, None, self._moments(denoised, k, self.spec.selections, **options))]

    def _pair_moments(self, J: np.ndarray, form: LayerJacobian, group: int) -> list[BatchMoments]:
        """k = 2: closed forms and one pass over a shared W if they suffice, enumeration if cheap, else drawn pairs."""
        chosen, budget = self.spec.selections, self.spec.budget
        every = slice(None)
        if self._needed <= CHEAP:  # what formulas give over every pair of some columns is exact at any size
            method = "exact" if all(selection.clique for selection in chosen) else "auto"
            return [BatchMoments(every, chosen, None, self._moments(J, 2, chosen, method=method))]
        total = comb(J.shape[1], 2) * comb(J.shape[2], 2)
        few = self.drawn is not None and comb(J.shape[1], 2) <= DRAWN
        if budget.exact or few or total * self.groups * len(self.state.items) <= budget.exact_minors:
            return [BatchMoments(every, chosen, None, self._moments(J, 2, chosen, method="exact"))]
        known, left, parts = None, self._needed, []
        if isinstance(form, FactoredJacobian) and total * self.groups <= min(
            budget.exact_minors, DRAWN * comb(J.shape[2], 2) * len(self.state.items)
        ):
            known = self._factored_moments(form, self._needed - {"histogram"}, group)
            parts = [BatchMoments(every, chosen, None, known)]
            left = self._needed & {"histogram"}
        elif isinstance(form, FactoredJacobian) and self._shared_pass_pays(*J.shape[1:]):
            known = self._factored_moments(form, self._needed & CHEAP, group)
        if left:
            only = None if left == self._needed else [score.name for score in self._scores if "histogram" in score.moments]
            seed = self.spec.seed + group
            moments = self._moments(J, 2, chosen, moments=left, method="sampled", known=known, seed=seed)
            parts.append(BatchMoments(every, chosen, only, moments))
        return parts

    def _shared_pass_pays(self, m: int, n: int) -> bool:
        """Whether sums over all column pairs for each row pair of W cost less than those of every item separately."""
        by_rows, by_columns = comb(m, 2) * n * log2(n), comb(n, 2) * m * log2(m)
        fits = 8 * len(MOMENTS) * comb(m, 2) <= self.spec.budget.memory_budget // 4
        return fits and self.spec.selections == (All(),) and by_rows < by_columns * len(self.state.items)

    def _factored_moments(self, form: FactoredJacobian, moments: frozenset[str], group: int) -> list[Moments]:
        """Moments of a batch, from one pass over W shared by all items of the layer."""
        if group not in self._tables or not np.array_equal(self._tables[group][0], form.W):
            wanted = tuple(name for name in MOMENTS if name in moments)
            table = FactoredMoments(form.W, 2, list(self.spec.selections), moments=wanted, **layout_options(self.spec))
            self._tables[group] = (form.W, table)
        moments_list = self._tables[group][1].at(form.d)
        return moments_list if isinstance(moments_list, list) else [moments_list]

    def _moments(
        self, J: np.ndarray, k: int, chosen: Sequence[Selection], *, moments: Any = None, **options: Any
    ) -> list[Moments]:
        wanted = self._needed if moments is None else moments
        options = {"rel_error": self.spec.budget.rel_error, "seed": self.spec.seed, **options, **layout_options(self.spec)}
        options["memory_budget"] = self.spec.budget.memory_budget
        return minor_moments(J, k, list(chosen), moments=tuple(name for name in MOMENTS if name in wanted), **options)


def zero_noise(state: LayerState, k: int, J: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Replace Jacobians whose k-minors are rounding noise by zeros: noise would be expensive to resolve."""
    noise = np.isin(ids, state.noise.get(k, []))
    return np.where(noise[:, None, None], 0.0, J) if noise.any() else J


def layout_options(spec: MeasureSpec) -> dict[str, Any]:
    """The spec's column layout as keyword arguments."""
    return {name: getattr(spec, name) for name in ("image_shape", "positions", "groups")}


def as_limit(limit: int | None) -> float:
    """A limit on items as a number, infinite for None."""
    return np.inf if limit is None else limit
