"""Differentiable scores: values against the engine, derivatives against finite differences and brute force (MATH.md 6)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

import kagscope as kag
from kagscope.minors.routes.zonogon_gradient import pair_area_gradient
from kagscope.scores import functional, pair_sums
from kagscope.scores.row_sums import RowPairs

SELECTIONS: list[Any] = [
    "all",
    "ball(1.5)",
    "apart(2)",
    "shell(1,2.5)",
    "window(1,1,1)",
    kag.Subsets([(0, 3), (1, 2), (2, 7)]),
]
SCORES = [functional.log_participation_ratio, functional.effective_minors, functional.rr_pr]


def _matrix(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _orders(selection: Any) -> tuple[int, ...]:
    return (2,) if isinstance(selection, kag.Subsets) else (1, 2)


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
@pytest.mark.parametrize("shape", [(5, 9), (12, 9)])
def test_values_are_those_of_the_engine(selection: Any, shape: tuple[int, int]) -> None:
    J = _matrix(3, *shape)
    where: Any = {"image_shape": (3, 3)}
    for k in _orders(selection):
        moments = kag.minor_moments(J, k, selection, **where)
        found = [score(J, k, selection, **where).numpy() for score in SCORES]
        np.testing.assert_allclose(found[0], np.log(moments.participation_ratio), rtol=1e-12)
        np.testing.assert_allclose(found[1], moments.effective_minors, rtol=1e-12)
        np.testing.assert_allclose(found[2], kag.rotation_ratio(J, k, "pr", selection, **where), rtol=1e-11)
        W, d = J[0], _matrix(4, shape[0], seed=1)
        moments = kag.factored_minor_moments(W, d, k, selection, **where)
        shared = functional.log_participation_ratio(W, k, selection, d=d, **where)
        np.testing.assert_allclose(shared.numpy(), np.log(moments.participation_ratio), rtol=1e-12)


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
@pytest.mark.parametrize("score", SCORES, ids=lambda one: one.__name__)
def test_derivatives_agree_with_finite_differences(score: Any, selection: Any) -> None:
    J, W, d = _matrix(2, 3, 9), _matrix(3, 9, seed=2), _matrix(2, 3, seed=1)
    for k in _orders(selection):

        def of(J: Tensor, k: int = k, **factor: Tensor) -> Tensor:
            found: Tensor = score(J, k, selection, image_shape=(3, 3), **factor)
            return found

        cotangent = torch.tensor([1.0, -0.7], dtype=torch.float64)
        (found,) = torch.autograd.grad(of(J.requires_grad_()), J, cotangent)
        wanted = torch.stack([_differences(of, matrix) for matrix in J.detach()])
        torch.testing.assert_close(found, cotangent[:, None, None] * wanted, rtol=1e-6, atol=1e-6)
        of_W, of_d = torch.autograd.grad(of(W.requires_grad_(), d=d.requires_grad_()), (W, d), cotangent)
        for_each = [_differences(of, matrix) for matrix in d.detach()[:, :, None] * W.detach()]
        wanted = torch.stack(for_each)
        torch.testing.assert_close(of_W, (cotangent[:, None, None] * d[:, :, None] * wanted).sum(0), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(of_d, cotangent[:, None] * (W * wanted).sum(2), rtol=1e-6, atol=1e-6)


def _differences(of: Callable[[Tensor], Tensor], matrix: Tensor, step: float = 1e-5) -> Tensor:
    """Derivative of a score with respect to each entry of a matrix, by central differences in one batch."""
    steps = step * torch.eye(matrix.numel(), dtype=matrix.dtype).reshape(-1, *matrix.shape)
    return ((of(matrix + steps) - of(matrix - steps)) / (2 * step)).reshape(matrix.shape)


@pytest.mark.parametrize("selection", ["all", "ball(1.5)"])
@pytest.mark.parametrize("score", SCORES, ids=lambda one: one.__name__)
def test_second_derivatives_are_right_or_refused(score: Any, selection: Any) -> None:
    """Never a part of one: torch would leave out what has no way back, where others have."""
    J, d = _matrix(4, 9).requires_grad_(), _matrix(2, 4, seed=1).requires_grad_()
    for given, options in ((J, {}), (J, {"d": d})):
        (slope,) = torch.autograd.grad(score(given, 2, selection, image_shape=(3, 3), **options).sum(), J, create_graph=True)
        with pytest.raises(kag.InputError, match="create_graph"):
            torch.autograd.grad(slope.square().sum(), J, retain_graph=True)
        with pytest.raises(kag.InputError, match="create_graph"):
            slope.square().sum().backward()


def test_derivative_of_alignment() -> None:
    J, d = _matrix(2, 4, 9).requires_grad_(), _matrix(3, 4, seed=1)
    assert torch.autograd.gradcheck(functional.alignment, (J,))
    assert torch.autograd.gradcheck(lambda W: functional.alignment(W, d=d), (J.detach()[0].requires_grad_(),))
    assert float(functional.alignment(torch.eye(3, 5))) == 1.0
    assert float(functional.alignment(torch.ones(3, 16))) == pytest.approx(16**-0.5)
    d = torch.tensor([1.0, 0.0, 2.0])
    W = _matrix(3, 5)
    assert float(functional.alignment(W, d=d.double())) == pytest.approx(float(functional.alignment(W[[0, 2]])))


def _brute_log_pr(J: Tensor) -> Tensor:
    rows, columns = (list(itertools.combinations(range(size), 2)) for size in J.shape)
    minors = torch.stack([J[i, a] * J[j, b] - J[i, b] * J[j, a] for i, j in rows for a, b in columns])
    return 0.5 * minors.square().sum().log() - minors.abs().sum().log()


def test_zero_parallel_and_badly_scaled_rows_have_the_derivative_of_the_absolute_values() -> None:
    J = _matrix(6, 7)
    J[J.abs() < 0.3] = 0.0
    J[1] = 0.0
    J[2] = -2.0 * J[0]  # parallel: its minors with row 0 are 0
    J[:, 3] = 0.0
    J[4, 2:] = 0.0
    J[5] *= 2.0**-40
    J.requires_grad_()
    (exact,) = torch.autograd.grad(functional.log_participation_ratio(J), J)
    other = J.detach().clone().requires_grad_()
    (brute,) = torch.autograd.grad(_brute_log_pr(other), other)
    scale = brute.abs().amax(1, keepdim=True).clamp(min=1e-300)
    torch.testing.assert_close(exact / scale, brute / scale, rtol=0, atol=1e-12)


def test_columns_that_are_parallel_do_not_spoil_the_rotation_ratio() -> None:
    J = _matrix(4, 6)
    J[:, 1], J[:, 2] = 3 * J[:, 0], 0.0
    J.requires_grad_()
    value = functional.rr_pr(J)
    value.backward()
    assert value.item() == pytest.approx(kag.rotation_ratio(J.detach()), rel=1e-12)
    assert J.grad is not None
    assert bool(J.grad.isfinite().all())
    assert float(J.grad.abs().max()) < 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_shape_and_undefined_values(dtype: torch.dtype) -> None:
    J = _matrix(2, 3, 5, dtype=dtype)
    J[1] = 0.0
    J.requires_grad_()
    for score in [*SCORES, functional.alignment]:
        found = score(J)
        assert (found.shape, found.dtype) == ((2,), dtype)
        assert score(J[0]).shape == ()
        assert bool(found[1].isnan())
        (gradient,) = torch.autograd.grad(found[0] + torch.nan_to_num(found[1]), J)
        assert gradient.dtype == dtype
        assert bool(gradient.isfinite().all())
        assert not gradient[1].any()


def test_scale_of_the_matrix_does_not_matter() -> None:
    J = _matrix(4, 6)
    expected = functional.log_participation_ratio(J)
    for scale in (1e-140, 1e140):
        large = (J * scale).requires_grad_()
        found = functional.log_participation_ratio(large)
        found.backward()
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)
        assert large.grad is not None
        assert (large.grad * large.detach()).sum().item() == pytest.approx(0, abs=1e-12)  # of degree 0, by Euler


def test_plain_torch_on_a_device_agrees_with_the_kernels() -> None:
    rows = _matrix(7, 40)
    rows[2, 3], rows[:, 5] = 0.0, 0.0
    first, second = torch.triu_indices(7, 7, 1)
    weights = _matrix(21, seed=3)
    torch.testing.assert_close(pair_sums.areas_on_device(rows, first, second), pair_sums.pair_areas_of(rows, first, second))
    expected = pair_area_gradient(rows.numpy(), first.numpy(), second.numpy(), weights.numpy())
    torch.testing.assert_close(pair_sums.gradient_on_device(rows, first, second, weights), torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("given", "options", "named"),
    [
        (torch.eye(3).int(), {}, "int32"),
        (torch.eye(3).to_sparse(), {}, "to_dense"),
        (torch.eye(3, device="meta"), {}, "without data"),
        (torch.eye(3).to(torch.float8_e4m3fn), {}, "float8"),
        (torch.ones(3), {}, "shape"),
        (torch.full((3, 3), torch.nan), {}, "NaN"),
        (torch.eye(4), {"k": 3}, "k=3"),
        (torch.eye(4), {"d": torch.ones(3)}, "d has shape"),
        (torch.eye(4), {"selection": "ball(1)"}, "image_shape"),
    ],
)
def test_bad_input(given: Any, options: dict[str, Any], named: str) -> None:
    with pytest.raises(kag.InputError, match=named):
        functional.log_participation_ratio(given, **options)


def test_row_pairs_have_the_same_bits_for_any_number_of_blas_threads() -> None:
    W, d = (_matrix(*shape, seed=seed).requires_grad_() for seed, shape in enumerate([(257, 40), (130, 257)]))

    def bits(threads: int) -> list[bytes]:
        with threadpool_limits(threads, user_api="blas"):
            pairs = RowPairs(W, d)
            s1, s2 = pairs.sums(pairs.draw(200, torch.Generator().manual_seed(0)))
            gradients = torch.autograd.grad(s1.sum() + s2.sum() / 1e3, (W, d))
        return [tensor.detach().numpy().tobytes() for tensor in (s1, s2, *gradients)]

    assert bits(1) == bits(2)
