"""How the networks of one study differ from those of another: effects, intervals and tests, by setting and over settings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from kagscope.studies.statistics.multiple_testing import holm
from kagscope.tables.schema import ALL_SETTINGS

Array = NDArray[np.float64]

WHAT = ["layer", "k", "selection", "score"]
SAME, TINY = 1e-9, 1e-13  # relative, absolute; closer numbers are the same up to rounding
LEVEL = 0.975  # upper end of the intervals
ACCURACY = "accuracy"
COLUMNS = (
    "setting",
    *WHAT,
    "measure",
    "effect",
    "a",
    "b",
    "estimate",
    "low",
    "high",
    "p_value",
    "p_holm",
    "n_a",
    "n_b",
    "paired",
    "settings",
    "exact",
    "test",
)


def contrasts(a: pd.DataFrame, b: pd.DataFrame, paired: dict[str, bool]) -> pd.DataFrame:
    """Compare two tables of trained networks, cell by cell; a cell is a layer, k, selection and score.

    What is compared is the mean over a network's points of trained over initial where every network has it, else of the score
    itself ("measure"). Where all numbers are positive the effect is the ratio of geometric means B / A, and statistics are
    those of logarithms; else it is the difference of means B - A. Settings are matched: within one, networks with the same seed
    are pairs where ``paired`` says so (paired t-test), else the two groups stand apart (Welch's t-test). Over all settings the
    effect is the mean of the settings' effects, every setting weighing the same; its variance is that of such a mean, with
    Satterthwaite's degrees of freedom. What two settings differ in widens no interval.

    Args:
        a, b: one row per network and cell: ``setting``, ``seed``, the columns of a cell, ``value``, ``ratio``, ``exact``.
        paired: by setting, whether networks of the same seed are pairs.

    Returns:
        One row per cell and setting and one per cell over :data:`ALL_SETTINGS`, columns :data:`COLUMNS`: ``a``, ``b`` mean of
        either side (geometric where the effect is a ratio), ``estimate`` with its 95% interval ``low``, ``high`` (NaN where no
        setting has two networks a side), ``n_a``, ``n_b`` networks (pairs: both the same), ``p_value`` two-sided, ``p_holm``
        after Holm's correction within the rows of one kind: over all settings or one by one, all columns or a part of them. Cells
        that differ by no more than rounding have p = 1; those with a difference but no spread have none.
    """
    form = _form(a, b)
    sides = [_measured(side, form) for side in (a, b)]
    keys = ["setting", *WHAT]
    pairs = sides[0].merge(sides[1], on=[*keys, "seed"], suffixes=("_a", "_b"))
    together = _paired_rows(pairs[pairs["setting"].map(paired).astype(bool)], keys)
    left, right = (side[~side["setting"].map(paired).astype(bool)] for side in sides)
    apart = _separate_rows(left, right, keys)
    single = pd.concat([together, apart], ignore_index=True).merge(form.reset_index(), on=WHAT)
    table = pd.concat([_pooled(single), single.assign(settings=1)], ignore_index=True)
    return _tested(table)


def _form(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """What is compared in each cell that both have: ``measure`` "ratio" or "value", ``effect`` "ratio" or "difference"."""
    facts = []
    for side in (a, b):
        marked = side.assign(
            whole=np.isfinite(side["ratio"]) & (side["ratio"] > 0),
            moved=side["ratio"] != 1,
            positive=side["value"].isna() | (side["value"] > 0),
        )
        facts.append(
            marked.groupby(WHAT, observed=True)[["whole", "moved", "positive"]].agg(
                {"whole": "all", "moved": "any", "positive": "all"}
            )
        )
    both = _beside(*facts)
    of_start = both["whole_a"] & both["whole_b"] & (both["moved_a"] | both["moved_b"])
    as_ratio = of_start | (both["positive_a"] & both["positive_b"])
    as_ratio &= both.index.get_level_values("score") != ACCURACY
    return pd.DataFrame(
        {"measure": np.where(of_start, "ratio", "value"), "effect": np.where(as_ratio, "ratio", "difference")}, index=both.index
    )


def _beside(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Rows whose index both have; columns with _a and _b."""
    return a.add_suffix("_a").join(b.add_suffix("_b"), how="inner")


def _measured(side: pd.DataFrame, form: pd.DataFrame) -> pd.DataFrame:
    """``x``, what is compared of each network: a logarithm where the effect is a ratio; undefined ones are left out."""
    frame = side.merge(form.reset_index(), on=WHAT)
    x = np.where(frame["measure"] == "ratio", frame["ratio"], frame["value"]).astype(float)
    logs = (frame["effect"] == "ratio").to_numpy()
    x[logs] = np.log(x[logs])
    frame = frame.assign(x=x)[["setting", *WHAT, "seed", "x", "exact"]]
    return frame[np.isfinite(frame["x"])]


def _difference(a: pd.Series, b: pd.Series) -> Array:
    """B - A, 0 where that is rounding."""
    x, y = a.to_numpy(float), b.to_numpy(float)
    scale = np.minimum(np.maximum(np.abs(x), np.abs(y)), 1.0)  # of a logarithm the scale is 1
    return np.where(np.abs(y - x) <= np.maximum(SAME * scale, TINY), 0.0, y - x)


def _paired_rows(pairs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    frame = pairs.assign(d=_difference(pairs["x_a"], pairs["x_b"]))
    frame["exact"] = frame["exact_a"] & frame["exact_b"]
    grouped = frame.groupby(list(keys), observed=True, sort=False)
    n = grouped["d"].count()
    found = pd.DataFrame(
        {
            "a": grouped["x_a"].mean(),
            "b": grouped["x_b"].mean(),
            "estimate": grouped["d"].mean(),
            "variance": grouped["d"].var() / n,
            "df": n - 1.0,
            "n_a": n,
            "n_b": n,
            "exact": grouped["exact"].min(),
        }
    )
    return found.reset_index().assign(paired=True)


def _separate_rows(a: pd.DataFrame, b: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Welch's statistics of each cell (Welch 1947)."""
    parts = []
    for side in (a, b):
        grouped = side.groupby(list(keys), observed=True, sort=False)
        n = grouped["x"].count()
        parts.append(
            pd.DataFrame({"x": grouped["x"].mean(), "v": grouped["x"].var() / n, "n": n, "exact": grouped["exact"].min()})
        )
    both = _beside(*parts)
    va, vb = both["v_a"], both["v_b"]
    noise = va**2 / (both["n_a"] - 1).clip(lower=1) + vb**2 / (both["n_b"] - 1).clip(lower=1)
    found = pd.DataFrame(
        {
            "a": both["x_a"],
            "b": both["x_b"],
            "estimate": _difference(both["x_a"], both["x_b"]),
            "variance": va + vb,
            "df": ((va + vb) ** 2 / noise).where(noise > 0, both["n_a"] + both["n_b"] - 2.0),
            "n_a": both["n_a"],
            "n_b": both["n_b"],
            "exact": both["exact_a"] & both["exact_b"],
        }
    )
    return found.reset_index().assign(paired=False)


def _pooled(single: pd.DataFrame) -> pd.DataFrame:
    """Over settings: the mean of their effects; its variance is sum(v) / S^2 (Satterthwaite 1946 for the degrees of freedom)."""
    frame = single.assign(square=single["variance"] ** 2 / single["df"].clip(lower=1), one=1)
    grouped = frame.groupby(WHAT, observed=True, sort=False)
    count, total = grouped["one"].sum(), grouped["variance"].sum(min_count=1)
    known = grouped["variance"].count() == count  # a setting of one network leaves the mean without an interval
    square = grouped["square"].sum()
    found = pd.DataFrame(
        {
            **{name: grouped[name].mean() for name in ("a", "b", "estimate")},
            "variance": (total / count**2).where(known),
            "df": (total**2 / square).where(square > 0, grouped["df"].sum()),
            **{name: grouped[name].sum() for name in ("n_a", "n_b")},
            "exact": grouped["exact"].min(),
            "paired": grouped["paired"].min(),
            "settings": count,
            **{name: grouped[name].first() for name in ("measure", "effect")},
        }
    )
    return found.reset_index().assign(setting=ALL_SETTINGS)


def _tested(table: pd.DataFrame) -> pd.DataFrame:
    estimate, variance = table["estimate"].to_numpy(float), table["variance"].to_numpy(float)
    df = table["df"].to_numpy(float)
    spread = np.sqrt(variance)
    known = np.isfinite(spread) & (df > 0) & ((spread > 0) | (estimate == 0))
    df = np.where(known, df, 1.0)
    half = np.where(known, stdtrit(df, LEVEL) * np.where(known, spread, 0.0), np.nan)
    t = np.divide(np.abs(estimate), spread, out=np.zeros_like(estimate), where=known & (spread > 0))
    table = table.assign(
        low=estimate - half, high=estimate + half, p_value=np.where(known, 2 * stdtr(df, -t), np.nan), test=_names(table)
    )
    of_ratio = (table["effect"] == "ratio").to_numpy()
    for name in ("a", "b", "estimate", "low", "high"):
        x = table[name].to_numpy(float).copy()
        x[of_ratio] = np.exp(x[of_ratio])
        table[name] = x
    kind = [
        (setting == ALL_SETTINGS, selection == "all")
        for setting, selection in zip(table["setting"], table["selection"], strict=True)
    ]
    table["p_holm"] = np.nan
    for _, rows in table.groupby(pd.Series(kind, index=table.index)):
        table.loc[rows.index, "p_holm"] = holm(rows["p_value"].tolist())
    return table.astype({"exact": bool, "paired": bool, "n_a": int, "n_b": int, "settings": int})[list(COLUMNS)]


def _names(table: pd.DataFrame) -> NDArray[np.object_]:
    how = np.where(table["paired"], "paired t-test", "Welch's t-test")
    of = np.where(table["effect"] == "ratio", "logarithms", "values")
    over = np.where(table["settings"] > 1, ", settings weighed alike", "")
    return np.array([f"{one} of {what}{rest}" for one, what, rest in zip(how, of, over, strict=True)], dtype=object)
