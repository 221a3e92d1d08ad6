"""``kagscope report``, also as ``kagscope study report``; and how every command that makes a report ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kagscope.commands.common import Debug, Json, Quiet, guarded

if TYPE_CHECKING:
    from kagscope.studies.collect import Outcome


def report(
    folder: Annotated[Path, typer.Argument(help="Output folder of a study.", show_default=False)],
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Rebuild tables, claims, figures and report.html of a study from its finished runs."""

    def job() -> None:
        from kagscope.studies.run_file import collector
        from kagscope.studies.store import RunStore

        store = RunStore.existing(folder)
        from kagscope.console import Console

        with Console(quiet=quiet or as_json) as console:
            outcome = collector(store)(store, store.study["runs"], console.event)
        finish(outcome, quiet, as_json)

    guarded(job, debug)


def finish(outcome: Outcome, quiet: bool, as_json: bool) -> None:
    """Claims and findings, and last the path of the report; or all of it as one JSON object."""
    if as_json:
        found = {
            "report": str(outcome.report),
            "claims": [claim.as_json() for claim in outcome.claims],
            "findings": outcome.findings,
            "runs": outcome.runs,
            "left_out": outcome.left_out,
            "seconds": outcome.seconds,
        }
        typer.echo(json.dumps(found, indent=1, allow_nan=False))
        return
    if not quiet:
        from kagscope.console import print_outcome

        print_outcome(outcome)
    typer.echo(str(outcome.report))
