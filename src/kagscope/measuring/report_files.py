"""The folder of a report: one JSON file says what it is, tables stand beside it; each file appears at once or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype
from pydantic import TypeAdapter, ValidationError

from kagscope.base.errors import DataError
from kagscope.base.files import atomic_path, atomic_write, holds_mark, make_folder
from kagscope.measuring.state import LayerRecord
from kagscope.tables.schema import CURVE_COLUMNS, SCORE_COLUMNS

MARK = "report.json"  # by which it is known
FORMAT = 1


def write_folder(folder: str | os.PathLike[str], report: object) -> Path:
    """Write ``<name>.parquet`` for each of a report's tables, unless it is empty and has no columns, and its facts last.

    Raises:
        OutputError: the folder cannot be made or written, or holds something else.
    """
    target = Path(folder)
    instead = "choose a new or empty folder, or that of an earlier report"
    holds_mark(target, MARK, otherwise="holds something else", instead=instead)
    make_folder(target)
    for name in TABLES:
        table, file = getattr(report, name), target / f"{name}.parquet"
        if not len(table.columns):
            file.unlink(missing_ok=True)  # of an earlier report
            continue
        with atomic_path(file) as temporary:
            table.to_parquet(temporary, index=False)
    record = {"format": FORMAT, **{name: getattr(report, name) for name in FACTS}}
    atomic_write(target / MARK, json.dumps(record, indent=1, allow_nan=False, default=str) + "\n")
    return target


def read_folder(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Tables and facts by name, from what :func:`write_folder` wrote; without a table of units where there is none.

    Raises:
        DataError: the folder is missing, damaged, no report, or of a newer format.
    """
    source = Path(folder)
    try:
        metadata = json.loads((source / MARK).read_text(encoding="utf-8"))
        version = metadata["format"]
        if not isinstance(version, int) or version > FORMAT:
            raise DataError(f"{source}: report of format {version}, this kagscope reads up to {FORMAT}; upgrade kagscope")
        files = {name: source / f"{name}.parquet" for name in TABLES}
        frames = {name: pd.read_parquet(file) for name, file in files.items() if name != "units" or file.exists()}
        for name, table in frames.items():
            _check_columns(name, table)
        for name, kind in FACTS.items():
            kind.validate_python(metadata[name])
        return frames | {name: metadata[name] for name in FACTS}
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"{source} holds a damaged report ({name}: {first['msg']}); expected one that Report.save wrote"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{source} holds no report, or a damaged one ({error}); expected a folder that Report.save wrote"
        ) from error


TABLES: dict[str, dict[str, str]] = {
    "table": SCORE_COLUMNS,
    "curves": {name: CURVE_COLUMNS[name] for name in ("layer", "k", "selection", "curve", "x", "y")} | {"network": "category"},
    "units": dict.fromkeys(("unit", "row_norm", "zero_share", "alignment"), "float64")
    | dict.fromkeys(("layer", "what", "row"), "category"),
}
FACTS: dict[str, TypeAdapter[Any]] = {
    "layers": TypeAdapter(list[LayerRecord]),
    "settings": TypeAdapter(dict[str, Any]),
    "notes": TypeAdapter(list[str]),
    "provenance": TypeAdapter(dict[str, Any]),
    "left_out": TypeAdapter(dict[str, str]),
    "thinned": TypeAdapter(list[int]),
}


def _check_columns(name: str, table: pd.DataFrame) -> None:
    """Raise :class:`ValueError` where a table lacks a column, or has words in place of its numbers."""
    for column, kind in TABLES[name].items():
        if column not in table.columns:
            raise ValueError(f"{name}.parquet lacks the column {column}")
        if len(table) and kind != "category" and not is_numeric_dtype(table[column]):
            raise ValueError(f"{name}.parquet has no numbers in its column {column}")
