"""Moments over disjoint selections add (MATH.md section 2)."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kagscope as kag
from kagscope.base.errors import InputError
from kagscope.minors import _input

SUMS = ("s1", "s2", "s4", "entropy", "top")
many = settings(deadline=None)


def equal(left: kag.Moments, right: kag.Moments) -> None:
    assert left.count == right.count
    for name in SUMS:
        if name in left.sums:
            assert getattr(left, name) == pytest.approx(getattr(right, name), rel=1e-11, abs=1e-300), name
    if left.bins is not None:
        a, b = left.histogram, right.histogram
        assert a.zeros == b.zeros
        assert a.first == b.first
        assert (a.counts == b.counts).all()


CHEAP = ("s1", "s2", "s4")
WHERE = {"image_shape": (4, 5)}


def by_gram(J: np.ndarray, chosen: list[kag.Selection]) -> list[kag.Moments]:
    with mock.patch("kagscope.minors.routes.enumeration.FEW_ROWS", 0):
        found: list[kag.Moments] = kag.minor_moments(J, 2, chosen, moments=CHEAP, **WHERE)
    return found


def on_a_device(J: np.ndarray, chosen: list[kag.Selection]) -> list[kag.Moments]:
    with mock.patch.object(_input, "DEVICES", ("cuda", "cpu")):
        found: list[kag.Moments] = kag.minor_moments(torch.from_numpy(J), 2, chosen, **WHERE)
    return found


ROUTES: dict[str, Callable[[np.ndarray, list[kag.Selection]], list[kag.Moments]]] = {
    "everything": lambda J, chosen: kag.minor_moments(J, 2, chosen, **WHERE),
    "sums": lambda J, chosen: kag.minor_moments(J, 2, chosen, moments=CHEAP, **WHERE),
    "sums and top": lambda J, chosen: kag.minor_moments(J, 2, chosen, moments=(*CHEAP, "top"), **WHERE),
    "power Grams": by_gram,
    "one by one": lambda J, chosen: [kag.minor_moments(J, 2, one, moments=(*CHEAP, "top"), **WHERE) for one in chosen],
    "factored": lambda J, chosen: kag.factored_minor_moments(J, np.ones(4), 2, chosen, **WHERE),
    "torch": on_a_device,
}


@pytest.mark.parametrize("route", list(ROUTES))
@many
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(1, 5))
def test_shells_add_to_everything(route: str, seed: int, cut: int) -> None:
    """In one pass, and "one by one", where ``all`` goes by formulas and the parts are enumerated."""
    J = np.random.default_rng(seed).normal(size=(4, 20)) * 10.0 ** np.random.default_rng(seed).integers(-60, 60)
    ring = kag.Shell(cut, np.sqrt(cut**2 + 0.5))
    near, far, ball, apart, ring, whole = ROUTES[route](
        J, [kag.Shell(0, cut), kag.Shell(cut, 9), kag.Ball(cut), kag.Apart(cut), ring, kag.All()]
    )
    equal(near + far, whole)
    equal(near + apart, whole)
    equal(near + ring, ball)


@many
@given(seed=st.integers(0, 2**32 - 1), shift=st.integers(-100, 100), k=st.integers(1, 3))
def test_scales_align(seed: int, shift: int, k: int) -> None:
    """Two matrices of different scale, added, are the block matrix's own rows only where blocks do not mix: compare plain
    sums."""
    rng = np.random.default_rng(seed)
    one, two = rng.normal(size=(3, 4)), rng.normal(size=(3, 5)) * 2.0**shift
    a, b = kag.minor_moments(one, k), kag.minor_moments(two, k)
    both = a + b
    assert both.s1 == pytest.approx(a.s1 + b.s1, rel=1e-12)
    assert both.entropy == pytest.approx(a.entropy + b.entropy, rel=1e-11, abs=1e-12 * abs(a.entropy))
    assert both.top == max(a.top, b.top)
    assert both.histogram.counts.sum() + both.histogram.zeros == both.count
    equal(both, b + a)


def test_zero_matrix_is_neutral() -> None:
    tiny = kag.minor_moments(np.random.default_rng(0).normal(size=(3, 4)) * 1e-150, 2)
    nothing = kag.minor_moments(np.zeros((3, 4)), 2)
    both = tiny + nothing
    assert both.participation_ratio == tiny.participation_ratio
    assert both.ipr == tiny.ipr
    assert both.count == 2 * tiny.count
    assert both.histogram.zeros == nothing.count


def test_batches_add_and_index() -> None:
    J = np.random.default_rng(1).normal(size=(3, 4, 6)) * np.array([1e-100, 1, 1e100])[:, None, None]
    near, far, whole = kag.minor_moments(J, 2, [kag.Shell(0, 2), kag.Shell(2, 9), kag.All()], image_shape=(2, 3))
    both = near + far
    assert both.s1.shape == (3,)
    for b in range(3):
        equal(both[b], whole[b])
        equal(whole[b], kag.minor_moments(J[b], 2))


def test_different_orders_do_not_add() -> None:
    J = np.eye(3)
    with pytest.raises(InputError, match="cannot be added"):
        kag.minor_moments(J, 1) + kag.minor_moments(J, 2)
