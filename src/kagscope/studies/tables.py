"""All runs of a store as one table: read once from every run, and from then on from the joined file what is still the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kagscope.files import atomic_path
from kagscope.studies.store import RunStore

RUNS_KEY = b"kagscope_runs"  # of a joined file: run id to the SHA-256 of the manifest it was read under
RESULTS, CURVES = "results.parquet", "curves.parquet"


def whole_runs(store: RunStore, run_ids: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The finished runs with a digest of their manifest, and why each of the others is not among them."""
    failed, there = store.failures(), store.folders()
    with ThreadPoolExecutor() as pool:  # checksums are computed without the interpreter's lock
        damages = dict(zip(run_ids, pool.map(lambda run: store.damage(run) if run in there else None, run_ids), strict=True))
    whole: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for run in run_ids:
        if run not in there:
            left_out[run] = f"failed: {failed[run]}" if run in failed else "not finished"
        elif damage := damages[run]:
            left_out[run] = f"damaged: {damage}"
        else:
            whole[run] = store.manifest_digest(run)
    return whole, left_out


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
    held = _held(file)
    if list(held.items()) == list(runs.items()):
        table = pq.read_table(file)
    else:
        table = _gathered(store, runs, part, file, {run for run, digest in runs.items() if held.get(run) == digest})
        metadata = {**(table.schema.metadata or {}), RUNS_KEY: json.dumps(runs).encode()}
        with atomic_path(file) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
    return table.to_pandas().astype(columns)[list(columns)]


def _gathered(store: RunStore, runs: dict[str, str], part: str, file: Path, held: set[str]) -> pa.Table:
    """Rows of ``held`` runs from the joined file, of the others from their own; dictionaries in order of appearance."""
    pieces: dict[str, pa.Table] = {}
    if held:
        old = _decoded(pq.read_table(file))
        names = old.column("run").to_numpy(zero_copy_only=False)
        starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])  # the rows of a run stand together
        for start, stop in zip(starts, np.r_[starts[1:], len(names)], strict=True):
            pieces[str(names[start])] = old.slice(start, stop - start)
    for run in runs:
        if run not in held or run not in pieces:
            pieces[run] = _decoded(pq.read_table(store.run_folder(run) / part))
    table = pa.concat_tables([pieces[run] for run in runs])
    metadata = {name: value for name, value in (table.schema.metadata or {}).items() if name != RUNS_KEY}
    encoded = [column.dictionary_encode() if pa.types.is_string(column.type) else column for column in table.columns]
    return pa.table(encoded, names=table.column_names).replace_schema_metadata(metadata)


def _decoded(table: pa.Table) -> pa.Table:
    """Dictionary columns as plain strings."""
    columns = [column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column for column in table.columns]
    return pa.table(columns, names=table.column_names).replace_schema_metadata(table.schema.metadata)


def _held(file: Path) -> dict[str, str]:
    """The runs of a joined file; none where it is missing or not readable."""
    try:
        found = json.loads((pq.read_schema(file).metadata or {}).get(RUNS_KEY, b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        return {}
    return found if isinstance(found, dict) else {}
