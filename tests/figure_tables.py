"""Made-up tables in the form of ``kagscope.tables.schema``, for looking at figures and pages; nothing in them was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kagscope.tables.schema import CURVE_COLUMNS, RESULT_COLUMNS

POINT_SCORES = {
    "pr": 0.02,
    "kl_uniform": 0.6,
    "rr_pr": 1.0,
    "rr_max": 1.1,
    "near_zero": 0.002,
    "zero_rows": 0.01,
    "effective_minors": 900.0,
}
LAYER_SCORES = {"kernel_alignment": 0.2, "effective_dimension": 5.0, "intrinsic_dimension": 7.0}
GROWTH = {
    "pr": 0.22,
    "kl_uniform": 0.35,
    "rr_pr": 0.05,
    "rr_max": 0.15,
    "near_zero": 0.7,
    "zero_rows": 0.9,
    "effective_minors": -0.4,
    "effective_rank": -0.1,
    "axis_alignment": 0.12,
    "kernel_alignment": 0.5,
    "effective_dimension": 0.2,
    "intrinsic_dimension": -0.1,
}


def geometric_steps(last: int) -> list[int]:
    """0, 1, 2, 4, … and the last step itself."""
    powers = [2**i for i in range(last.bit_length()) if 2**i < last]
    return [0, *powers, last]


def selections_for(image_shape: tuple[int, int], stride: int = 1, window_radii: Sequence[int] = (2,)) -> list[str]:
    """All, the four balls and minimum distances of the study, and windows around pixel centres ``stride`` apart."""
    side = min(image_shape)
    radii = [max(1, round(side * quarter / 4)) for quarter in (1, 2, 3, 4)]
    centres = [(r, c) for r in range(0, image_shape[0], stride) for c in range(0, image_shape[1], stride)]
    windows = [f"window({r},{c},{radius})" for radius in window_radii for r, c in centres]
    return ["all", *[f"ball({r})" for r in radii], *[f"apart({d})" for d in radii], *windows]


SCORED = ("layer", "k", "selection", "point", "score", "value", "baseline", "stderr", "exact", "reason")


def make_tables(
    *,
    widths: Sequence[int] = (8, 16),
    trainings: Sequence[str] = ("standard", "augmented"),
    seeds: int = 3,
    last_step: int = 200,
    points: int = 6,
    image_shape: tuple[int, int] = (8, 8),
    ks: Sequence[int] = (1, 2, 3),
    layers: Sequence[str] = ("hidden1", "hidden2"),
    windows: bool = True,
    stride: int = 1,
    window_radii: Sequence[int] = (2,),
    run_name: str = "{training}-w{width}-s{seed}",
    curves: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``(results, curves)`` with trends like those of a trained net: scores grow with log(step) and with width."""
    rng = np.random.default_rng(0)
    rows: list[tuple[Any, ...]] = []
    names: list[str] = []
    curve_parts: list[pd.DataFrame] = []
    for width in widths:
        for training in trainings:
            for seed in range(seeds):
                run = {
                    "run": run_name.format(training=training, width=width, seed=seed),
                    "width": width,
                    "training": training,
                    "labels": "true",
                    "seed": seed,
                }
                for step in geometric_steps(last_step):
                    progress = np.log1p(step) / np.log1p(last_step) if last_step else 0.0
                    where = run | {
                        "step": step,
                        "epoch": step / 20,
                        "accuracy": 0.1 + 0.85 * progress - 0.03 * (training == "augmented"),
                    }
                    wanted = selections_for(image_shape, stride, window_radii) if step == last_step else ["all"]
                    if not windows:
                        wanted = [s for s in wanted if not s.startswith("window")]
                    names, own = [*SCORED, *where], tuple(where.values())
                    rows.extend(row + own for row in _scores(where, wanted, layers, ks, points, image_shape, progress, rng))
                    if curves and step in (0, last_step):
                        curve_parts.extend(_curves(run | {"step": step}, layers, ks, progress, rng))
    results = pd.DataFrame(rows, columns=names)
    results["ratio"] = np.where(results["baseline"] > 0, results["value"] / results["baseline"].replace(0.0, np.nan), np.nan)
    results["baseline_stderr"] = 0.0
    results = results.astype(RESULT_COLUMNS)[list(RESULT_COLUMNS)]
    table = pd.concat(curve_parts, ignore_index=True) if curve_parts else pd.DataFrame(columns=list(CURVE_COLUMNS))
    return results, table.astype(CURVE_COLUMNS)[list(CURVE_COLUMNS)]


def _scores(
    where: dict[str, Any],
    selections: Iterable[str],
    layers: Sequence[str],
    ks: Sequence[int],
    points: int,
    image_shape: tuple[int, int],
    progress: float,
    rng: np.random.Generator,
) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []  # of SCORED
    seeds_luck = rng.normal(0, 0.08)
    strength = progress * (1 + np.log2(where["width"] / 8) * 0.3) * (0.75 if where["training"] == "augmented" else 1.0)

    def add(layer: str, k: int, selection: str, point: int, score: str, base: float, scale: float = 1.0) -> None:
        trend = GROWTH.get(score, 0.1) * scale * strength
        baseline = base * np.exp(rng.normal(0, 0.1))
        value = baseline * np.exp(trend * (1 + seeds_luck) + rng.normal(0, 0.05) * (progress > 0))
        sampled = k == 3
        undefined = score == "near_zero" and point == 0
        stderr = 0.01 * value * sampled
        reason = "all minors are zero" if undefined else ""
        value = np.nan if undefined else value
        rows.append((layer, k, selection, point, score, value, baseline, stderr, not sampled, reason))

    pixels = image_shape[0] * image_shape[1]
    for depth, layer in enumerate(layers):
        for selection in selections:
            head, _, rest = selection.partition("(")
            arguments = [float(part) for part in rest.rstrip(")").split(",")] if rest else []
            scale = 1.0
            if head == "window":
                middle = np.hypot(arguments[0] - image_shape[0] / 2, arguments[1] - image_shape[1] / 2) / max(image_shape)
                scale = 1.6 - 2.5 * middle
            for k in (2,) if head == "window" else ks:
                subsets = float(pixels**k) * (np.exp(-arguments[0] / 3) if head == "apart" else 1.0)
                if head == "apart" and arguments[0] >= 1.4 * min(image_shape):
                    subsets = 0.0
                rows.append((layer, k, selection, -1, "column_subsets", subsets, subsets, 0.0, True, ""))
                for point in range(points):
                    for score, base in POINT_SCORES.items() if head != "window" else [("pr", 0.02)]:
                        add(layer, k, selection, point, score, base, scale * (0.6 + 0.25 * k) * (1 - 0.2 * depth))
        for point in range(points):
            add(layer, 0, "all", point, "effective_rank", 6.0)
            add(layer, 0, "all", point, "axis_alignment", 0.3)
        for score, base in LAYER_SCORES.items():
            add(layer, 0, "all", -1, score, base)
    return rows


def _curves(
    where: dict[str, Any], layers: Sequence[str], ks: Sequence[int], progress: float, rng: np.random.Generator
) -> list[pd.DataFrame]:
    parts: list[pd.DataFrame] = []
    for layer in layers:
        for k in ks:
            count = [1, where["width"], where["width"] * 4, where["width"] * 12][k]
            means = np.sort(rng.lognormal(0, 0.4 + 0.8 * progress, count))[::-1]
            means[int(count * (1 - 0.12 * progress)) :] *= 1e-3
            about = where | {"layer": layer, "k": k, "selection": "all"}
            zipf = {"curve": "zipf", "x": np.arange(1, count + 1, dtype=float), "y": means / means.mean()}
            minors = np.abs(rng.standard_t(20 - 16 * progress, 4000)) * rng.random(4000) ** (k - 1)
            minors[: int(400 * progress)] = 0.0
            zeros = minors == 0
            bins, counts = np.unique(np.floor(8 * np.log2(minors[~zeros] / minors.mean())) / 8, return_counts=True)
            x, y = np.append(-np.inf, bins), np.append(zeros.sum(), counts) / len(minors)
            parts.extend(pd.DataFrame(part | about) for part in (zipf, {"curve": "histogram", "x": x, "y": y}))
    return parts


def make_claims() -> list[dict[str, Any]]:
    """Six made-up claims, one of each verdict at least, in the form of ``claims.json``."""
    verdicts = ["reproduced", "reproduced", "inconclusive", "reproduced", "not reproduced", "inconclusive"]
    statements = [
        "After training, minors are more concentrated than at initialisation, in both hidden layers",
        "The concentration is nearly the same at every spatial scale",
        "It is stable under a minimum distance between the columns",
        "Larger networks show it more strongly",
        "It holds with spatial augmentation too, about 30% lower",
        "Locally constant units appear; removing them changes nothing",
    ]
    return [
        {
            "id": f"{number}-claim",
            "statement": statement,
            "verdict": verdict,
            "effect": 1.2 + number / 10,
            "decided_by": "PR ratio",
            "ci_low": 1.1 + number / 10,
            "ci_high": 1.3 + number / 10,
            "p_value": 0.0004 * 3**number,
            "n": 30,
            "test": "Wilcoxon signed rank over seeds",
            "criterion": "interval above 1 in every layer and width",
            "note": "made up for development" if number == 5 else "",
            "parts": [{"layer": "hidden1", "width": 16, "effect": 1.31, "ci_low": 1.2, "ci_high": 1.4}],
        }
        for number, (verdict, statement) in enumerate(zip(verdicts, statements, strict=True), start=1)
    ]


def make_units(
    runs: Sequence[str], layers: Sequence[str] = ("hidden1", "hidden2"), count: int = 8, columns: int = 64
) -> dict[str, pd.DataFrame]:
    """Made-up units of one net of each of these runs; unit 0 is always zero."""
    rng = np.random.default_rng(1)

    def layer(name: str, what: str) -> pd.DataFrame:
        zero_share = np.round(rng.random(count), 2)
        zero_share[0] = 1.0
        norm, alignment = rng.random((2, count))
        rows = list(rng.normal(size=(count, columns)).astype(np.float32))
        numbers = {"row_norm": norm, "zero_share": zero_share, "alignment": alignment, "row": rows}
        return pd.DataFrame({"layer": name, "unit": range(count), "what": what, **numbers})

    kinds = ["mean Jacobian row" if place else "weights" for place in range(len(layers))]
    return {run: pd.concat([layer(*one) for one in zip(layers, kinds, strict=True)], ignore_index=True) for run in runs}


def make_provenance() -> dict[str, Any]:
    """A made-up origin of such a study."""
    return {
        "command": "kagscope reproduce --data digits --out out/digits",
        "versions": {"kagscope": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "seeds": [0, 1, 2],
        "data": "digits",
        "image_shape": [8, 8],
        "hardware": "2 CPU cores",
        "timings": {"training": 31.2, "geometry": 40.5, "statistics": 2.0},
        "config": {"epochs": 10, "activation": "gelu", "points": 50, "k": [1, 2, 3]},
    }


def make_exhibits(results: pd.DataFrame, image_shape: tuple[int, int] = (8, 8)) -> dict[str, Any]:
    """Made-up configurations, classes of the points, mean images, and units of the first seed of each setting."""
    runs = [str(run) for run in results["run"].unique()]
    first = [str(run) for run in results.drop_duplicates(["width", "training"])["run"]]
    rows, columns = np.mgrid[: image_shape[0], : image_shape[1]]
    ring = np.exp(-((np.hypot(rows - image_shape[0] / 2, columns - image_shape[1] / 2) - image_shape[0] / 4) ** 2) / 2)
    points = sorted({int(point) for point in results["point"].unique() if point >= 0})
    return {
        "configs": {run: {"run": run, "activation": "gelu", "geometry": {"points": len(points)}} for run in runs},
        "labels": {point: point % 2 for point in points},
        "pictures": {"mean": ring, "classes": {0: ring, 1: ring.T**2}},
        "units": make_units(first, columns=image_shape[0] * image_shape[1]),
    }


def make_runs(results: pd.DataFrame) -> pd.DataFrame:
    """A made-up runs table for the runs of ``results``: accuracies, the gap between them, attacks of four radii."""
    rng = np.random.default_rng(1)
    last = results[results["step"] == results["step"].max()].drop_duplicates("run")
    runs = last[["run", "width", "training", "seed", "accuracy"]].astype({"run": str, "training": str}).reset_index(drop=True)
    accuracy = runs["accuracy"] + 0.01 * np.log2(runs["width"] / 8) + rng.normal(0, 0.01, len(runs))
    train_accuracy = accuracy + rng.uniform(0, 0.03, len(runs))
    attacks = {f"pgd_linf_{eps:g}": accuracy * np.exp(-8 * eps) + rng.normal(0, 0.01, len(runs)) for eps in (0.02, 0.05, 0.1)}
    attacks |= {f"pgd_l2_{eps:g}": accuracy * np.exp(-2 * eps) + rng.normal(0, 0.01, len(runs)) for eps in (0.25, 0.5)}
    gap = train_accuracy - accuracy
    outcomes: dict[str, Any] = {"accuracy": accuracy, "train_accuracy": train_accuracy, "generalization_gap": gap, "depth": 2}
    found: pd.DataFrame = runs.assign(**outcomes, **attacks)
    return found


def make_comparisons() -> pd.DataFrame:
    """Effects of augmentation on a made-up study, in the form of ``comparisons.csv``."""
    rows = []
    for place, (score, k) in enumerate([("pr", 1), ("pr", 2), ("kl_uniform", 2), ("rr_pr", 2)]):
        for layer in ("hidden1", "hidden2"):
            effect = 1.0 + 0.1 * place + 0.05 * (layer == "hidden2")
            what: dict[str, Any] = {"axis": "training", "first": "standard", "category": "augmented"}
            what |= {"layer": layer, "k": k, "selection": "all", "score": score, "measure": "ratio"}
            tests = {"effect": effect, "low": effect * 0.92, "high": effect * 1.1, "p_holm": [0.2, 0.01][place % 2]}
            rows.append(what | tests | {"p_joint": np.nan})
    return pd.DataFrame(rows)


def make_pruning() -> pd.DataFrame:
    """A made-up pruning curve."""
    tolerances = [0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    changes = [0.0, 1e-7, 1e-7, 1e-6, 1e-4, 1e-3, 1e-1, 1.0]
    accuracy = [0.97, 0.97, 0.97, 0.97, 0.97, 0.965, 0.9, 0.3]
    units = [0, 2, 2, 3, 9, 14, 40, 100]
    numbers = {"tolerance": tolerances, "units": units, "parameters": 1000 - np.array(units), "accuracy": accuracy}
    return pd.DataFrame(numbers | {"largest_change": changes, "largest_absolute_change": changes})


def make_model_tables(tokens: int = 3, points: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of a made-up measured model with tokens, four layers with a baseline, and its curves."""
    rng = np.random.default_rng(2)
    selections = ["all", "ball(2)", "ball(4)", "ball(6)"]
    rows = [
        {"layer": layer, "k": 2, "selection": selection, "point": point, "token": token, "score": "pr", "baseline": base}
        | {"value": base * (1.2 + 0.1 * depth + 0.05 * token) * np.exp(rng.normal(0, 0.05)), "stderr": 0.0, "exact": True}
        for depth, layer in enumerate(["embed", "block1", "block2", "head"])
        for selection in selections
        for point in range(points)
        for token in range(tokens)
        for base in [0.02 * np.exp(rng.normal(0, 0.1))]
    ]
    table = pd.DataFrame(rows)
    table = table.assign(ratio=table["value"] / table["baseline"], reason="")
    parts = []
    for network, progress in (("baseline", 0.0), ("model", 1.0)):
        where = {"width": 16, "network": network}
        parts += [part.drop(columns="width") for part in _curves(where, ["block1"], [2], progress, rng)]
    return table, pd.concat(parts, ignore_index=True)


def make_weights(units: int = 10, image_shape: tuple[int, int] = (6, 6)) -> np.ndarray:
    """(units, pixels) made-up weights whose rows get shorter and shorter; the last row is zero."""
    rng = np.random.default_rng(3)
    lengths = np.append(np.geomspace(1, 1e-3, units - 1), 0.0)
    return np.asarray(lengths[:, None] * rng.normal(size=(units, image_shape[0] * image_shape[1])))
