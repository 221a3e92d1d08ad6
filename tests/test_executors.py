"""Executors: failures are told apart and named, a dead worker does not take the study with it, Ray gives the same bits."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from executor_work import fragile, note_orders, stop, where, work
from kagscope.base.errors import InputError, OutputError
from kagscope.data import load
from kagscope.studies import resources
from kagscope.studies.collect import Outcome
from kagscope.studies.execute import kernels
from kagscope.studies.execute.base import Event, Executor
from kagscope.studies.execute.choose import choose_executor
from kagscope.studies.execute.local import LocalExecutor, WorkersDie
from kagscope.studies.execute.second_process import SecondProcess, second_process
from kagscope.studies.file import list_jobs
from kagscope.studies.measure import Job
from kagscope.studies.runs import SEEDS_TOGETHER, group_by_setting, tasks_for
from kagscope.studies.study import run_study
from studies import small_study
from test_reproduce import digests

HAVE_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAVE_RAY, reason="Ray is not installed (extra 'ray')")


@pytest.fixture(params=["local", pytest.param("ray", marks=[needs_ray, pytest.mark.slow])])
def executor(request: pytest.FixtureRequest) -> Executor:
    return choose_executor(request.param, 2)


def test_failures_are_named_and_the_rest_is_done(executor: Executor, tmp_path: Path) -> None:
    events: list[Event] = []
    names = ("a", "bug", "b", "c", "full disk")
    failures = executor.run([(name, tmp_path) for name in names], work, events.append)
    assert {failure.task[0]: failure.message for failure in failures} == {
        "bug": "ZeroDivisionError: by design",
        "full disk": "no space left, free some",
    }
    assert all("raise" in failure.traceback for failure in failures)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c"}
    assert sorted(event["text"] for event in events) == sorted(names)


def test_a_full_disk_stops_what_has_not_begun(executor: Executor, tmp_path: Path) -> None:
    # many that take a moment: a loaded machine may be slow to tell that the first failed
    names = ("full disk", *(f"moment {i}" for i in range(100)))
    failures = executor.run([(name, tmp_path) for name in names], work, lambda event: None)
    assert [(failure.message, failure.stops) for failure in failures] == [("no space left, free some", True)]
    assert len(list(tmp_path.iterdir())) < 100


def test_tasks_are_done_by_whichever_process_comes_first() -> None:
    def done(beside: SecondProcess, *names: str) -> dict[str, tuple[str, bool]]:
        shared = beside.begin({name: partial(where, name, os.getpid()) for name in names})
        while shared[names[0]].future is None and time.monotonic() < before:
            time.sleep(0.01)
        return beside.finish(shared, told.append)

    told: list[str] = []
    before = 0.0
    with second_process(False, "executor_work") as beside:
        assert done(beside, "a", "b") == {"a": ("a", False), "b": ("b", False)}
    before = time.monotonic() + 20
    assert told == ["b", "a"]
    with second_process(True, "executor_work") as beside:
        found = done(beside, *"abcdefgh")
        assert [*found] == [name for name, _ in found.values()] == [*"abcdefgh"]
        assert found["a"] == ("a", True)
        with pytest.raises(OutputError, match="no space left"):
            done(beside, "disk", "a")
        assert done(beside, "dies elsewhere", "a")["dies elsewhere"] == ("dies elsewhere", False)
        assert beside.finish(beside.begin({"a": partial(where, "a", os.getpid())}), told.append) == {"a": ("a", False)}


@pytest.mark.parametrize("cores", [1, 2])
def test_kernels_are_compiled_once(cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setattr(kernels, "usable_cores", lambda: cores)
    monkeypatch.setattr(kernels, "warm_up", note_orders)
    monkeypatch.setattr(kernels, "is_warm", lambda: False)
    kernels.compile_kernels(lambda text: None)
    assert sorted((tmp_path / "notes").read_text().splitlines()) == ["[1, 2]", "[3]"]
    monkeypatch.setattr(kernels, "is_warm", lambda: True)
    kernels.compile_kernels(pytest.fail)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_interrupt_stops_the_workers() -> None:
    pids: list[int] = []

    def interrupt(event: Event) -> None:
        pids.append(int(event["text"]))
        if len(pids) == 2:
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        LocalExecutor(2).run([1, 2, 3], stop, interrupt)
    while any(alive(pid) for pid in pids) and time.monotonic() - began < 50:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in pids)


@needs_ray
def test_ray_gives_the_same_bits(study: Outcome, tmp_path: Path) -> None:
    some = small_study(widths=(6,), trainings=["standard"])
    outcome = run_study(some, tmp_path / "out", executor=choose_executor("ray", 2), pictures=False)
    assert len(outcome.runs) == 2
    assert digests(tmp_path / "out" / "runs").items() <= digests(study.folder / "runs").items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("slurm",), "expected 'local' or 'ray'"),
        (("local", 0), "workers is 0"),
        (("local", 2, "auto"), "only --executor ray connects to a cluster"),
        (("local", 2, None, None, 0.5), "only --executor ray sets them aside"),
        (("ray", 2, None, 0.0), "expected more than 0"),
    ],
)
def test_executors_that_do_not_exist(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_executor(*arguments)


# -- tasks -----------------------------------------------------------------------------------------------------------------------


def runs(**changes: Any) -> list[Job]:
    return list_jobs(small_study(**changes), {"digits": load("digits")})


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 100])
def test_tasks_cover_every_run_once_and_keep_trainings_together(workers: int) -> None:
    missing = runs(widths=(4, 8, 6), seeds=5)
    tasks = tasks_for(missing, Path("out"), workers)
    assert sorted(job.run.run_id for task in tasks for job in task.jobs) == sorted(job.run.run_id for job in missing)
    widths = [task.jobs[0].run.width for task in tasks]
    assert widths == sorted(widths, reverse=True)
    for task in tasks:
        assert len({job.run.width for job in task.jobs}) == 1
        assert [len(group) for group in group_by_setting(task.jobs)] == [len(task.jobs) // 2] * 2
    assert len(tasks) >= min(2 * workers, 3 * 5) or workers == 1


def test_many_seeds_are_not_trained_all_at_once() -> None:
    """What is in flight is lost with its worker; and 1000 nets side by side would be refused."""
    tasks = tasks_for(runs(widths=(4,), seeds=1000), Path("out"), 1)
    assert sum(len(task.jobs) for task in tasks) == 2000
    assert max(len({job.run.seed for job in task.jobs}) for task in tasks) <= SEEDS_TOGETHER


def test_no_runs_no_tasks() -> None:
    assert tasks_for([], Path("out"), 4) == []


# -- workers that die -----------------------------------------------------------------------------------------------------------


def test_a_dead_local_worker_costs_its_task_a_second_try(tmp_path: Path) -> None:
    events: list[Event] = []
    names = ["a", "dies once", *"bcd"]
    assert LocalExecutor(2).run([(name, tmp_path) for name in names], fragile, events.append) == []
    assert {path.name for path in tmp_path.iterdir()} == {*names, "tried"}
    assert any("a worker process died" in event["text"] for event in events)


def test_a_task_that_kills_its_worker_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    names = ["a", "dies", *"bcd"]
    failures = LocalExecutor(2).run([(name, tmp_path) for name in names], fragile, lambda event: None)
    assert [failure.task[0] for failure in failures] == ["dies"]
    assert "died twice" in failures[0].message
    assert {path.name for path in tmp_path.iterdir()} == {*"abcd", "tried"}


def test_workers_that_cannot_live_leave_waiting_runs_waiting(tmp_path: Path) -> None:
    with pytest.raises(WorkersDie, match="before one task was finished"):
        LocalExecutor(1).run([("dies", tmp_path)] * 100, fragile, lambda event: None)


def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    """Users write such scripts; every worker would run them again."""
    (tmp_path / "script.py").write_text(
        "from pathlib import Path\nfrom kagscope.studies.execute.local import LocalExecutor\nfrom executor_work import fragile\n"
        "print('once', flush=True)\n"
        "assert LocalExecutor(2).run([(n, Path('.')) for n in 'ab'], fragile, print) == []\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (0, "once\n"), ended.stderr
    assert (tmp_path / "a").exists()
    assert (tmp_path / "b").exists()


# -- resources ------------------------------------------------------------------------------------------------------------------


def test_fewer_workers_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    from kagscope.studies import study
    from kagscope.studies.plan import task_memory

    told: list[Event] = []
    each = task_memory(runs()[0], 1000)
    for free, expected in ((100 * each, 8), (3.5 * each, 3), (0.1 * each, 1), (None, 8)):
        monkeypatch.setattr(study, "usable_memory", lambda free=free: free)
        chosen = study._limit_workers(LocalExecutor(8, by_default=True), runs()[:1], {"digits": 1000}, told.append)
        assert chosen.workers == expected
    assert len(told) == 2
    assert "3 at a time instead of 8" in told[0]["text"]


@pytest.mark.parametrize(
    ("group", "files", "cores", "memory"),
    [
        ("0::/job/step", {"job/cpu.max": "150000 100000", "job/step/cpu.max": "max 100000"}, 1, 8 << 30),
        ("0::/job", {"job/cpu.max": "50000 100000"}, 1, 8 << 30),
        ("0::/job", {"job/memory.max": "3000", "job/memory.current": "1000", "memory.max": "max"}, 64, 2000),
        (
            "3:cpu,cpuacct:/job\n4:memory:/job",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "400000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}
            | {"memory/job/memory.limit_in_bytes": "5000", "memory/job/memory.usage_in_bytes": "6000"},
            4,
            0,
        ),
        ("nonsense", {}, 64, 8 << 30),
    ],
)
def test_control_groups_limit_cores_and_memory(
    group: str, files: dict[str, str], cores: int, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content + "\n")
    (tmp_path / "own").write_text(group + "\n")
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:    {8 << 20} kB\n")
    monkeypatch.setattr(resources, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(resources, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(resources, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert resources.usable_cores() == cores
    assert resources.usable_memory() == memory
