"""The command line: parses, calls, prints. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, cast

import typer
import typer.core
import typer.main

from kagscope.commands.common import Address, Cpus, Debug, Executor, Gpus, Json, Quiet, Workers, parse_numbers, run_command
from kagscope.commands.measure import measure
from kagscope.commands.measure_matrices import measure_matrices
from kagscope.commands.prune import prune
from kagscope.commands.report import finish, report
from kagscope.commands.study import app as study_app

USAGE_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[1])  # click's, for which typer has no public name


@contextmanager
def _one_line() -> Iterator[None]:
    """Wrong commands and options are told in one line, as all other errors are; a call without arguments shows the help."""
    try:
        yield
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        context = getattr(error, "ctx", None)
        said = getattr(error, "format_message")().rstrip(".")  # noqa: B009
        typer.echo(
            f"error: {said[:1].lower()}{said[1:]} (see {context.command_path if context else 'kagscope'} --help)", err=True
        )
        raise typer.Exit(2) from None


class _Group(typer.core.TyperGroup):
    """The commands; the options of ``measure`` that come from the spec are made when it is called, since they need torch."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """What stands before the command."""
        with _one_line():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Parse what follows, and run the command."""
        with _one_line():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that ``args`` begin with, with all its options."""
        if args and args[0] == "measure":
            self.commands["measure"] = _measure_command()
        return super().resolve_command(ctx, args)


@cache
def _measure_command() -> Any:
    from kagscope.commands.spec_options import add_spec_options

    add_spec_options(measure)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command("measure")(measure)
    return typer.main.get_command(alone)


app = typer.Typer(
    name="kagscope",
    cls=_Group,
    help="Measure Kolmogorov-Arnold geometry: how concentrated the minors of a network's Jacobians are, at every scale.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        from kagscope import __version__

        typer.echo(f"kagscope {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _is_given(context: typer.Context, option: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


@app.command(short_help="Train MLPs, measure them, judge the paper's claims.")
def reproduce(
    context: typer.Context,
    data: Annotated[
        str, typer.Option(help="mnist10k, digits (embedded), mnist, fashion_mnist, kmnist (downloaded), or a folder.")
    ] = "mnist10k",
    out: Annotated[Path, typer.Option(help="Output folder: new, empty, or that of this very study, which then goes on.")] = Path(
        "kagscope-out"
    ),
    widths: Annotated[str, typer.Option(help="Units per hidden layer, one setting for each number.")] = "32,64,128",
    depth: Annotated[int, typer.Option(help="Number of hidden layers.")] = 2,
    activation: Annotated[str, typer.Option(help="gelu, relu, tanh or silu.")] = "gelu",
    training: Annotated[str, typer.Option(help="standard, augmented, or both.")] = "standard,augmented",
    control: Annotated[
        str, typer.Option(help="shuffled: as many nets again on shuffled labels, for each seed and width; or none.")
    ] = "shuffled",
    seeds: Annotated[int, typer.Option(help="Networks per setting.")] = 5,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the training set. [default: 60 if up to 256 pixels, 20 if up to 20,000 images, else 10]",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step. [default: 32 for images up to 256 pixels, else 128]", show_default=False)
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty.")] = 0.0,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Learn from images whose mean is subtracted and whose deviation is 1.")
    ] = False,
    checkpoints: Annotated[int, typer.Option(help="Geometrically spaced steps at which geometry is measured.")] = 6,
    k: Annotated[str, typer.Option("--k", help="Orders of the minors.")] = "1,2,3",
    points: Annotated[
        int | None, typer.Option(help="Test images measured. [default: by the size of the images]", show_default=False)
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Sum over every minor, only rotations are drawn; hours on large images.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A first look within seconds: few small nets on digits; other options refine it.")
    ] = False,
    executor: Executor = "local",
    workers: Workers = None,
    address: Address = None,
    cpus_per_run: Cpus = None,
    gpus_per_run: Gpus = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train MLPs, measure their geometry along training, and judge the paper's claims (arXiv 2511.21626).

    Ends with the path of report.html. Running the same command again uses finished runs.
    """

    def job() -> None:
        from kagscope.commands.progress import Console
        from kagscope.studies.execute.choose import choose_executor
        from kagscope.studies.reproduce import QUICK, command, reproduction
        from kagscope.studies.study import run_study

        options = {
            "data": data,
            "widths": parse_numbers("widths", widths),
            "depth": depth,
            "activation": activation,
            "training": tuple(part.strip() for part in training.split(",")),
            "control": control,
            "seeds": seeds,
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "normalize": normalize or None,
            "checkpoints": checkpoints,
            "k": parse_numbers("k", k),
            "points": points,
            "exact": exact or None,
        }
        if quick:
            options |= {name: value for name, value in QUICK.items() if not _is_given(context, name)}
        study = reproduction(**options)
        chosen = choose_executor(executor, workers, address, cpus_per_run, gpus_per_run)
        again = command(options, out)
        with Console(quiet=quiet or as_json) as console:
            outcome = run_study(study, out, command=again, executor=chosen, on_event=console.event, progress=not quiet)
        finish(outcome, quiet, as_json)

    run_command(job, debug)


app.command(short_help="Rebuild a folder's report, or compare studies.")(report)
app.command()(measure)
app.command("measure-matrices", short_help="Measure every matrix in a file.")(measure_matrices)
app.add_typer(study_app, name="study", short_help="Many runs from a short file: init, plan, run, …")
app.command(short_help="Remove units that are constant at all inputs.")(prune)


def main(arguments: list[str] | None = None) -> Any:
    """Entry point of ``kagscope``."""
    return app(args=arguments if arguments is not None else sys.argv[1:])
