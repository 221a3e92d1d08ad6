"""The last measurement in a few words, for loggers and progress bars."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kagscope.measuring.report import main_order
from kagscope.tables.onset import find_onsets

LINE_SCORES = {"pr": "pr", "kl": "kl_uniform"}


def furthest_ratios(summary: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """For PR ("pr") and KL ("kl"), where measured: the layer whose ratio at the last step is furthest from 1, and that ratio."""
    found: dict[str, tuple[str, float]] = {}
    if summary.empty:
        return found
    last = main_order(summary[(summary["step"] == summary["step"].max()) & (summary["ratio"] > 0)])
    for name, score in LINE_SCORES.items():
        rows = last[last["score"] == score]
        if len(rows):
            place = int(np.argmax(np.abs(np.log(rows["ratio"].to_numpy(float)))))
            found[name] = str(rows["layer"].iloc[place]), float(rows["ratio"].iloc[place])
    return found


def line(summary: pd.DataFrame) -> str:
    """The ratios furthest from 1 and the first onset."""
    shown = [f"{name.upper()} x{ratio:.2f} (layer {layer})" for name, (layer, ratio) in furthest_ratios(summary).items()]
    if shown:
        chosen = main_order(summary)
        onsets = find_onsets(chosen[chosen["score"].isin(LINE_SCORES.values())])["step"].dropna()
        shown += [f"onset {min(onsets)}"] if len(onsets) else []
    return " | ".join(shown)
