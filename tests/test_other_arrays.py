"""Arrays of other libraries, such as JAX's and CuPy's: whatever has ``__dlpack__`` is read, without a word of that library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kagscope as kag
from kagscope.base.errors import InputError
from kagscope.scores.of_jacobians import stable_rank, sv_participation

ROWS = np.random.default_rng(0).normal(size=(4, 6))


class Foreign:
    """An array that only speaks DLPack."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._values.__dlpack_device__()


FRIENDS: dict[str, Callable[[Any], Any]] = {
    "minor_moments": lambda J: kag.minor_moments(J, 2).s1,
    "factored_minor_moments": lambda J: kag.factored_minor_moments(J, np.ones(4), 2).s2,
    "haar_mean_s1": lambda J: kag.haar_mean_s1(J, 2),
    "rotation_ratio": lambda J: kag.rotation_ratio(J, 2),
    "zero_rows": kag.zero_rows,
    "axis_alignment": kag.axis_alignment,
    "effective_rank": kag.effective_rank,
    "stable_rank": stable_rank,
    "sv_participation": sv_participation,
    "column_divergence": kag.column_divergence,
}


@pytest.mark.parametrize("name", FRIENDS)
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_what_has_dlpack_is_read(name: str, make: Callable[[Any], Any]) -> None:
    assert FRIENDS[name](Foreign(make(ROWS))) == FRIENDS[name](ROWS)


def test_a_model_is_fed_with_it() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.GELU())
    given, plain = (kag.measure(model, x, k=1, progress=False).table for x in (Foreign(ROWS), ROWS))
    assert given["value"].equals(plain["value"])


def test_whole_numbers_are_refused_as_ever() -> None:
    with pytest.raises(InputError, match="int64"):
        kag.minor_moments(Foreign(np.arange(24).reshape(4, 6)), 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_and_numpy_input(dtype: str) -> None:
    J = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    want = kag.minor_moments(J.to(torch.float64).numpy(), 2)
    assert kag.minor_moments(J.requires_grad_(), 2).s1 == want.s1
    if dtype != "bfloat16":
        assert kag.minor_moments(J.detach().numpy(), 2).entropy == want.entropy


def test_tensors_that_are_negated_when_they_are_read() -> None:
    """PyTorch's own bit for that, as of the imaginary part of a conjugate, was an error of NumPy's."""
    J = np.random.default_rng(0).normal(size=(4, 6))
    given = torch.from_numpy(J * 1j).conj().imag
    assert given.is_neg()
    want = torch.from_numpy(-J)
    assert kag.minor_moments(given).s1 == kag.minor_moments(want).s1
    assert kag.zero_rows(given, threshold=torch._neg_view(torch.tensor(-0.5))) == kag.zero_rows(want, threshold=0.5)
    found = kag.functional.log_participation_ratio(given.requires_grad_())
    assert found.item() == kag.functional.log_participation_ratio(want).item()
