"""Leases on runs being computed: files renewed by their writers. A dead writer's lease is taken over, on any file system.

A lease names its writer (machine, process) and is renewed every few seconds. Another driver takes it over when the writer's
process on the same machine is gone, or when the file has not changed for a minute of that driver's own clock: clocks of
other machines, or one that is set back, do not matter.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kagscope.base.files import writing_in

MEND = "free some space or mend its permissions"
RENEW_EVERY = 5.0  # seconds
DEAD_AFTER = 60.0  # seconds without a change


@dataclass
class Leases:
    """Leases on the runs of one store.

    Attributes:
        folder: folder of the lease files.
    """

    folder: Path
    _seen: dict[str, tuple[tuple[int, int], float]] = field(default_factory=dict)

    @contextlib.contextmanager
    def acquire(self, run_ids: list[str]) -> Iterator[list[str]]:
        """Acquire those of ``run_ids`` that no other process computes, for this process, within the block.

        Raises:
            OutputError: the folder cannot be written.
        """
        mine = [run_id for run_id in run_ids if self._take(run_id)]
        done = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(mine, done), daemon=True)
        renewing.start()
        try:
            yield mine
        finally:
            done.set()
            renewing.join()
            for run_id in mine:
                self._file(run_id).unlink(missing_ok=True)

    def running(self) -> list[str]:
        """Runs acquired by a live writer, as far as a single check can tell."""
        owners = [(file.name.removesuffix(".lease"), _owner(file)) for file in self.folder.glob("*.lease")]
        return [run_id for run_id, owner in owners if owner and not writer_is_dead(owner)]

    def clear_dead(self) -> None:
        """Remove leases of dead processes of this machine, and the folder if it is empty."""
        for file in self.folder.glob("*.lease"):
            if (owner := _owner(file)) and writer_is_dead(owner):
                _remove_dead(file)
        with contextlib.suppress(OSError):  # leases of other writers
            self.folder.rmdir()

    def _take(self, run_id: str) -> bool:
        file = self._file(run_id)
        with writing_in(self.folder, MEND):
            self.folder.mkdir(exist_ok=True)  # another driver may have removed it at its end
            if file.exists() and self._is_dead(run_id):
                _remove_dead(file)
            try:
                descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                return False
            try:
                os.write(descriptor, writer().encode())
            except OSError:
                file.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
        self._seen.pop(run_id, None)
        return True

    def _is_dead(self, run_id: str) -> bool:
        file = self._file(run_id)
        owner = _owner(file)
        if owner is None:
            return False  # just released
        if owner and writer_is_dead(owner):
            return True
        try:
            status = file.stat()
        except FileNotFoundError:
            return False
        state, now = (status.st_mtime_ns, status.st_ino), time.monotonic()
        before, since = self._seen.get(run_id, (None, now))
        if before != state:
            self._seen[run_id] = (state, now)
            return False
        return now - since > DEAD_AFTER

    def _renew(self, run_ids: list[str], done: threading.Event) -> None:
        while not done.wait(RENEW_EVERY):
            for run_id in run_ids:
                with contextlib.suppress(OSError):
                    os.utime(self._file(run_id))

    def _file(self, run_id: str) -> Path:
        return self.folder / f"{run_id}.lease"


def _remove_dead(file: Path) -> None:
    """Remove a dead lease, by only one of the drivers that see it."""
    stale = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):  # another driver took it over first
        file.rename(stale)
        stale.unlink()


def _owner(file: Path) -> str | None:
    """Name of the writer; "" while it is being written, None if the lease is gone."""
    try:
        return file.read_text()
    except OSError:
        return None


def writer() -> str:
    """``machine.process.start``: a hash of the machine's name, the process id, and when the process started."""
    return f"{machine()}.{os.getpid()}.{_start_time(os.getpid())}"


def machine() -> str:
    """A hash of this machine's name, which files must not reveal."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def writer_is_dead(name: str) -> bool:
    """Whether the writer is certainly dead: on this machine, with a process that ended or whose number was reused."""
    try:
        host, process, started = name.split(".")
        if host != machine():
            return False
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return True
    except PermissionError:
        return False
    return started != _start_time(int(process))


def _start_time(process: int) -> str:
    """Start of a process in clock ticks since boot, as process numbers are reused; "0" if unknown."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return "0"
