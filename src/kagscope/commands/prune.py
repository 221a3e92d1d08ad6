"""``kagscope prune``: a smaller model without its locally constant units, in files that load without kagscope."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from kagscope.base.errors import InputError
from kagscope.commands import common

DEFAULT_POINTS = 10_000


def prune(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="package.module:factory or path/to/file.py:factory, whose code is run: a function, class or model. "
            "Or the folder of a finished run, OUT/runs/RUN.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write: new or empty.", show_default=False)],
    argument: common.Arguments = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="File of weights: safetensors, or a state dict or checkpoint of torch.save (no other pickle).",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="mnist10k, digits, mnist, fashion_mnist, kmnist, a folder of images, or a file .npz, .npy, .pt, .safetensors: "
            "where units have to be constant.",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Rows and spreads of values count as zero up to this, relative to the largest of their layer.")
    ] = 0.0,
    curve: Annotated[
        str | None, typer.Option(help="Tolerances, such as 0,0.01,0.1: what each would do.", show_default=False)
    ] = None,
    points: Annotated[
        int | None, typer.Option(help="Inputs looked at, a fixed random sample. [default: up to 10000]", show_default=False)
    ] = None,
    split: common.Split = "train",
    input_shape: common.InputShape = None,
    latency: Annotated[bool, typer.Option("--latency", help="Time a forward pass before and after.")] = False,
    seed: Annotated[int, typer.Option(help="Of the model where it is built at random.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the output folder (and errors).")] = False,
    as_json: common.Json = False,
    debug: common.Debug = False,
) -> None:
    """Remove units that are constant at all inputs; the next layer's bias takes up their value.

    Writes weights.safetensors, model.py (turns the original architecture into the smaller one), model.pt2 (for
    torch.export.load, where PyTorch can export the model) and report.json. Give MODEL only code that you trust: it is run.
    """

    def job() -> None:
        shape = None if input_shape is None else common.parse_numbers("input-shape", input_shape)
        tolerances = None if curve is None else _tolerances(curve)
        named = common.parse_pairs("argument", argument or ())
        from kagscope.pruning.pruned_files import check_new, save_pruned
        from kagscope.pruning.pruning import check_tolerance

        for value in (tolerance, *(tolerances or ())):
            check_tolerance(value)
        check_new(out)
        from kagscope.commands.sources import Request, prepare
        from kagscope.measuring.observe import choose_points
        from kagscope.pruning.prune import prune as run

        def say(line: str) -> None:
            if not quiet:
                typer.echo(line, err=True)

        with contextlib.redirect_stdout(sys.stderr):  # output of the user's own code
            files = (weights,) if weights is not None else ()
            subject = prepare(Request(model, named, files, "none", data, split, shape, seed), say)
            if subject.checkpoints:
                raise InputError(f"--weights {weights} names several files; prune takes one")
            count, name = len(subject.source), subject.source.name
            if points is not None and not 1 <= points <= count:
                raise InputError(f"--points is {points}, but {name} holds {count} inputs; expected a number from 1 to {count}")
            chosen = choose_points(count, points or DEFAULT_POINTS)
            say(f"looking at {len(chosen)} inputs of {name}")
            inputs, labels = subject.at(chosen)
            smaller, pruning = run(subject.model, inputs, tolerance, labels=labels, latency=latency)
            report = save_pruned(out, smaller, pruning, None if tolerances is None else pruning.curve(tolerances))
        if as_json:
            common.print_json(report)
        elif quiet:
            typer.echo(str(out))
        else:
            typer.echo(repr(pruning))
            if report["curve"] is not None:
                import pandas as pd

                typer.echo(pd.DataFrame(report["curve"]).to_string(index=False, float_format="%.4g"))
            if report["program"] is None:
                typer.echo(f"no model.pt2: {report['program_failure']}")
            typer.echo(str(out))

    common.run_command(job, debug, "the model was not changed; run the command again with a new --out")


def _tolerances(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"--curve is {text!r}; expected numbers with commas between them, such as 0,0.01,0.1") from None
