"""The run store: ``runs/<run id>/`` folders that appear whole or not at all, and are checked before they are read as data.

study.json                    what this folder holds: settings, fingerprint, versions
leases/<run id>.lease         who computes a run just now
failed/<run id>.json          the error that a run ended with
data/<fingerprint>.safetensors   inputs and labels of the measured points, mean images (kagscope.studies.page_data)
runs/<run id>/config.json     the run's configuration
runs/<run id>/weights.safetensors   every checkpoint, keys "<step>/<parameter>"
runs/<run id>/table.parquet   results rows (kagscope.tables.schema)
runs/<run id>/curves.parquet  distributions
runs/<run id>/manifest.json   size and SHA-256 of the files above, timings, versions
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagscope.base.errors import DataError, OutputError
from kagscope.base.files import atomic_write
from kagscope.studies.locks import Leases
from kagscope.studies.writer import machine, writer, writer_is_dead

STUDY_FILE = "study.json"
MANIFEST = "manifest.json"
STORE_VERSION = 2
CHUNK = 2**20  # bytes read at a time
CONFIG = "config.json"
RUN_FILES = (CONFIG, "weights.safetensors", "table.parquet", "curves.parquet")


@dataclass(frozen=True)
class RunStore:
    """A study's folder. Opening checks that the folder is new, empty, or holds this very study."""

    folder: Path

    @classmethod
    def open(cls, folder: str | os.PathLike[str], study: dict[str, Any], fingerprint: str, *, extend: bool = False) -> RunStore:
        """Open ``folder`` for the study with this fingerprint, or start it there.

        With ``extend`` the record of the study is brought up to date: it may have grown.

        Raises:
            OutputError: the path is a file, cannot be written, or holds something else; nothing is changed then.
        """
        path = Path(folder)
        try:
            if path.exists() and not path.is_dir():
                raise OutputError(f"{path} is a file, but the output must be a folder; give another --out")
            entries = {entry.name for entry in path.iterdir()} if path.exists() else set()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise OutputError(f"cannot read {path}: {getattr(error, 'strerror', error)}; give another --out") from error
        # A start that was interrupted leaves at most an unfinished temporary file of ours.
        foreign = {name for name in entries if not name.startswith(f".{STUDY_FILE}.")}
        if STUDY_FILE in entries:
            _same_study(path, fingerprint)
        elif foreign:
            raise OutputError(
                f"{path} is not empty and holds no kagscope study (found {', '.join(sorted(foreign)[:3])}); give a new --out"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            record = {"kagscope_store": STORE_VERSION, "fingerprint": fingerprint, **study}
            known = STUDY_FILE in entries
            if not known or (extend and read_study(path) != record):
                # before runs/: a folder with that alone would be taken for somebody else's
                atomic_write(path / STUDY_FILE, json.dumps(record, indent=1) + "\n")
            (path / "runs").mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=path / "runs"):
                pass
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise OutputError(
                f"cannot write in {path}: {getattr(error, 'strerror', error)}; give another --out or mend its permissions"
            ) from error
        return cls(path)

    @classmethod
    def existing(cls, folder: str | os.PathLike[str]) -> RunStore:
        """Open a study that is there. Raises :class:`DataError` if the folder is none."""
        path = Path(folder)
        if not path.is_dir():
            raise DataError(f"{path} is no folder; give the output folder of a study")
        read_study(path)
        return cls(path)

    @property
    def study(self) -> dict[str, Any]:
        return read_study(self.folder)

    def run_folder(self, run_id: str) -> Path:
        return self.folder / "runs" / run_id

    def is_complete(self, run_id: str) -> bool:
        """Whether the run is there and undamaged; a damaged one counts as missing and is computed again."""
        return self.run_folder(run_id).is_dir() and self.damage(run_id) is None

    def damage(self, run_id: str) -> str | None:
        """What is wrong with a stored run, or None: every file is compared with the manifest."""
        return self.checked(run_id)[0]

    def checked(self, run_id: str) -> tuple[str | None, str, bytes]:
        """What is wrong with a stored run, or None; the SHA-256 of its manifest, which has those of its files; config.json."""
        folder = f"{self.folder}/runs/{run_id}/"
        digest, config = "", b""
        try:
            manifest = b"".join(_parts(folder + MANIFEST))
            digest = hashlib.sha256(manifest).hexdigest()
            files = json.loads(manifest)["files"]
            config = b"".join(_parts(folder + CONFIG))
            for name in RUN_FILES:
                found = hashlib.sha256(config).hexdigest() if name == CONFIG else _digest(folder + name)
                if found != files[name]:
                    return f"{name} differs from its checksum", digest, config
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{type(error).__name__}: {error}", digest, config
        return None, digest, config

    def publish(self, run_id: str, write: Callable[[Path], None], facts: dict[str, Any]) -> None:
        """Let ``write(folder)`` fill a temporary folder, then make it the run in one rename.

        A second driver that finished the same run first wins; both hold the same numbers.

        Raises:
            OutputError: disk full or folder not writable; no part of the run is left behind.
        """
        target = self.run_folder(run_id)
        try:
            temporary = Path(tempfile.mkdtemp(prefix=f".{run_id}.{writer()}.", dir=self.folder / "runs"))
        except OSError as error:
            raise OutputError(f"cannot write in {self.folder}: {error.strerror}") from error
        try:
            write(temporary)
            manifest = {"run": run_id, **facts, "files": {name: _digest(temporary / name) for name in RUN_FILES}}
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
            for name in (*RUN_FILES, MANIFEST):
                _flush(temporary / name)
            temporary.chmod(0o755)
            if target.exists() and self.damage(run_id) is not None:
                shutil.rmtree(target)
            with contextlib.suppress(FileExistsError):
                _rename_new(temporary, target)
            self.forget_failure(run_id)
        except OSError as error:
            raise OutputError(
                f"cannot store run {run_id}: {error.strerror or error}; finished runs are kept, run again"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def clear_leftovers(self) -> None:
        """Remove unfinished run folders and claims whose writer is dead; those of a live driver on this store stay."""
        self.leases.clear_dead()
        for entry in (self.folder / "runs").glob(".*"):
            if not _writer_lives(entry):
                shutil.rmtree(entry, ignore_errors=True)

    @property
    def leases(self) -> Leases:
        """Claims on runs that are being computed."""
        return Leases(self.folder / "leases")

    def fail(self, run_id: str, message: str, trace: str) -> None:
        """Remember that a run ended with an error. Raises :class:`OutputError`."""
        try:
            (self.folder / "failed").mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write in {self.folder}: {error.strerror}") from error
        atomic_write(
            self.folder / "failed" / f"{run_id}.json", json.dumps({"error": message, "traceback": trace}, indent=1) + "\n"
        )

    def failures(self) -> dict[str, str]:
        """Run id to the error it ended with."""
        found = {}
        for file in sorted((self.folder / "failed").glob("*.json")):
            try:
                found[file.stem] = str(json.loads(file.read_text())["error"])
            except (OSError, ValueError, KeyError, TypeError):
                found[file.stem] = "its error cannot be read"
        return found

    def forget_failure(self, run_id: str) -> None:
        """Let a failed run be tried again."""
        (self.folder / "failed" / f"{run_id}.json").unlink(missing_ok=True)

    def folders(self) -> set[str]:
        """Names of the run folders, in one look."""
        try:
            with os.scandir(self.folder / "runs") as entries:
                return {entry.name for entry in entries if not entry.name.startswith(".")}
        except FileNotFoundError:
            return set()

    def manifest(self, run_id: str) -> dict[str, Any]:
        return json.loads((self.run_folder(run_id) / MANIFEST).read_text())


def read_study(folder: Path) -> dict[str, Any]:
    """The content of ``study.json``. Raises :class:`DataError` when it is missing, damaged or of another version."""
    file = folder / STUDY_FILE
    try:
        study = json.loads(file.read_text())
        version, _ = int(study["kagscope_store"]), study["fingerprint"]
    except FileNotFoundError:
        raise DataError(f"{folder} holds no kagscope study ({STUDY_FILE} is missing)") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({error}); it is damaged or not a kagscope study") from error
    if version > STORE_VERSION:
        raise DataError(
            f"{folder} was written by a newer kagscope (store version {version}, this one reads {STORE_VERSION}); upgrade"
        )
    if version < STORE_VERSION:
        raise DataError(
            f"{folder} was written by an older kagscope (store version {version}, this one reads {STORE_VERSION}); "
            "read it with that one, or run the study again in a new folder"
        )
    return study


def _same_study(folder: Path, fingerprint: str) -> None:
    try:
        held = read_study(folder)["fingerprint"]
    except DataError as error:
        raise OutputError(f"{error}; give another --out") from error
    if held != fingerprint:
        raise OutputError(
            f"{folder} holds another study (other settings or data); give a new --out, or the settings it was started with"
        )


def _digest(file: str | Path) -> str:
    """SHA-256 of a file. (``hashlib.file_digest`` clears a quarter of a MiB for each, which takes longer than small files do.)"""
    found = hashlib.sha256()
    for part in _parts(file):
        found.update(part)
    return found.hexdigest()


def _parts(file: str | Path) -> Iterator[bytes]:
    """The content of a file, a chunk at a time. (Without a file object, which takes as long as reading a small file.)"""
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        while part := os.read(descriptor, CHUNK):
            yield part
    finally:
        os.close(descriptor)


def _flush(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _rename_new(source: Path, target: Path) -> None:
    """Rename, treating a target that another writer made meanwhile as done (POSIX refuses to replace a non-empty folder)."""
    try:
        source.rename(target)
    except OSError:
        if target.is_dir():
            raise FileExistsError(target) from None
        raise


def _writer_lives(unfinished: Path) -> bool:
    """Whether the writer of an unfinished folder may still be at work; another machine's is given a day."""
    parts = unfinished.name.split(".")[-4:-1]  # before the random end of a temporary folder's name
    name = ".".join(parts)
    if len(parts) == 3 and parts[0] != machine():
        with contextlib.suppress(FileNotFoundError):
            return time.time() - unfinished.stat().st_mtime < 86_400
        return False
    return not writer_is_dead(name)
