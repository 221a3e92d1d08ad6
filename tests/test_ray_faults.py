"""Ray with two nodes on this machine: workers and nodes that die, what a run may ask for, two drivers on one store."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from executor_work import kill, where_it_runs
from kagscope.base.errors import InputError
from kagscope.studies.execute.base import Event, OnEvent
from kagscope.studies.execute.choose import choose_executor
from kagscope.studies.execute.local import LocalExecutor
from kagscope.studies.store import RunStore
from kagscope.studies.study import run_study
from test_study_runs import file_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra 'ray')"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs; nodes that work are added by the tests."""
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)  # nodes hand it to their workers
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()  # type: ignore[no-untyped-call]
    os.environ["PYTHONPATH"] = before


def two_workers(cluster: Any) -> None:
    """Let the cluster have two nodes of one CPU each."""
    for _ in range(2 - len(cluster.worker_nodes)):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()


def lose_a_node(cluster: Any) -> str:
    """Remove a node that works, and on which the driver is not; its id."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    away = next(node for node in cluster.worker_nodes if node.node_id != here)
    cluster.remove_node(away, allow_graceful=False)
    return str(away.node_id)


def on(cluster: Any, **options: Any) -> Any:
    return choose_executor("ray", address=cluster.address, **options)


def test_a_run_that_fits_on_no_node_is_refused_at_once(cluster: Any, tmp_path: Path) -> None:
    two_workers(cluster)
    for options, asked in (({"gpus_per_run": 1}, "1 CPUs and 1 GPUs"), ({"cpus_per_run": 3}, "3 CPUs and 0 GPUs")):
        with pytest.raises(InputError, match=asked):
            on(cluster, **options).run([("a", tmp_path)], where_it_runs, lambda event: None)


def test_a_killed_worker_and_a_lost_node_cost_their_tasks_a_second_try(cluster: Any, tmp_path: Path) -> None:
    """Four tasks on two nodes: one node goes away under its task, then the process of the other is killed."""
    two_workers(cluster)
    assert on(cluster).workers == 2
    told: list[Event] = []

    def harm(event: Event) -> None:
        told.append(event)
        if len(told) == 2:
            gone = lose_a_node(cluster)
            away, stays = sorted(told, key=lambda event: event["node"] != gone)
            kill(stays["pid"])
            lost.extend([stays["task"], away["task"]])
        if len(told) == 3:  # a task that waited, in the room that the second tries left
            (tmp_path / "go").touch()

    lost: list[str] = []
    assert on(cluster).run([(name, tmp_path) for name in "abcd"], where_it_runs, harm) == []
    assert {path.name for path in tmp_path.iterdir() if not path.suffix} == {*"abcd", "go"}
    assert {name: len((tmp_path / f"{name}.tries").read_text()) for name in "abcd"} == {
        name: 2 if name in lost else 1 for name in "abcd"
    }
    until = time.monotonic() + 60
    while on(cluster).workers > 1 and time.monotonic() < until:
        time.sleep(1)
    assert on(cluster).workers == 1, "a node that is gone counts no more"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study(tmp_path_factory.mktemp("quiet"), LocalExecutor(2))


def study(folder: Path, executor: Any, on_event: OnEvent = lambda event: None) -> Path:
    file = file_of(folder, "grid.seed={count=6}")
    run_study(file, folder / "out", executor=executor, on_event=on_event, pictures=False)
    return folder / "out"


def same(one: Path, other: Path) -> None:
    pd.testing.assert_frame_equal(pd.read_parquet(one / "results.parquet"), pd.read_parquet(other / "results.parquet"))
    store = RunStore(other)
    assert store.folders() == set(store.study["runs"])
    assert not [entry for entry in (other / "runs").iterdir() if entry.name.startswith(".")]


@pytest.mark.slow
def test_a_study_whose_worker_is_killed_and_whose_node_is_lost(cluster: Any, uninterrupted: Path, tmp_path: Path) -> None:
    two_workers(cluster)
    done: list[str] = []

    def harm(event: Event) -> None:
        if event["kind"] == "run":
            done.append(event["run"])
        if event["kind"] == "run" and len(done) == 2:
            leases = list((tmp_path / "out" / "leases").glob("*.lease"))
            kill(int(leases[0].read_text().split(".")[1]))
        if event["kind"] == "run" and len(done) == 5:
            lose_a_node(cluster)

    same(uninterrupted, study(tmp_path, on(cluster), harm))
