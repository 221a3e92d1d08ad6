"""The battery that every route of the engine and every form of Jacobian passes, new ones without being named here.

Routes are those that the chooser knows (``kagscope.minors.routes.auto``). Small matrices of every kind are compared with
fractions; on larger ones, what must not change does not. MATH.md section 3 says what ``exact=True`` promises.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import warnings
from dataclasses import replace
from fractions import Fraction
from inspect import isabstract
from itertools import combinations
from typing import Any, Literal
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

import kagscope as kag
from battery import AUTO, EXACT, KINDS, LEAST, ON_DEVICES, SAMPLERS, answers, check, matrix, same_bits, selections, tasks, truth
from kagscope.jacobians.forms import DenseJacobian, FactoredJacobian
from kagscope.minors import routes
from kagscope.minors.moments import Moments
from kagscope.minors.replicates import apply_control_variate
from kagscope.minors.routes import Route, auto
from kagscope.minors.task import EVERY_MOMENT

ENDS = (
    "large",
    *(kind for kind in KINDS if "1e" in kind or "subnormal" in kind),
)  # kinds at the ends of the range, or of mixed scales
UNEVEN = ("columns of", "entries of", "ordinary beside")  # kinds whose scales differ within rows, or of few digits
DEAR = settings(max_examples=300 if settings().max_examples >= 300 else 6)  # tests of each route
seeds = st.integers(0, 2**32 - 1)
every_route = pytest.mark.parametrize("route", EXACT, ids=lambda route: type(route).__name__)
kinds = st.sampled_from(list(KINDS))
of_one_scale = st.sampled_from([kind for kind in KINDS if kind not in ENDS])


def orders(route: Route) -> list[int]:
    """Those up to 4 of which a route finds something, over all columns."""
    device = route in ON_DEVICES
    return [k for k in range(1, 5) if route.provides(tasks(np.eye(5), k, [kag.All()], device=device)[0])]


def test_every_route_is_in_the_battery() -> None:
    """Each class of the room ``routes`` that provides moments, found by looking."""
    modules = [importlib.import_module(f"{routes.__name__}.{one.name}") for one in pkgutil.iter_modules(routes.__path__)]
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and {"provides", "steps"} <= set(dir(value))
        and not isabstract(value)
    }
    assert {type(route) for route in (*EXACT, *SAMPLERS)} == classes
    assert all(orders(route) or route.name == "masked Gram matrices" for route in EXACT)


@every_route
@DEAR
@given(kind=kinds, seed=seeds, few=st.booleans())
def test_right_or_left_to_others(route: Route, kind: str, seed: int, few: bool) -> None:
    """Over every selection, for every set of moments; ``few``: as if rows were too many to enumerate S2 and S4."""
    if route in ON_DEVICES and kind in (*ENDS, "nearly parallel columns"):
        return  # there products are rounded, and matrices scaled by their largest entry alone
    with mock.patch("kagscope.minors.routes.enumeration.FEW_ROWS", 0 if few else 48):
        for k in orders(route) or [3]:
            J = matrix(kind, seed, k)
            for chosen, found in answers(route, J, k, selections(J.shape[1], k, seed)):
                check(found, truth(J, k, chosen), (kind, seed, k, str(chosen), sorted(found.sums)))


@given(kind=kinds, seed=seeds, k=st.integers(1, 4))
def test_exact_calls_always_answer(kind: str, seed: int, k: int) -> None:
    """What routes leave to others, somebody finds: every selection in one pass, and alone."""
    J = matrix(kind, seed, k)
    chosen = selections(J.shape[1], k, seed)
    asked = tasks(J, k, chosen)
    alone = [AUTO.run([task])[0] for task in asked]
    formulas = [AUTO.run([replace(task, wanted=frozenset({"s1", "s2", "s4", "top"}))])[0] for task in asked]
    for result in (AUTO.run(asked), alone, formulas):
        for one, found in zip(chosen, result, strict=True):
            check(found, truth(J, k, one), (kind, seed, k, str(one), len(found.sums)))


@given(kind=st.sampled_from([kind for kind in KINDS if not kind.startswith(UNEVEN)]), seed=seeds, k=st.integers(1, 3))
def test_every_form_of_jacobian(kind: str, seed: int, k: int) -> None:
    """diag(d) W by its factors and as matrices, gains of every size and 0 among them."""
    W = matrix(kind, seed, k)
    rng = np.random.default_rng(seed)
    d = rng.normal(size=(2, len(W))) * (rng.random((2, len(W))) < 0.8) * np.exp2(rng.integers(-20, 20, size=(2, 1)))
    d[1] = np.ldexp(rng.choice([-1.0, 1.0, 0.0], size=len(W), p=[0.4, 0.4, 0.2]), rng.choice([-90, 0, 60], size=len(W)))
    with np.errstate(over="ignore", under="ignore"):
        factored = FactoredJacobian(d[1:], W)
        J = factored.dense()
    if not np.isfinite(J).all() or not (np.ldexp(J[0], -np.frexp(d[1])[1][:, None] + 1) == np.sign(d[1])[:, None] * W).all():
        return  # beyond the range of a dense matrix
    dense = DenseJacobian(J)
    assert (dense.dense() == J).all()
    assert np.allclose(dense.row_norms(), factored.row_norms(), rtol=1e-13, atol=0)
    chosen = selections(J.shape[2], k, seed)
    by_factors = kag.factored_minor_moments(W, factored.d, k, chosen, positions=np.arange(J.shape[2]))
    for one, found in zip(chosen, by_factors, strict=True):
        check(found, truth(J[0], k, one), (kind, seed, k, str(one), "factored"))


def test_factored_sums_of_selections_that_have_every_pair_between_them() -> None:
    rng = np.random.default_rng(6)
    W, d, chosen = rng.normal(size=(5, 12)), rng.normal(size=(3, 5)), [kag.Ball(3), kag.Apart(4)]
    asked: dict[str, Any] = {"moments": ("s1", "s2", "s4"), "positions": np.arange(12.0)}
    by_factors = kag.factored_minor_moments(W, d, 2, chosen, **asked)
    dense = kag.minor_moments(d[:, :, None] * W, 2, chosen, **asked)
    for one, other in zip(by_factors, dense, strict=True):
        for name in asked["moments"]:
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)
    with mock.patch("kagscope.minors.factored._pair_cells") as visited:
        kag.factored_minor_moments(W, d, 2, **asked)  # over all pairs: by formulas
    assert not visited.called


# -- what must not change, on matrices beyond the reach of fractions -------------------------------------------------------------


def larger(kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return KINDS[kind](rng, int(rng.integers(6, 13)), int(rng.integers(6, 25)))


def of_all(route: Route, J: np.ndarray, k: int) -> list[Moments]:
    return [found for _, found in answers(route, J, k, [kag.All()])]


@every_route
@DEAR
@given(kind=of_one_scale, seed=seeds)
def test_order_and_signs_do_not_matter(route: Route, kind: str, seed: int) -> None:
    """Nor which side is which: rows and columns permuted, signs turned, the matrix transposed."""
    rng = np.random.default_rng(seed)
    J = larger(kind, seed)
    m, n = J.shape
    moved = J[rng.permutation(m)][:, rng.permutation(n)] * rng.choice([-1.0, 1.0], size=(m, 1)) * rng.choice([-1.0, 1.0], size=n)
    for k in (k for k in orders(route) if k < 4):
        for one, *others in zip(*(of_all(route, X, k) for X in (J, moved, np.ascontiguousarray(J.T))), strict=False):
            for other in others:
                close(one, other, (kind, seed, k))


def close(left: Moments, right: Moments, label: object) -> None:
    shift = left.k * int(left.exponent[0] - right.exponent[0])
    for name, power in (("s1", 1), ("s2", 2), ("s4", 4), ("top", 1)):
        if name in left.sums and name in right.sums:
            a, b = (Fraction(float(one.sums[name][0])) for one in (left, right))
            a *= Fraction(2) ** (shift * power)
            assert abs(a - b) <= 2e-10 * max(a, b), (label, name, float(a), float(b))


@every_route
@DEAR
@given(kind=st.sampled_from([kind for kind in KINDS if kind not in ENDS]), seed=seeds, power=st.integers(-900, 900))
def test_powers_of_two_change_no_bit(route: Route, kind: str, seed: int, power: int) -> None:
    J = larger(kind, seed)
    scaled = np.ldexp(J, power)
    for k in (k for k in orders(route) if k < 4):
        for one, other in zip(of_all(route, J, k), of_all(route, scaled, k), strict=True):
            assert same_bits(one, other), (kind, seed, k)
            assert other.exponent[0] - one.exponent[0] == (power if J.any() else 0), (kind, seed, k)


@every_route
@DEAR
@given(kind=kinds, seed=seeds)
def test_a_batch_is_its_matrices(route: Route, kind: str, seed: int) -> None:
    J = larger(kind, seed)
    batch = np.stack([J, np.zeros_like(J), J[::-1]])
    for k in (k for k in orders(route) if k < 4):
        for found, own in zip(of_all(route, batch, k), of_all(route, J, k), strict=False):
            if set(found.sums) == set(own.sums):
                assert same_bits(found[0], own), (kind, seed, k)
                assert all(not values[1] for values in found.sums.values()), (kind, seed, k)


@pytest.mark.parametrize("k", [2, 3])
@given(kind=kinds, seed=seeds)
def test_disjoint_selections_add(k: int, kind: str, seed: int) -> None:
    J = matrix(kind, seed, k)
    sets = list(combinations(range(J.shape[1]), k))
    near = [C for C in sets if max(C) - min(C) <= 2]
    ball, *others = AUTO.run(tasks(J, k, [kag.Ball(2)]))
    if rest := [C for C in sets if C not in near]:
        others = AUTO.run(tasks(J, k, [kag.Subsets(rest)]))
    check(sum(others, start=ball), truth(J, k), (kind, seed))


@pytest.mark.parametrize("wanted", ["all", ("s1", "s2", "s4")])
def test_same_bits_for_any_threads(wanted: object) -> None:
    J = np.random.default_rng(0).normal(size=(21, 143))
    chosen = [kag.All(), kag.Ball(3), kag.Apart(5), kag.Window((4, 4), 4)]
    results = []
    for count in (1, 2, 5):
        with kag.limit_threads(count):
            results.append(
                kag.minor_moments(J, 2, chosen, image_shape=(11, 13), moments=wanted)
                + kag.factored_minor_moments(J, J.T[:7], 2, chosen, image_shape=(11, 13))
            )
    for other in results[1:]:
        for left, right in zip(results[0], other, strict=True):
            for name in left.sums:
                assert (left.sums[name] == right.sums[name]).all()
            if left.bins is not None:
                assert (left.bins.counts == right.bins.counts).all()


# -- large orders ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [4, 8, 16])
def test_hadamard_of_large_order(k: int) -> None:
    """|det H| = k^(k/2), and S2 of H's k / 2-minors is C(k, k / 2) k^(k / 2)."""
    H = hadamard(k).astype(np.float64)
    found = kag.minor_moments(H, k)
    assert found.s1 == found.top == pytest.approx(float(k) ** (k / 2), rel=1e-12)
    assert found.participation_ratio == found.ipr == 1.0
    assert found.kl_uniform == pytest.approx(0.0, abs=1e-12)
    half = kag.minor_moments(H, k // 2, moments=("s2",))
    assert half.s2 == pytest.approx(math.comb(k, k // 2) * float(k) ** (k / 2), rel=1e-10)


# -- draws -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", SAMPLERS, ids=lambda route: type(route).__name__)
@DEAR
@given(kind=of_one_scale, seed=seeds, which=st.integers(0, 4), data=st.data())
def test_draws_cover_or_say_that_they_do_not_know(route: Route, kind: str, seed: int, which: int, data: st.DataObject) -> None:
    """Within 5 standard errors, and never 0 for what was not seen: NaN, unless every minor is 0; or left to others."""
    k = data.draw(st.sampled_from([k for k in orders(route) if k > 1]))
    J = matrix(kind, seed, k)
    for chosen in selections(J.shape[1], k, seed)[which : which + 1]:
        (task,) = tasks(J, k, [chosen], EVERY_MOMENT - {"histogram"})
        exact = truth(J, k, chosen)
        if not route.provides(task):
            continue
        (part,) = route.run([replace(task, method="sampled", seed=seed % 1000, rel_error=0.05)])
        if part is None:
            assert route is not auto.SAMPLED, (kind, seed, k)
            continue
        found = AUTO._moments(task, [part])
        exponent = k * int(found.exponent[0])
        for name in ("s1", "s2", "s4"):
            wanted, value = exact.sum(name, exponent), float(found.sums[name][0])
            label = (kind, seed, k, str(chosen), name)
            if wanted < LEAST:
                assert value < LEAST or math.isnan(value), label
                continue
            assert value != 0, label
            if math.isnan(value):
                assert name in found.unknown, label
                continue
            if name not in found.unknown:
                error = float(found.replicates[name][0].std(ddof=1)) / 8 if name in found.replicates else 0.0
                assert abs(Fraction(value) - wanted) <= 5 * Fraction(error) + wanted / 2000, (label, value, float(wanted), error)
        top = float(found.sums["top"][0])
        assert math.isnan(top) or Fraction(top) <= exact.sum("top", exponent) * (1 + Fraction(1, 10**9)), (kind, seed, k)


@pytest.mark.parametrize("route", SAMPLERS, ids=lambda route: type(route).__name__)
def test_short_lists_are_visited_whole(route: Route) -> None:
    """One of three sets has so little of the volume that 4096 draws did not meet it: S2 was off by 6e-4, its error 0."""
    J = matrix("heavy tails", 12219, 2)
    chosen = selections(J.shape[1], 2, 12219)[4]
    (task,) = tasks(J, 2, [chosen], EVERY_MOMENT - {"histogram"})
    if route.provides(task):
        (part,) = route.run([replace(task, method="sampled", seed=219, rel_error=0.05)])
        assert part is not None
        check(AUTO._moments(task, [part]), truth(J, 2, chosen), type(route).__name__)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_draws_from_nothing(k: int) -> None:
    """Of no column subset at all: every sum is 0, exactly, alone and beside other selections."""
    J = np.random.default_rng(0).normal(size=(5, 4))
    for chosen in ([kag.Apart(9)], [kag.Apart(9), kag.All()]):
        found = kag.minor_moments(J, k, chosen, positions=np.arange(4), method="sampled")[0]
        assert found.exact
        assert found.count == found.s1 == found.s4 == found.top == 0
        assert np.isnan(found.participation_ratio)


@pytest.mark.parametrize("scale", [50, 100, 160, 200, 300])
@pytest.mark.parametrize("wanted", [EVERY_MOMENT, frozenset({"s1", "s2", "s4"}), frozenset({"s1"}), frozenset({"top"})])
def test_the_one_minor_that_cancels_between_far_scales(scale: int, wanted: frozenset[str]) -> None:
    """[[1e200, 1], [1, 1e-200]]: what two roundings leave, 5e-17, beside products of 1e400 in the matrix's largest entry."""
    for more in ([], [[0.0, 0.0]]):
        J = np.array([[10.0**scale, 1.0], [1.0, 10.0**-scale], *more])
        (found,) = AUTO.run([replace(tasks(J, 2, [kag.All()])[0], wanted=wanted)])
        check(found, truth(J, 2), (scale, sorted(wanted)))
        assert all(values[0] != 0 for name, values in found.sums.items() if name != "entropy")


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_entries_of_one_beside_subnormal_ones(k: int, seed: int) -> None:
    """No entry leaves the range on the way to the scale of minors of 1e-900."""
    J = np.random.default_rng(seed).choice([5e-324, 1e-310, 1.0, 0.0], size=(4, 5))
    (found,) = AUTO.run(tasks(J, k, [kag.All()]))
    check(found, truth(J, k), (k, seed))


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_scales_that_no_common_power_of_two_holds(k: int, seed: int) -> None:
    """Rows, or entries, of 1e300, 1 and 1e-300, whose minors need all of them; factored ones are right or NaN."""
    rng = np.random.default_rng(seed)
    J = np.ldexp(rng.normal(size=(4, 5)), rng.choice([-1000, -900, -200, 0, 200, 1000], size=(4, 5 if seed % 2 else 1)))
    for chosen in (kag.All(), kag.Subsets([tuple(range(k)), tuple(range(2, 2 + k))])):
        exact = truth(J, k, chosen)
        check(kag.minor_moments(J, k, chosen), exact, (k, seed, str(chosen)))
        factored = kag.factored_minor_moments(J, np.ones(4), k, chosen)
        if np.isfinite([factored.sums[name][0] for name in factored.sums]).all():
            check(factored, exact, (k, seed, str(chosen), "factored"))


@given(kind=of_one_scale, seed=seeds, k=st.integers(1, 3), power=st.integers(-900, 900))
def test_sampled_has_no_scale(kind: str, seed: int, k: int, power: int) -> None:
    J = matrix(kind, seed, k) / 2.0**40  # no entry of it becomes subnormal or infinite
    own, scaled = (kag.minor_moments(X, k, method="sampled", rel_error=1.0, seed=seed % 100) for X in (J, np.ldexp(J, power)))
    assert all((own.sums[name] == scaled.sums[name]).all() for name in own.sums)
    assert np.array_equal(own.participation_ratio, scaled.participation_ratio, equal_nan=True)
    assert np.array_equal(own.kl_uniform, scaled.kl_uniform, equal_nan=True)


def test_an_entropy_whose_s1_does_not_vary_is_not_corrected_by_rounding() -> None:
    """One column triple, drawn each time: KL was -3.4 instead of 1.65, at a stated error of 1e-15."""
    J = np.zeros((5, 3))
    J[[0, 2, 3], [0, 1, 0]] = -1.03793546, 0.14465216, -0.57058854
    J[4] = 0.32951982, -0.20754123, 0.42677117
    exact = kag.minor_moments(J, 3, method="exact").kl_uniform
    for seed in range(60):
        assert kag.minor_moments(J, 3, method="sampled", seed=seed).kl_uniform == pytest.approx(exact, rel=1e-9), seed
    rng = np.random.default_rng(0)
    noise, entropy = 0.1 + 1e-17 * rng.normal(size=64), -0.3 + 1e-16 * rng.normal(size=64)
    assert apply_control_variate(noise, entropy, 0.1) == pytest.approx(entropy, rel=1e-9)


@pytest.mark.parametrize("kind", [kind for kind in ENDS if kind not in ("large", "subnormal")])
@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_draws_of_mixed_scales_are_exact_or_refused(kind: str, k: int) -> None:
    """Products of entries left the range: pairs counted as zero, KL wrong by a third called exact, warnings of NumPy."""
    for seed in range(4 if k < 4 or settings().max_examples >= 300 else 2):
        J = matrix(kind, seed, k, max(k, 5))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = kag.minor_moments(J, k, method="sampled", seed=seed)
            with mock.patch("kagscope.minors.routes.auto.AUTO_SECONDS", 0.0):
                drawn = kag.minor_moments(J, k, method="sampled", seed=seed)
        scores = ("participation_ratio", "kl_uniform", "ipr")
        exact = kag.minor_moments(J, k, method="exact")
        for name in scores:
            wanted = getattr(exact, name)
            assert getattr(found, name) == pytest.approx(wanted, rel=1e-6, nan_ok=True) or found.stderr[name] != 0, (seed, name)
            if not np.isnan(value := getattr(drawn, name)) and not np.isnan(error := drawn.stderr[name]):
                assert abs(value - wanted) <= 6 * error + 1e-9 * max(abs(wanted), 1.0), (seed, name, value, wanted, error)


@pytest.mark.parametrize("method", ["exact", "sampled"])
@given(kind=st.sampled_from(ENDS), seed=seeds, k=st.integers(1, 4))
def test_every_selection_on_its_own_scale(method: Literal["exact", "sampled"], kind: str, seed: int, k: int) -> None:
    """Columns of 1e290 beside ones of 1e-290: PR of the pairs of small ones was 0, or NaN, or wrong from the fourth digit on."""
    J = matrix(kind, seed, k)
    chosen = selections(J.shape[1], k, seed)
    found = kag.minor_moments(J, k, chosen, positions=np.arange(J.shape[1]), method=method)
    for one, moments in zip(chosen, found, strict=True):
        exact = truth(J, k, one)
        if method == "exact":
            check(moments, exact, (kind, seed, k, str(one)))
        wanted = {name: exact.sum(name, k * int(moments.exponent[0])) for name in ("s1", "s2", "s4")}
        if not wanted["s1"]:
            assert np.isnan(moments.participation_ratio), (kind, seed, k, str(one))
            continue
        pairs = {"participation_ratio": ("s1", "s2"), "ipr": ("s4", "s2")}
        for name, (below, above) in pairs.items():
            value, error = getattr(moments, name), moments.stderr[name]
            if not math.isnan(error):
                ratio = (
                    float(wanted[above] / wanted[below] ** 2) ** 0.5
                    if below == "s1"
                    else float(wanted[above] ** 2 / wanted[below])
                )
                assert abs(value - ratio) <= 6 * error + 1e-9 * ratio, (kind, seed, k, str(one), name, value, ratio, error)


def test_what_lies_too_far_below_to_be_visited_is_refused() -> None:
    J = np.random.default_rng(0).normal(size=(4, 6)) * np.repeat([1e290, 1e-290], 3)
    with mock.patch("kagscope.minors.underflow.AUTO_SECONDS", 0.0):
        found = kag.minor_moments(np.stack([J, J / J]), 2, kag.Subsets([(3, 4), (4, 5)]))
    assert np.isnan(found.participation_ratio).tolist() == [True, True]  # of the second every minor is 0
    assert np.isnan(found.s1).tolist() == [True, False]
    assert not found.exact
    assert found.plan is not None
    assert "too far below the largest of the matrix" in found.plan.explain()


@given(kind=st.sampled_from([kind for kind in KINDS if kind.startswith(UNEVEN)]), seed=seeds, k=st.integers(1, 3))
def test_factored_forms_are_right_or_refused(kind: str, seed: int, k: int) -> None:
    """PR of a selection of small columns was 0."""
    W = matrix(kind, seed, k)
    chosen = selections(W.shape[1], k, seed)
    found = kag.factored_minor_moments(W, np.ones((1, len(W))), k, chosen, positions=np.arange(W.shape[1]))
    for one, moments in zip(chosen, found, strict=True):
        if np.isfinite([moments.sums[name][0] for name in moments.sums]).all():
            check(moments, truth(W, k, one), (kind, seed, k, str(one)))
        else:
            assert truth(W, k, one).nonzero, (kind, seed, k, str(one))
            assert np.isnan(moments.participation_ratio[0]) or np.isnan(moments.ipr[0]), (kind, seed, k, str(one))
