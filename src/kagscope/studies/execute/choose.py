"""Choose the executor named by a command."""

from __future__ import annotations

from kagscope.base.errors import InputError
from kagscope.studies.execute.base import Executor
from kagscope.studies.execute.local import LocalExecutor
from kagscope.studies.resources import usable_cores


def choose_executor(
    name: str,
    workers: int | None = None,
    address: str | None = None,
    cpus_per_run: float | None = None,
    gpus_per_run: float | None = None,
) -> Executor:
    """Make the executor ``name``, "local" or "ray".

    Args:
        name: name of the executor.
        workers: number of concurrent tasks; by default all cores, fewer if memory is short.
        address: address of an existing Ray cluster; by default a new one on this machine.
        cpus_per_run, gpus_per_run: what Ray sets aside for each task, default one CPU and no GPU; a share such as 0.5 lets
            tasks share a GPU.

    Raises:
        InputError: unknown name, no workers, an option only for Ray, or Ray is not installed.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    if name == "local":
        if address is not None:
            raise InputError("an address was given, but only --executor ray connects to a cluster")
        if cpus_per_run is not None or gpus_per_run is not None:
            raise InputError("CPUs or GPUs per run were given, but only --executor ray sets them aside; use --workers here")
        return LocalExecutor(workers or usable_cores(), by_default=workers is None)
    if name == "ray":
        from kagscope.studies.execute.ray import RayExecutor

        return RayExecutor(workers, address, 1.0 if cpus_per_run is None else cpus_per_run, gpus_per_run or 0.0)
    raise InputError(f"executor is {name!r}; expected 'local' or 'ray'")
