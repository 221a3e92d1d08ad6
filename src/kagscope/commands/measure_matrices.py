"""``kagscope measure-matrices``: the geometry of the matrices in a file, such as a published Jacobian lens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kagscope.commands.common import Debug, Json, QuietFiles, parse_numbers, run_command


def measure_matrices(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help=".pt (tensors only; a Jacobian lens {J: {layer: matrix}, …} or matrices by name), .safetensors or .npz.",
            show_default=False,
        ),
    ],
    k: Annotated[str, typer.Option("--k", help="Orders of the minors.")] = "1,2",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for table, summary and page: new, empty, or of this command."),
    ] = None,
    quiet: QuietFiles = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure every matrix in a file, against random rotations of its rows.

    PR, ipr and the rotation ratio are exact for k = 1 and 2. A 4096 x 4096 matrix takes minutes.
    """

    def job() -> None:
        orders = parse_numbers("k", k)
        from kagscope.base.messages import listing
        from kagscope.commands.outputs import Targets
        from kagscope.loading.matrices import load_matrices
        from kagscope.measuring.matrices import measure_matrices as measured
        from kagscope.measuring.spec import MeasureSpec

        targets = Targets(out)
        targets.check()
        MeasureSpec(k=orders)  # reports errors before the file is read
        loaded = load_matrices(file)
        from kagscope.commands.measured import show_report, write

        report = measured(loaded.matrices, orders, progress=False if quiet or as_json else None)
        report.provenance |= {"model": file.name, "data": str(file), **loaded.metadata}
        if loaded.left:
            report.notes.append(f"left out, since not floating-point matrices: {listing(loaded.left)}")
        files = write(report, targets)
        show_report(report, files, [], quiet=quiet, as_json=as_json)

    run_command(job, debug, "no file is half written")
