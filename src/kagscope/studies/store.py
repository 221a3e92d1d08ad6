"""The run store: ``runs/<run id>/`` folders that are created atomically and verified before they are read.

study.json                    record of the study: settings, fingerprint, runs, and the specs of each
leases/<run id>.lease         process that is computing a run
failed/<run id>.json          the error that a run ended with
data/<fingerprint>.safetensors   inputs and labels of the measured points, mean images (kagscope.studies.page_data)
runs/<run id>/config.json     the run's configuration: how the network is trained
runs/<run id>/weights.safetensors   every checkpoint, keys "<step>/<parameter>"
runs/<run id>/tables/<spec id>.parquet   results rows (kagscope.tables.schema) of one spec; others may be added later
runs/<run id>/curves/<spec id>.parquet   distributions
runs/<run id>/robustness/<id>.json   accuracies under attack, by name
runs/<run id>/manifest.json   SHA-256 of the files above, timings, accuracies, versions
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kagscope.base.errors import DataError, OutputError
from kagscope.base.files import atomic_write, clear_unfinished, holds_mark, writing_in
from kagscope.base.messages import differences, reason_of
from kagscope.base.provenance import versions
from kagscope.studies.locks import MEND, Leases, machine, writer, writer_is_dead
from kagscope.studies.record import CONFIG, MANIFEST, STORE_VERSION, STUDY_FILE, WEIGHTS, read_study

CHUNK = 2**20  # bytes read at a time
INSIDE = re.compile(r"(\w+/)?\w[\w.-]*")  # valid file names in a manifest, all inside the run's folder


class RunCheck(NamedTuple):
    """Check of a stored run: what is wrong or None, SHA-256 of its manifest, its files, content of config.json."""

    damage: str | None
    digest: str
    files: frozenset[str]
    config: bytes


@dataclass(frozen=True)
class RunStore:
    """A study's folder. Opening checks that the folder is new, empty, or holds the same study."""

    folder: Path

    @classmethod
    def open(cls, folder: str | os.PathLike[str], study: dict[str, Any], fingerprint: str, *, extend: bool = False) -> RunStore:
        """Open ``folder`` for the study with this fingerprint, or create it.

        With ``extend`` the record of the study is updated, as it may have grown.

        Raises:
            OutputError: the path is a file, cannot be written, or holds something else; nothing is then changed.
        """
        path = Path(folder)
        known = holds_mark(path, STUDY_FILE, otherwise="holds no kagscope study", instead="give another --out")
        if known:
            _same_study(path, fingerprint, study)
        with writing_in(path, "give another --out or mend its permissions"):
            path.mkdir(parents=True, exist_ok=True)
            record = {"kagscope_store": STORE_VERSION, "kagscope": versions()["kagscope"], "fingerprint": fingerprint, **study}
            if not known or (extend and read_study(path) != record):
                # before runs/ is made: a folder with runs/ alone would be refused as not ours
                atomic_write(path / STUDY_FILE, json.dumps(record, indent=1) + "\n")
            (path / "runs").mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=path / "runs"):
                pass
        return cls(path)

    @classmethod
    def existing(cls, folder: str | os.PathLike[str]) -> RunStore:
        """Open an existing study. Raises :class:`DataError` if the folder is not a study."""
        path = Path(folder)
        if not path.is_dir():
            raise DataError(f"{path} is not a folder; give the output folder of a study")
        read_study(path)
        return cls(path)

    @property
    def study(self) -> dict[str, Any]:
        return read_study(self.folder)

    def run_folder(self, run_id: str) -> Path:
        return self.folder / "runs" / run_id

    def is_complete(self, run_id: str, files: Collection[str] = ()) -> bool:
        """Whether the run exists, undamaged and with ``files``; a damaged one counts as missing and is computed again."""
        if not self.run_folder(run_id).is_dir():
            return False
        checked = self.check(run_id)
        return checked.damage is None and checked.files.issuperset(files)

    def check(self, run_id: str) -> RunCheck:
        """Compare every file of a stored run with its manifest."""
        folder = f"{self.folder}/runs/{run_id}/"
        digest, config, files = "", b"", {}
        try:
            manifest = b"".join(_read_chunks(folder + MANIFEST))
            digest = hashlib.sha256(manifest).hexdigest()
            files = dict(json.loads(manifest)["files"])
            config = b"".join(_read_chunks(folder + CONFIG))
            if hashlib.sha256(config).hexdigest() != files[CONFIG]:
                return RunCheck(f"{CONFIG} differs from its checksum", digest, frozenset(files), config)
            files[WEIGHTS]  # required in every run
            for name in files:
                if name != CONFIG and (not INSIDE.fullmatch(name) or _digest(folder + name) != files[name]):
                    return RunCheck(f"{name} differs from its checksum", digest, frozenset(files), config)
        except (OSError, ValueError, KeyError, TypeError) as error:
            return RunCheck(f"{type(error).__name__}: {error}", digest, frozenset(files), config)
        return RunCheck(None, digest, frozenset(files), config)

    def publish(self, run_id: str, write: Callable[[Path], None], facts: dict[str, Any]) -> None:
        """Let ``write(folder)`` fill a temporary folder, then rename it to the run's folder.

        If another driver finished the same run first, its folder is kept; both have the same numbers.

        Raises:
            OutputError: the disk is full or the folder not writable; no part of the run is left behind.
        """
        target = self.run_folder(run_id)
        with self._unfinished(run_id) as temporary:
            write(temporary)
            for name in (CONFIG, WEIGHTS):
                (temporary / name).stat()
            manifest = {"run": run_id, **facts, "files": _digests(temporary)}
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
            _fsync(temporary / MANIFEST)
            temporary.chmod(0o755)
            if target.exists() and self.check(run_id).damage is not None:
                shutil.rmtree(target)
            try:
                temporary.rename(target)
            except OSError:  # POSIX refuses to replace a non-empty folder
                if not target.is_dir():  # else another writer has made it meanwhile
                    raise
            self.forget_failure(run_id)

    def add(self, run_id: str, write: Callable[[Path], None], facts: dict[str, Any]) -> None:
        """Let ``write(folder)`` make further files of a stored run, which are added atomically by the manifest.

        Raises:
            OutputError: the disk is full or the folder not writable; the run is unchanged.
        """
        target = self.run_folder(run_id)
        with self._unfinished(run_id) as temporary:
            write(temporary)
            new = _digests(temporary)
            for name in new:
                (target / name).parent.mkdir(exist_ok=True)
                (temporary / name).replace(target / name)
            manifest = self.manifest(run_id)
            manifest = {**manifest, **facts, "files": {**manifest["files"], **new}}
            atomic_write(target / MANIFEST, json.dumps(manifest, indent=1) + "\n")
            self.forget_failure(run_id)

    @contextlib.contextmanager
    def _unfinished(self, run_id: str) -> Iterator[Path]:
        """Temporary folder of this writer, removed afterwards; write errors become :class:`OutputError`."""
        with writing_in(self.folder, MEND):
            temporary = Path(tempfile.mkdtemp(prefix=f".{run_id}.{writer()}.", dir=self.folder / "runs"))
        try:
            yield temporary
        except OSError as error:
            raise OutputError(f"cannot store run {run_id}: {reason_of(error)}; finished runs are kept, run again") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def clear_leftovers(self) -> None:
        """Remove unfinished files, run folders and leases of dead writers; those of a live driver on this store are kept."""
        self.leases.clear_dead()
        for folder in (self.folder, self.folder / "figures", self.folder / "failed"):
            clear_unfinished(folder)
        for entry in (self.folder / "runs").glob(".*"):
            if not _writer_lives(entry):
                shutil.rmtree(entry, ignore_errors=True)

    @property
    def leases(self) -> Leases:
        """Leases on runs that are being computed."""
        return Leases(self.folder / "leases")

    def fail(self, run_id: str, message: str, trace: str) -> None:
        """Record that a run ended with an error. Raises :class:`OutputError`."""
        folder = self.folder / "failed"
        with writing_in(self.folder, MEND):
            folder.mkdir(exist_ok=True)
        atomic_write(folder / f"{run_id}.json", json.dumps({"error": message, "traceback": trace}, indent=1) + "\n")

    def failures(self) -> dict[str, str]:
        """Errors of failed runs by run id."""
        failures = {}
        for file in sorted((self.folder / "failed").glob("*.json")):
            try:
                failures[file.stem] = str(json.loads(file.read_text())["error"])
            except (OSError, ValueError, KeyError, TypeError):
                failures[file.stem] = "its error cannot be read"
        return failures

    def forget_failure(self, run_id: str) -> None:
        """Remove the record of a failure, so that the run is tried again."""
        (self.folder / "failed" / f"{run_id}.json").unlink(missing_ok=True)

    def folders(self) -> set[str]:
        """Names of the run folders, by one listing."""
        try:
            with os.scandir(self.folder / "runs") as entries:
                return {entry.name for entry in entries if not entry.name.startswith(".")}
        except FileNotFoundError:
            return set()

    def manifest(self, run_id: str) -> dict[str, Any]:
        return json.loads((self.run_folder(run_id) / MANIFEST).read_text())


def _same_study(folder: Path, fingerprint: str, record: Mapping[str, Any]) -> None:
    try:
        stored = read_study(folder)
    except DataError as error:
        raise OutputError(f"{error}; give another --out") from error
    if stored["fingerprint"] == fingerprint:
        return
    stored_settings, asked_settings = ({"name": study.get("name"), **study.get("settings", {})} for study in (stored, record))
    others = differences(stored_settings, asked_settings)
    text = "; ".join(others[:3]) + ("; …" if len(others) > 3 else "")
    text = text or "other data of the same name, or defaults of another version"
    raise OutputError(f"{folder} holds another study ({text}); give a new --out, or the settings it was started with")


def _digest(file: str | Path) -> str:
    """SHA-256 of a file. (``hashlib.file_digest`` clears 256 KiB for each, which takes longer than small files.)"""
    hasher = hashlib.sha256()
    for chunk in _read_chunks(file):
        hasher.update(chunk)
    return hasher.hexdigest()


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of all files below a folder, by relative name; files are flushed to disk."""
    digests = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digests[file.relative_to(folder).as_posix()] = _digest(file)
        _fsync(file)
    return digests


def _read_chunks(file: str | Path) -> Iterator[bytes]:
    """Content of a file in chunks. (Without a file object, which would take as long as reading a small file.)"""
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        while chunk := os.read(descriptor, CHUNK):
            yield chunk
    finally:
        os.close(descriptor)


def _fsync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _writer_lives(unfinished: Path) -> bool:
    """Whether the writer of an unfinished folder may still be alive; one of another machine is given a day."""
    parts = unfinished.name.split(".")[-4:-1]  # before the random suffix of a temporary folder's name
    name = ".".join(parts)
    if len(parts) == 3 and parts[0] != machine():
        with contextlib.suppress(FileNotFoundError):
            return time.time() - unfinished.stat().st_mtime < 86_400
        return False
    return not writer_is_dead(name)
