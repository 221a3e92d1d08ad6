"""A measurement as rows of the tracker's table, and the trajectory formed by the measurements of several sessions."""

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
        epoch: passes over the data; NaN if not given.
        table: rows with columns :data:`kagscope.tables.schema.SCORE_COLUMNS`, and ``token`` if a layer has tokens.
        session: number of the tracker among those on the same history folder, from 1.
        since: step at which training began in that session.
        thinned: due steps skipped since the previous measurement to stay under the overhead limit.
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
    """Select the measurements of the training as it finally went, by step.

    Training that was killed resumes from a checkpoint before its last measurement. From there on the later session counts:
    measurements of earlier sessions after its first step belong to training that was lost.
    """
    kept: dict[int, Part] = {}
    for session in sorted({part.session for part in parts}):
        new = [part for part in parts if part.session == session]
        since = min(part.since for part in new)
        kept = {step: part for step, part in kept.items() if step <= since} | {part.step: part for part in new}
    return [kept[step] for step in sorted(kept)]


def join_measurements(parts: Sequence[Part]) -> pd.DataFrame:
    """Stack the rows of all parts, with columns ``step`` and ``epoch`` first."""
    if not parts:
        return pd.DataFrame(columns=[*FIRST_COLUMNS, *NEEDED])
    table = stack_tables({part.step: part.table.assign(epoch=part.epoch) for part in parts})
    table.insert(1, "epoch", table.pop("epoch"))
    return table
