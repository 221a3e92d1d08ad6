"""Cores and memory available to this process, by affinity and control groups (containers, SLURM)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")


def usable_cores() -> int:
    """Cores that this process may use: those of its affinity, or fewer by the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _groups("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            cores = min(cores, int(int(quota) / int(period)))
        with contextlib.suppress(OSError, ValueError):
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            cores = min(cores, int(int(quota) / int(period))) if int(quota) > 0 else cores
    return max(1, cores)


def usable_memory() -> int | None:
    """Bytes available for new processes on the machine, or fewer by a control group; None if unknown."""
    limits: list[int] = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        limits.append(int(line.split()[1]) * 1024)
    for folder in _groups("memory"):
        for limit, now in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with contextlib.suppress(OSError, ValueError):  # "max": no limit
                limits.append(max(0, int((folder / limit).read_text()) - int((folder / now).read_text())))
    return min(limits, default=None)


def _groups(controller: str) -> list[Path]:
    """Folders of this process's control group and its ancestors, all of whose limits apply."""
    try:
        lines = [line.split(":", 2) for line in OWN_GROUP.read_text().splitlines()]
    except OSError:
        return []
    folders: list[Path] = []
    for _, controllers, name in (line for line in lines if len(line) == 3):
        root = GROUPS if not controllers else GROUPS / controllers
        if not controllers or controller in controllers.split(","):
            group = Path(name.lstrip("/"))
            folders += [root / folder for folder in (group, *group.parents)]
    return folders
