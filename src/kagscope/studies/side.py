"""One of two studies that are compared: its finished runs, what configured each, its tables; nothing in its folder is written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from kagscope.base.errors import InputError
from kagscope.studies.config import RunConfig
from kagscope.studies.store import RunStore
from kagscope.studies.tables import CURVES, RESULTS, none_finished, read_joined, whole_runs
from kagscope.tables.schema import CURVE_COLUMNS, RESULT_COLUMNS

MEASURED = ("geometry.", "robustness", "checkpoints")
"""Beginnings of the values that decide what is measured, not what is trained."""
UNSAID = ("width", "widths", "training", "seed", "accuracy", "data_fingerprint", "image_shape", "schema_version")
"""Values of a run that its label does not repeat."""


@dataclass(frozen=True)
class Side:
    """A study as it stands.

    Attributes:
        name: what it is called beside the other.
        store: its folder.
        runs: one row per finished run, indexed by its id: every value of its configuration ("geometry.points" for those within),
            ``seed``, ``data`` (a name that stands for the content) and ``accuracy``.
        results, curves: tables of :mod:`kagscope.tables.schema`.
        left_out: runs that are not in them, and why.
        claims: what ``claims.json`` holds; empty where the study tests none.
        versions: that its runs were computed with, each with the values found.
    """

    name: str
    store: RunStore
    runs: pd.DataFrame
    results: pd.DataFrame
    curves: pd.DataFrame
    left_out: dict[str, str]
    claims: list[dict[str, Any]]
    versions: dict[str, str]

    @property
    def labels(self) -> pd.Series[str]:
        """What each run is called beside its width: the study, its training, and whatever else varies within it."""
        shown = [name for name in self.runs if name not in UNSAID and self.runs[name].map(text_of).nunique() > 1]

        def label(row: dict[Any, Any]) -> str:
            return ", ".join([f"{self.name}: {row['training']}", *(f"{name} {text_of(row[name])}" for name in shown)])

        return pd.Series([label(row) for row in self.runs.to_dict("records")], index=self.runs.index, dtype=object)


def text_of(value: Any) -> str:
    """A value of a configuration as text; "" for none."""
    return "" if value is None or value != value else f"{value:g}" if isinstance(value, float) else str(value)


def names_of(a: Path, b: Path) -> tuple[str, str]:
    """Names of two folders that tell them apart: last parts of their paths. Raises :class:`InputError` for the same one."""
    first, second = a.resolve(), b.resolve()
    if first == second:
        raise InputError(f"{a} and {b} are the same folder; give two studies to compare, or one to rebuild its report")
    depth = next(i for i in range(1, 1 + max(len(first.parts), len(second.parts))) if first.parts[-i:] != second.parts[-i:])
    return os.path.join(*first.parts[-depth:]), os.path.join(*second.parts[-depth:])


def read_side(folder: Path, name: str) -> Side:
    """Read a study.

    Raises:
        DataError: the folder is no study, one of a newer version, or without any finished run.
    """
    store = RunStore.existing(folder)
    whole, left_out = whole_runs(store, store.study["runs"])
    configs: dict[str, dict[str, Any]] = {}
    for run in list(whole):
        try:
            config = RunConfig(**json.loads((store.run_folder(run) / "config.json").read_text()))
        except ValidationError as error:
            del whole[run]
            what = ".".join(str(part) for part in error.errors()[0]["loc"])
            left_out[run] = f"not readable: its config.json has a {what!r} that this kagscope does not know; upgrade"
        else:
            configs[run] = _flat(config.model_dump(mode="json"))
    if not whole:
        raise none_finished(store, left_out)
    manifests = {run: store.manifest(run) for run in whole}
    runs = pd.DataFrame.from_dict(configs, orient="index", dtype=object).assign(
        accuracy=[float(manifests[run]["accuracy"]) for run in whole]
    )
    versions: dict[str, list[str]] = {}
    for manifest in manifests.values():
        for part, version in manifest["versions"].items():
            versions.setdefault(part, []).append(str(version))
    return Side(
        name,
        store,
        runs,
        read_joined(store, whole, "table.parquet", RESULTS, RESULT_COLUMNS),
        read_joined(store, whole, "curves.parquet", CURVES, CURVE_COLUMNS),
        left_out,
        _claims(store),
        {part: ", ".join(dict.fromkeys(found)) for part, found in versions.items()},
    )


def with_data_named(sides: Sequence[Side]) -> list[Side]:
    """The sides with ``data`` standing for the content of the data: the same name where that is the same, else another."""
    names: dict[str, str] = {}
    for side in sides:
        for print_, name in side.runs[["data_fingerprint", "data"]].drop_duplicates().itertuples(index=False):
            known = {other for found, other in names.items() if found != print_}
            names.setdefault(print_, f"{name} ({print_[:8]})" if name in known else name)
    return [Side(**{**vars(side), "runs": side.runs.assign(data=side.runs["data_fingerprint"].map(names))}) for side in sides]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a configuration by name, those of parts as "part.name"; ``width`` and ``depth`` for layers of one width."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": _plain(one) for inner, one in value.items()}
        elif name == "widths" and len(set(value)) == 1:
            flat |= {"width": value[0], "depth": len(value), "widths": ""}
        else:
            flat[name] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _claims(store: RunStore) -> list[dict[str, Any]]:
    try:
        found = json.loads((store.folder / "claims.json").read_text())
    except (OSError, ValueError):
        return []
    return [claim for claim in found if isinstance(claim, dict)] if isinstance(found, list) else []
