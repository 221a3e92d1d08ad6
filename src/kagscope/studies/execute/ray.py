"""Run tasks on a Ray cluster (optional extra ``ray``). The output folder must be on a file system shared by all nodes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kagscope.base.errors import InputError
from kagscope.studies.execute.base import DEVICE, POLL, SINGLE_THREAD, Event, Failure, OnEvent, Work, attempt
from kagscope.studies.resources import usable_cores

RETRIES = 3  # of a task whose worker or node died; a task that raises is not retried
COUNT_AGAIN = 5.0  # seconds between checks of the cluster's size


@dataclass(frozen=True)
class RayExecutor:
    """One CPU per task by default; tasks of a lost worker are run again and skip the runs that it had finished.

    Attributes:
        max_workers: number of concurrent tasks; by default as many as fit on the cluster, also as nodes join or leave.
        address: address of an existing cluster; None starts one on this machine and stops it afterwards.
        cpus, gpus: resources reserved for each task.
    """

    max_workers: int | None = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.cpus < 1e4 or not 0 <= self.gpus < 1e3:
            raise InputError(f"CPUs and GPUs per run are {self.cpus:g} and {self.gpus:g}; expected more than 0 and at least 0")
        try:
            import ray  # noqa: F401
        except ImportError:
            raise InputError(
                "--executor ray needs Ray, which is not installed; install kagscope[ray], or use --executor local"
            ) from None

    @property
    def workers(self) -> int:
        """Number of concurrent tasks, asking an existing cluster."""
        if self.max_workers:
            return self.max_workers
        if self.address is None:
            return max(1, int(usable_cores() / self.cpus))
        with self._connection():
            return self._room()

    def run(self, tasks: Sequence[Any], work: Work, on_event: OnEvent) -> list[Failure]:
        """See :class:`~kagscope.studies.execute.base.Executor`."""
        with self._connection():
            return self._run(deque(tasks), work, on_event)

    def _run(self, coming: deque[Any], work: Work, on_event: OnEvent) -> list[Failure]:
        import ray

        self._check_room()
        events = _queue()
        environment = SINGLE_THREAD | ({DEVICE: "cuda"} if self.gpus else {})
        if self.address is None:  # workers on this machine find the same modules as this process
            environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        remote = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=RETRIES, runtime_env={"env_vars": environment})(
            _on_node
        )
        waiting: dict[Any, Any] = {}
        failures: list[Failure] = []
        room, counted = self._room(), time.monotonic()
        while waiting or coming:
            if time.monotonic() - counted > COUNT_AGAIN:
                room, counted = self._room(), time.monotonic()
            while coming and len(waiting) < room:
                task = coming.popleft()
                waiting[remote.remote(task, work, events)] = task
            finished, _ = ray.wait(list(waiting), timeout=POLL)
            for event in _arrived_events(events):
                on_event(event)
            for reference in finished:
                failure = _outcome(reference, waiting.pop(reference))
                failures += [failure] if failure else []
                if failure and failure.stops:
                    coming.clear()
        for event in _arrived_events(events):
            on_event(event)
        return failures

    @contextlib.contextmanager
    def _connection(self) -> Iterator[None]:
        import ray

        if ray.is_initialized():
            yield
            return
        runtime: dict[str, Any] = (
            {"address": self.address}
            if self.address
            else {"address": "local", "num_cpus": max(1, round(self.workers * self.cpus)), "include_dashboard": False}
        )
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **runtime)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:  # RayError: a wrong token
            raise InputError(f"cannot reach Ray at {self.address or 'this machine'}: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()

    def _room(self) -> int:
        """Number of tasks that the cluster can run at a time, or the requested number."""
        if self.max_workers:
            return self.max_workers
        return max(1, sum(self._fit(node) for node in _nodes()))

    def _fit(self, resources: dict[str, float]) -> int:
        by_gpu = resources.get("GPU", 0.0) / self.gpus if self.gpus else float("inf")
        return int(min(resources.get("CPU", 0.0) / self.cpus, by_gpu) + 1e-9)

    def _check_room(self) -> None:
        """Raise :class:`InputError` if a task fits on no node, where it would wait forever."""
        nodes = _nodes()
        if nodes and not any(self._fit(node) for node in nodes):
            largest = {name: max(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
            raise InputError(
                f"a run is to have {self.cpus:g} CPUs and {self.gpus:g} GPUs, but the largest node of this Ray has "
                f"{largest['CPU']:g} and {largest['GPU']:g}; give smaller --cpus-per-run or --gpus-per-run"
            )


def _nodes() -> list[dict[str, float]]:
    """Resources of the live nodes."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _queue() -> Any:
    """Queue of events on the driver's node, as other nodes may leave."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": this_node})


def _arrived_events(events: Any) -> Iterator[Event]:
    """Events received so far. The study does not depend on them, as runs are in the store."""
    from ray.exceptions import RayError
    from ray.util.queue import Empty

    with contextlib.suppress(Empty, RayError):
        while True:
            yield events.get_nowait()


def _on_node(task: Any, work: Work, events: Any) -> Failure | None:
    from ray.exceptions import RayError

    def report(event: Event) -> None:
        with contextlib.suppress(RayError):
            events.put(event)

    return attempt(task, work, report)


def _outcome(reference: Any, task: Any) -> Failure | None:
    import ray

    try:
        failure: Failure | None = ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # the task could not start, for instance as a node lacks a module
        return Failure(task, f"{type(error.cause).__name__}: {error.cause}", str(error))
    except ray.exceptions.RayError as error:
        message = f"a Ray worker was lost {RETRIES + 1} times: {str(error).splitlines()[0]}"
        return Failure(task, message, str(error))
    return failure
