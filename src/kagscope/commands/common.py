"""Shared parts of all commands: common options, parsing of lists, and handling of errors."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from kagscope.base.errors import InputError, KagscopeError
from kagscope.base.messages import one_line

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the path of the report (and errors).")]
QuietFiles = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the paths of written files (and errors).")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to standard output, progress to standard error.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]

Arguments = Annotated[
    list[str] | None,
    typer.Option(
        "--argument", metavar="NAME=VALUE", help="Argument of the factory, such as width=64; repeatable.", show_default=False
    ),
]
Split = Annotated[str, typer.Option("--split", metavar="NAME", help="test or train, of a data set with both.")]
InputShape = Annotated[
    str | None,
    typer.Option(
        "--input-shape",
        metavar="N,N,…",
        help="Shape of one input, such as 1,28,28. [default: the first that the model takes]",
        show_default=False,
    ),
]
Executor = Annotated[str, typer.Option(help="local (processes) or ray.")]
Workers = Annotated[int | None, typer.Option(help="Tasks at a time. [default: one per core]", show_default=False)]
Address = Annotated[str | None, typer.Option(help="Address of a Ray cluster.", show_default=False)]
Cpus = Annotated[
    float | None, typer.Option("--cpus-per-run", help="CPUs that Ray sets aside for each task. [default: 1]", show_default=False)
]
Gpus = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-run", help="GPUs that Ray sets aside for each task, such as 0.25, where nets train.", show_default=False
    ),
]

GOES_ON = "finished runs are kept, the same command goes on from there"


def run_command(job: Callable[[], None], debug: bool, interrupted: str = GOES_ON) -> None:
    """Run a command; errors become one line on standard error and exit code 2 (bad input), 1 (failure) or 130 (Ctrl-C)."""
    try:
        job()
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {interrupted}", err=True)
        raise typer.Exit(130) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
            for failure in getattr(error, "failures", ()):
                typer.echo(failure.traceback, err=True)
        typer.echo(f"error: {_one_line(error)}", err=True)
        raise typer.Exit(getattr(error, "exit_code", 1)) from None


def _one_line(error: Exception) -> str:
    if isinstance(error, KagscopeError):
        return one_line(error)
    if isinstance(error, MemoryError):
        return "out of memory; use fewer --points or --workers, or smaller networks"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {one_line(error)} (this is a bug in kagscope; --debug shows where)"


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object to standard output."""
    typer.echo(json.dumps(content, indent=1, allow_nan=False))


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """Parse integers separated by commas. Raises :class:`InputError`, which names the option."""
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise InputError(
            f"--{option} is {text!r}; expected whole numbers with commas between them, for example 32,64,128"
        ) from None


def parse_pairs(option: str, texts: Sequence[str]) -> dict[str, Any]:
    """Parse "NAME=VALUE" texts to values by name: numbers, true, false, null and lists as in JSON, else text."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier() or name in values:
            repeated = " is given twice" if name in values else ""
            raise InputError(f"--{option} {text!r}{repeated}; expected NAME=VALUE, such as width=64, each name once")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values
