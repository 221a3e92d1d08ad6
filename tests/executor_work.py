"""What tests of executors run in worker processes: a module that loads fast, since every worker loads it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kagscope.base.errors import OutputError
from kagscope.studies.execute.base import OnEvent


def work(task: tuple[str, Path], report: OnEvent) -> None:
    """Module-level, so that worker processes find it."""
    name, folder = task
    report({"kind": "note", "text": name})
    if name == "bug":
        raise ZeroDivisionError("by design")
    if name == "full disk":
        raise OutputError("no space left, free some")
    if name == "dies":
        os._exit(9)
    assert os.environ["KAGSCOPE_THREADS"] == "1"
    if name.startswith("moment"):
        time.sleep(0.3)
    (folder / name).write_text(str(os.getpid()))


def stop(task: int, report: OnEvent) -> None:
    report({"kind": "note", "text": str(os.getpid())})
    time.sleep(60)


def fragile(task: tuple[str, Path], report: OnEvent) -> None:
    """ "dies" always kills its process, "dies once" the first time; the others take a moment."""
    name, folder = task
    if name == "dies" or (name == "dies once" and not (folder / "tried").exists()):
        (folder / "tried").touch()
        os._exit(9)
    time.sleep(0.3)
    (folder / name).touch()


def where_it_runs(task: tuple[str, Path], report: OnEvent) -> None:
    """Tell this process and its Ray node, then wait until the file "go" is there; a second try ends at once."""
    import ray

    name, folder = task
    tries = folder / f"{name}.tries"
    with tries.open("a") as stream:
        stream.write("x")
    if len(tries.read_text()) == 1:
        report({"kind": "note", "task": name, "pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()})
        until = time.monotonic() + 120
        while not (folder / "go").exists() and time.monotonic() < until:
            time.sleep(0.05)
    (folder / name).touch()


def kill(pid: int) -> None:
    """As a machine that runs out of memory does."""
    os.kill(pid, signal.SIGKILL)


def where(name: str, here: int) -> tuple[str, bool]:
    """Whether it is done in another process."""
    if name == "disk":
        raise OutputError("no space left, free some")
    if name == "dies elsewhere" and os.getpid() != here:
        os._exit(9)
    return name, os.getpid() != here


def note_orders(tell: Callable[[str], None] | None = None, orders: Sequence[int] = ()) -> None:
    """In place of compiling."""
    with Path(os.environ["NOTES"]).open("a") as stream:
        stream.write(f"{[*orders]}\n")
