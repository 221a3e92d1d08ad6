"""``kagscope measure``: the geometry of any model, or of the checkpoints of a training run."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kagscope.base.errors import InputError
from kagscope.commands import common

if TYPE_CHECKING:
    from kagscope.commands.sources import Subject

DEFAULT_POINTS = 100


def measure(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="package.module:factory or path/to/file.py:factory, whose code is run: a function, class or model. "
            "Or hf:NAME, timm:NAME: a published model, whose code is not. Or the folder of a finished run, OUT/runs/RUN.",
            show_default=False,
        ),
    ],
    argument: common.Arguments = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="File of weights: safetensors, or a state dict or checkpoint of torch.save (no other pickle). Several, or a "
            "quoted pattern such as 'run/step_*.safetensors', are a series.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="mnist10k, digits, mnist, fashion_mnist, kmnist, a folder of images, or a file .npz, .npy, .pt, .safetensors.",
            show_default=False,
        ),
    ] = None,
    list_layers: Annotated[
        bool, typer.Option("--list-layers", help="Show the model's layers and stop; with --data their output shapes too.")
    ] = False,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="none, initial (the model before --weights), reinit (initialised anew), first (of a series), or a file of "
            "weights. [default: none; of a series first; of a finished run initial]",
            show_default=False,
        ),
    ] = None,
    split: common.Split = "test",
    input_shape: common.InputShape = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for table, summary, figures and page: new, empty, or of this command."),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Page to write.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Table to write, as text.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Table to write, as Parquet.")] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A first look: 5 points, 256 rows, few scales; other options refine it."),
    ] = False,
    quiet: common.QuietFiles = False,
    as_json: common.Json = False,
    debug: common.Debug = False,
    **spec_options: Any,
) -> None:
    """Measure the geometry of any PyTorch model.

    Layer by layer, against a baseline; or of the checkpoints of its training. Ends with a table of scores and the files that were
    asked for. Give MODEL only code that you trust: it is run.
    """

    def job() -> None:
        from kagscope.commands.spec_options import spec_values

        fields = spec_values(spec_options)
        shape = None if input_shape is None else common.parse_numbers("input-shape", input_shape)
        named = common.parse_pairs("argument", argument or ())
        from kagscope.commands.outputs import Targets
        from kagscope.commands.sources import Request, bare_model, prepare
        from kagscope.measuring.spec import QUICK, MeasureSpec, spec_from

        targets = Targets(out, html, csv, parquet)
        targets.check([name for name in (model.partition(":")[0], data, baseline, *(weights or ())) if name])
        from kagscope.commands.measured import list_layers as show_layers
        from kagscope.commands.measured import measure_and_show

        MeasureSpec(**fields)  # reports invalid options before a model is loaded
        request = Request(model, named, tuple(weights or ()), baseline, data, split, shape, fields.get("seed", 0))
        notes: list[str] = []
        if list_layers and data is None and not Path(model).is_dir():
            with contextlib.redirect_stdout(sys.stderr):
                bare, _ = bare_model(request)
            show_layers(bare)
            return
        with contextlib.redirect_stdout(sys.stderr):  # output of the user's own code
            subject = prepare(request, notes.append)
        if list_layers:
            show_layers(subject.model, subject.inputs)
            return
        if "image_shape" not in fields and _columns_are_pixels(subject, fields.get("layer_map", "input")):
            fields["image_shape"] = subject.source.image_shape
        count = len(subject.source)
        if fields.get("points", 0) > count:
            raise InputError(f"--points is {fields['points']}, but {subject.source.name} holds {count} inputs; use fewer")
        fields.setdefault("points", min(count, QUICK["points"] if quick else DEFAULT_POINTS))
        measure_and_show(subject, spec_from("quick" if quick else None, fields), targets, notes, quiet=quiet, as_json=as_json)

    def in_its_words() -> None:
        from kagscope.commands.spec_options import as_options

        try:
            job()
        except InputError as error:
            raise InputError(as_options(str(error))) from error

    common.run_command(in_its_words, debug, "no file is half written")


def _columns_are_pixels(subject: Subject, layer_map: str) -> bool:
    """Whether the columns of the Jacobians are pixels of images."""
    return layer_map == "input" and subject.source.image_shape is not None and not isinstance(subject.inputs, dict)
