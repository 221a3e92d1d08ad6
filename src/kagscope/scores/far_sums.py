"""S1 and S2 of matrices whose minors lie far below the largest entry, found on scales of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kagscope.minors.routes.zonogon import ENTRY_BITS, MOST_BITS
from kagscope.minors.scaling import column_span, entry_span
from kagscope.scores.pair_areas import pair_areas_of
from kagscope.scores.pair_squares import pair_squares
from kagscope.scores.powers import scaled, times
from kagscope.scores.row_sums import every_pair

ROUNDED = 1e-16  # S2 of column pairs over the squares of their lengths, below which roundings of diag(d) W show in it
_Lines = tuple[Tensor, Tensor, Tensor]


class Pairs(NamedTuple):
    """Column pairs of a selection that is no clique."""

    first: Tensor
    second: Tensor


def are_powers_of_two(d: Tensor) -> Tensor:
    """(B,) whether diag(d) W takes no rounding: d (B, m) is made of powers of two and zeros."""
    mantissas = torch.frexp(d.detach())[0].abs()
    return ((mantissas == 0.5) | (mantissas == 0)).all(1)


@dataclass(frozen=True)
class Far:
    """Matrices as they were given.

    Attributes:
        kept: (B, m, n), or with ``factors`` (1, m, n).
        factors: (B, m) d of diag(d) W, or None.
        k: 1 or 2.
        pairs: which column pairs count; None for all.
    """

    kept: Tensor
    factors: Tensor | None
    k: int
    pairs: Pairs | None

    def sums(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """S1 over 2^e and S2 over 4^e of one matrix, and e; 0 where they are, or cannot be told."""
        zero = torch.zeros((), dtype=torch.float64, device=self.kept.device)
        nothing = zero, zero, zero.long()
        rows, factors, exponents = self._lines(index)
        if len(rows) < self.k:
            return nothing
        if self.k == 1:
            top = exponents.max()
            entries = times(rows * factors[:, None], (exponents - top)[:, None])
            return entries.abs().sum(), entries.square().sum(), top
        m, n = self.kept.shape[1:]
        sides = [self._lines, self._columns] if self.factors is not None or m <= n else [self._columns, self._lines]
        for side in sides if self.pairs is None else [self._columns]:
            found = self._of_pairs(side, index)
            if found is None:
                continue
            areas, squares, powers = found
            some = squares > 0
            if not some.any():
                return nothing
            top = powers[some].max()
            return times(areas, powers - top).sum(), times(squares, 2 * (powers - top)).sum(), top
        return nothing

    def volumes(self, index: int, top: Tensor) -> Tensor:
        """Sum of sqrt(S2) over pairs of columns of one matrix, over 2^top; NaN where it cannot be told."""
        found = self._of_pairs(self._columns, index, with_areas=False)
        return self.kept.new_tensor(torch.nan).double() if found is None else times(root(found[1]), found[2] - top).sum()

    def _lines(self, index: int) -> _Lines:
        """Nonzero rows of one W or J, each over a power of two; (m,) its factors; (m,) powers of two left out of both."""
        rows, exponents = scaled(self.kept[index if self.factors is None else 0].double(), (-1,))
        factors, more = torch.ones_like(exponents, dtype=torch.float64), torch.zeros_like(exponents)
        if self.factors is not None:
            factors, more = scaled(self.factors[index].double()[:, None], (-1,))
        alive = (rows.detach() * factors.detach()).any(1)
        return rows[alive], factors[alive, 0], (exponents + more)[alive, 0]

    def _columns(self, index: int) -> _Lines:
        """The columns of one matrix as :meth:`_lines` has the rows."""
        rows, factors, exponents = self._lines(index)
        dense = rows * factors[:, None]
        sizes = torch.where(dense != 0, exponents[:, None] + torch.frexp(dense.detach())[1], -10_000)
        tops = sizes.amax(0) if len(dense) else sizes.new_zeros(dense.shape[1])
        tops = torch.where(tops > -10_000, tops, 0)
        lines = times(dense, exponents[:, None] - tops).mT
        return lines, lines.new_ones(len(lines)), tops

    def _of_pairs(self, side: Callable[[int], _Lines], index: int, with_areas: bool = True) -> _Lines | None:
        """S1 and S2 of pairs of lines, 2^powers and 4^powers times these; None where some cannot be told."""
        lines, factors, exponents = (one.cpu() for one in side(index))
        if not lines.numel() or not self._are_certain(index, lines.detach()):
            return None
        rows = side == self._lines
        all_pairs = rows or self.pairs is None
        first, second = every_pair(len(lines), lines.device) if all_pairs else (one.cpu() for one in self.pairs or ())
        squares, powers = pair_squares(lines, first, second)
        if not rows and self.factors is not None and not are_powers_of_two(self.factors[index][None]):
            lengths = lines.detach().square().sum(1)
            if ((squares < ROUNDED * times(lengths[first] * lengths[second], -2 * powers)) & (squares > 0)).any():
                return None
        both = factors[first] * factors[second]
        areas = times(pair_areas_of(lines, first, second), -powers) * both.abs() if with_areas else squares
        where = self.kept.device
        return areas.to(where), (squares * both.square()).to(where), (powers + exponents[first] + exponents[second]).to(where)

    def _are_certain(self, index: int, lines: Tensor) -> bool:
        """Whether no entry was lost in the scaling, and areas of pairs keep their digits (as the engine's zonogons)."""
        given = self.kept[index] if self.factors is None else self.kept[0][self.factors[index] != 0]
        host = lines.numpy()
        whole = int(lines.count_nonzero()) == int(given.count_nonzero())
        return whole and column_span(host) <= MOST_BITS and entry_span(host) <= ENTRY_BITS


def root(squares: Tensor) -> Tensor:
    """Square roots whose gradient at 0 is 0."""
    some = squares > 0
    return torch.where(some, torch.where(some, squares, 1.0).sqrt(), 0.0)
