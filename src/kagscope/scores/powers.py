"""Scale tensors by powers of two, so that products of their entries stay in the range of float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ONE_PRODUCT = 1000  # largest exponent e for which 2^e and 2^-e are both safely in the range of float64


def extract_powers(values: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Divide by powers of two near the largest entry along ``dims``; return float64 values and the int64 exponents."""
    if not values.numel():
        return values.double(), values.new_zeros(
            [1 if i - values.ndim in dims else size for i, size in enumerate(values.shape)]
        ).long()
    exponents = torch.frexp(values.detach().abs().amax(dims, keepdim=True).double())[1].long()
    return ldexp(values, -exponents), exponents


def divide_by_powers(values: Tensor, tops: Sequence[int]) -> Tensor:
    """Divide values (B, …) in float64 by powers of two, one for each of the B or one for all."""
    if not any(tops):
        return values.double()
    return ldexp(values, -torch.tensor(tops, device=values.device).reshape(-1, *[1] * (values.ndim - 1)))


def ldexp(values: Tensor, exponents: Tensor) -> Tensor:
    """values * 2^exponents in float64, exponents of at least -2000; in two products if 2^exponents could leave the range."""
    if exponents.numel() == 1 and abs(exponent := int(exponents)) <= ONE_PRODUCT:
        return values.double() * 2.0**exponent
    exponents = exponents.clamp(-2000, 2000)
    half = exponents.div(2, rounding_mode="floor")
    return values * torch.exp2(half.double()) * torch.exp2((exponents - half).double())
