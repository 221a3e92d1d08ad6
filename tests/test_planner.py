"""Which way is taken, that every way finds the same, and that neither clocks nor caches decide anything."""

from __future__ import annotations

import itertools
import json
import math
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import kagscope as kag
from kagscope.base.errors import InputError
from kagscope.minors import calibration, planner
from kagscope.minors.bruteforce import minor_matrix

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


def test_what_is_not_asked_for_costs_nothing() -> None:
    with mock.patch("kagscope.minors.rows.pair_powers") as grams, mock.patch("kagscope.minors.rows.row_pair_areas") as areas:
        areas.return_value = np.ones(66)
        kag.minor_moments(J, 2, moments=("s1",))
        assert not grams.called
    with mock.patch("kagscope.minors.rows.row_pair_areas") as areas:
        kag.minor_moments(J, 2, moments=("s2", "s4"))
        kag.minor_moments(J, 2, moments=("top",))
        assert not areas.called


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
    """All 3-minors of 20 x 300 would list 4.5e6 triples, more than the budget; 5-minors of 64 x 784 none could list."""
    wide = rng.normal(size=(20, 300))
    m = kag.minor_moments(wide, 3, [kag.All(), kag.Ball(1)], moments=("s1", "s2"), positions=np.arange(300), memory_budget=2**24)
    assert m[0].exact
    assert m[0].plan.routes["s1"] == "zonotope volumes"
    estimate = kag.minor_moments(wide, 3, method="sampled", rel_error=0.002)
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
    assert m.s2 == pytest.approx(1e-22, rel=1e-5)
    with pytest.raises(InputError, match="memory_budget=100000"):
        kag.minor_moments(low, 3, moments="s2", method="exact", memory_budget=100_000)
    assert kag.minor_moments(np.ones((12, 60)), 3, moments=("s1", "s2")).s1 == 0


# -- choosing --------------------------------------------------------------------------------------------------------------------


def exact_seconds(k: int, chosen: kag.Selection, rows: int, columns: int, wanted: tuple[str, ...]) -> float:
    count = math.comb(columns, k)
    work, _ = planner.exact_work(k, chosen, rows, columns, count, frozenset(wanted), alone=True, memory_budget=2**30)
    return planner.reference_seconds(work)


def test_what_auto_affords() -> None:
    """A transformer's MLP block exactly; one with 100 times the work, or all its entropies, not."""
    assert exact_seconds(2, kag.All(), 768, 3072, CHEAP) < planner.AUTO_SECONDS
    assert exact_seconds(2, kag.All(), 4096, 16384, CHEAP) > planner.AUTO_SECONDS
    assert exact_seconds(2, kag.All(), 768, 3072, ("entropy",)) > planner.AUTO_SECONDS
    assert exact_seconds(3, kag.All(), 64, 784, ("s2",)) < 0.1
    assert exact_seconds(3, kag.All(), 64, 784, ("s1",)) > planner.AUTO_SECONDS


@pytest.mark.parametrize("steps_a_second", [1e-6, 1e30])
def test_rates_of_the_machine_choose_nothing(steps_a_second: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def results() -> list[kag.Moments]:
        return [
            kag.minor_moments(J, k, selection, moments=wanted, rel_error=0.1, **IMAGE)
            for k in (1, 2, 3, 4)
            for selection in (kag.All(), [kag.All(), kag.Ball(2)])
            for wanted in ("all", CHEAP, ("s1", "s2"))
        ]

    def flat(values: list[kag.Moments]) -> list[kag.Moments]:
        return [one for value in values for one in (value if isinstance(value, list) else [value])]

    before = flat(results())
    monkeypatch.setattr(calibration, "rate", lambda kernel: steps_a_second)
    for one, other in zip(before, flat(results()), strict=True):
        assert one.plan.routes == other.plan.routes
        assert one.exact == other.exact
        assert all((one.sums[name] == other.sums[name]).all() for name in one.sums)
        if other.plan.work:
            assert other.plan.seconds == pytest.approx(sum(other.plan.work.values()) / steps_a_second)


def test_clocks_choose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """S1 of three-minors, sampled: the same draws on a machine where every step takes a minute."""
    A = rng.normal(size=(64, 784))
    usual = kag.minor_moments(A, 3, moments=("s1",), rel_error=0.0004)
    slow = itertools.count(0, 60)
    for clock in ("monotonic", "perf_counter", "time"):
        monkeypatch.setattr(time, clock, lambda: float(next(slow)))
    assert kag.minor_moments(A, 3, moments=("s1",), rel_error=0.0004).s1 == usual.s1
    assert 0 < usual.stderr["s1"] <= 0.0004 * usual.s1


def test_accuracy_not_reached_is_said() -> None:
    A = rng.normal(size=(64, 784))
    assert "not reached" not in kag.minor_moments(A, 3, moments=("s1",), rel_error=0.001).plan.explain()
    with mock.patch("kagscope.minors.estimates.draws_within_reach", return_value=1024):
        m = kag.minor_moments(A, 3, moments=("s1",), rel_error=1e-5)
    assert m.stderr["s1"] > 1e-5 * m.s1
    assert "rel_error=1e-05 was not reached" in m.plan.explain()


# -- calibration -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "_this_process", {})
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    return tmp_path / "kagscope" / "rates.json"


def test_every_kernel_is_measured_in_well_below_a_second(cache: Path) -> None:
    for kernel in planner.RATES:
        calibration.measure(kernel)  # compiles
    began = time.perf_counter()
    rates = {kernel: calibration.rate(kernel) for kernel in planner.RATES}
    assert time.perf_counter() - began < 5  # 0.3 s on an idle machine
    assert json.loads(cache.read_text()) == {"machine": calibration.machine(), "rates": rates}
    for kernel, value in rates.items():
        assert planner.RATES[kernel] / 100 < value < planner.RATES[kernel] * 100


def test_rates_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = calibration.rate("Grams")
    monkeypatch.setattr(calibration, "_this_process", {})
    monkeypatch.setattr(calibration, "measure", lambda kernel: pytest.fail(f"{kernel} measured again"))
    assert calibration.rate("Grams") == first
    assert [path.name for path in cache.parent.iterdir()] == ["rates.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"machine": {}, "rates": {"Grams": 7.0}}',
        '{"machine": MACHINE, "rates": 3}',
        '{"machine": MACHINE, "rates": {"Grams": "fast"}}',
        '{"machine": MACHINE, "rates": {"Grams": -7.0}}',
        '{"machine": MACHINE, "rates": {"Grams": NaN}}',
        "\xff\xfe",
    ],
)
def test_damaged_or_foreign_rates_are_measured_again(content: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.mkdir()
    cache.write_bytes(content.replace("MACHINE", json.dumps(calibration.machine())).encode("latin1"))
    monkeypatch.setattr(calibration, "measure", lambda kernel: 5.0)
    assert calibration.rate("Grams") == 5.0
    assert json.loads(cache.read_text())["rates"] == {"Grams": 5.0}


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.write_text("a file where the folder should be")
    monkeypatch.setattr(calibration, "measure", lambda kernel: 5.0)
    assert calibration.rate("Grams") == 5.0


def test_plans_say_what_they_cost(cache: Path) -> None:
    text = kag.minor_moments(J, 2).plan.explain()
    assert "s a matrix on one core of this machine (" in text
    assert "steps of pairs)" in text
    assert "estimated" not in kag.minor_moments(J, 2, method="sampled").plan.explain()
