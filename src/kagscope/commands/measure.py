"""``kagscope measure``: the geometry of any model, or of the checkpoints of a training run."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kagscope.base.errors import InputError
from kagscope.commands.common import Debug, Json, amount, guarded, numbers, pairs

if TYPE_CHECKING:
    from kagscope.commands.sources import Subject

LAYER_MAPS = ("input", "block", "output")


def measure(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="package.module:factory or path/to/file.py:factory, whose code is run: a function, class or model. "
            "Or the folder of a finished run, OUT/runs/RUN.",
            show_default=False,
        ),
    ],
    argument: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="NAME=VALUE for the factory; repeatable.", show_default=False)
    ] = None,
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
            help="digits, mnist, fashion_mnist, kmnist, a folder of IDX or .npz files, or a file .npz, .npy, .pt, .safetensors.",
            show_default=False,
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name from named_modules(), or a pattern such as 'blocks.*.mlp'; repeatable. [default: every activation]",
            show_default=False,
        ),
    ] = None,
    list_layers: Annotated[bool, typer.Option("--list-layers", help="Show the model's layers and stop.")] = False,
    layer_map: Annotated[
        str,
        typer.Option(
            metavar="MAP",
            help="input: model input to layer; block: the layer's own input to its output; output: layer to output.",
        ),
    ] = "input",
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="none, initial (the model before --weights), reinit (initialised anew), first (of a series), or a file of "
            "weights. [default: none; of a series first; of a finished run initial]",
            show_default=False,
        ),
    ] = None,
    k: Annotated[str, typer.Option("--k", metavar="N,N", help="Orders of the minors.")] = "1,2",
    selection: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Which column subsets: all, 'ball(7)', 'apart(7)', 'shell(7,14)', 'window(13,13,7)'; repeatable. [default: all]",
            show_default=False,
        ),
    ] = None,
    points: Annotated[
        int | None, typer.Option(metavar="N", help="Inputs measured, evenly spaced. [default: up to 100]", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="test or train, of a data set with both.")] = "test",
    input_shape: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,…",
            help="Shape of one input, such as 1,28,28. [default: the first that the model takes]",
            show_default=False,
        ),
    ] = None,
    image_shape: Annotated[
        str | None,
        typer.Option(
            metavar="H,W",
            help="Height,width of the image that the Jacobian's columns are. [default: the data's]",
            show_default=False,
        ),
    ] = None,
    tokens: Annotated[
        str,
        typer.Option(
            metavar="WHICH", help="Of layers on sequences: all, a number evenly spaced, positions such as 0,3,7, or flat."
        ),
    ] = "all",
    seed: Annotated[int, typer.Option(metavar="N", help="Of what is sampled, and of the model where it is built at random.")] = 0,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Working memory, about.")] = "1GiB",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for table, summary, figures and page: new, empty, or of this command."),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Page to write.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Table to write, as text.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Table to write, as Parquet.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the paths of written files (and errors).")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure the geometry of any PyTorch model.

    Layer by layer, against a baseline; or of the checkpoints of its training. Ends with a table of scores and the files that were
    asked for. Give MODEL only code that you trust: it is run.
    """

    def job() -> None:
        if layer_map not in LAYER_MAPS:
            raise InputError(f"--layer-map is {layer_map!r}; expected one of {', '.join(LAYER_MAPS)}")
        wanted: dict[str, Any] = {
            "layers": layer or None,
            "layer_map": layer_map,
            "k": numbers("k", k),
            "tokens": _tokens(tokens),
            "memory_budget": amount("memory", memory),
            "seed": seed,
        }
        shape = None if input_shape is None else numbers("input-shape", input_shape)
        image = None if image_shape is None else numbers("image-shape", image_shape)
        if image is not None and len(image) != 2:
            raise InputError(f"--image-shape is {image_shape!r}; expected height,width, such as 28,28")
        named = pairs("argument", argument or ())
        from kagscope.columns.selections import parse_selection

        wanted["selections"] = [parse_selection(text) for text in selection or ("all",)]
        from kagscope.commands.outputs import Targets
        from kagscope.commands.sources import Wanted, is_series, prepare

        targets = Targets(out, html, csv, parquet)
        targets.check(is_series(weights or ()))
        from kagscope.commands.measured import list_layers as show_layers
        from kagscope.commands.measured import measure_and_show

        with contextlib.redirect_stdout(sys.stderr):  # whatever the user's own code prints
            notes: list[str] = []
            subject = prepare(
                Wanted(model, named, tuple(weights or ()), baseline, data, split, shape, points, seed), notes.append
            )
        if list_layers:
            show_layers(subject)
            return
        if image is not None or _columns_are_pixels(subject, layer_map):
            wanted["image_shape"] = image or subject.source.image_shape
        measure_and_show(subject, wanted, targets, notes, quiet=quiet, as_json=as_json)

    guarded(job, debug, "no file is half written")


def _tokens(text: str) -> Any:
    if text in ("all", "flat"):
        return None if text == "all" else text
    try:
        return int(text) if "," not in text else [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"--tokens is {text!r}; expected all, flat, a number, or positions such as 0,3,7") from None


def _columns_are_pixels(subject: Subject, layer_map: str) -> bool:
    """Whether the columns of the Jacobians are the pixels of grey images."""
    return layer_map == "input" and subject.source.image_shape is not None and not isinstance(subject.inputs, dict)
