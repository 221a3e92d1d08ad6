"""Folders of results: one JSON file says what they are, tables stand beside it; each file appears at once or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kagscope.base.errors import DataError, OutputError
from kagscope.base.files import atomic_path, atomic_write
from kagscope.base.folders import is_ours

FORMAT = 1


def prepare(folder: str | os.PathLike[str], what: str) -> Path:
    """``folder``, made if need be, to hold a ``what`` ("report", "series") and nothing else.

    Raises:
        OutputError: it cannot be made, or holds something else.
    """
    target = Path(folder)
    is_ours(
        target,
        f"{what}.json",
        otherwise="holds something else",
        instead=f"choose a new or empty folder, or that of an earlier {what}",
    )
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {target}: {error.strerror or error}; choose a folder that can be written") from error
    return target


def write(target: Path, what: str, tables: Mapping[str, pd.DataFrame], about: Mapping[str, Any]) -> None:
    """Write ``<name>.parquet`` for each table and ``<what>.json``, which comes last. Raises :class:`OutputError`."""
    for name, table in tables.items():
        with atomic_path(target / f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
    text = json.dumps({"format": FORMAT, **about}, indent=1, allow_nan=False, default=str)
    atomic_write(target / f"{what}.json", text + "\n")


def read_about(source: Path, what: str) -> dict[str, Any]:
    """Content of ``<what>.json``.

    Raises:
        DataError: of a newer format.
        OSError, ValueError, KeyError, TypeError: missing or damaged.
    """
    about: dict[str, Any] = json.loads((source / f"{what}.json").read_text(encoding="utf-8"))
    version = about["format"]
    if not isinstance(version, int) or version > FORMAT:
        raise DataError(f"{source}: {what} of format {version}, this kagscope reads up to {FORMAT}; upgrade kagscope")
    return about
