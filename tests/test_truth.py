"""Every value of the truth files (brute force in exact arithmetic) against every route that can find it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kagscope as kag

TRUTH = Path(__file__).resolve().parents[2] / "shared" / "oracles" / "truth"
CASES = sorted(TRUTH.glob("*.json"))
SUMS = ("s1", "s2", "s4", "entropy", "top")
SCORES = ("participation_ratio", "pr_normalized", "effective_minors", "ipr", "kl_uniform")
HARD = ("nearly parallel", "parallel columns", "rank one", "wide dynamic")

pytestmark = pytest.mark.skipif(not CASES, reason="no truth files in ../shared/oracles/truth")


def selection(spec: dict[str, Any]) -> kag.Selection:
    kind = spec["kind"]
    if kind == "window":
        return kag.Window(tuple(spec["center"]), spec["radius"])
    classes = {"all": kag.All, "ball": kag.Ball, "apart": kag.Apart, "shell": kag.Shell}
    return classes[kind](*(spec[name] for name in ("radius", "distance", "low", "high") if name in spec))


def load(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    case = json.loads(path.read_text())
    return np.array([[float.fromhex(value) for value in row] for row in case["matrix_hex"]]), case


def close(got: float, want: float, scale: float, hard: bool) -> bool:
    return abs(got - want) <= (1e-6 if hard else 1e-10) * max(abs(want), scale)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
@pytest.mark.parametrize("route", ["all moments", "sums", "power Grams", "sums and top", "list", "factored", "subsets", "scaled"])
def test_truth(path: Path, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if route == "power Grams":
        monkeypatch.setattr("kagscope.minors.routes.enumeration.FEW_ROWS", 0)
    J, case = load(path)
    where = {"image_shape": tuple(case["image_shape"])} if case["image_shape"] else {}
    hard = any(word in case["name"] for word in HARD)
    largest = np.abs(J).max()
    for k in (1, 2, 3):
        truths = [t for t in case["truth"] if t["k"] == k]
        if not truths:
            continue
        chosen = [selection(t["selection"]) for t in truths]
        wanted = {"sums": ("s1", "s2", "s4"), "power Grams": ("s1", "s2", "s4"), "sums and top": ("s1", "s2", "s4", "top")}.get(
            route, "all"
        )
        if route == "list":
            results = kag.minor_moments(J, k, chosen, method="exact", **where)
        elif route == "factored":
            results = kag.factored_minor_moments(J, np.ones(len(J)), k, chosen, **where)
        elif route == "subsets":
            results = [
                kag.minor_moments(J, k, listed(one, J.shape[1], k, where), method="exact") if t["column_subsets"] else None
                for one, t in zip(chosen, truths, strict=True)
            ]
        elif route == "scaled":
            results = [kag.minor_moments(J * 2.0**-300, k, one, method="exact", **where) for one in chosen]
        else:
            results = [kag.minor_moments(J, k, one, method="exact", moments=wanted, **where) for one in chosen]
        names = SUMS if wanted == "all" else wanted
        for t, m in zip(truths, results, strict=True):
            if m is None:
                continue
            label = f"k={k} {t['selection']}"
            assert m.exact, label
            assert m.count == t["count"], label
            for name in names if route != "scaled" else ():
                floor = largest**k * 1e-4 if name in ("s1", "entropy", "top") else 0.0
                assert close(getattr(m, name), float(t[name]), floor * 1e-10, hard), (label, name)
            for name in SCORES if wanted == "all" else SCORES[:4]:
                got = getattr(m, name)
                if name in t:
                    assert close(got, float(t[name]), 1e-3 if name == "kl_uniform" else 0.0, hard), (label, name)
                else:
                    assert math.isnan(got), (label, name)
            if route == "all moments":
                zeros = m.histogram.zeros
                assert m.histogram.counts.sum() + zeros == m.count, label
                if k < 3 and not hard:
                    assert zeros == t["exact_zeros"], label
            if route == "all moments" and "row_means" in t and k < 3:
                want = np.array([float(value) for value in t["row_means"]])
                assert np.allclose(kag.row_means(J, k), want, rtol=1e-6 if hard else 1e-10, atol=largest**k * 1e-13), label


def listed(chosen: kag.Selection, n: int, k: int, where: dict[str, Any]) -> kag.Subsets:
    from kagscope.columns.layout import make_layout
    from kagscope.minors.routes.determinants import clique_subsets

    layout = make_layout(n, **where)
    if k == 1:
        return kag.Subsets([(int(a),) for a in np.flatnonzero(chosen.columns(layout))])
    return kag.Subsets([tuple(row) for row in clique_subsets(chosen.pairs(layout) & ~np.eye(n, dtype=bool), k).tolist()])


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_windows_and_rotations(path: Path) -> None:
    J, case = load(path)
    hard = any(word in case["name"] for word in HARD)
    for t in case["truth"]:
        if t["k"] == 2 and t["selection"]["kind"] == "window":
            spec = t["selection"]
            m = kag.window_moments(J, [spec["center"]], spec["radius"], tuple(case["image_shape"]))[0]
            assert m.count == t["count"]
            assert close(m.s1, float(t["s1"]), 0, hard)
            assert close(m.s4, float(t["s4"]), 0, hard)
        where = {"image_shape": tuple(case["image_shape"])} if case["image_shape"] else {}
        rr = kag.rotation_ratio(J, t["k"], "pr", selection(t["selection"]), **where)
        if "rr_pr" in t:
            assert abs(rr / float(t["rr_pr"]) - 1) <= (1e-5 if hard else 1e-9)
        else:
            assert math.isnan(rr)
