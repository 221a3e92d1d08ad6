"""How many steps a second each kernel takes on one core of this machine: measured once, kept in the user's cache folder.

Rates only turn a plan's numbers of steps into seconds (:attr:`kagscope.minors.planner.Plan.seconds`). They choose nothing: ways
differ in their last bits, and no result may depend on how busy a machine was.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Callable
from functools import lru_cache
from math import comb, log2
from pathlib import Path

import numba
import numpy as np

from kagscope import __version__
from kagscope.base.errors import KagscopeError
from kagscope.base.files import atomic_write
from kagscope.columns.layout import Layout
from kagscope.columns.selections import All
from kagscope.minors.bruteforce import minor_blocks, row_subsets
from kagscope.minors.enumeration import enumerate_all, enumerate_s1, enumerate_sums
from kagscope.minors.exact import entry_sums
from kagscope.minors.hull import top
from kagscope.minors.rows import complete_pairs
from kagscope.minors.spectra import spectral_s2
from kagscope.minors.subsets import list_subsets
from kagscope.minors.threads import limit_threads, one_blas_thread
from kagscope.minors.zonogon import row_pair_areas

REPEATS = 3  # the shortest counts: other load only ever adds
_this_process: dict[str, float] = {}


def rate(kernel: str) -> float:
    """Steps a second of a kernel of :data:`kagscope.minors.planner.RATES` on one core.

    From this process, else the cache file, else measured now and kept: milliseconds, once, for the kernels that a plan used.
    """
    if kernel not in _this_process:
        kept = _read()
        if kernel not in kept:
            kept[kernel] = measure(kernel)
            _write(kept)
        _this_process.update(kept)
    return _this_process[kernel]


def measure(kernel: str) -> float:
    """Steps a second of one kernel, now."""
    work, steps = _sample(kernel)
    times = []
    with limit_threads(1), one_blas_thread():
        work()  # loads the compiled code
        for _ in range(REPEATS):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
    return steps / max(min(times), 1e-9)


def _sample(kernel: str) -> tuple[Callable[[], object], float]:
    """A call of some milliseconds of the kernel itself, and its number of steps."""
    rng = np.random.default_rng(0)
    J, wide = rng.uniform(-1, 1, size=(64, 256)), rng.uniform(-1, 1, size=(64, 784))
    few, square = np.ascontiguousarray(J[:16, :24]), rng.uniform(-1, 1, size=(512, 512))
    entries, pairs, triples = list_subsets([All()], Layout(784), 1), complete_pairs(256), list_subsets([All()], Layout(24), 3)
    samples: dict[str, tuple[Callable[[], object], float]] = {
        "entries": (lambda: entry_sums(wide, entries), wide.size),
        "s1 of pairs": (lambda: enumerate_s1(J, pairs), comb(64, 2) * comb(256, 2)),
        "sums of pairs": (lambda: enumerate_sums(J, pairs), comb(64, 2) * comb(256, 2)),
        "pairs": (lambda: enumerate_all(J[:32], pairs, 2), comb(32, 2) * comb(256, 2)),
        "triples": (lambda: enumerate_all(few, triples, 3), comb(16, 3) * comb(24, 3)),
        "determinants": (lambda: list(minor_blocks(few, row_subsets(8, 4), row_subsets(12, 4))), comb(8, 4) * comb(12, 4)),
        "zonogons": (lambda: row_pair_areas(J, 1), comb(64, 2) * 256 * log2(256)),
        "hulls": (lambda: top(wide, 1), comb(64, 2) * 784),
        "Grams": (lambda: square @ square, 512**3),
        "spectra": (lambda: spectral_s2(wide, 3), 64 * 64 * 784),
    }
    return samples[kernel]


# -- the cache -------------------------------------------------------------------------------------------------------------------


def cache_file() -> Path:
    """Where the rates are kept: the operating system's folder for caches, as for downloads."""
    import pooch

    return Path(pooch.os_cache("kagscope")) / "rates.json"


@lru_cache(maxsize=1)
def machine() -> dict[str, str]:
    """What the rates hold for. They are those of one core, so the number of threads is no part of it."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {"kagscope": __version__, "numba": numba.__version__, "numpy": np.__version__, "cpu": cpu}


def _read() -> dict[str, float]:
    """The rates kept for this machine; none if the file is missing, damaged, or of another machine or version."""
    try:
        record = json.loads(cache_file().read_text())
        if record["machine"] != machine():
            return {}
        return {kernel: float(value) for kernel, value in record["rates"].items() if 0 < value < 1e15}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(rates: dict[str, float]) -> None:
    """Keep the rates, at once or not at all; a folder that cannot be written only means measuring again another time."""
    with contextlib.suppress(OSError, KagscopeError):
        file = cache_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json.dumps({"machine": machine(), "rates": rates}, indent=1) + "\n")
