"""All runs of a store as one table: each run is read once, and afterwards from the joined file if unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kagscope.base.errors import DataError
from kagscope.base.files import atomic_path
from kagscope.studies.config import RunConfig
from kagscope.studies.record import MeasuredFiles, measured_files
from kagscope.studies.store import RunStore
from kagscope.tables.schema import CURVE_COLUMNS, RESULT_COLUMNS

SMALL_RUN = 2**20  # bytes; see _inspect_all
COMPRESSED_FROM = 2000  # rows; for smaller tables, opening decompressors takes longer than reading
DICTIONARIES_FROM = 200  # rows, as each dictionary is another page to read
RUNS_KEY = b"kagscope_runs"  # metadata of a joined file: FinishedRun.key by run id
RUN_VERSION = int(RunConfig.model_fields["schema_version"].default)  # of config.json and the tables beside it


class Target(NamedTuple):
    """A table of all runs: its file in the study's folder, its columns, and the files of a run from which it is made."""

    file: str
    columns: dict[str, str]
    parts: Callable[[MeasuredFiles], tuple[str, ...]]


RESULTS = Target("results.parquet", RESULT_COLUMNS, lambda measured: measured.tables)
CURVES = Target("curves.parquet", CURVE_COLUMNS, lambda measured: measured.curves)


class FinishedRun(NamedTuple):
    """A finished run: its requested files, and a key that changes when these or their contents do."""

    key: str
    measured: MeasuredFiles


def write_run_table(table: pd.DataFrame, file: Path) -> None:
    """Write a run's table as Parquet, without metadata that would slow down reading thousands of runs."""
    plain = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    plain = _decode([plain]) if table.empty else plain  # categories without values have no type
    compression = "zstd" if len(table) >= COMPRESSED_FROM else "none"
    dictionaries = len(table) >= DICTIONARIES_FROM
    pq.write_table(plain, file, compression=compression, use_dictionary=dictionaries, write_statistics=False, store_schema=False)


def find_finished_runs(store: RunStore, run_ids: Sequence[str] | None = None) -> tuple[dict[str, FinishedRun], dict[str, str]]:
    """Finished runs of a study, among those named if any are, and reasons for the others."""
    files_of = measured_files(store.study)
    run_ids = list(files_of) if run_ids is None else run_ids
    failed, present_folders = store.failures(), store.folders()
    present = [run for run in run_ids if run in present_folders]
    inspected = dict(zip(present, _inspect_all(store, present), strict=True))
    finished: dict[str, FinishedRun] = {}
    left_out: dict[str, str] = {}
    for run in run_ids:
        damage, digest, files = inspected.get(run, ("", "", frozenset()))
        if damage:
            left_out[run] = damage
        elif run in present_folders and files.issuperset(files_of[run].files):
            finished[run] = FinishedRun(" ".join([digest, *files_of[run].tables]), files_of[run])
        else:
            left_out[run] = f"failed: {failed[run]}" if run in failed else "not finished"
    return finished, left_out


def no_runs_error(store: RunStore, left_out: Mapping[str, str]) -> DataError:
    """Error for a store without any usable run."""
    if not left_out or all(reason == "not finished" for reason in left_out.values()):
        return DataError(f"{store.folder} holds no finished run; run the study first")
    run, reason = next((run, reason) for run, reason in left_out.items() if reason != "not finished")
    count = len(left_out)
    return DataError(
        f"{store.folder} holds no run that can be used, of {count}: {run} {reason}{', …' * (count > 1)}; run the study again"
    )


def _inspect_all(store: RunStore, runs: Sequence[str]) -> list[tuple[str, str, frozenset[str]]]:
    """Apply :func:`_inspect` to every run, in threads if checksums, computed without the interpreter's lock, take long.

    For small runs, threads would only wait for that lock, which doubles the time.
    """
    sizes = [path.stat().st_size for path in store.run_folder(runs[0]).rglob("*")] if runs else []
    if sum(sizes) < SMALL_RUN:
        return [_inspect(store, run) for run in runs]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda run: _inspect(store, run), runs))


def _inspect(store: RunStore, run: str) -> tuple[str, str, frozenset[str]]:
    """Reason why an existing run cannot be read, or ""; the digest of its manifest; its files."""
    damage, digest, files, config = store.check(run)
    if damage:
        return f"damaged: {damage}", digest, files
    try:
        version = json.loads(config).get("schema_version", RUN_VERSION)
    except (ValueError, AttributeError) as error:
        return f"damaged: config.json: {error}", digest, files
    if not isinstance(version, int) or version > RUN_VERSION:
        return f"of a newer kagscope: its schema is {version}, this one reads up to {RUN_VERSION}; upgrade", digest, files
    return "", digest, files


def join(store: RunStore, runs: Mapping[str, FinishedRun], target: Target) -> pa.Table:
    """Join the rows of all runs, in the order of ``runs`` and of steps, to one table in the study's folder.

    Args:
        store: Run store of the study.
        runs: see :func:`find_finished_runs`.
        target: :data:`RESULTS` or :data:`CURVES`.

    Raises:
        OutputError: the file cannot be written.
    """
    table, new = _read(store, runs, target)
    if new:
        _write_joined(store, runs, target, table)
    return table


def _write_joined(store: RunStore, runs: Mapping[str, FinishedRun], target: Target, table: pa.Table) -> None:
    keys = {run: run_files.key for run, run_files in runs.items()}
    metadata = {**(table.schema.metadata or {}), RUNS_KEY: json.dumps(keys).encode()}
    with atomic_path(store.folder / target.file) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def read_tables(store: RunStore, runs: Mapping[str, FinishedRun], *targets: Target) -> list[pd.DataFrame]:
    """Tables joined by :func:`join` for each target, as data frames; written only if all can be read. Raises as there."""

    def frame(target: Target, table: pa.Table, new: bool) -> pd.DataFrame:
        if new:
            _write_joined(store, runs, target, table)
        return _frame(table, target)

    with ThreadPoolExecutor(len(targets)) as pool:  # pyarrow releases the interpreter's lock
        results = list(pool.map(lambda target: _read(store, runs, target), targets))
        return list(pool.map(frame, targets, *zip(*results, strict=True)))


def read_without_writing(store: RunStore, runs: Mapping[str, FinishedRun], target: Target) -> pd.DataFrame:
    """Like :func:`read_tables`, but without writing, for stores that must not change."""
    return _frame(_read(store, runs, target)[0], target)


def _frame(table: pa.Table, target: Target) -> pd.DataFrame:
    return table.to_pandas().astype(target.columns)[list(target.columns)]


def read_joined_runs(store: RunStore, target: Target) -> set[str]:
    """Runs in a joined file, possibly none."""
    return set(_runs_in(store.folder / target.file, {}))


def _read(store: RunStore, runs: Mapping[str, FinishedRun], target: Target) -> tuple[pa.Table, bool]:
    """The table of all runs, and whether it differs from the joined file."""
    file = store.folder / target.file
    joined, old = _runs_in(file, target.columns), None
    if any(joined.get(run) == run_files.key for run, run_files in runs.items()):
        try:
            old = pq.read_table(file)
        except (OSError, ValueError, pa.ArrowException):  # damaged after its schema; made again from the runs
            joined = {}
    if old is not None and list(joined.items()) == [(run, run_files.key) for run, run_files in runs.items()]:
        return old, False
    same = {run for run, run_files in runs.items() if joined.get(run) == run_files.key}
    return _assemble(store, runs, target, old, same), True


def _assemble(
    store: RunStore, runs: Mapping[str, FinishedRun], target: Target, old: pa.Table | None, reused: set[str]
) -> pa.Table:
    """Rows of ``reused`` runs from the old joined table, of others from their files; dictionaries in order of appearance."""
    tables, joined_names = [], set()
    columns = list(target.columns)
    if reused and old is not None:
        known = _decode([old.select(columns)])
        known = known.filter(pc.is_in(known.column("run"), pa.array(sorted(reused))))
        tables, joined_names = [known], set(pc.unique(known.column("run")).to_pylist())
    for run, run_files in runs.items():
        if run not in joined_names:
            tables += [_read_run_table(store, run, file, columns) for file in target.parts(run_files.measured)]
    new = _sort_rows(_decode(tables), list(runs))
    encoded = [column.dictionary_encode() if pa.types.is_string(column.type) else column for column in new.columns]
    return pa.table(encoded, names=new.column_names)


def _sort_rows(table: pa.Table, runs: list[str]) -> pa.Table:
    """Sort rows by the order of ``runs`` and by step. (Concatenating slices would take seconds.)"""
    names = table.column("run").dictionary_encode().combine_chunks()
    index_of = {run: index for index, run in enumerate(runs)}
    order = np.array([index_of[name] for name in names.dictionary.to_pylist()], int)[names.indices.to_numpy()]
    order = (order << 40) + table.column("step").to_numpy()
    return table if (np.diff(order) >= 0).all() else table.take(pa.array(np.argsort(order, kind="stable")))


def _read_run_table(store: RunStore, run: str, file: str, columns: list[str]) -> pa.Table:
    """Read a run's table, several times as fast as ``pq.read_table``, which first makes a data set of the file.

    Raises:
        DataError: columns are missing.
    """
    data = (store.run_folder(run) / file).read_bytes()
    table = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)
    if table.column_names == columns:
        return table
    if missing := [name for name in columns if name not in table.column_names]:
        raise DataError(
            f"{file} of run {run} lacks the columns {', '.join(missing)}, so another version of kagscope wrote it; upgrade, "
            "or remove that run's folder and run the study again"
        )
    return table.select(columns)


def _decode(tables: Sequence[pa.Table]) -> pa.Table:
    """Concatenate, with dictionary columns as plain strings: one cast for consecutive tables of the same types."""
    plain: list[pa.Table] = []
    for _, same in groupby(tables, key=lambda table: table.schema.remove_metadata()):
        table = pa.concat_tables(table_of_run.replace_schema_metadata(None) for table_of_run in same)
        columns = [column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column for column in table.columns]
        plain.append(pa.table(columns, names=table.column_names))
    return pa.concat_tables(plain).combine_chunks()


def _runs_in(file: Path, columns: Mapping[str, str]) -> dict[str, str]:
    """Keys of the runs in a joined file; none if it is missing, unreadable, or lacks columns."""
    try:
        schema = pq.read_schema(file)
        runs = json.loads((schema.metadata or {}).get(RUNS_KEY, b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        return {}
    return runs if isinstance(runs, dict) and set(columns) <= set(schema.names) else {}
