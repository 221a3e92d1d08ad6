"""S1 and S2 of matrices whose minors are far smaller than the largest entry, computed with separate scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kagscope.minors.routes.zonogon import ENTRY_BITS, MOST_BITS
from kagscope.minors.scaling import column_span, entry_span
from kagscope.scores.pair_sums import pair_areas_of, pair_squares
from kagscope.scores.powers import extract_powers, ldexp
from kagscope.scores.row_sums import pair_indices

ROUNDED = 1e-16  # S2 of column pairs over the squares of their lengths, below which roundings of diag(d) W show in it
_Lines = tuple[Tensor, Tensor, Tensor]


class Pairs(NamedTuple):
    """Column pairs of a selection that is no clique."""

    first: Tensor
    second: Tensor


def are_powers_of_two(d: Tensor) -> Tensor:
    """(B,) whether diag(d) W needs no rounding: d (B, m) consists of powers of two and zeros."""
    mantissas = torch.frexp(d.detach())[0].abs()
    return ((mantissas == 0.5) | (mantissas == 0)).all(1)


@dataclass(frozen=True)
class FarSums:
    """Rescaled sums over minors of the given matrices.

    Attributes:
        kept: (B, m, n), or with ``factors`` (1, m, n).
        factors: (B, m) d of diag(d) W, or None.
        k: 1 or 2.
        pairs: column pairs to include; None for all.
    """

    kept: Tensor
    factors: Tensor | None
    k: int
    pairs: Pairs | None

    def sums(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """S1 / 2^e, S2 / 4^e and e of one matrix; zeros if they are zero or cannot be determined."""
        zero = torch.zeros((), dtype=torch.float64, device=self.kept.device)
        zeros = zero, zero, zero.long()
        rows, factors, exponents = self._lines(index)
        if len(rows) < self.k:
            return zeros
        if self.k == 1:
            top = exponents.max()
            entries = ldexp(rows * factors[:, None], (exponents - top)[:, None])
            return entries.abs().sum(), entries.square().sum(), top
        m, n = self.kept.shape[1:]
        sides = [self._lines, self._columns] if self.factors is not None or m <= n else [self._columns, self._lines]
        for side in sides if self.pairs is None else [self._columns]:
            pair_sums = self._pair_sums(side, index)
            if pair_sums is None:
                continue
            areas, squares, powers = pair_sums
            nonzero = squares > 0
            if not nonzero.any():
                return zeros
            top = powers[nonzero].max()
            return ldexp(areas, powers - top).sum(), ldexp(squares, 2 * (powers - top)).sum(), top
        return zeros

    def volumes(self, index: int, top: Tensor) -> Tensor:
        """Sum of sqrt(S2) over column pairs of one matrix, divided by 2^top; NaN if it cannot be determined."""
        pair_sums = self._pair_sums(self._columns, index, with_areas=False)
        if pair_sums is None:
            return self.kept.new_tensor(torch.nan).double()
        return ldexp(safe_sqrt(pair_sums[1]), pair_sums[2] - top).sum()

    def _lines(self, index: int) -> _Lines:
        """Nonzero rows of one W or J, each divided by a power of two; their (m,) factors; and the (m,) exponents taken out."""
        rows, exponents = extract_powers(self.kept[index if self.factors is None else 0].double(), (-1,))
        factors, more = torch.ones_like(exponents, dtype=torch.float64), torch.zeros_like(exponents)
        if self.factors is not None:
            factors, more = extract_powers(self.factors[index].double()[:, None], (-1,))
        alive = (rows.detach() * factors.detach()).any(1)
        return rows[alive], factors[alive, 0], (exponents + more)[alive, 0]

    def _columns(self, index: int) -> _Lines:
        """The columns of one matrix in the form of :meth:`_lines`."""
        rows, factors, exponents = self._lines(index)
        dense = rows * factors[:, None]
        sizes = torch.where(dense != 0, exponents[:, None] + torch.frexp(dense.detach())[1], -10_000)
        tops = sizes.amax(0) if len(dense) else sizes.new_zeros(dense.shape[1])
        tops = torch.where(tops > -10_000, tops, 0)
        lines = ldexp(dense, exponents[:, None] - tops).mT
        return lines, lines.new_ones(len(lines)), tops

    def _pair_sums(self, side: Callable[[int], _Lines], index: int, with_areas: bool = True) -> _Lines | None:
        """S1 and S2 of pairs of lines, in units of 2^powers and 4^powers; None if some cannot be determined."""
        lines, factors, exponents = (tensor.cpu() for tensor in side(index))
        if not lines.numel() or not self._is_reliable(index, lines.detach()):
            return None
        rows = side == self._lines
        all_pairs = rows or self.pairs is None
        first, second = pair_indices(len(lines), lines.device) if all_pairs else (tensor.cpu() for tensor in self.pairs or ())
        squares, powers = pair_squares(lines, first, second)
        if not rows and self.factors is not None and not are_powers_of_two(self.factors[index][None]):
            lengths = lines.detach().square().sum(1)
            if ((squares < ROUNDED * ldexp(lengths[first] * lengths[second], -2 * powers)) & (squares > 0)).any():
                return None
        both = factors[first] * factors[second]
        areas = ldexp(pair_areas_of(lines, first, second), -powers) * both.abs() if with_areas else squares
        device = self.kept.device
        return areas.to(device), (squares * both.square()).to(device), (powers + exponents[first] + exponents[second]).to(device)

    def _is_reliable(self, index: int, lines: Tensor) -> bool:
        """Whether scaling lost no entry and areas of pairs keep their digits (as for the engine's zonogons)."""
        given = self.kept[index] if self.factors is None else self.kept[0][self.factors[index] != 0]
        host = lines.numpy()
        whole = int(lines.count_nonzero()) == int(given.count_nonzero())
        return whole and column_span(host) <= MOST_BITS and entry_span(host) <= ENTRY_BITS


def safe_sqrt(squares: Tensor) -> Tensor:
    """Square roots whose gradient at 0 is 0."""
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)
