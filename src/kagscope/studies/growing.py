"""Joined tables that grow while a study computes: read at any moment, and at the end, or after a kill, little is left to read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from kagscope.base.errors import KagscopeError
from kagscope.studies.execute.base import Event, Report
from kagscope.studies.store import RunStore
from kagscope.studies.tables import CURVES, RESULTS, join, joined_runs, whole_runs

AT_LEAST = 256  # runs joined at a time


class Growing:
    """Passes events on, and joins what is there whenever it has grown by a quarter and by :data:`AT_LEAST` runs.

    Each joining reads what the last one wrote, and writes all of it again: growth by a share makes the cost of a run the same
    however many there are. A failure to join is no failure of the study, which joins once more at its end.
    """

    def __init__(self, store: RunStore, names: Sequence[str], on_event: Report) -> None:
        self._store, self._names, self._on_event = store, names, on_event
        there = store.folders() & set(names)
        joined_before = joined_runs(store, CURVES) & there  # of the table that is written last
        self._held, self._new = len(joined_before), len(there - joined_before)

    def __call__(self, event: Event) -> None:
        self._on_event(event)
        if event["kind"] != "run":
            return
        self._new += 1
        if self._new >= max(AT_LEAST, self._held // 4):
            self._held, self._new = self._held + self._new, 0
            with contextlib.suppress(KagscopeError):
                self._join()

    def _join(self) -> None:
        whole, _ = whole_runs(self._store, self._names)
        join(self._store, whole, RESULTS)
        join(self._store, whole, CURVES)
