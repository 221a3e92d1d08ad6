"""Means and intervals from tidy tables, the starting point of statistics, figures and reports.

The order is always the same: first the mean over the data points of one run, then the mean over runs (seeds) with a 95%
interval of Student's t. A seed is the unit that was drawn independently; the points of one net are not, and narrow no interval.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from kagscope.base.errors import InputError, NothingToPlot
from kagscope.tables.schema import BOOKKEEPING, CURVE_COLUMNS, SCORE_COLUMNS

MEASURES = ("value", "baseline", "ratio", "difference")
RUN_KEYS = ["run", "width", "training", "seed", "step"]
WHAT_KEYS = ["layer", "k", "selection", "score"]
CURVE_KEYS = ["width", "training", "step", "layer", "k", "selection", "curve"]
STAGES = ("initial", "trained")  # of curves of a study

PLACE_KEYS = ("study", "run", "step")  # of a summary, if the table has them
RUN_VALUES = ("width", "training", "labels", "seed", "epoch", "accuracy")  # one value for each run and step
CONFIDENCE = 0.95
NO_SCORES = BOOKKEEPING | {"skipped"}  # rows about the measurement

_SELECTION = re.compile(r"([a-z_]+)\((.*)\)")


def summarise(table: pd.DataFrame, over: str = "points", by: Sequence[str] = (), confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Means with their intervals, of every score: over the data points of a network, or over runs.

    Tokens of a point are averaged first, since they are not independent, then points, then, with ``over="runs"``, runs. The
    interval is Student's t over points (runs). What was sampled adds its mean standard error once: points share their draws, so
    that averaging over them does not shrink it; between runs it is part of the spread.

    Args:
        table: one row per number, such as the table of a report or a study; or its summary over points.
        over: "points", or "runs": a seed is what was drawn independently.
        by: with ``over="runs"``, the columns that tell settings apart; default those of study, width, training, labels and step
            that the table has.
        confidence: of the intervals.

    Returns:
        One row per study, run and step (as far as the table has them; for runs: per setting), layer, k, selection and score.
        Of each of ``value``, ``baseline``, ``ratio`` and ``difference`` (value - baseline) the mean, ``_low`` and ``_high``, in
        units of the score; NaN with fewer than two points (runs), or where a standard error is not known. ``points``, how many
        had a value (for runs their mean number, and ``runs``); ``no_ratio``, how many of these had no ratio; ``stderr``, the mean
        standard error (or stated bound) of the values; ``exact`` (all); ``undefined`` (how many rows had no value) and ``reason``
        (of the first of them).

    Raises:
        InputError: ``confidence`` is not between 0 and 1, ``over`` is unknown, or columns are missing.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence!r}, expected a number between 0 and 1, such as 0.95")
    if over not in ("points", "runs"):
        raise InputError(f"over={over!r}, expected 'points' or 'runs'")
    summary = table
    if "points" not in table.columns:
        require_columns(table, [*WHAT_KEYS, "point", "value", "baseline", "ratio", "stderr", "exact"], "results")
        summary = _average_points(table[~table["score"].isin(NO_SCORES)], confidence, by)
    if over == "points":
        return summary
    require_columns(summary, ["run"], "results")
    keys = list(by) or [name for name in ("study", "width", "training", "labels", "step") if name in summary]
    return _average_runs(summary, [*keys, *(name for name in WHAT_KEYS if name not in keys)], confidence)


def token_means(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the tokens of each point, of a measured model's table; one without tokens as it is."""
    if "token" not in table.columns:
        return table
    how: dict[str, Any] = {name: "mean" for name, kind in SCORE_COLUMNS.items() if kind == "float64"}
    reasons = table["reason"].astype(object)
    grouped = table.assign(reason=reasons.where(reasons != "", None)).groupby([*WHAT_KEYS, "point"], observed=True, sort=False)
    means = grouped.agg(how | {"exact": "min", "reason": "first"}).reset_index()
    means["reason"] = means["reason"].where(means["value"].isna(), None).fillna("")
    return means.astype(SCORE_COLUMNS)[list(SCORE_COLUMNS)]


def _average_points(table: pd.DataFrame, confidence: float, by: Sequence[str] = ()) -> pd.DataFrame:
    keys_given = [name for name in PLACE_KEYS if name in table.columns]
    carried = [name for name in dict.fromkeys((*RUN_VALUES, *by)) if name in table.columns and name not in keys_given]
    keys = [*keys_given, *WHAT_KEYS]
    frame = table[[*keys, *carried, "point", "value", "exact"]].copy()
    value, before, ratio = (table[name].to_numpy(float) for name in ("value", "baseline", "ratio"))
    exact = table["exact"].to_numpy(bool)  # exact numbers state a rounding bound, not a sampling error
    error = np.where(exact, 0.0, table["stderr"].to_numpy(float))
    before_error = table["baseline_stderr"].to_numpy(float) if "baseline_stderr" in table.columns else np.zeros(len(table))
    defined = np.isfinite(ratio)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.hypot(np.where(error == 0, 0.0, error / value), np.where(before_error == 0, 0.0, before_error / before))
        frame["baseline"], frame["difference"] = before, value - before
    frame["ratio"] = np.where(defined, ratio, np.nan)
    errors = {
        "value": np.where(np.isnan(value), 0.0, error),
        "baseline": np.where(np.isnan(before), 0.0, before_error),
        "ratio": np.where(defined, np.abs(ratio) * relative, 0.0),
        "difference": np.where(np.isnan(value - before), 0.0, np.hypot(error, before_error)),
    }
    for name, error_of_mean in errors.items():
        frame[f"{name}_error"] = error_of_mean
    frame["stderr"] = np.where(np.isnan(value), 0.0, table["stderr"].to_numpy(float))
    frame["rows"] = 1
    frame["undefined"] = np.isnan(value)
    reasons = table["reason"].astype(object) if "reason" in table.columns else pd.Series("", index=table.index, dtype=object)
    frame["reason"] = reasons.where(reasons != "", None)
    numbers = [*MEASURES, *(f"{name}_error" for name in MEASURES), "stderr"]
    whole: dict[str, Any] = {"exact": "min", "undefined": "sum", "reason": "first"}
    if "token" in table.columns:
        parts = dict.fromkeys(numbers, "mean") | dict.fromkeys(carried, "first") | whole
        frame = frame.groupby([*keys, "point"], observed=True, sort=False).agg(parts).reset_index()
    grouped = frame.groupby(keys, observed=True, sort=False)
    columns: dict[str, Any] = {name: grouped[name].first() for name in carried}
    columns["points"] = grouped["value"].count()
    for name in MEASURES:
        unknown = grouped[f"{name}_error"].count() < grouped[f"{name}_error"].size()
        common = grouped[f"{name}_error"].mean().where(~unknown, np.nan)
        columns |= _mean_columns(grouped, name, confidence, np.asarray(common, dtype=float))
    columns["stderr"] = grouped["stderr"].mean()
    columns["no_ratio"] = columns["points"] - grouped["ratio"].count()
    columns["exact"] = grouped["exact"].min().astype(bool)
    columns["undefined"] = grouped["undefined"].sum().astype(int)
    columns["reason"] = grouped["reason"].first().fillna("")
    return pd.DataFrame(columns).reset_index()


def _mean_columns(grouped: Any, name: str, confidence: float, error: np.ndarray | float = 0.0) -> dict[str, pd.Series[float]]:
    """Mean of a column in each group, and its interval (:func:`half_width`)."""
    mean, count, spread = grouped[name].mean(), grouped[name].count(), grouped[name].std()
    half = half_width(np.asarray(spread, dtype=float), np.asarray(count), error, confidence)
    return {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}


def _average_runs(summary: pd.DataFrame, keys: list[str], confidence: float) -> pd.DataFrame:
    reasons = summary["reason"].where(summary["reason"] != "", None)
    grouped = summary.assign(variance=summary["stderr"] ** 2, reason=reasons).groupby(keys, observed=True, sort=False)
    columns: dict[str, Any] = {"runs": grouped.size(), "points": grouped["points"].mean()}
    for name in MEASURES:
        columns |= _mean_columns(grouped, name, confidence)
    columns["stderr"] = np.sqrt(grouped["variance"].sum()) / columns["runs"]
    columns |= {name: grouped[name].sum() for name in ("no_ratio", "undefined")}
    columns["exact"] = grouped["exact"].min().astype(bool)
    columns["reason"] = grouped["reason"].first().fillna("")
    return pd.DataFrame(columns).reset_index()


def average(table: pd.DataFrame, keys: Sequence[str], measure: str) -> pd.DataFrame:
    """Mean of ``measure`` over the rows of each group, with its 95% interval of Student's t as ``_low`` and ``_high``."""
    grouped = table.groupby(list(keys), observed=True, sort=False)
    return pd.DataFrame(_mean_columns(grouped, measure, CONFIDENCE)).reset_index()


def last_step(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the last step of each run, or of each setting in means over runs: the trained nets."""
    if table.empty:
        return table
    keys = ["run"] if "run" in table.columns else ["width", "training"]
    return table[table["step"] == table.groupby(keys, observed=True)["step"].transform("max")]


def corrected_p(table: pd.DataFrame) -> pd.Series[float]:
    """The corrected p-value of tests of a study: ``p_joint`` of a permutation test if there is one, else ``p_holm``."""
    return table["p_joint"].astype(float).fillna(table["p_holm"].astype(float))


def curve_means(curves: pd.DataFrame) -> pd.DataFrame:
    """Curves of a study at the first and last step, averaged over runs, or those of one measured model unchanged.

    Columns: ``CURVE_KEYS``, ``x``, ``y``, ``y_low``, ``y_high``, ``seeds``, ``stage``.

    ``stage`` is "initial" or "trained" (each run's last step). A histogram bin that a run did not fill counts as 0 in it. The
    interval of a Zipf curve is that of its logarithm (to first order), as it is drawn on a log axis.

    Raises:
        InputError: columns are missing.
    """
    if "stage" in curves.columns:
        return curves
    if "network" in curves.columns:
        return _model_curves(curves)
    require_columns(curves, CURVE_COLUMNS, "curves")
    curves = curves[curves["y"].notna()]
    if curves.empty:
        return pd.DataFrame(columns=[*CURVE_KEYS, "x", "y", "y_low", "y_high", "seeds", "stage"])
    first, last = curves["step"] == 0, curves["step"] == curves.groupby("run", observed=True)["step"].transform("max")
    frame = curves[first | last].copy()
    frame["stage"] = pd.Categorical.from_codes(np.where(frame["step"] == 0, 0, 1), categories=pd.Index(STAGES))
    keys = [key for key in CURVE_KEYS if key != "step"] + ["stage"]
    frame["step"] = frame.groupby(keys, observed=True)["step"].transform("max")
    keys = [*CURVE_KEYS, "stage"]
    frame["square"] = frame["y"] ** 2
    runs = frame.groupby(keys, observed=True)["run"].nunique().rename("runs")
    sums = frame.groupby([*keys, "x"], observed=True).agg(total=("y", "sum"), squares=("square", "sum"), filled=("y", "count"))
    table = sums.reset_index().merge(runs.reset_index(), on=keys)
    table["seeds"] = np.where(table["curve"] == "histogram", table["runs"], table["filled"])
    mean = table["total"] / table["seeds"]
    spread = np.sqrt((table["squares"] - table["seeds"] * mean**2).clip(lower=0) / (table["seeds"] - 1).clip(lower=1))
    half = half_width(np.asarray(spread), table["seeds"].to_numpy())
    factor = np.exp(half / np.where(mean > 0, mean, np.nan))
    zipf = table["curve"] == "zipf"
    low = np.where(zipf, mean / factor, (mean - half).clip(lower=0))
    table = table.assign(y=mean, y_low=low, y_high=np.where(zipf, mean * factor, mean + half))
    return table[[*CURVE_KEYS, "x", "y", "y_low", "y_high", "seeds", "stage"]]


def _model_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Curves of one model (``network`` "model" or "baseline") in the form of :func:`curve_means`: width 0, training ""."""
    require_columns(curves, dict.fromkeys(("layer", "k", "selection", "curve", "x", "y"), ""), "curves")
    stage = np.where(curves["network"].astype(str) == "baseline", "initial", "trained")
    bare: dict[str, Any] = {"width": 0, "training": "", "step": 0, "y_low": np.nan, "y_high": np.nan, "seeds": 1}
    return curves.assign(**bare, stage=stage)[[*CURVE_KEYS, "x", "y", "y_low", "y_high", "seeds", "stage"]]


def selection_parameters(name: str) -> tuple[str, tuple[float, ...]]:
    """``"window(13,13,7)"`` -> ``("window", (13.0, 13.0, 7.0))``; a name without numbers is its own kind."""
    match = _SELECTION.fullmatch(name)
    if not match:
        return name, ()
    try:
        return match[1], tuple(float(number) for number in match[2].split(","))
    except ValueError:
        return name, ()


def select_scale(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Rows of selections of one ``kind`` with a number as ``scale`` ("ball", "apart"), and rows of "all" (``scale`` NaN)."""
    names = table["selection"].astype(str)
    numbers = {name: args[0] for name, args in _selections_of(names, kind, 1).items()}
    return table.assign(scale=names.map(numbers).astype(float))[names.isin([*numbers, "all"])]


def select_windows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of window selections, with ``row``, ``column`` and ``radius``."""
    names = table["selection"].astype(str)
    parameters = _selections_of(names, "window", 3)
    inside = names.isin(parameters)
    numbers = np.array([parameters[name] for name in names[inside]], dtype=float).reshape(-1, 3)
    return table[inside].assign(row=numbers[:, 0], column=numbers[:, 1], radius=numbers[:, 2])


def _selections_of(names: pd.Series[str], kind: str, count: int) -> dict[str, tuple[float, ...]]:
    """Parameters of the distinct selections of a kind with ``count`` numbers."""
    parsed = {name: selection_parameters(name) for name in names.unique()}
    return {name: numbers for name, (head, numbers) in parsed.items() if head == kind and len(numbers) == count}


def layers_of(table: pd.DataFrame) -> list[str]:
    """Layer names in network order: "1", "3" and "hidden1", "hidden2" by number, then the rest in order of appearance."""
    names = [str(name) for name in pd.unique(table["layer"])]
    numbers = {name: name.removeprefix("hidden") for name in names}
    return sorted(names, key=lambda name: (0, int(numbers[name])) if numbers[name].isdigit() else (1, names.index(name)))


def layers_with(table: pd.DataFrame, scores: Sequence[str] = ("pr",)) -> list[str]:
    """Layers that have any of ``scores``. Raises :class:`NothingToPlot` if there are none."""
    layers = layers_of(table[table["score"].astype(str).isin(scores)])
    if not layers:
        raise NothingToPlot(f"no layer has the score {' or '.join(scores)}")
    return layers


def trainings_of(table: pd.DataFrame) -> list[str]:
    """Trainings present, "standard" first."""
    names = {str(name) for name in pd.unique(table["training"])}
    return sorted(names, key=lambda name: (name != "standard", name))


def widths_of(table: pd.DataFrame) -> list[int]:
    """Widths present, ascending."""
    return sorted(int(width) for width in pd.unique(table["width"]))


def select(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """Rows whose columns equal the given values; strings are compared as text, None means any."""
    keep = np.ones(len(table), dtype=bool)
    for column, value in wanted.items():
        if value is not None:
            series = _as_text(table[column]) if isinstance(value, str) else table[column]
            keep &= (series == value).to_numpy(dtype=bool)
    return table[keep]


def _as_text(column: pd.Series[Any]) -> pd.Series[Any]:
    """Convert a column to strings; categories of strings are kept, since converting each row is slow."""
    names = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    return column if pd.api.types.is_string_dtype(names) else column.astype(str)


def group_rows(table: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[Any, np.ndarray]]:
    """Values of ``keys`` and the row numbers that have them, in order of appearance.

    For thousands of small groups, where making a data frame of each would dominate.
    """
    if table.empty:
        return
    code = table.groupby(list(keys), observed=True, sort=False).ngroup().to_numpy()
    groups = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
    first = table.iloc[[rows[0] for rows in groups]]
    yield from zip(zip(*(first[name] for name in keys), strict=True), groups, strict=True)


def require_columns(table: pd.DataFrame, columns: Iterable[str], name: str) -> None:
    """Raise :class:`InputError` if ``table`` lacks columns."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        available = ", ".join(map(str, table.columns[:20])) or "none"
        raise InputError(f"the {name} table lacks the columns {', '.join(missing)}; it has {available}")


def half_width(spread: np.ndarray, count: np.ndarray, error: np.ndarray | float = 0.0, confidence: float = 0.95) -> np.ndarray:
    """Half the interval of a mean of ``count`` numbers of standard deviation ``spread``: t sqrt(s^2 / n + e^2); NaN for n < 2.

    Args:
        spread: standard deviations (with n - 1).
        count: how many numbers.
        error: standard error e that the numbers have in common, since they were sampled with the same draws.
        confidence: such as 0.95.
    """
    enough = count >= 2
    t = stdtrit(np.where(enough, count - 1, 1), (1 + confidence) / 2)
    return np.where(enough, t * np.hypot(spread / np.sqrt(np.maximum(count, 1)), error), np.nan)
