"""``kagscope report``, also as ``kagscope study report``, and the closing output of every command that makes a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kagscope.base.errors import DataError, InputError
from kagscope.commands.common import Debug, Json, Quiet, print_json, run_command

if TYPE_CHECKING:
    from kagscope.studies.collect import Outcome

MARKS = {"study.json": "study", "report.json": "measured model", "tracker.json": "history"}
"""File that identifies a folder, and the kind of folder."""
FOLDERS = "the output folder of reproduce or study run, of measure --out, or the history of a tracker"


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR",
            help="Folder to make the report of; several studies: to compare.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Page of a comparison, FILE.html or a folder; FILE.csv is written beside it. [default: A-vs-B.html, here]",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", help="Go on rebuilding it while runs or training go on; the page reloads itself. Ctrl-C ends it."
        ),
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Rebuild the report of a folder: of a study, a measured model or a tracker's history; or compare studies.

    Of a study, tables, claims and figures are made again too, from its finished runs. Several studies become one table with a
    column "study", along which they are compared; all are left as they are.
    """

    def job() -> None:
        if len(folders) == 1 and out is not None:
            raise InputError("--out is for comparing studies; the report of one folder is written into it")
        kinds = [kind_of(folder) for folder in folders]
        if follow:
            if len(folders) > 1 or kinds == ["measured model"]:
                raise InputError("--follow is for one study that runs or one tracked training; leave it out here")
            from kagscope.commands.follow import follow_history, follow_study

            typer.echo(str((follow_study if kinds == ["study"] else follow_history)(folders[0])))
        elif len(folders) > 1:
            _compare(folders, kinds, out, quiet, as_json)
        elif kinds == ["study"]:
            _study(folders[0], quiet, as_json)
        else:
            _write_measured(folders[0], kinds[0], quiet, as_json)

    run_command(job, debug, "no file is half written")


def kind_of(folder: Path) -> str:
    """Kind of a folder, a value of :data:`MARKS`. Raises :class:`DataError` for any other, with a hint."""
    if not folder.is_dir():
        problem = "a file" if folder.exists() else "not there"
        raise DataError(f"{folder} is {problem}; give {FOLDERS}")
    for mark, kind in MARKS.items():
        if (folder / mark).is_file():
            return kind
    hint = ""
    if folder.absolute().parent.name == "runs" and (folder / "manifest.json").is_file():
        hint = f" (it is one run of the study in {folder.parent.parent})"
    else:
        inner = sorted(path.name for path in folder.iterdir() if any((path / mark).is_file() for mark in MARKS))
        hint = f" (in it are {', '.join(inner[:3])})" if inner else ""
    raise DataError(f"{folder} holds no kagscope study, measured model or history{hint}; give {FOLDERS}")


def _study(folder: Path, quiet: bool, as_json: bool) -> None:
    from kagscope.commands.progress import Console
    from kagscope.studies.resources import usable_cores
    from kagscope.studies.store import RunStore
    from kagscope.studies.study import conclude

    store = RunStore.existing(folder)
    with Console(quiet=quiet or as_json) as console:
        outcome = conclude(store, console.event, workers=usable_cores())
    finish(outcome, quiet, as_json)


def _compare(folders: list[Path], kinds: list[str], out: Path | None, quiet: bool, as_json: bool) -> None:
    from kagscope.commands.outputs import comparison_files
    from kagscope.studies.side_by_side import compare_studies, folder_names

    if set(kinds) != {"study"}:
        other = next((folder, kind) for folder, kind in zip(folders, kinds, strict=True) if kind != "study")
        raise InputError(
            f"only studies are compared, and {other[0]} is the folder of a {other[1]}; "
            "measured models are compared in Python: kagscope.Report.load(A).compare(kagscope.Report.load(B))"
        )
    page, numbers = comparison_files(out, folder_names(folders))
    from kagscope.commands.progress import Console

    with Console(quiet=quiet or as_json) as console:
        console.event({"kind": "stage", "name": "comparison"})
        compared = compare_studies(*folders)
        compared.write(page, numbers)
    if as_json:
        print_json({"report": str(page), "table": str(numbers), "findings": compared.findings, "effects": compared.as_json()})
    else:
        _say(compared.findings, page, quiet)


def _write_measured(folder: Path, kind: str, quiet: bool, as_json: bool) -> None:
    from kagscope.base.files import atomic_write
    from kagscope.measuring.report import Report
    from kagscope.tracking.tracker import Tracker

    page = folder / "report.html"
    result = Tracker.load(folder) if kind == "history" else Report.load(folder)
    if kind != "history":
        atomic_write(folder / "summary.csv", result.summary().to_csv(index=False))
    result.to_html(page)
    if as_json:
        print_json({"report": str(page), "findings": result.findings})
    else:
        _say(result.findings, page, quiet)


def _say(findings: Sequence[str], page: Path, quiet: bool) -> None:
    """Print findings, then the path of the page."""
    if not quiet:
        from kagscope.commands import terminal

        terminal.print_findings(findings)
    typer.echo(str(page))


def finish(outcome: Outcome, quiet: bool, as_json: bool) -> None:
    """Print claims, findings and finally the path of the report, or all of them as one JSON object."""
    if as_json:
        print_json(
            {
                "report": str(outcome.report),
                "claims": [claim.as_json() for claim in outcome.claims],
                "findings": outcome.findings,
                "runs": outcome.runs,
                "left_out": outcome.left_out,
                "seconds": outcome.seconds,
            }
        )
        return
    if not quiet:
        from kagscope.commands.progress import print_outcome

        print_outcome(outcome)
    typer.echo(str(outcome.report))
