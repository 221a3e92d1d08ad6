"""Which way is taken, that every way finds the same, and that no clock decides anything."""

from __future__ import annotations

import itertools
import math
import threading
import time
from unittest import mock

import numpy as np
import pytest

import kagscope as kag
from kagscope.base.errors import InputError
from kagscope.columns.layout import make_layout
from kagscope.minors.plan import AUTO_SECONDS, RATES, reference_seconds
from kagscope.minors.routes.auto import Auto
from kagscope.minors.routes.determinants import minor_matrix
from kagscope.minors.task import Matrices, Task
from kagscope.minors.threads import even_parts, run_parts
from kernel_cases import without_formulas

rng = np.random.default_rng(0)
CHEAP = ("s1", "s2", "s4")
IMAGE = {"image_shape": (6, 10)}
J = rng.normal(size=(12, 60))


def found(name: str, moments: kag.Moments) -> float:
    return float(getattr(moments, name))


# -- formulas --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [CHEAP, ("s1",), ("top",), (*CHEAP, "top"), ("s2", "top")])
@pytest.mark.parametrize("chosen", [kag.All(), kag.Window((2, 3), 2.5)], ids=str)
@pytest.mark.parametrize("matrix", [J, J.T[:, :12], J * (np.arange(60) % 4 > 0), np.vstack([J, 0 * J])], ids=len)
def test_pairs_by_formula(matrix: np.ndarray, chosen: kag.Selection, wanted: tuple[str, ...]) -> None:
    where = IMAGE if matrix.shape[1] == 60 else {"image_shape": (4, 3)}
    alone = kag.minor_moments(matrix, 2, chosen, moments=wanted, **where)
    beside = kag.minor_moments(matrix, 2, [chosen, kag.Ball(1)], moments=wanted, **where)[0]
    routes = {"s1": "zonogon areas", "s2": "Gram matrix", "s4": "power Grams", "top": "hulls of the outermost vectors"}
    assert alone.plan.routes == {name: routes[name] for name in wanted}
    assert alone.exact
    assert alone.count == beside.count
    for name in wanted:
        assert found(name, alone) == pytest.approx(found(name, beside), rel=1e-12)


def test_what_cannot_be_listed_is_drawn_unless_exact_was_asked_for() -> None:
    """``auto`` refused 3 x 20,000, advising itself."""
    wide = rng.normal(size=(3, 1500))
    drawn = kag.minor_moments(wide, 2, memory_budget=2**21)
    assert not drawn.exact
    assert drawn.kl_uniform == pytest.approx(
        kag.minor_moments(wide, 2, method="exact").kl_uniform, abs=5 * drawn.stderr["kl_uniform"]
    )
    with pytest.raises(InputError, match="memory_budget"):
        kag.minor_moments(wide, 2, method="exact", memory_budget=2**21)
    assert kag.minor_moments(wide, 1, memory_budget=1).exact


def test_entries_are_never_drawn() -> None:
    """Reading them all costs no more, and of entries of 1e150 beside 1 draws stated an error of 1e-17 and were off by 1e-5."""
    mixed = rng.normal(size=(5, 4)) * 10.0 ** rng.choice([-150, 0, 150], size=(5, 4))
    drawn = kag.minor_moments(mixed, 1, method="sampled")
    assert drawn.exact
    assert drawn.s1 == pytest.approx(np.abs(mixed).sum(), rel=1e-14)


def test_what_is_not_asked_for_costs_nothing() -> None:
    grams_of, areas_of = "kagscope.minors.routes.power_grams.pair_powers", "kagscope.minors.routes.zonogon.row_pair_areas"
    with mock.patch(grams_of) as grams, mock.patch(areas_of, return_value=np.ones(66)):
        kag.minor_moments(J, 2, moments=("s1",))
        assert not grams.called
    with mock.patch(areas_of) as areas:
        kag.minor_moments(J, 2, moments=("s2", "s4"))
        kag.minor_moments(J, 2, moments=("top",))
        assert not areas.called


def test_sums_of_pairs_are_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kag.minor_moments(J, 2, moments=("s2", "s4"))
    monkeypatch.setattr("kagscope.minors.routes.power_grams.BLOCK", 7)
    blocks = kag.minor_moments(J, 2, moments=("s2", "s4"))
    assert (blocks.s2, blocks.s4) == (whole.s2, whole.s4)


def test_window_without_a_pair() -> None:
    nothing = kag.minor_moments(J, 2, kag.Window((0, 0), 0.5), moments=CHEAP, **IMAGE)
    assert (nothing.count, nothing.s1, nothing.s2) == (0, 0.0, 0.0)


@pytest.mark.parametrize("chosen", [kag.All(), kag.Window((2, 4), 3)], ids=str)
@pytest.mark.parametrize("wanted", [("s1", "s2"), ("s1",), ("s2",)])
def test_triples_by_formula(chosen: kag.Selection, wanted: tuple[str, ...]) -> None:
    alone = kag.minor_moments(J, 3, chosen, moments=wanted, method="exact", **IMAGE)
    visited = kag.minor_moments(J, 3, [chosen, kag.Ball(1)], moments=wanted, method="exact", **IMAGE)[0]
    routes = {"s1": "zonotope volumes", "s2": "e_k of the squared singular values"}
    assert alone.plan.routes == {name: routes[name] for name in wanted}
    assert set(visited.plan.routes.values()) == {"enumeration of every minor"}
    for name in wanted:
        assert found(name, alone) == pytest.approx(found(name, visited), rel=1e-11)


def test_exact_beyond_any_list() -> None:
    """All 3-minors of 16 x 150 would list 5.5e5 triples, more than the budget; 5-minors of 64 x 784 none could list."""
    wide = rng.normal(size=(16, 150))
    m = kag.minor_moments(wide, 3, [kag.All(), kag.Ball(1)], moments=("s1", "s2"), positions=np.arange(150), memory_budget=2**21)
    assert m[0].exact
    assert m[0].plan.routes["s1"] == "zonotope volumes"
    with without_formulas():
        estimate = kag.minor_moments(wide, 3, moments=("s1",), method="sampled", rel_error=0.002)
    assert abs(estimate.s1 - m[0].s1) < 5 * estimate.stderr["s1"]
    large = rng.normal(size=(64, 784))
    s2 = kag.minor_moments(large, 5, moments="s2", method="exact")
    assert s2.exact
    assert s2.s2 == pytest.approx(abs(np.poly(np.linalg.svd(large, compute_uv=False) ** 2)[5]), rel=1e-9)


@pytest.mark.parametrize("k", [4, 5])
def test_s2_of_higher_orders_against_determinants(k: int) -> None:
    A = rng.normal(size=(6, 9)) * np.exp(rng.normal(size=9))
    assert kag.minor_moments(A, k, moments="s2").s2 == pytest.approx((minor_matrix(A, k) ** 2).sum(), rel=1e-11)


def test_rank_too_low_for_the_spectrum() -> None:
    """Third singular value 1e-9 of the first: visited where the list fits, sampled or refused where it does not."""
    U, V = (np.linalg.qr(rng.normal(size=(size, 3)))[0] for size in (12, 60))
    low = U @ np.diag([1, 1e-2, 1e-9]) @ V.T
    m = kag.minor_moments(low, 3, moments="s2")
    assert m.plan.routes == {"s2": "enumeration of every minor"}
    assert m.s2 == pytest.approx(1e-22, rel=1e-5, abs=0)
    with pytest.raises(InputError, match="memory_budget=100000"):
        kag.minor_moments(low, 3, moments="s2", method="exact", memory_budget=100_000)
    assert kag.minor_moments(np.ones((12, 60)), 3, moments=("s1", "s2")).s1 == 0


# -- choosing --------------------------------------------------------------------------------------------------------------------


def exact_seconds(k: int, rows: int, columns: int, wanted: tuple[str, ...]) -> float:
    matrices = Matrices(np.broadcast_to(0.0, (1, rows, columns)), k)
    task = Task(matrices, k, kag.All(), math.comb(columns, k), make_layout(columns), frozenset(wanted), "exact")
    (choice,) = Auto().choose([task])
    return reference_seconds({kernel: steps for route in choice for kernel, steps in route.steps(task).items()})


def test_what_auto_affords() -> None:
    """A transformer's MLP block exactly; one with 100 times the work, or all its entropies, not."""
    assert exact_seconds(2, 768, 3072, CHEAP) < AUTO_SECONDS
    assert exact_seconds(2, 4096, 16384, CHEAP) > AUTO_SECONDS
    assert exact_seconds(2, 768, 3072, ("entropy",)) > AUTO_SECONDS
    assert exact_seconds(3, 64, 784, ("s2",)) < 0.1
    assert exact_seconds(3, 64, 784, ("s1",)) > AUTO_SECONDS


def test_clocks_choose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """S1 of three-minors, sampled: the same draws on a machine where every step takes a minute."""
    A = rng.normal(size=(64, 784))
    usual = kag.minor_moments(A, 3, moments=("s1",), rel_error=0.004)
    slow = itertools.count(0, 60)
    for clock in ("monotonic", "perf_counter", "time"):
        monkeypatch.setattr(time, clock, lambda: float(next(slow)))
    assert kag.minor_moments(A, 3, moments=("s1",), rel_error=0.004).s1 == usual.s1
    assert 0 < usual.stderr["s1"] <= 0.004 * usual.s1


def test_accuracy_not_reached_is_said() -> None:
    A = rng.normal(size=(64, 784))
    assert "not reached" not in kag.minor_moments(A, 3, moments=("s1",), rel_error=0.01).plan.explain()
    with mock.patch("kagscope.minors.routes.sampled.MOST_STEPS", 2.0**20):
        m = kag.minor_moments(A, 3, moments=("s1",), rel_error=1e-5)
    assert m.stderr["s1"] > 1e-5 * m.s1
    assert "rel_error=1e-05 was not reached" in m.plan.explain()


def test_plans_say_what_they_cost() -> None:
    plan = kag.minor_moments(J, 2).plan
    assert "s a matrix on one core of a server (" in plan.explain()
    assert "steps of pairs)" in plan.explain()
    assert plan.seconds == plan.work["pairs"] / RATES["pairs"]


def test_one_limit_of_threads_reaches_every_part() -> None:
    """All work goes through one helper, which reads the innermost limit."""
    with (
        mock.patch("kagscope.minors.threads.ThreadPoolExecutor", side_effect=AssertionError("a pool of threads was started")),
        kag.limit_threads(1),
    ):
        kag.rotation_ratio(J, 2, "max", rotations=2)
        kag.haar_mean_s1(J, 3)
        kag.row_means(J, 3)
        kag.factored_minor_moments(J, J[:, :1].T, 2)
        for k in (1, 2, 3):
            kag.minor_moments(J, k)
            kag.minor_moments(J, k, method="sampled", rel_error=0.5)


@pytest.mark.parametrize("failing", [0, 5, 19])
def test_parts_come_in_order_from_any_thread_and_what_fails_is_raised(failing: int) -> None:
    seen: set[int] = set()
    several = threading.Event()

    def work(part: int) -> int:
        seen.add(threading.get_ident())
        if len(seen) > 1:
            several.set()
        if part == failing:
            raise IndexError(part)
        several.wait(60)  # or a thread takes all before another has begun
        return part

    with kag.limit_threads(3):
        with pytest.raises(IndexError, match=str(failing)):
            run_parts(work, 20)
        assert run_parts(lambda part: part**2, 20) == [part**2 for part in range(20)]
        failing = -1
        assert run_parts(work, 20) == list(range(20))
    assert len(seen) > 1


@pytest.mark.parametrize("parts", [1, 7, 40])
def test_parts_of_about_equal_weight(parts: int) -> None:
    weights = np.random.default_rng(3).exponential(size=60) * (np.arange(60) != 4)
    bounds = even_parts(weights.tolist(), parts)
    assert (bounds[0], bounds[-1]) == (0, 60)
    assert (np.diff(bounds) > 0).all()
    assert len(bounds) <= parts + 1
    assert np.add.reduceat(weights, bounds[:-1]).max() <= weights.sum() / parts + weights.max()
