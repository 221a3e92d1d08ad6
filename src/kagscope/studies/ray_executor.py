"""Tasks on a Ray cluster (optional extra ``ray``). The output folder must be on a file system that every node sees."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kagscope.errors import InputError
from kagscope.studies.executors import POLL, SINGLE_THREAD, Failure, Report, Work, attempt

RETRIES = 3  # of a task whose worker or node died; what a task raises is not tried again


@dataclass(frozen=True)
class RayExecutor:
    """One CPU per task; a lost worker's tasks run again, and find the runs that it had finished."""

    max_workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        try:
            import ray  # noqa: F401
        except ImportError:
            raise InputError(
                "--executor ray needs Ray, which is not installed; install kagscope[ray], or use --executor local"
            ) from None

    @property
    def workers(self) -> int:
        from kagscope.studies.executors import usable_cores

        return self.max_workers or usable_cores()

    def run(self, tasks: Sequence[Any], work: Work, on_event: Report) -> list[Failure]:
        import ray
        from ray.util.queue import Empty, Queue

        started = not ray.is_initialized()
        if started:
            own: dict[str, Any] = (
                {"address": self.address} if self.address else {"num_cpus": self.workers, "include_dashboard": False}
            )
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **own)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InputError(f"cannot reach Ray at {self.address or 'this machine'}: {error}") from error
        try:
            events = Queue(actor_options={"num_cpus": 0})
            environment = dict(SINGLE_THREAD)
            if self.address is None:  # on this machine workers find the modules that this process finds
                environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
            remote = ray.remote(num_cpus=1, max_retries=RETRIES, runtime_env={"env_vars": environment})(_on_node)
            waiting = {remote.remote(task, work, events): task for task in tasks[: self.workers]}
            coming = list(tasks[self.workers :])
            failures: list[Failure] = []
            while waiting:
                finished, _ = ray.wait(list(waiting), timeout=POLL)
                with contextlib.suppress(Empty):
                    while True:
                        on_event(events.get_nowait())
                for reference in finished:
                    failure = _outcome(reference, waiting.pop(reference))
                    failures += [failure] if failure else []
                    if coming:
                        following = coming.pop(0)
                        waiting[remote.remote(following, work, events)] = following
            with contextlib.suppress(Empty):
                while True:
                    on_event(events.get_nowait())
            return failures
        finally:
            if started:
                ray.shutdown()


def _on_node(task: Any, work: Work, events: Any) -> Failure | None:
    return attempt(task, work, events.put)


def _outcome(reference: Any, task: Any) -> Failure | None:
    import ray

    try:
        found: Failure | None = ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # the task could not even begin, as where a module is missing on a node
        return Failure(task, f"{type(error.cause).__name__}: {error.cause}", str(error))
    except ray.exceptions.RayError as error:
        message = f"a Ray worker was lost {RETRIES + 1} times: {str(error).splitlines()[0]}"
        return Failure(task, message, str(error))
    return found
