"""What must not change, or change in a known way, on every route of the engine (RELIABILITY.md, "Numbers")."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import battery
import kagscope as kag
from kagscope.minors import _input, plan

CHEAP = ("s1", "s2", "s4")
KINDS_OF_ONE_SCALE = list(battery.KINDS)[:9]


def by_gram(J: np.ndarray, k: int) -> kag.Moments:
    """The route of tall matrices: S2 and S4 by power Grams, S1 fused, pairs that cancel done again."""
    with mock.patch("kagscope.minors.routes.enumeration.FEW_ROWS", 0):
        return kag.minor_moments(J, k, [kag.All(), kag.Apart(2)], positions=np.arange(J.shape[1]), moments=CHEAP)[0]


def by_formulas(J: np.ndarray, k: int) -> kag.Moments:
    """Zonogons and hulls, zonotopes, spectra wherever the rank allows, however small the matrix."""
    wanted = {2: (*CHEAP, "top"), 3: ("s1", "s2")}.get(k, CHEAP)
    with mock.patch.dict(plan.RATES, {"triples": 1e-9}):
        return kag.minor_moments(J, k, method="exact", moments=wanted)


def on_a_device(J: np.ndarray, k: int, wanted: object) -> kag.Moments:
    """The torch path, on CPU tensors."""
    with mock.patch.object(_input, "DEVICES", ("cuda", "cpu")):
        return kag.minor_moments(torch.from_numpy(J.copy()), k, moments=wanted)


ROUTES: dict[str, Callable[[np.ndarray, int], kag.Moments]] = {
    "all moments": lambda J, k: kag.minor_moments(J, k),
    "sums": lambda J, k: kag.minor_moments(J, k, moments=CHEAP),
    "sums by pairs": lambda J, k: kag.minor_moments(
        J, k, [kag.All(), kag.Apart(2)], positions=np.arange(J.shape[1]), moments=CHEAP
    )[0],
    "power Grams": by_gram,
    "sums and top": lambda J, k: kag.minor_moments(J, k, moments=(*CHEAP, "top")),
    "window": lambda J, k: kag.minor_moments(
        J, k, kag.Window((0.0,), J.shape[1]), positions=np.arange(J.shape[1]), moments=(*CHEAP, "top")
    ),
    "formulas": by_formulas,
    "torch": lambda J, k: on_a_device(J, k, "all"),
    "torch sums": lambda J, k: on_a_device(J, k, CHEAP),
    "factored": lambda J, k: kag.factored_minor_moments(J, np.ones(len(J)), k),
    "factored sums": lambda J, k: kag.factored_minor_moments(J, np.ones(len(J)), k, moments=CHEAP),
    "batch": lambda J, k: kag.minor_moments(np.stack([J, J]), k)[1],
}

seeds = st.integers(0, 2**32 - 1)
orders = st.integers(1, 3)
routes = pytest.mark.parametrize("route", list(ROUTES))
many = settings(deadline=None)


def matrix(seed: int, k: int) -> np.ndarray:
    """Random shapes and spreads: Gaussian, heavy-tailed, low rank plus noise, sparse."""
    rng = np.random.default_rng(seed)
    m, n = rng.integers(k, 9, size=2)
    J = rng.normal(size=(m, n))
    kind = seed % 4
    if kind == 1:
        J *= np.exp(3 * rng.normal(size=(m, n)))
    elif kind == 2:
        J = np.outer(rng.normal(size=m), rng.normal(size=n)) + 0.01 * J
    elif kind == 3:
        J *= rng.random((m, n)) < 0.7
    return J


@routes
@many
@given(kind=st.sampled_from(KINDS_OF_ONE_SCALE), seed=seeds, k=orders)
def test_exact_arithmetic(route: str, kind: str, seed: int, k: int) -> None:
    """And so permutations, signs, a transpose, rows of zeros and rotations change what they should."""
    J = battery.matrix(kind, seed, k)
    battery.check(ROUTES[route](J, k), battery.truth(J, k), (route, kind, seed, k))


@routes
@many
@given(seed=seeds, k=orders, power=st.integers(-160, 160))
def test_scale(route: str, seed: int, k: int, power: int) -> None:
    J = matrix(seed, k)
    c = 10.0**power
    own, scaled = ROUTES[route](J, k), ROUTES[route](c * J, k)
    with np.errstate(over="ignore", under="ignore"):
        expected = own.normalised("s1")[0] * 2.0 ** (k * int(own.exponent[0]))
    if abs(power) * k < 250:
        assert scaled.s1 == pytest.approx(expected * c**k, rel=1e-10)  # c J is rounded; minors near 0 feel it
    for name in ("participation_ratio", "effective_minors", *(["ipr"] if "s4" in own.sums else [])):
        assert getattr(scaled, name) == pytest.approx(getattr(own, name), rel=1e-9, nan_ok=True)
    if "entropy" in own.sums:
        assert scaled.kl_uniform == pytest.approx(own.kl_uniform, abs=1e-9, nan_ok=True)


@many
@given(seed=seeds, k=orders, power=st.integers(-900, 900))
def test_sampled_has_no_scale(seed: int, k: int, power: int) -> None:
    J = matrix(seed, k) / 2.0**40  # no entry of it becomes subnormal or infinite
    own, scaled = (kag.minor_moments(X, k, method="sampled", rel_error=1.0, seed=seed % 100) for X in (J, np.ldexp(J, power)))
    assert all((own.sums[name] == scaled.sums[name]).all() for name in own.sums)
    assert np.array_equal(own.participation_ratio, scaled.participation_ratio, equal_nan=True)
    assert np.array_equal(own.kl_uniform, scaled.kl_uniform, equal_nan=True)


@pytest.mark.parametrize("method", ["all", CHEAP])
def test_same_bits_for_any_threads(method: object) -> None:
    J = np.random.default_rng(0).normal(size=(21, 143))
    chosen = [kag.All(), kag.Ball(3), kag.Apart(5), kag.Window((4, 4), 4)]
    results = []
    for count in (1, 2, 5):
        with kag.limit_threads(count):
            results.append(
                kag.minor_moments(J, 2, chosen, image_shape=(11, 13), moments=method)
                + kag.factored_minor_moments(J, J.T[:7], 2, chosen, image_shape=(11, 13))
            )
    for other in results[1:]:
        for left, right in zip(results[0], other, strict=True):
            for name in left.sums:
                assert (left.sums[name] == right.sums[name]).all()
            if left.bins is not None:
                assert (left.bins.counts == right.bins.counts).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_and_numpy_input(dtype: str) -> None:
    import torch

    J = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    want = kag.minor_moments(J.to(torch.float64).numpy(), 2)
    assert kag.minor_moments(J.requires_grad_(), 2).s1 == want.s1
    if dtype != "bfloat16":
        assert kag.minor_moments(J.detach().numpy(), 2).entropy == want.entropy
