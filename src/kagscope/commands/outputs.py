"""Output paths of commands, checked before anything is measured or compared."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from kagscope.base.errors import InputError, OutputError
from kagscope.base.files import check_replaceable, holds_mark
from kagscope.base.messages import reason_of
from kagscope.measuring.report_files import MARK


@dataclass(frozen=True)
class Targets:
    """Files and a folder to write, each optional."""

    out: Path | None = None
    html: Path | None = None
    csv: Path | None = None
    parquet: Path | None = None

    def check(self, read: Iterable[str] = ()) -> None:
        """Raise :class:`OutputError` if one cannot be written, or :class:`InputError` if two are the same file.

        Args:
            read: names or patterns of input files, none of which may be written.
        """
        files = [path for path in (self.html, self.csv, self.parquet) if path is not None]
        if len({os.path.abspath(path) for path in files}) < len(files):
            raise InputError("--html, --csv and --parquet name the same file; give each its own")
        inputs = {os.path.realpath(path) for name in read for path in (name, *glob(name))}
        for path in files:
            if path.is_file() and os.path.realpath(path) in inputs:
                raise InputError(f"{path} would be replaced, and is read by this very command; give another file to write")
            if path.is_dir():
                raise OutputError(f"{path} is a folder; give a file, such as {path / 'geometry'}{path.suffix or '.html'}")
            check_replaceable(path)
            _check_folder(path.parent, f"cannot write {path}")
        if self.out is not None:
            holds_mark(self.out, MARK, otherwise="was not written by this command", instead="give a new --out")
            existing = next(folder for folder in (self.out, *self.out.absolute().parents) if folder.exists())
            _check_folder(existing, f"cannot write in {self.out}")


def _check_folder(folder: Path, name: str) -> None:
    try:
        usable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        exists = folder.exists()
    except (OSError, ValueError) as error:
        raise OutputError(f"{name}: {reason_of(error)}; choose another name") from error
    if not usable:
        reason = "cannot be written to" if exists else "does not exist"
        raise OutputError(f"{name}: the folder {folder} {reason}; choose another")


def comparison_files(out: Path | None, names: Sequence[str]) -> tuple[Path, Path]:
    """Page and table of a comparison: ``out`` is a file, an existing folder, or None for names after the studies, here.

    Raises:
        InputError: ``out`` is neither.
        OutputError: they cannot be written, or the table would replace a file that is not such a table.
    """
    page = out if out is not None else Path("-vs-".join(map(_file_name, names)) + ".html")
    if page.is_dir():
        page /= "comparison.html"
    elif page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {page} is neither a file that ends in .html nor a folder that is there; give one of these")
    numbers = page.with_suffix(".csv")
    for path in (page, numbers):
        if path.is_dir():
            raise OutputError(f"{path} is a folder; give another --out")
        check_replaceable(path)
        _check_folder(path.parent, f"cannot write {path}")
        if path.exists() and not os.access(path, os.W_OK):
            raise OutputError(f"{path} is write-protected; give another --out")
    if numbers.exists() and not _is_comparison(numbers):
        raise OutputError(f"{numbers} would be replaced, and is not the table of a comparison; give another --out")
    return page, numbers


def _is_comparison(file: Path) -> bool:
    from kagscope.studies.inference.comparisons import COLUMNS

    try:
        with file.open(encoding="utf-8") as stream:
            return stream.readline(1000).strip() == ",".join(COLUMNS)
    except (OSError, ValueError):
        return False


def _file_name(name: str) -> str:
    """A study's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip(".") or "study"
