"""One measurement as rows of the tracker's table, and the one trajectory that the measurements of several sessions make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kagscope.measuring.steps import stack_tables
from kagscope.tables.schema import SCORE_COLUMNS

FIRST_COLUMNS = ["step", "epoch"]
NEEDED = list(SCORE_COLUMNS)


@dataclass(frozen=True)
class Part:
    """One measurement.

    Attributes:
        step: optimiser steps taken.
        epoch: passes over the data, NaN where it was not given.
        table: its rows, columns :data:`kagscope.tables.schema.SCORE_COLUMNS`, and ``token`` where a layer has tokens.
        session: which tracker on the same history folder, counted from 1.
        since: step at which that session's training began.
        thinned: due steps that were left out since the measurement before, to stay under the limit on overhead.
        layers: how each layer was measured.
    """

    step: int
    epoch: float
    table: pd.DataFrame
    session: int = 1
    since: int = 0
    thinned: tuple[int, ...] = ()
    layers: tuple[dict[str, Any], ...] = ()

    def rows(self) -> pd.DataFrame:
        """The table with columns ``step`` and ``epoch``."""
        return self.table.assign(step=self.step, epoch=self.epoch)


def merge_sessions(parts: Sequence[Part]) -> list[Part]:
    """The measurements that belong to the training as it went in the end, by step.

    Training that was killed begins again at a checkpoint, earlier than its last measurement. From there on the later session
    counts: what earlier ones measured beyond its first step is of a training that was lost.
    """
    kept: dict[int, Part] = {}
    for session in sorted({part.session for part in parts}):
        new = [part for part in parts if part.session == session]
        since = min(part.since for part in new)
        kept = {step: part for step, part in kept.items() if step <= since} | {part.step: part for part in new}
    return [kept[step] for step in sorted(kept)]


def join_measurements(parts: Sequence[Part]) -> pd.DataFrame:
    """All rows, with columns ``step`` and ``epoch`` first."""
    if not parts:
        return pd.DataFrame(columns=[*FIRST_COLUMNS, *NEEDED])
    table = stack_tables({part.step: part.table.assign(epoch=part.epoch) for part in parts})
    table.insert(1, "epoch", table.pop("epoch"))
    return table
