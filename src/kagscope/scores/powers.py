"""Tensors over powers of two, so that products of their entries stay in the range of float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ONE_PRODUCT = 1000  # 2 to the power of so much is a number of float64, and so is its inverse


def scaled(values: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """In float64, over powers of two near the largest entry along ``dims``, which changes no score; and these, int64."""
    if not values.numel():
        return values.double(), values.new_zeros(
            [1 if i - values.ndim in dims else size for i, size in enumerate(values.shape)]
        ).long()
    exponents = torch.frexp(values.detach().abs().amax(dims, keepdim=True).double())[1].long()
    return times(values, -exponents), exponents


def over(values: Tensor, tops: Sequence[int]) -> Tensor:
    """Each of values (B, …), or all of them, in float64 over a power of two."""
    if not any(tops):
        return values.double()
    return times(values, -torch.tensor(tops, device=values.device).reshape(-1, *[1] * (values.ndim - 1)))


def times(values: Tensor, exponents: Tensor) -> Tensor:
    """values 2^exponents in float64; 2^-2000 at least. As two products where 2^exponents alone might leave the range."""
    if exponents.numel() == 1 and abs(one := int(exponents)) <= ONE_PRODUCT:
        return values.double() * 2.0**one
    exponents = exponents.clamp(-2000, 2000)
    half = exponents.div(2, rounding_mode="floor")
    return values * torch.exp2(half.double()) * torch.exp2((exponents - half).double())
