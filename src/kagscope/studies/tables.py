"""All runs of a store as one table: read once from every run, and from then on from the joined file what is still the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kagscope.errors import DataError
from kagscope.files import atomic_path
from kagscope.studies.config import RunConfig
from kagscope.studies.store import RunStore

RUNS_KEY = b"kagscope_runs"  # of a joined file: run id to the SHA-256 of the manifest it was read under
RUN_VERSION = int(RunConfig.model_fields["schema_version"].default)  # of config.json and the tables beside it
RESULTS, CURVES = "results.parquet", "curves.parquet"


def whole_runs(store: RunStore, run_ids: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The finished runs with a digest of their manifest, and why each of the others is not among them."""
    failed, there = store.failures(), store.folders()
    with ThreadPoolExecutor() as pool:  # checksums are computed without the interpreter's lock
        damages = dict(zip(run_ids, pool.map(lambda run: _unusable(store, run) if run in there else None, run_ids), strict=True))
    whole: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for run in run_ids:
        if run not in there:
            left_out[run] = f"failed: {failed[run]}" if run in failed else "not finished"
        elif damage := damages[run]:
            left_out[run] = damage
        else:
            whole[run] = store.manifest_digest(run)
    return whole, left_out


def none_finished(store: RunStore, left_out: Mapping[str, str]) -> DataError:
    """What to say of a store without any run that can be used."""
    if not left_out or all(why == "not finished" for why in left_out.values()):
        return DataError(f"{store.folder} holds no finished run; run the study first")
    run, why = next((run, why) for run, why in left_out.items() if why != "not finished")
    count = len(left_out)
    return DataError(
        f"{store.folder} holds no run that can be used, of {count}: {run} {why}{', …' * (count > 1)}; run the study again"
    )


def _unusable(store: RunStore, run: str) -> str | None:
    """Why a run that is there cannot be read as data, or None."""
    if damage := store.damage(run):
        return f"damaged: {damage}"
    try:
        version = json.loads((store.run_folder(run) / "config.json").read_text()).get("schema_version", RUN_VERSION)
    except (OSError, ValueError, AttributeError) as error:
        return f"damaged: config.json: {error}"
    if not isinstance(version, int) or version > RUN_VERSION:
        return f"of a newer kagscope: its schema is {version}, this one reads up to {RUN_VERSION}; upgrade"
    return None


def joined(store: RunStore, runs: dict[str, str], part: str, target: str, columns: dict[str, str]) -> pd.DataFrame:
    """The same file of every run as one table in the order of ``runs``, kept as ``target`` in the study's folder.

    Args:
        store: of the study.
        runs: run id to the digest of its manifest, see :func:`whole_runs`.
        part: name of the file in a run's folder.
        target: of the joined file.
        columns: names and dtypes.

    Raises:
        OutputError: the file cannot be written.
    """
    file = store.folder / target
    table, new = _read(store, runs, part, file, columns)
    if new:
        metadata = {**(table.schema.metadata or {}), RUNS_KEY: json.dumps(runs).encode()}
        with atomic_path(file) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
    return table.to_pandas().astype(columns)[list(columns)]


def read_joined(store: RunStore, runs: dict[str, str], part: str, target: str, columns: dict[str, str]) -> pd.DataFrame:
    """As :func:`joined`, but nothing is written: for a store that belongs to somebody else."""
    table, _ = _read(store, runs, part, store.folder / target, columns)
    return table.to_pandas().astype(columns)[list(columns)]


def _read(store: RunStore, runs: dict[str, str], part: str, file: Path, columns: Mapping[str, str]) -> tuple[pa.Table, bool]:
    """The table of all runs, and whether it is another than the joined file holds."""
    held, old = _held(file, columns), None
    if any(held.get(run) == digest for run, digest in runs.items()):
        try:
            old = pq.read_table(file)
        except (OSError, ValueError, pa.ArrowException):  # damaged behind its schema; made again from the runs
            held = {}
    if old is not None and list(held.items()) == list(runs.items()):
        return old, False
    same = {run for run, digest in runs.items() if held.get(run) == digest}
    return _gathered(store, runs, part, old, same, list(columns)), True


def _gathered(
    store: RunStore, runs: dict[str, str], part: str, joined: pa.Table | None, held: set[str], columns: list[str]
) -> pa.Table:
    """Rows of ``held`` runs from the joined table, of the others from their own; dictionaries in order of appearance."""
    pieces: dict[str, pa.Table] = {}
    if held and joined is not None:
        old = _decoded(joined.select(columns))
        names = old.column("run").to_numpy(zero_copy_only=False)
        starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])  # the rows of a run stand together
        for start, stop in zip(starts, np.r_[starts[1:], len(names)], strict=True):
            pieces[str(names[start])] = old.slice(start, stop - start)
    for run in runs:
        if run not in held or run not in pieces:
            pieces[run] = _decoded(_own(store, run, part, columns))
    table = pa.concat_tables([pieces[run] for run in runs])
    metadata = {name: value for name, value in (table.schema.metadata or {}).items() if name != RUNS_KEY}
    encoded = [column.dictionary_encode() if pa.types.is_string(column.type) else column for column in table.columns]
    return pa.table(encoded, names=table.column_names).replace_schema_metadata(metadata)


def _own(store: RunStore, run: str, part: str, columns: list[str]) -> pa.Table:
    """A run's own table. Raises :class:`DataError` where it lacks columns."""
    table = pq.read_table(store.run_folder(run) / part)
    if missing := [name for name in columns if name not in table.column_names]:
        raise DataError(
            f"{part} of run {run} lacks the columns {', '.join(missing)}, so another version of kagscope wrote it; upgrade, "
            "or remove that run's folder and run the study again"
        )
    return table.select(columns)


def _decoded(table: pa.Table) -> pa.Table:
    """Dictionary columns as plain strings."""
    columns = [column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column for column in table.columns]
    return pa.table(columns, names=table.column_names).replace_schema_metadata(table.schema.metadata)


def _held(file: Path, columns: Mapping[str, str]) -> dict[str, str]:
    """The runs of a joined file; none where it is missing, not readable, or lacks columns."""
    try:
        schema = pq.read_schema(file)
        found = json.loads((schema.metadata or {}).get(RUNS_KEY, b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        return {}
    return found if isinstance(found, dict) and set(columns) <= set(schema.names) else {}
