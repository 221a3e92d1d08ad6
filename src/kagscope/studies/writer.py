"""This process on this machine, as files name it, and whether such a writer is gone."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path


def writer() -> str:
    """``machine.process.start``: a hash of the machine's name, the process id, and when the process started."""
    return f"{machine()}.{os.getpid()}.{_start_time(os.getpid())}"


def machine() -> str:
    """A hash of this machine's name: files must not tell it."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def writer_is_dead(name: str) -> bool:
    """Whether the writer is certainly gone: of this machine, and its process ended or its number is another process's now."""
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
    """The process's start in clock ticks since boot where the system tells, else "0": numbers of processes are used again."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return "0"
