"""Sentences about a training that was tracked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kagscope.tracking.trajectory import Trajectory

FEW_POINTS = 10
NAMED = 3  # damaged files; more are counted


def findings(trajectory: Trajectory) -> list[str]:
    """What stands out, what is damaged or was left out, what to distrust."""
    if not trajectory.parts:
        return ["Nothing was measured yet.", *_damaged(trajectory)]
    steps = trajectory.steps
    said = [f"{len(steps)} measurement{'s' * (len(steps) != 1)}, from step {steps[0]} to step {steps[-1]}."]
    summary = trajectory.summary()
    chosen = summary[(summary["score"] == "pr") & (summary["selection"] == "all") & summary["ratio"].notna()]
    chosen = chosen[chosen["k"] == (2 if (chosen["k"] == 2).any() else chosen["k"].max())]
    for layer, rows in chosen.groupby("layer", observed=True, sort=False):
        last = rows.iloc[-1]
        k = int(last["k"])
        onset = trajectory.onset("pr", layer=str(layer), k=k, selection="all")["step"].iloc[0]
        since = (
            "it never left the baseline's interval"
            if onset is None or onset != onset
            else f"apart from the baseline since step {int(onset)}"
        )
        interval = "" if np.isnan(last["low"]) else f" ({last['low']:.2f} to {last['high']:.2f})"
        said.append(
            f"Layer {layer}: PR (k = {k}) is {last['ratio']:.2f}{interval} times the baseline's at step "
            f"{int(last['step'])}; {since}."
        )
    points = int(summary["points"].max())
    if 0 < points < FEW_POINTS:
        said.append(f"Only {points} probe point{'s' * (points != 1)}: intervals say little; track at least {FEW_POINTS}.")
    if trajectory.thinned:
        said.append(f"{len(trajectory.thinned)} due measurements were left out, to stay under the limit on overhead.")
    said.append("There is one network: nothing here says how much networks differ.")
    return said + _damaged(trajectory)


def _damaged(trajectory: Trajectory) -> list[str]:
    said = [f"{what[:1].upper()}{what[1:]} and was left out." for what in trajectory.damaged[:NAMED]]
    more = len(trajectory.damaged) - NAMED
    return said + ([f"{more} more damaged measurements were left out."] if more > 0 else [])
