"""Moments of the 1-minors and 2-minors of a batch of matrices on a torch device: tiles of element-wise float64 operations.

Every minor is the difference of two rounded products, for histograms with their errors, so that each falls in its own bin, as
in :mod:`kagscope.minors.sweeps`. Sums are element-wise additions in an order that depends only on the shape of the matrix and
the list of subsets: neither tile sizes nor the device change them, except the entropy, whose logarithm is the device's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kagscope.minors._numba import SLOTS, bin_edges
from kagscope.minors.moments import SUMS
from kagscope.minors.routes import Kind, register
from kagscope.minors.routes.enumeration import check_listable, group_passes
from kagscope.minors.subsets import SubsetList, cached_subsets, sum_over_selections
from kagscope.minors.task import EVERY_MOMENT, RouteResult, Task, make_result, trim_histogram

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BYTES = 128  # of a tile for each row and column subset: four gathered columns, five sums and temporaries
BYTES_COMPENSATED = 192  # and the high and low halves of the columns
BLOCK = 256  # column subsets of one cell that are summed on the device


def normalise(matrices: Tensor) -> tuple[Tensor, IntArray]:
    """Each matrix of (B, m, n) over the power of two just above its largest entry, and the exponents; as on the CPU."""
    exponent = np.frexp(matrices.abs().amax(dim=(1, 2)).cpu().numpy())[1].astype(np.int64)
    half = exponent // 2  # two factors, since 2^-exponent alone may overflow
    scaled = matrices
    for exponents in (half, exponent - half):
        scaled = scaled * torch.from_numpy(np.ldexp(1.0, -exponents)).to(matrices.device)[:, None, None]
    return scaled, exponent


# -- subsets in blocks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blocks:
    """Column subsets sorted by cell, each cell filled up to whole blocks with subsets of the column n, which is zero.

    Attributes:
        columns: k tensors (P',) int64 on the device: first, second, … column of each subset.
        cells: (P' / size,) cell of each block.
        size: column subsets of a block, a power of two.
    """

    columns: tuple[Tensor, ...]
    cells: IntArray
    size: int


def blocks_of(subsets: SubsetList, n: int, device: torch.device) -> Blocks:
    """``subsets`` of n columns in blocks on the device, kept with them."""
    key = str(device), n
    if key not in subsets.on_devices:
        subsets.on_devices[key] = _blocks(subsets, n, device)
    blocks: Blocks = subsets.on_devices[key]
    return blocks


def _blocks(subsets: SubsetList, n: int, device: torch.device) -> Blocks:
    counts = np.bincount(subsets.cells, minlength=len(subsets.membership))
    size = BLOCK
    while size > 1 and 4 * (-(-counts // size) * size).sum() > 5 * counts.sum():
        size //= 2
    blocks = -(-counts // size)
    order = np.argsort(subsets.cells, kind="stable")
    rank = np.arange(len(order)) - (np.cumsum(counts) - counts)[subsets.cells[order]]
    index = ((np.cumsum(blocks) - blocks) * size)[subsets.cells[order]] + rank
    prefixes = np.repeat(subsets.prefixes, np.diff(subsets.starts), axis=0) if subsets.prefixes.shape[1] else None
    columns = []
    for values in (*([] if prefixes is None else prefixes.T), subsets.last):
        filled = np.full(int(blocks.sum()) * size, n, dtype=np.int64)
        filled[index] = values[order]
        columns.append(torch.from_numpy(filled).to(device))
    return Blocks(tuple(columns), np.repeat(np.arange(len(counts)), blocks), size)


def tile_sizes(
    batch: int, rows: int, columns: int, block: int, memory_budget: int, bins: int = 0, bytes_each: int = BYTES
) -> tuple[int, int]:
    """Matrices and column subsets (whole blocks) of a tile, so that ``bytes_each`` for each of their rows and the histograms of
    ``bins`` a matrix fit the budget; at least one matrix and one block."""
    elements = memory_budget // bytes_each
    matrices = max(1, min(batch, elements // max(rows * columns, 1)))
    if bins:
        matrices = max(1, min(matrices, elements // 4 // bins))
    fits = elements // (rows * matrices) // block * block
    return matrices, max(block, min(columns, fits))


# -- minors ----------------------------------------------------------------------------------------------------------------------


def two_minors(F: Tensor, S: Tensor, compensated: bool = False) -> Iterator[Tensor]:
    """|F_i S_j - F_j S_i| of all row pairs, m at a time: rows i and i + s of (b, 2 m, C), the columns twice below each other.

    Args:
        F, S: first and second column of each pair, rows repeated once.
        compensated: to full relative precision (both products with their rounding errors) instead of as two rounded products.

    Yields:
        (b, m, C) for s = 1 … (m - 1) / 2 and, for even m, (b, m / 2, C). The caller may overwrite it.
    """
    m = F.shape[1] // 2
    halves = (_split(F), _split(S)) if compensated else None
    for s in range(1, m // 2 + 1):
        rows = m // 2 if 2 * s == m else m
        upper, lower = slice(0, rows), slice(s, s + rows)
        left, right = F[:, upper] * S[:, lower], F[:, lower] * S[:, upper]
        if halves is not None:
            f, g = halves
            low = _product_error(left, f[0][:, upper], f[1][:, upper], g[0][:, lower], g[1][:, lower])
            low -= _product_error(right, f[0][:, lower], f[1][:, lower], g[0][:, upper], g[1][:, upper])
            yield left.sub_(right).add_(low).abs_()
        else:
            yield left.sub_(right).abs_()


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """x as a sum of two numbers of 26 bits (Veltkamp); |x| below 2^990."""
    large = x * 134217729.0
    high = large - (large - x)
    return high, x - high


def _product_error(product: Tensor, a: Tensor, low_a: Tensor, b: Tensor, low_b: Tensor) -> Tensor:
    """The rounding error of ``product`` of a + low_a and b + low_b, exact except for underflow (Dekker)."""
    return (a * b).sub_(product).add_(a * low_b).add_(low_a * b).add_(low_a * low_b)


def tree(values: Tensor, dim: int, combine: Callable[..., Tensor] = torch.add) -> Tensor:
    """``values`` combined along ``dim`` by halves, in place; the order depends on the size alone."""
    size = values.shape[dim]
    while size > 1:
        half = size // 2
        low, first = values.narrow(dim, 0, half), values.narrow(dim, 0, 1)
        combine(low, values.narrow(dim, half, half), out=low)
        if size % 2:
            combine(first, values.narrow(dim, size - 1, 1), out=first)
        size = half
    return values.select(dim, 0)


def fold(tiles: Iterator[Tensor], shape: tuple[int, int, int], wanted: frozenset[str], like: Tensor) -> dict[str, Tensor]:
    """Sums over the rows of all ``tiles`` (b, at most m, C) by name, each (b, C), overwriting them; ``shape`` is (b, m, C)."""
    sums = {name: torch.zeros(shape, dtype=torch.float64, device=like.device) for name in SUMS if name in wanted}
    for t in tiles:
        rows = slice(0, t.shape[1])
        if "s1" in sums:
            sums["s1"][:, rows] += t
        if "entropy" in sums:
            sums["entropy"][:, rows] += torch.xlogy(t, t)
        if "top" in sums:
            torch.maximum(sums["top"][:, rows], t, out=sums["top"][:, rows])
        if "s2" in sums or "s4" in sums:
            t *= t
            if "s2" in sums:
                sums["s2"][:, rows] += t
            if "s4" in sums:
                t *= t
                sums["s4"][:, rows] += t
    return {name: tree(values, 1, torch.maximum if name == "top" else torch.add) for name, values in sums.items()}


# -- histogram -------------------------------------------------------------------------------------------------------------------


def count_slots(tiles: Iterator[Tensor], base: Tensor, edges: Tensor, hist: Tensor) -> Iterator[Tensor]:
    """The same tiles, each minor counted in ``hist`` at ``base`` (b, 1, C) plus its slot: whole numbers, so any order will do."""
    for t in tiles:
        slots = torch.bucketize(t, edges, right=True).add_(base)
        hist += torch.bincount(slots.view(-1), minlength=hist.numel())
        yield t


# -- moments of selections -------------------------------------------------------------------------------------------------------


def selection_sums(
    matrices: Tensor, k: int, subsets: SubsetList, wanted: frozenset[str], memory_budget: int
) -> tuple[IntArray, list[tuple[FloatArray, IntArray | None]]]:
    """Normalised moments of every selection, by visiting every minor on the device of the matrices.

    Args:
        matrices: (B, m, n) float64, finite, on any torch device.
        k: 1 or 2.
        subsets: allowed column subsets.
        wanted: names of moments; S1 is always included.
        memory_budget: approximate bytes of device memory; at least one matrix and one block of column subsets are processed.

    Returns:
        (B,) exponents, and for each matrix (selections, 5) sums and (selections, SLOTS) histograms (None unless wanted).
    """
    scaled, exponent = normalise(matrices)
    with_hist, sums_wanted = "histogram" in wanted, (wanted | {"s1"}) & frozenset(SUMS)
    cells, selections = subsets.membership.shape
    empty_hist = np.zeros((selections, SLOTS), dtype=np.int64) if with_hist else None
    results: list[tuple[FloatArray, IntArray | None]] = [(np.zeros((selections, 5)), empty_hist)] * len(scaled)
    if len(subsets.last) == 0:
        return exponent, results
    for members, group in _group_by_rows(scaled):
        if group.shape[1] < k:
            continue
        for start, sums, hist in _cell_sums(group, k, subsets, sums_wanted, with_hist, memory_budget):
            for offset in range(sums.shape[1]):
                totals = sum_over_selections(sums[:, offset], subsets.membership)
                part = None if hist is None else subsets.membership.T.astype(np.int64) @ hist[offset].reshape(cells, SLOTS)
                results[members[start + offset]] = totals, part
    return exponent, results


def _group_by_rows(matrices: Tensor) -> Iterator[tuple[IntArray, Tensor]]:
    """Groups of matrices with equally many nonzero rows: (indices, (b, rows, n)); zero rows only add exact zeros."""
    nonzero = (matrices != 0).any(dim=2).cpu().numpy()
    counts = nonzero.sum(axis=1)
    order = np.argsort(~nonzero, axis=1, kind="stable")
    for count in np.unique(counts):
        members = np.flatnonzero(counts == count)
        if count == matrices.shape[1]:
            yield members, matrices if len(members) == len(matrices) else matrices[torch.from_numpy(members).to(matrices.device)]
            continue
        rows = torch.from_numpy(order[members, :count]).to(matrices.device)
        yield members, matrices[torch.from_numpy(members).to(matrices.device)[:, None], rows]


def _cell_sums(
    matrices: Tensor, k: int, subsets: SubsetList, wanted: frozenset[str], with_hist: bool, memory_budget: int
) -> Iterator[tuple[int, FloatArray, IntArray | None]]:
    """For consecutive ranges of matrices: start, (5, b, cells) sums and (b, cells * SLOTS) histograms."""
    batch, m, n = matrices.shape
    blocks = blocks_of(subsets, n, matrices.device)
    cells, width = len(subsets.membership), len(blocks.cells) * blocks.size
    bins = cells * SLOTS if with_hist else 0
    each = BYTES_COMPENSATED if with_hist else BYTES
    matrices_a_tile, columns_a_tile = tile_sizes(batch, m, width, blocks.size, memory_budget, bins, each)
    edges = torch.from_numpy(bin_edges()).to(matrices.device)
    base = torch.from_numpy(np.repeat(blocks.cells * SLOTS, blocks.size)).to(matrices.device)
    for start in range(0, batch, matrices_a_tile):
        padded = torch.nn.functional.pad(matrices[start : start + matrices_a_tile], (0, 1))  # the column n, zero
        doubled = torch.cat([padded, padded], dim=1) if k == 2 else padded
        b = len(padded)
        hist = torch.zeros(b * bins, dtype=torch.int64, device=matrices.device)
        by_block = np.zeros((5, b, len(blocks.cells)))
        for low in range(0, width, columns_a_tile):
            chunk = slice(low, min(low + columns_a_tile, width))
            sides = [doubled.index_select(2, columns[chunk]) for columns in blocks.columns]
            tiles = two_minors(sides[0], sides[1], with_hist) if k == 2 else iter([sides[0].abs_()])
            if with_hist:
                offset = base[chunk] + bins * torch.arange(b, device=matrices.device)[:, None, None]
                tiles = count_slots(tiles, offset, edges, hist)
            sums = fold(tiles, (b, m, chunk.stop - chunk.start), wanted, matrices)
            block_range = slice(chunk.start // blocks.size, chunk.stop // blocks.size)
            for name, values in sums.items():
                in_blocks = values.reshape(b, -1, blocks.size)
                combine = torch.maximum if name == "top" else torch.add
                by_block[SUMS.index(name), :, block_range] = tree(in_blocks, 2, combine).cpu().numpy()
        yield start, _by_cell(by_block, blocks.cells, cells), hist.view(b, bins).cpu().numpy() if with_hist else None


def _by_cell(by_block: FloatArray, cell_of_block: IntArray, cells: int) -> FloatArray:
    """(5, b, blocks) as (5, b, cells): sums, and largest for top."""
    sums = np.zeros((*by_block.shape[:2], cells))
    for row, name in enumerate(SUMS):
        for matrix, values in enumerate(by_block[row]):
            if name == "top":
                np.maximum.at(sums[row, matrix], cell_of_block, values)
            else:
                sums[row, matrix] = np.bincount(cell_of_block, weights=values, minlength=cells)
    return sums


@register
class TorchEnumeration:
    """Every moment of k = 1 and 2, for any selections, on the device of the matrices.

    Minors further than 2^-1022 below the largest count as zeros; for k = 1 the host distinguishes these.
    """

    name = "enumerated on a device"
    kind: Kind = "visit"

    def provides(self, task: Task) -> frozenset[str]:
        return EVERY_MOMENT if task.k <= 2 and task.matrices.on_device else frozenset()

    def steps(self, task: Task) -> dict[str, float]:
        return {}

    def run(self, tasks: list[Task]) -> list[RouteResult | None]:
        given, results = tasks[0].matrices.given, {}
        for task in tasks if tasks[0].k == 2 else ():
            check_listable(task, {})
        for indices in group_passes(tasks):
            task = tasks[indices[0]]
            subsets = cached_subsets(tuple(tasks[index].selection for index in indices), task.layout, task.k)
            exponent, each = selection_sums(given, task.k, subsets, task.wanted, task.memory_budget)
            for i, index in enumerate(indices):
                sums = np.stack([by_selection[i] for by_selection, _ in each])
                hists = [trim_histogram(hist[i]) for _, hist in each if hist is not None]
                route = f"enumerated on {given.device}"
                results[index] = make_result(tasks[index], route, exponent, sums, hists or None)
        return [results[index] for index in range(len(tasks))]
