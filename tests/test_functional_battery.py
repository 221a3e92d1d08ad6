"""Differentiable scores over every kind of matrix of the battery, against whole numbers: right, or NaN; never silently wrong."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

import battery
import kagscope as kag
from kagscope.scores import functional

SEEDS = range(4 if settings().max_examples >= 300 else 2)  # for each kind, order and selection
MIXED_ENTRIES = {"columns of 1e200 and 1e-200", "entries of 1e150, 1 and 1e-150", "ordinary beside subnormal entries"}
MIXED_ROWS = {"rows of 1 and 1e-170", "rows of 1e200 and 1e-200", "ordinary beside subnormal rows"}  # NaN over listed pairs alone


def _ln(x: Fraction) -> float:
    bits = x.numerator.bit_length() - x.denominator.bit_length()
    return math.log(float(x / Fraction(2) ** bits)) + bits * battery.LN2


def _may_be_undefined(kind: str, k: int, chosen: kag.Selection) -> bool:
    listed = not isinstance(chosen, kag.All | kag.Window)
    return k == 2 and (kind in MIXED_ENTRIES or (kind in MIXED_ROWS and listed))


def _slopes(J: np.ndarray, k: int, chosen: kag.Selection) -> np.ndarray:
    """Derivative of ln PR in whole numbers, times the largest entry of its row and of its column, whichever is less."""
    m, n = J.shape
    exact = [[Fraction(x) for x in row] for row in J.tolist()]
    s1, s2 = Fraction(0), Fraction(0)
    g1 = [[Fraction(0)] * n for _ in range(m)]
    g2 = [[Fraction(0)] * n for _ in range(m)]
    for C in combinations(range(n), k):
        if not battery.allows(chosen, C):
            continue
        for R in combinations(range(m), k):
            if k == 1:
                M, parts = exact[R[0]][C[0]], {(R[0], C[0]): Fraction(1)}
            else:
                (i, j), (a, b) = R, C
                M = exact[i][a] * exact[j][b] - exact[i][b] * exact[j][a]
                parts = {(i, a): exact[j][b], (j, b): exact[i][a], (i, b): -exact[j][a], (j, a): -exact[i][b]}
            s1, s2 = s1 + abs(M), s2 + M * M
            for (r, c), part in parts.items():
                g1[r][c] += part * ((M > 0) - (M < 0))
                g2[r][c] += M * part
    return np.array([[float((g2[r][c] / s2 - g1[r][c] / s1) * _size(J, r, c)) for c in range(n)] for r in range(m)])


def _size(J: np.ndarray, r: int, c: int) -> Fraction:
    return Fraction(min(np.abs(J[r]).max(), np.abs(J[:, c]).max()))


@pytest.mark.parametrize("kind", battery.KINDS)
@pytest.mark.parametrize("k", [1, 2])
def test_values_and_derivatives_are_right_or_undefined(kind: str, k: int) -> None:
    for seed in SEEDS:
        J = battery.matrix(kind, seed, k)
        where: Any = {"positions": np.arange(J.shape[1])}
        for chosen in battery.selections(J.shape[1], k, seed):
            label = (kind, seed, k, chosen)
            exact = battery.truth(J, k, chosen)
            given = torch.from_numpy(J.copy()).requires_grad_()
            value = functional.log_participation_ratio(given, k, chosen, **where)
            value.backward()
            assert given.grad is not None
            if value.isnan():
                assert not exact.nonzero or _may_be_undefined(kind, k, chosen), label
                assert not given.grad.any(), label
                continue
            s1, s2 = exact.sum("s1", 0), exact.sum("s2", 0)
            assert abs(value.item() - (0.5 * _ln(s2) - _ln(s1))) < 1e-11, label
            minors = functional.effective_minors(given.detach(), k, chosen, **where).item()
            assert minors == pytest.approx(float(s1 * s1 / s2), rel=1e-11), label
            sizes = np.array([[float(_size(J, r, c)) for c in range(J.shape[1])] for r in range(len(J))])
            slopes = np.where(sizes > 0, _slopes(J, k, chosen), 0.0)
            told = (sizes > 1e-300) & given.grad.isfinite().numpy()  # others leave the range
            told &= (np.abs(J) > 1e-100 * sizes) | (kind not in MIXED_ENTRIES)  # beside their lines next to 0: a kink
            found = np.where(told, given.grad.numpy() * sizes, slopes)
            assert np.abs(found - slopes).max() <= 1e-9 * max(1.0, np.abs(slopes).max()), label


@pytest.mark.parametrize("kind", battery.KINDS)
@pytest.mark.parametrize("k", [1, 2])
def test_diagonal_factors_and_rotations(kind: str, k: int) -> None:
    for seed in SEEDS:
        J = battery.matrix(kind, seed, k)
        where: Any = {"positions": np.arange(J.shape[1])}
        powers = np.random.default_rng(seed).integers(-40, 40, size=(2, len(J)))
        for chosen in battery.selections(J.shape[1], k, seed):
            label = (kind, seed, k, chosen)
            W = torch.from_numpy(J.copy()).requires_grad_()
            found = functional.log_participation_ratio(W, k, chosen, d=torch.from_numpy(np.ldexp(1.0, powers)), **where)
            for value, own in zip(found.tolist(), powers, strict=True):
                with np.errstate(over="ignore"):
                    scaled = np.ldexp(J, own[:, None] - (50 if kind == "large" else 0) + (50 if "subnormal" in kind else 0))
                exact = battery.truth(scaled, k, chosen)
                if math.isnan(value):
                    assert not exact.nonzero or _may_be_undefined(kind, k, chosen), label
                else:
                    s1, s2 = exact.sum("s1", 0), exact.sum("s2", 0)
                    assert abs(value - (0.5 * _ln(s2) - _ln(s1))) < (1e-4 if "parallel" in kind else 1e-11), label
            ratio = functional.rr_pr(W, k, chosen, **where)
            expected = kag.rotation_ratio(J, k, "pr", chosen, **where)
            if not ratio.isnan() and not math.isnan(expected):
                assert ratio.item() == pytest.approx(expected, rel=1e-10), label
            ratio.nan_to_num().backward()
            assert W.grad is not None
            assert not W.grad.isnan().any(), label


@pytest.mark.parametrize("kind", battery.KINDS)
def test_alignment(kind: str) -> None:
    for seed in SEEDS:
        J = battery.matrix(kind, seed, 1)
        rows = [[Fraction(x) for x in row] for row in J.tolist() if any(row)]
        each = [
            math.exp(0.5 * _ln(sum((x**4 for x in row), Fraction(0))) - _ln(sum((x * x for x in row), Fraction(0))))
            for row in rows
        ]
        given = torch.from_numpy(J.copy()).requires_grad_()
        value = functional.alignment(given)
        value.nan_to_num().backward()
        assert given.grad is not None
        assert not given.grad.isnan().any()
        assert value.item() == pytest.approx(np.mean(each) if each else math.nan, rel=1e-12, nan_ok=True), (kind, seed)


def test_factors_that_undo_the_scales_of_rows() -> None:
    W = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scales = torch.tensor([2.0**600, 1.0, 2.0**-600], dtype=torch.float64)
    for k in (1, 2):
        found = functional.log_participation_ratio(W * scales[:, None], k, d=1 / scales)
        assert found.item() == pytest.approx(functional.log_participation_ratio(W, k).item(), rel=1e-12)


@pytest.mark.parametrize("apart", [1e-6, 1e-10, 1e-14])
@pytest.mark.parametrize("size", [1.0, 1e-250])
def test_columns_that_are_parallel_but_for_the_roundings_of_factors(apart: float, size: float) -> None:
    rng = np.random.default_rng(0)
    J = rng.normal(size=(4, 1)) * [1.0, 3.0, 7.0, 0.3, 11.0] * (1 + apart * rng.normal(size=(4, 5)))
    W, d = J * [1.0, 1.0, size, size, size], rng.normal(size=4)
    exact = [[Fraction(x) * Fraction(y) for x in row] for row, y in zip(W.tolist(), d.tolist(), strict=True)]
    minors = [
        abs(exact[i][a] * exact[j][b] - exact[i][b] * exact[j][a])
        for a, b in [(2, 3), (3, 4)]
        for i, j in combinations(range(4), 2)
    ]
    wanted = 0.5 * _ln(sum((x * x for x in minors), Fraction(0))) - _ln(sum(minors, Fraction(0)))
    near: Any = {"positions": np.array([0.0, 5.0, 10.0, 11.0, 12.0]), "d": torch.from_numpy(d)}
    found = functional.log_participation_ratio(torch.from_numpy(W), 2, kag.Ball(1), **near).item()
    assert abs(found - wanted) < 1e-5 if apart > 1e-8 else math.isnan(found) or abs(found - wanted) < 1e-5


def test_rotations_where_the_rounding_of_scaled_rows_would_show() -> None:
    """Areas of pairs of columns of diag(d) W are what it rounds where W is an outer product; not for powers of two."""
    rng = np.random.default_rng(0)
    W = torch.from_numpy(np.outer(rng.normal(size=4), rng.normal(size=5)))
    d = torch.from_numpy(rng.normal(size=4))
    assert torch.isnan(kag.functional.rr_pr(W, d=d))
    exact = kag.functional.rr_pr(W, d=torch.tensor([1.0, 2.0, -0.5, 4.0], dtype=torch.float64))
    scaled = np.array([1.0, 2.0, -0.5, 4.0])[:, None] * W.numpy()
    assert float(exact) == pytest.approx(kag.rotation_ratio(scaled, 2), rel=1e-9)
    assert float(kag.functional.rr_pr(W[:2], d=d[:2])) == 1.0  # there is one row set, whose minors no rotation changes


@pytest.mark.parametrize("k", [1, 2])
def test_no_column_at_all_is_undefined(k: int) -> None:
    for d in (None, torch.ones(4)):
        J = torch.ones(4, 5, requires_grad=True)
        value = kag.functional.log_participation_ratio(J, k, kag.Window((9.0,), 1.0), positions=np.arange(5), d=d)
        value.backward()
        assert torch.isnan(value)
        assert J.grad is not None
        assert not J.grad.any()


def test_columns_far_below_the_largest_have_gradients_of_their_own_rotations() -> None:
    J = torch.tensor([[1.0, 3e-200], [2.0, 4e-200]], dtype=torch.float64, requires_grad=True)
    kag.functional.rr_pr(J, 1).backward()
    small = torch.tensor([3.0, 4.0], dtype=torch.float64)
    ratio = float(kag.functional.rr_pr(J.detach(), 1))
    mean = ratio * 3 / 5**0.5  # of |q_11| for two rows, times two
    assert J.grad is not None
    assert J.grad[:, 1].numpy() == pytest.approx(((mean * small / 5 - ratio) / 3).numpy(), rel=1e-9)
