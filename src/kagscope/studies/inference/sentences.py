"""What the three tables say, in a sentence each."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kagscope.studies.inference.nets import RATIO
from kagscope.studies.inference.trained import ALL

ALPHA = 0.05


def sentences(trained: pd.DataFrame, comparisons: pd.DataFrame, trends: pd.DataFrame) -> list[str]:
    """One sentence per table about scores of the whole image: how many differ after correction, and the clearest.

    Args:
        trained: as of :func:`kagscope.studies.inference.trained.trained_against_initial`.
        comparisons: as of :func:`kagscope.studies.inference.comparisons.comparisons`.
        trends: as of :func:`kagscope.studies.inference.trends.trends`.
    """
    said = []
    over_all = trained["family"].str.contains("over all settings")
    tested = _tested(trained[over_all] if over_all.any() else trained)
    if len(tested):
        clear, best = _clearest(tested, tested["p_value"])
        axes = list(trained.columns[: list(trained.columns).index("layer")])
        where = "" if not axes else " over all settings" if best[axes[0]] == ALL else " in single settings"
        what = f"Training changed {len(clear)} of {len(tested)} scores of the whole image{where} ({_how(best)})"
        said.append(f"{what}; clearest: {_score(best)}, {_effect(best)}." if len(clear) else f"{what}: nothing differs for sure.")
    tested = _tested(comparisons)
    if len(tested):
        clear, best = _clearest(tested, tested["p_value"])
        groups = f"{best['axis']} {best['category']} against {best['first']}"
        how = f"{_how(best)}; {_mixed(tested)}"
        what = f"Scores of the whole image that differ between categories: {_counts(tested, clear)} ({how})"
        said.append(f"{what}; clearest: {groups}, {_score(best)}, {_effect(best)}." if len(clear) else f"{what}.")
    tested = _tested(trends)
    if len(tested):
        clear, best = _clearest(tested, -tested["tau"].abs())
        way = f"{'rises' if best['tau'] > 0 else 'falls'} with {best['axis']}"
        interval = f"tau {best['tau']:.2f} ({best['tau_low']:.2f} to {best['tau_high']:.2f})"
        what = f"Scores of the whole image with a monotone trend: {_counts(tested, clear)} ({_how(best)})"
        said.append(f"{what}; clearest: {_score(best)} {way}, {interval}." if len(clear) else f"{what}.")
    return said


def corrected(table: pd.DataFrame) -> pd.Series[float]:
    """The p-value to judge by: ``p_joint`` of a permutation test, else ``p_holm``."""
    return table["p_joint"].astype(float).fillna(table["p_holm"].astype(float))


def _tested(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["selection"] == "all") & table["p_value"].notna()].reset_index(drop=True)


def _clearest(tested: pd.DataFrame, then: pd.Series[Any]) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Rows that differ after correction, and the clearest: lowest corrected p, then lowest ``then``."""
    p = corrected(tested)
    order = pd.DataFrame({"p": p, "then": then.astype(float)}).sort_values(["p", "then"], kind="stable")
    return tested[p < ALPHA], tested.loc[order.index[0]]


def _how(row: pd.Series[Any]) -> str:
    return f"{row['test']}, n = {row['n']}, corrected p < {ALPHA}"


def _counts(tested: pd.DataFrame, clear: pd.DataFrame) -> str:
    names = tested["axis"].drop_duplicates()
    return ", ".join(f"{(clear['axis'] == name).sum()} of {(tested['axis'] == name).sum()} for {name}" for name in names)


def _mixed(tested: pd.DataFrame) -> str:
    p = tested["mixed_p_holm"].astype(float)
    return f"by the mixed models of all nets {(p < ALPHA).sum()} of {p.notna().sum()}"


def _score(row: pd.Series[Any]) -> str:
    order = f"k = {row['k']}, " if row["k"] else ""
    return f"{row['score']} ({order}layer {row['layer']})" if row["layer"] else str(row["score"])


def _effect(row: pd.Series[Any]) -> str:
    ratio = row["measure"] == RATIO
    effect = f"{row['effect']:.3g} times" if ratio else f"{row['effect']:+.3g}"
    return effect if pd.isna(row["low"]) else f"{effect} ({row['low']:.3g} to {row['high']:.3g})"
