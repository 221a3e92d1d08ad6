"""``kagscope study``: init, plan, run, status, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kagscope.base.errors import InputError, OutputError
from kagscope.commands.common import Address, Cpus, Debug, Executor, Gpus, Json, Quiet, Workers, print_json, run_command
from kagscope.commands.report import finish, report
from kagscope.studies.ready import ready_names

app = typer.Typer(
    help="Many runs from a short file, which go on where they were stopped.\n\n\b\n"
    + "\n  ".join(("Ready studies, whose name may stand for a file:", *ready_names())),
    no_args_is_help=True,
    rich_markup_mode=None,
)

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Study file, .toml, or the name of a ready study; `kagscope study --help` lists these.",
        show_default=False,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override the file, such as grid.width=[16,32]; repeatable.", show_default=False
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a study.", show_default=False)]


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Study file to write.")] = Path("study.toml"),
    ready: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME", help="Begin with a ready study, such as ka-phase-diagram.", show_default=False),
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of study files instead.")] = False,
    debug: Debug = False,
) -> None:
    """Write a commented study file that runs as it is."""

    def job() -> None:
        from kagscope.base.files import atomic_write
        from kagscope.studies.file import ready_study
        from kagscope.studies.template import schema as described
        from kagscope.studies.template import template

        if schema:
            typer.echo(described(), nl=False)
            return
        if file.suffix != ".toml":
            raise InputError(f"{file}: the file is TOML; give a name that ends in .toml")
        if file.exists():
            raise OutputError(f"{file} is there already; give another name")
        if ready is not None and ready not in ready_names():
            raise InputError(f"there is no ready study {ready!r}; expected one of {', '.join(ready_names())}")
        atomic_write(file, template() if ready is None else ready_study(ready))
        typer.echo(str(file))

    run_command(job, debug)


@app.command(short_help="List the runs, with an estimate of time and disk.")
def plan(
    file: File,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option(help="Store whose finished runs are not counted.", show_default=False)] = None,
    workers: Annotated[int | None, typer.Option(help="Runs at a time. [default: one per core]", show_default=False)] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List a study's runs with an estimate of time and disk; nothing is computed or written."""

    def job() -> None:
        from kagscope.studies.file import read_study_file
        from kagscope.studies.plan import estimate
        from kagscope.studies.resources import usable_cores
        from kagscope.studies.store import RunStore
        from kagscope.studies.study import plan_study

        study = plan_study(read_study_file(file, set_ or ()))
        names, done = [job.run.run_id for job in study.jobs], set()
        if out is not None and out.exists():
            store = RunStore.existing(out)
            done = {job.run.run_id for job in study.jobs if store.is_complete(job.run.run_id, job.files)}
        at_once = workers or usable_cores()
        cost = estimate([job for job in study.jobs if job.run.run_id not in done], study.images, study.classes, at_once)
        if as_json:
            record: dict[str, Any] = {
                "runs": names,
                "finished": len(done),
                "workers": at_once,
                "seconds": cost.wall_seconds(at_once),
                "bytes": cost.bytes,
                "memory_per_worker": cost.memory,
                "remark": study.remark(),
            }
            print_json(record)
            return
        from kagscope.commands.tables import print_plan

        print_plan(study.file, names, done, cost, at_once, study.remark())

    run_command(job, debug)


@app.command(short_help="Compute the runs that the folder does not hold yet.")
def run(
    file: File,
    out: Annotated[Path, typer.Option(help="Output folder: new, empty, or of the study of this name, which then goes on.")],
    set_: Set = None,
    executor: Executor = "local",
    workers: Workers = None,
    address: Address = None,
    cpus_per_run: Cpus = None,
    gpus_per_run: Gpus = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try runs again that failed before.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compute the runs that the folder does not hold yet, then write tables, figures and report.html."""

    def job() -> None:
        from kagscope.studies.execute.choose import choose_executor
        from kagscope.studies.file import read_study_file
        from kagscope.studies.study import command, run_study

        study = read_study_file(file, set_ or ())
        chosen = choose_executor(executor, workers, address, cpus_per_run, gpus_per_run)
        from kagscope.commands.progress import Console

        with Console(quiet=quiet or as_json) as console:
            outcome = run_study(
                study,
                out,
                command=command(file, out, set_ or ()),
                executor=chosen,
                on_event=console.event,
                retry_failed=retry_failed,
                progress=not quiet,
            )
        finish(outcome, quiet, as_json)

    run_command(job, debug)


@app.command(short_help="Show runs: done, running, failed, damaged, missing.")
def status(folder: Folder, as_json: Json = False, debug: Debug = False) -> None:
    """Show which runs are done, running, failed (and why), damaged or missing."""

    def job() -> None:
        from kagscope.studies.store import RunStore
        from kagscope.studies.study import status as look

        current = look(RunStore.existing(folder))
        if as_json:
            print_json({"counts": current.counts(), "runs": current.states, "errors": current.errors})
            return
        from kagscope.commands.tables import print_status

        print_status(current)

    run_command(job, debug)


app.command(short_help="Rebuild the report of a folder.")(report)
