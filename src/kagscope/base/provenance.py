"""Provenance of numbers: versions, hardware in general terms, digests."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ENGINE = "2"
"""Version of the engine: raised when the same spec gives other numbers, so that their tables can be distinguished."""

DEPENDENCIES = ("torch", "numpy", "numba", "scipy", "pandas", "scikit-learn")


def versions(modules: Iterable[object] = ()) -> dict[str, str]:
    """Versions of Python, kagscope, its numerical dependencies, and the libraries that the ``modules`` of a model come from."""
    from kagscope import __version__

    known = {"kagscope": __version__, "python": platform.python_version()}
    known |= {name: _version(name) or "unknown" for name in DEPENDENCIES}
    makers = {type(module).__module__.partition(".")[0] for module in modules} - known.keys() - sys.stdlib_module_names
    return known | {name: version for name in sorted(makers) if (version := _version(name))}


@cache
def _version(name: str) -> str | None:
    """Version of an installed distribution; None if there is none of that name, such as for a user's own file."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def json_values(value: Any) -> Any:
    """Convert a value for JSON: mappings and lists of Python numbers, None for numbers that are not finite."""
    if isinstance(value, dict):
        return {str(key): json_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest(plain: Any) -> str:
    """SHA-256 of the canonical JSON of plain values: the same on every machine."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def hardware() -> str:
    """Architecture, cores and memory; no names of machines or people."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    machine, system = platform.machine() or "unknown architecture", platform.system() or "unknown system"
    vectors = _vectors()
    text = f"{cores} CPU core{'s' if cores != 1 else ''} ({machine}{f' with {vectors}' if vectors else ''}, {system})"
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return text
    return f"{text}, {memory:.0f} GiB memory"


def _vectors() -> str:
    """Widest vector instructions of the processor; "" if unknown."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return ""
    return next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
