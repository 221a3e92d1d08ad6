"""S1, S2 and S4 of all 2-minors of a batch on a torch device, without visiting them: zonogons, power Grams (MATH.md 4.1-4.3)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kagscope.minors.routes import Kind, register
from kagscope.minors.routes.power_grams import CANCELS
from kagscope.minors.routes.torch_enumeration import BYTES_COMPENSATED, fold, normalise, tile_sizes, tree, two_minors
from kagscope.minors.task import RouteResult, Task

FloatArray = NDArray[np.float64]
SLENDER = 1e-3  # an area below this share of |x|_1 |y|_1 has lost digits: its error is about log n roundings of that product


def zonogon_areas(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over a < b of |x_a y_b - x_b y_a|, and whether it is too small a share of |x|_1 |y|_1 to keep nine digits.

    Sorted by slope, the area of two neighbouring groups of vectors is that of each and the cross product of their sums: log2 n
    rounds of element-wise operations, with no running sum whose order a device may choose.

    Args:
        x, y: (…, n) float64.

    Returns:
        (…) areas and (…) booleans.
    """
    powers = []
    for values in (x, y):
        exponent = torch.frexp(tree(values.abs(), values.ndim - 1))[1].clamp_(-1000, 1000).to(torch.int64)
        powers.append(((exponent + 1023) << 52).view(torch.float64))  # from its bits: a device's exp2 may be off by one
    x, y = x / powers[0][..., None], y / powers[1][..., None]
    whole = tree(x.abs(), x.ndim - 1) * tree(y.abs(), y.ndim - 1)
    flip = (x < 0) | ((x == 0) & (y < 0))
    x, y = torch.where(flip, -x, x), torch.where(flip, -y, y)
    size = x + y.abs()
    order = torch.sort(y / torch.where(size > 0, size, 1.0), dim=-1, stable=True).indices
    x, y = x.gather(-1, order), y.gather(-1, order)
    area = torch.zeros_like(x)
    while x.shape[-1] > 1:
        if x.shape[-1] % 2:
            x, y, area = (torch.nn.functional.pad(values, (0, 1)) for values in (x, y, area))
        x0, x1, y0, y1 = x[..., 0::2], x[..., 1::2], y[..., 0::2], y[..., 1::2]
        area = area[..., 0::2] + area[..., 1::2] + (x0 * y1 - x1 * y0).abs_()
        x, y = x0 + x1, y0 + y1
    area = area[..., 0]
    return area * powers[0] * powers[1], (area < SLENDER * whole) & (whole > 0)


def power_grams(side: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """S2 and S4 over all column pairs for the row pairs (first, second) of (b, r, n), each (b, P), and where either cancels."""
    square = side * side
    gram, p22, p31 = side @ side.mT, square @ square.mT, (square * side) @ side.mT
    diagonal, p40 = gram.diagonal(dim1=1, dim2=2), p22.diagonal(dim1=1, dim2=2)
    whole2 = diagonal[:, first] * diagonal[:, second]
    s2 = whole2 - gram[:, first, second].square_()
    mixed = 4 * p31[:, first, second] * p31[:, second, first]
    whole4 = p40[:, first] * p40[:, second] + 3 * p22[:, first, second].square_()
    s4 = whole4 - mixed
    return s2, s4, (s2 < CANCELS * whole2) | (s4 < CANCELS * (whole4 + mixed.abs()))


def all_pair_sums(matrices: Tensor, wanted: frozenset[str], memory_budget: int) -> tuple[NDArray[np.int64], FloatArray]:
    """Normalised S1, S2, S4 of all 2-minors, on the side with fewer pairs; 0 where not requested.

    Row pairs whose formulas cancel (nearly parallel rows) are visited minor by minor.

    Args:
        matrices: (B, m, n) float64, finite, m and n at least 2, on any torch device.
        wanted: some of "s1", "s2", "s4".
        memory_budget: approximate bytes of device memory.

    Returns:
        (B,) exponents and (B, 3) sums.
    """
    scaled, exponent = normalise(matrices)
    side = (scaled if scaled.shape[1] <= scaled.shape[2] else scaled.mT).contiguous()
    batch, r, _ = side.shape
    first, second = torch.triu_indices(r, r, 1, device=side.device)
    step, _ = tile_sizes(batch, r, r, 1, memory_budget)
    totals = np.zeros((batch, 3))
    for start in range(0, batch, step):
        block = side[start : start + step]
        sums = torch.zeros((3, len(block), len(first)), dtype=torch.float64, device=side.device)
        hard = torch.zeros(sums.shape[1:], dtype=torch.bool, device=side.device)
        if wanted & {"s2", "s4"}:
            sums[1], sums[2], hard = power_grams(block, first, second)
        if "s1" in wanted:
            _add_areas(block, first, second, sums[0], hard, memory_budget)
        _repair(block, first, second, sums, hard, wanted, memory_budget)
        totals[start : start + step] = tree(sums, 2).T.cpu().numpy()
    return exponent, totals


def _add_areas(side: Tensor, first: Tensor, second: Tensor, s1: Tensor, hard: Tensor, memory_budget: int) -> None:
    """Write S1 of every row pair into ``s1`` (b, P), and those that lost digits into ``hard``, by tiles of row pairs."""
    matrices, pairs = tile_sizes(len(side), side.shape[2], len(first), 1, memory_budget)
    for start in range(0, len(side), matrices):
        block = slice(start, start + matrices)
        for low in range(0, len(first), pairs):
            chosen = slice(low, low + pairs)
            s1[block, chosen], slender = zonogon_areas(side[block, first[chosen]], side[block, second[chosen]])
            hard[block, chosen] |= slender


def _repair(
    side: Tensor, first: Tensor, second: Tensor, sums: Tensor, hard: Tensor, wanted: frozenset[str], memory_budget: int
) -> None:
    """The sums (3, b, P) of the row pairs in ``hard`` again, visiting their minors: for S1 with both products and their errors,
    for S2 and S4 as rounded products, each as accurate as on the CPU."""
    matrix, pair = hard.nonzero(as_tuple=True)
    n = side.shape[2]
    _, step = tile_sizes(1, n, max(len(pair), 1), 1, memory_budget, bytes_each=BYTES_COMPENSATED)
    for low in range(0, len(pair), step):
        b, p = matrix[low : low + step], pair[low : low + step]
        x, y = (side[b, rows[p]].mT[None] for rows in (first, second))  # (1, n, pairs): the row pairs stand where columns do
        twice = torch.cat([x, x], dim=1), torch.cat([y, y], dim=1)
        for names, compensated in ((wanted & {"s1"}, True), (wanted - {"s1"}, False)):
            again = fold(two_minors(*twice, compensated), (1, n, len(p)), names, side) if names else {}
            for name, values in again.items():
                sums[("s1", "s2", "s4").index(name), b, p] = values[0]


@register
class TorchFormulas:
    """S1, S2, S4 of all 2-minors of some columns, on the device of the matrices."""

    name = "formulas on a device"
    kind: Kind = "formula"
    ROUTES: ClassVar = {"s1": "zonogon areas", "s2": "Gram matrix", "s4": "power Grams"}

    def provides(self, task: Task) -> frozenset[str]:
        return frozenset(self.ROUTES) if task.k == 2 and task.clique and task.matrices.on_device else frozenset()

    def steps(self, task: Task) -> dict[str, float]:
        return {}

    def run(self, tasks: list[Task]) -> list[RouteResult | None]:
        return [self._run_task(task) for task in tasks]

    def _run_task(self, task: Task) -> RouteResult:
        given = task.inside.given
        exponent, sums = all_pair_sums(given, task.wanted, task.memory_budget)
        named = {name: sums[:, row] for row, name in enumerate(self.ROUTES) if name in task.wanted}
        return RouteResult(exponent, named, {name: f"{route} on {given.device}" for name, route in self.ROUTES.items()})
