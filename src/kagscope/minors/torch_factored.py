"""The forms of :mod:`kagscope.minors.factored_forms` on a torch device, where thousands of d already lie (MATH.md 4.7)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kagscope.minors.factored_forms import select_sums
from kagscope.minors.routes.torch_enumeration import normalise

FloatArray = NDArray[np.float64]
__all__ = ["entry_forms", "normalise", "pair_forms"]


def entry_forms(table: FloatArray, d: Tensor, wanted: frozenset[str]) -> dict[str, FloatArray]:
    """Sums for k = 1; ``table`` (5, m) by row, ``d`` (B, m) normalised and not negative."""
    s1, s2, s4, entropy, top = torch.from_numpy(table).to(d.device)
    sums = {"s1": d @ s1, "s2": d**2 @ s2, "s4": d**4 @ s4}
    if "entropy" in wanted:
        sums["entropy"] = d @ entropy + torch.xlogy(d, d) @ s1
    if "top" in wanted:
        sums["top"] = (d * top).amax(dim=1)
    return select_sums(_on_host(sums), wanted)


def pair_forms(table: FloatArray, d: Tensor, wanted: frozenset[str]) -> dict[str, FloatArray]:
    """Sums for k = 2; ``table`` (5, m (m - 1) / 2) by row pair, ``d`` (B, m) normalised and not negative."""
    m = d.shape[1]
    first, second = torch.triu_indices(m, m, 1, device=d.device)

    def symmetric(values: FloatArray) -> Tensor:
        matrix = torch.zeros(m, m, dtype=torch.float64, device=d.device)
        matrix[first, second] = matrix[second, first] = torch.from_numpy(values).to(d.device)
        return matrix

    def form(values: FloatArray, left: Tensor, right: Tensor) -> Tensor:
        return 0.5 * ((left @ symmetric(values)) * right).sum(dim=1)

    sums = {}
    if wanted & {"s1", "entropy"}:
        sums["s1"] = form(table[0], d, d)
    if "s2" in wanted:
        sums["s2"] = form(table[1], d**2, d**2)
    if "s4" in wanted:
        sums["s4"] = form(table[2], d**4, d**4)
    if "entropy" in wanted:
        sums["entropy"] = form(table[3], d, d) + 2 * form(table[0], torch.xlogy(d, d), d)
    if "top" in wanted:
        best = torch.zeros_like(d)
        for i, row in enumerate(symmetric(table[4])):
            torch.maximum(best, d[:, i : i + 1] * row, out=best)
        sums["top"] = (best * d).amax(dim=1)
    return select_sums(_on_host(sums), wanted)


def _on_host(sums: dict[str, Tensor]) -> dict[str, FloatArray]:
    """(B,) of each sum: what :class:`kagscope.minors.moments.Moments` keeps, and places again when it is read."""
    return {name: values.cpu().numpy() for name, values in sums.items()}
