"""All runs of a store as one table: read once from every run, and from then on from the joined file what is still the same."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kagscope.files import atomic_path
from kagscope.studies.store import RunStore

COMPRESSED_FROM = 2000  # rows; opening a decompressor for every column of a small table takes longer than reading it
RUNS_KEY = b"kagscope_runs"  # of a joined file: run id to the SHA-256 of the manifest it was read under
RESULTS, CURVES = "results.parquet", "curves.parquet"


def write_run_table(table: pd.DataFrame, file: Path) -> None:
    """Write a run's table as Parquet, without what nobody reads and every reader of thousands of runs would have to parse."""
    plain = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    compression = "zstd" if len(table) >= COMPRESSED_FROM else "none"
    pq.write_table(plain, file, compression=compression, write_statistics=False, store_schema=False)


def whole_runs(store: RunStore, run_ids: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The finished runs with a digest of their manifest, and why each of the others is not among them."""
    failed, there = store.failures(), store.folders()
    with ThreadPoolExecutor() as pool:  # checksums are computed without the interpreter's lock
        found = dict(zip(run_ids, pool.map(lambda run: store.checked(run) if run in there else (None, ""), run_ids), strict=True))
    whole: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for run in run_ids:
        if run not in there:
            left_out[run] = f"failed: {failed[run]}" if run in failed else "not finished"
        elif damage := found[run][0]:
            left_out[run] = f"damaged: {damage}"
        else:
            whole[run] = found[run][1]
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
        metadata = {RUNS_KEY: json.dumps(runs).encode()}
        with atomic_path(file) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
    return table.to_pandas().astype(columns)[list(columns)]


def _gathered(store: RunStore, runs: dict[str, str], part: str, file: Path, held: set[str]) -> pa.Table:
    """Rows of ``held`` runs from the joined file, of the others from their own; dictionaries in order of appearance."""
    pieces: dict[str, pa.Table] = {}
    if held:
        old = _decoded([pq.read_table(file)])
        names = old.column("run").to_numpy(zero_copy_only=False)
        starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])  # the rows of a run stand together
        for start, stop in zip(starts, np.r_[starts[1:], len(names)], strict=True):
            pieces[str(names[start])] = old.slice(start, stop - start)
    fresh = [run for run in runs if run not in held or run not in pieces]
    tables = [_read(os.path.join(store.folder, "runs", run, part)) for run in fresh]
    if pieces:
        pieces |= {run: _decoded([table]) for run, table in zip(fresh, tables, strict=True)}
        new = pa.concat_tables(pieces[run] for run in runs)
    else:
        new = _decoded(tables)
    encoded = [column.dictionary_encode() if pa.types.is_string(column.type) else column for column in new.columns]
    return pa.table(encoded, names=new.column_names)


def _read(file: str) -> pa.Table:
    """One small Parquet file. Several times as fast as ``pq.read_table``, which first makes a data set of it."""
    with open(file, "rb") as stream:
        data = stream.read()
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)


def _decoded(tables: Sequence[pa.Table]) -> pa.Table:
    """One below the other, dictionary columns as plain strings: cast once for all tables of the same types in a row."""
    plain: list[pa.Table] = []
    for _, same in groupby(tables, key=lambda table: table.schema.remove_metadata()):
        table = pa.concat_tables(one.replace_schema_metadata(None) for one in same)
        columns = [column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column for column in table.columns]
        plain.append(pa.table(columns, names=table.column_names))
    return pa.concat_tables(plain).combine_chunks()  # slicing 10,000 chunks 10,000 times would take longer than reading them


def _held(file: Path) -> dict[str, str]:
    """The runs of a joined file; none where it is missing or not readable."""
    try:
        found = json.loads((pq.read_schema(file).metadata or {}).get(RUNS_KEY, b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        return {}
    return found if isinstance(found, dict) else {}
