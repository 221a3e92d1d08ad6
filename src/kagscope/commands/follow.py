"""``kagscope report --follow``: rebuild the page of a running study or training when there is more to show."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import typer

from kagscope.base.errors import DataError
from kagscope.measuring.page import write_page
from kagscope.studies.store import RunStore
from kagscope.studies.study import conclude, status
from kagscope.tracking.tracker import Tracker

SECONDS = 15  # between checks, and between reloads of the page
WAITING = ("running", "missing")


def follow_study(folder: Path, seconds: float = SECONDS, sleep: Callable[[float], None] = time.sleep) -> Path:
    """Rebuild the page of a study whenever runs have finished, until the last of them.

    Args:
        folder: folder of the study.
        seconds: seconds between checks.
        sleep: function that waits; Ctrl-C during it ends with a page that no longer reloads itself.

    Returns:
        Path of the page.
    """
    store, done = RunStore.existing(folder), -1
    with suppress(KeyboardInterrupt):
        while any((counts := status(store).counts())[state] for state in WAITING):
            if counts["done"] > max(done, 0):
                done = counts["done"]
                page = conclude(store, follow=max(1, round(seconds))).report
                typer.echo(f"{done} of {sum(counts.values())} runs in {page}", err=True)
            sleep(seconds)
    conclude(store)
    return folder / "report.html"


def follow_history(folder: Path, seconds: float = SECONDS, sleep: Callable[[float], None] = time.sleep) -> Path:
    """Rebuild the page of a tracked training after every measurement; arguments as for :func:`follow_study`.

    It is ended by Ctrl-C, as a history does not say whether training continues.
    """
    page, last_change = folder / "report.html", -1.0
    with suppress(KeyboardInterrupt):
        while True:
            changed = (folder / "tracker.json").stat().st_mtime
            if changed != last_change:
                with suppress(DataError):  # nothing measured yet
                    write_page(Tracker.load(folder), page, follow=max(1, round(seconds)))
                    typer.echo(f"rebuilt {page}", err=True)
                last_change = changed
            sleep(seconds)
    write_page(Tracker.load(folder), page)
    return page
