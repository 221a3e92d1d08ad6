"""Measure matrices one can picture: the tables of docs/scores.md, and docs/pictures/scores_matrices.png and scores.png.

Usage: python docs/make_score_pictures.py            writes the pictures, and the tables into the page
       python docs/make_score_pictures.py --check    only compares the tables with the page; exit code 1 where they differ
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import kagscope as kag
import kagscope.pruning.change
import kagscope.scores
from kagscope import registry
from kagscope.figures.style import VERMILLION, new_figure, save, style
from kagscope.minors._input import Values
from kagscope.minors.moments import Moments
from kagscope.scores.of_representations import debiased_cka, effective_dimension, intrinsic_dimension, kernel_alignment

HERE = Path(__file__).parent
PAGE = HERE / "scores.md"
M, N = 16, 8  # units, inputs

OF_MINORS: dict[str, Callable[[Moments], Values]] = {
    "pr": lambda m: m.participation_ratio,
    "pr_normalized": lambda m: m.pr_normalized,
    "effective_minors": lambda m: m.effective_minors,
    "ipr": lambda m: m.ipr,
    "kl_uniform": lambda m: m.kl_uniform,
    "near_zero": lambda m: m.near_zero,
}
OF_MATRIX: dict[str, Callable[[np.ndarray], float]] = {
    "axis_alignment": kag.axis_alignment,
    "effective_rank": kag.effective_rank,
    "stable_rank": kag.stable_rank,
    "sv_participation": kag.sv_participation,
}
OF_ROWS = ("rr_pr", "rr_max", "zero_rows_exact", "column_divergence", "kl_init")


def matrices() -> dict[str, np.ndarray]:
    """Matrices of 16 rows and 8 columns, by name."""
    rng = np.random.default_rng(0)
    gauss = rng.normal(size=(M, N))
    ideal = np.zeros((M, N))
    ideal[rng.permutation(M)[:N], np.arange(N)] = rng.uniform(0.5, 1.5, size=N)
    one_hot = np.zeros((M, N))
    one_hot[np.arange(M), rng.integers(N, size=M)] = rng.normal(size=M)
    half = gauss.copy()
    half[::2] = 0
    return {
        "ideal": ideal,
        "one-hot rows": one_hot,
        "half zero": half,
        "Gaussian": gauss,
        "orthogonal": np.linalg.qr(gauss)[0],
        "rank 2": rng.integers(-3, 4, size=(M, 2)).astype(float) @ rng.integers(-3, 4, size=(2, N)),
        "all equal": np.ones((M, N)),
    }


def scores(J: np.ndarray, initial: np.ndarray, k: int) -> dict[str, float]:
    """Every score of the k-minors of J; ``initial`` is what J is compared with."""
    m, before = kag.minor_moments(J, k, method="exact"), kag.minor_moments(initial, k, method="exact")
    found = {name: float(score(m)) for name, score in OF_MINORS.items()}
    found["rr_pr"] = float(kag.rotation_ratio(J, k, "pr"))
    found["rr_max"] = float(kag.rotation_ratio(J, k, "max", rotations=400)) if k < 3 else np.nan
    found["zero_rows_exact"] = float(kag.zero_rows(J, k))
    found["column_divergence"] = float(kag.column_divergence(J, k))
    found["kl_init"] = float(kag.kl_init(m, before))
    return found


def clouds() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Activations (600, 8) of points of three classes, and their classes."""
    rng = np.random.default_rng(1)
    classes = np.arange(600) % 3
    angle = rng.uniform(0, 2 * np.pi, size=600)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    circle = np.pad(np.stack([np.cos(angle), np.sin(angle)], axis=1), ((0, 0), (0, 6))) @ turn
    return {
        "noise": (rng.normal(size=(600, 8)), classes),
        "three clusters": (5 * np.eye(8)[classes] + rng.normal(size=(600, 8)), classes),
        "a circle": (circle, classes),
        "a plane": (rng.normal(size=(600, 2)) @ turn[:2], classes),
    }


def of_cloud(A: np.ndarray, classes: np.ndarray, initial: np.ndarray) -> dict[str, float]:
    return {
        "kernel_alignment": kernel_alignment(A, classes),
        "cka_init": debiased_cka(A, initial),
        "effective_dimension": effective_dimension(A),
        "intrinsic_dimension": intrinsic_dimension(A),
    }


def said(value: float) -> str:
    """Two decimals, or two digits of what is small; NaN is undefined."""
    if np.isnan(value):
        return "–"
    value = 0.0 if abs(value) < 1e-9 else value
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.2f}" if value == 0 or abs(value) >= 0.1 else f"{value:.2g}"
    return text.removesuffix(".00")


def table(columns: dict[str, dict[str, float]]) -> str:
    """Markdown: a row for each score, a column for each matrix."""
    rows = list(next(iter(columns.values())))
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "--:|" * len(columns)]
    lines += [f"| `{row}` | " + " | ".join(said(column[row]) for column in columns.values()) + " |" for row in rows]
    return "\n".join(lines)


def registry_table() -> str:
    """Markdown: a row for each score of the registry."""
    lines = ["| score | in words | k | measured at | undefined | source |", "|---|---|---|---|---|---|"]
    for one in registry.all_scores():
        orders = "any" if one.orders is None else ", ".join(map(str, one.orders)) if one.orders != (0,) else "–"
        point = f"at most `{one.limit}`" if one.limit else "every point"
        places = "the network, in studies" if not one.takes else "the layer" if one.of_layer else point
        beside = ", beside a baseline" if one.against_baseline else ""
        reason = one.undefined.removeprefix("undefined: ") or "–"
        lines.append(f"| `{one.name}` | {one.label} | {orders} | {places}{beside} | {reason} | {one.source} |")
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """What the page holds between its markers, by name."""
    found = matrices()
    gauss = np.random.default_rng(5).normal(size=(M, N))
    made = {f"k{k}": table({name: scores(J, gauss, k) for name, J in found.items()}) for k in (1, 2, 3)}
    made["registry"] = registry_table()
    made["matrix"] = table({name: {s: float(f(J)) for s, f in OF_MATRIX.items()} for name, J in found.items()})
    cloud = clouds()
    made["clouds"] = table({name: of_cloud(*pair, cloud["noise"][0]) for name, pair in cloud.items()})
    return made


def filled(page: str) -> str:
    """The page with its tables as they are now."""
    for name, text in tables().items():
        pattern = rf"(<!-- table {name} -->\n).*?(<!-- end -->)"
        page, count = re.subn(pattern, lambda found, text=text: f"{found[1]}\n{text}\n\n{found[2]}", page, flags=re.DOTALL)  # type: ignore[misc]
        assert count == 1, name
    return page


def draw_matrices() -> None:
    figure = new_figure(7.0, 1.9)
    for ax, (name, J) in zip(figure.subplots(1, 7), matrices().items(), strict=True):
        limit = np.abs(J).max()
        ax.imshow(J, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set(xticks=[], yticks=[], title=name)
        ax.grid(False)
    save(figure, HERE / "pictures" / "scores_matrices.png", dpi=120)


def draw_scores() -> None:
    """Scores of 2-minors and of the matrix as bars, a panel each."""
    found = matrices()
    gauss = np.random.default_rng(5).normal(size=(M, N))
    names = (*OF_MINORS, *OF_ROWS, *OF_MATRIX)
    values = {n: scores(J, gauss, 2) | {s: float(f(J)) for s, f in OF_MATRIX.items()} for n, J in found.items()}
    figure = new_figure(7.0, 6.0)
    axes = figure.subplots(5, 3, sharex=True).ravel()
    for ax, score in zip(axes, names, strict=True):
        heights = np.array([values[name][score] for name in found])
        ax.bar(range(len(found)), np.nan_to_num(heights), color=VERMILLION, width=0.6)
        for place in np.flatnonzero(np.isnan(heights)):
            ax.text(place, 0, "undefined", rotation=90, ha="center", va="bottom", fontsize=6)
        ax.set_title(registry.label(score))
        ax.set_xticks(range(len(found)), found, rotation=60, ha="right")
        if score == "effective_minors":
            ax.set_yscale("log")
    save(figure, HERE / "pictures" / "scores.png", dpi=120)


def main() -> int:
    page = PAGE.read_text()
    made = filled(page)
    if "--check" in sys.argv:
        return int(made != page)
    PAGE.write_text(made)
    with style():
        draw_matrices()
        draw_scores()
    return 0


if __name__ == "__main__":
    sys.exit(main())
