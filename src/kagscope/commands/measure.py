"""``kagscope measure``: the geometry of any model, or of the checkpoints of a training run."""

from __future__ import annotations

from typing import Annotated

import typer


def measure(model: Annotated[str, typer.Argument()]) -> None:
    """Soon."""
