"""Small networks and inputs for the golden tables: everything follows from fixed seeds, nothing is read from files.

Weights come from NumPy's generator, which is the same in every version; double precision unless a case is about single, so that
the last bits do not depend on how a machine multiplies matrices in float32.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


def filled(model: nn.Module, seed: int, gain: float = 1.0) -> Any:
    """``model`` in double precision with uniform weights of size ``gain / sqrt(inputs)``; norms keep theirs."""
    generator = np.random.default_rng(seed)
    model.double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                continue
            bound = gain / math.sqrt(math.prod(parameter.shape[1:]) if parameter.ndim > 1 else 16)
            parameter.copy_(torch.from_numpy(generator.uniform(-bound, bound, tuple(parameter.shape))))
    return model


def mlp(
    widths: tuple[int, ...] = (64, 16, 12, 10), activation: type[nn.Module] = nn.GELU, seed: int = 1, gain: float = 2.0
) -> Any:
    """Affine maps with activations between them: "1", "3", … are the hidden layers."""
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        parts += [nn.Linear(before, after), activation()]
    return filled(nn.Sequential(*parts[:-1]), seed, gain)


def images(count: int, first: int = 0) -> Tensor:
    """(count, 64) pixels of the embedded digits, 0 to 1; some at the border are zero in all of them."""
    return torch.from_numpy(load_digits().data[first : first + count] / 16)


def classes(count: int, first: int = 0) -> Tensor:
    """(count,) digits that :func:`images` show."""
    return torch.from_numpy(load_digits().target[first : first + count])


def relu_with_constant_units(seed: int = 2) -> Any:
    """A ReLU MLP of which five units are off at every image and two do not look at it."""
    model = mlp(activation=nn.ReLU, seed=seed)
    with torch.no_grad():
        model[0].bias[[0, 3, 7]] = -50.0
        model[2].bias[[1, 4]] = -50.0
        model[0].weight[[5, 9]] = 0.0
        model[0].bias[[5, 9]] = torch.tensor([0.5, 0.25], dtype=torch.float64)
    return model


def cnn(seed: int = 3) -> Any:
    """Two convolutions on (batch, 1, 8, 8)."""
    return filled(
        nn.Sequential(
            nn.Conv2d(1, 3, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(16, 10)
        ),
        seed,
        2.0,
    )


class Block(nn.Module):
    """A transformer block of two heads before its norms, on (batch, tokens, n)."""

    def __init__(self, n: int = 12, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(n), nn.LayerNorm(n)
        self.qkv, self.out = nn.Linear(n, 3 * n), nn.Linear(n, n)
        self.mlp = nn.Sequential(nn.Linear(n, 2 * n), nn.GELU(), nn.Linear(2 * n, n))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, n = x.shape
        split = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, n // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / math.sqrt(n // self.heads)).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, n))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def transformer(seed: int = 4) -> Any:
    """Two blocks and a head for each token; "blocks.0", "blocks.1.mlp", … are its layers."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Block(), Block())
            self.head = nn.Linear(12, 5)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.blocks(x))
            return out

    return filled(Model(), seed, 2.0)


def tokens(count: int = 4, length: int = 6, seed: int = 5) -> Tensor:
    """(count, length, 12) normal numbers."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, length, 12)))


def normed(seed: int = 6) -> Any:
    """An MLP with batch norm."""
    model = nn.Sequential()
    for name, part in {
        "linear": nn.Linear(64, 12),
        "norm": nn.BatchNorm1d(12),
        "act": nn.GELU(),
        "head": nn.Linear(12, 10),
    }.items():
        model.add_module(name, part)
    return filled(model, seed, 2.0)


def matrices() -> dict[str, Any]:
    """Matrices for the engine, by name; "image" and "large" have columns that are pixels."""
    generator = np.random.default_rng(7)
    sparse = generator.normal(size=(7, 9))
    sparse[[1, 4]] = 0.0
    sparse[:, 2] = 0.0
    return {
        "wide": generator.normal(size=(6, 10)),
        "tall": generator.standard_t(2, size=(9, 5)),
        "sparse": sparse,
        "batch": generator.normal(size=(3, 5, 8)),
        "image": generator.normal(size=(6, 16)),
        "large": generator.normal(size=(20, 64)) * generator.lognormal(size=(20, 1)),
        "tiny": generator.normal(size=(4, 6)) * 1e-120,
        "single": torch.from_numpy(generator.normal(size=(5, 7)).astype(np.float32)),
        "low rank": generator.integers(-3, 4, size=(6, 2)) @ generator.integers(-3, 4, size=(2, 8)) * 1.0,
    }
