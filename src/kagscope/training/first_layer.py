"""Alternative initial first layers: trained ones, or ones with the statistics of trained rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

State = dict[str, Tensor]

FIRST_LAYERS = ("drawn", "orthogonal", "axis_aligned", "like_trained", "like_trained_permuted", "trained")
"""How the first layer starts, see :func:`start_first_layer`; "drawn" as ``init`` says."""
OF_DONORS = FIRST_LAYERS[3:]  # those that need trained networks
IMITATING = OF_DONORS[:2]  # those that need several, possibly trained on other data
DONORS = range(1_000_000, 1_000_008)  # seeds of the networks that "like_trained" imitates, unused by studies


def start_first_layer(kind: str, state: State, donors: Sequence[State], generator: torch.Generator) -> State:
    """State of a network with another initial first layer; the other layers are unchanged.

    Weights are scaled to the Frobenius norm of the drawn ones, so that kinds differ in direction and shape, not in scale; only
    a "trained" layer is copied unchanged, with its biases.

    Args:
        kind: "drawn"; "orthogonal" (rows, or columns if fewer); "axis_aligned" (one pixel per row with random sign, no pixel
            reused before all are used); "like_trained" (rows drawn by :func:`rows_like`); "like_trained_permuted"
            (the same with permuted pixels: same sparsity and spectrum, wrong positions); "trained".
        state: state of the network as drawn (:func:`kagscope.training.models.mlp`).
        donors: states of trained networks with as many inputs: one for "trained", several for "like_trained".
        generator: source of the random draws.
    """
    if kind == "drawn":
        return state
    weight, bias = list(state)[:2]
    drawn = state[weight]
    if kind == "trained":
        return state | {name: donors[0][name].clone() for name in (weight, bias)}
    m, n = drawn.shape
    if kind == "orthogonal":
        rows = torch.nn.init.orthogonal_(torch.empty(m, n), generator=generator)
    elif kind == "axis_aligned":
        rows = torch.zeros(m, n)
        order = torch.cat([torch.randperm(n, generator=generator) for _ in range(-(-m // n))])[:m]
        rows[torch.arange(m), order] = 2.0 * torch.randint(2, (m,), generator=generator) - 1
    else:
        rows = rows_like(torch.cat([donor[weight] for donor in donors]), m, generator)
        if kind == "like_trained_permuted":
            rows = rows[:, torch.randperm(n, generator=generator)]
    return state | {weight: rows * (torch.linalg.matrix_norm(drawn) / torch.linalg.matrix_norm(rows))}


def rows_like(trained: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw rows by a Gaussian copula: marginals and correlations of the pixels are those of the rows ``trained`` (R, n).

    Normal rows with these correlations are sums of the trained rows with normal factors; each entry then is the quantile of its
    pixel at that level, so that weights are as sparse as trained ones.

    Returns:
        (count, n) float32.
    """
    R = len(trained)
    wide = trained.double()
    spread = wide.std(0, unbiased=False)
    standard = torch.where(spread > 0, (wide - wide.mean(0)) / spread, 0.0)
    factors = torch.randn(count, R, generator=generator, dtype=torch.float64)
    levels = torch.special.ndtr(factors @ standard / math.sqrt(R)) * (R - 1)
    ordered = wide.sort(0).values
    low = levels.floor().long().clamp(0, R - 1)
    high = (low + 1).clamp(max=R - 1)
    below, above = ordered.gather(0, low), ordered.gather(0, high)
    return (below + (levels - low) * (above - below)).float()
