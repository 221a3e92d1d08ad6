"""Where ``kagscope measure`` writes, checked before anything is measured."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kagscope.errors import InputError, OutputError

MARKS = {False: "report.json", True: "series.json"}
"""The file by which a folder of a report, or of a series, is known."""


@dataclass(frozen=True)
class Targets:
    """Files and a folder to write, each optional."""

    out: Path | None = None
    html: Path | None = None
    csv: Path | None = None
    parquet: Path | None = None

    def check(self, series: bool) -> None:
        """Raise :class:`OutputError` where one cannot be written, or :class:`InputError` where two are the same file."""
        files = [path for path in (self.html, self.csv, self.parquet) if path is not None]
        if len({_full(path) for path in files}) < len(files):
            raise InputError("--html, --csv and --parquet name the same file; give each its own")
        for path in files:
            if path.is_dir():
                raise OutputError(f"{path} is a folder; give a file, such as {path / 'geometry'}{path.suffix or '.html'}")
            _check_folder(path.parent, f"cannot write {path}")
        if self.out is not None:
            _check_out(self.out, MARKS[series])


def _check_out(out: Path, mark: str) -> None:
    try:
        if out.exists() and not out.is_dir():
            raise OutputError(f"{out} is a file, but the output must be a folder; give another --out")
        entries = {entry.name for entry in out.iterdir()} if out.exists() else set()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise OutputError(f"cannot read {out}: {getattr(error, 'strerror', error)}; give another --out") from error
    if entries and mark not in entries:
        raise OutputError(
            f"{out} is not empty and was not written by this command (found {', '.join(sorted(entries)[:3])}); give a new --out"
        )
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    _check_folder(there, f"cannot write in {out}")


def _full(path: Path) -> str:
    return os.path.abspath(path)


def _check_folder(folder: Path, what: str) -> None:
    try:
        usable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        exists = folder.exists()
    except (OSError, ValueError) as error:
        raise OutputError(f"{what}: {getattr(error, 'strerror', None) or error}; choose another name") from error
    if not usable:
        reason = "cannot be written to" if exists else "does not exist"
        raise OutputError(f"{what}: the folder {folder} {reason}; choose another")
