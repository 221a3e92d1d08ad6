"""Executors: failures are told apart and named, a dead worker does not take the study with it, Ray gives the same bits."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import pytest

from kagscope.errors import InputError, OutputError
from kagscope.studies.collect import Outcome
from kagscope.studies.config import RunConfig
from kagscope.studies.executors import Event, Executor, LocalExecutor, Report, choose_executor
from kagscope.studies.reproduce import reproduce
from kagscope.studies.runs import settings_of, tasks_for
from studies import small_settings
from test_reproduce import digests

HAVE_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAVE_RAY, reason="Ray is not installed (extra 'ray')")


def work(task: tuple[str, Path], report: Report) -> None:
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
    (folder / name).write_text(str(os.getpid()))


@pytest.fixture(params=["local", pytest.param("ray", marks=needs_ray)])
def executor(request: pytest.FixtureRequest) -> Executor:
    return choose_executor(request.param, 2)


def test_failures_are_named_and_the_rest_is_done(executor: Executor, tmp_path: Path) -> None:
    events: list[Event] = []
    names = ("a", "bug", "b", "full disk", "c")
    failures = executor.run([(name, tmp_path) for name in names], work, events.append)
    assert {failure.task[0]: failure.message for failure in failures} == {
        "bug": "ZeroDivisionError: by design",
        "full disk": "no space left, free some",
    }
    assert all("raise" in failure.traceback for failure in failures)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c"}
    assert sorted(event["text"] for event in events) == sorted(names)


def test_a_dead_worker_is_a_failure_not_a_crash(tmp_path: Path) -> None:
    failures = LocalExecutor(1).run([("a", tmp_path), ("dies", tmp_path)], work, lambda event: None)
    assert [failure.task[0] for failure in failures] == ["dies"]
    assert "worker process died" in failures[0].message
    assert (tmp_path / "a").exists()


def stop(task: int, report: Report) -> None:
    report({"kind": "note", "text": str(os.getpid())})
    time.sleep(60)


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
    outcome = reproduce(small_settings(), tmp_path / "out", executor=choose_executor("ray", 2))
    assert digests(tmp_path / "out" / "runs") == digests(study.folder / "runs")
    assert [claim.as_json() for claim in outcome.claims] == [claim.as_json() for claim in study.claims]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("slurm",), "expected 'local' or 'ray'"),
        (("local", 0), "workers is 0"),
        (("local", 2, "auto"), "only --executor ray connects to a cluster"),
    ],
)
def test_executors_that_do_not_exist(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_executor(*arguments)


# -- tasks -----------------------------------------------------------------------------------------------------------------------


def runs(**changes: object) -> list[RunConfig]:
    return list(small_settings(**changes).runs("ab" * 32, (8, 8)))


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 100])
def test_tasks_cover_every_run_once_and_keep_trainings_together(workers: int) -> None:
    missing = runs(widths=(4, 8, 6), seeds=5)
    tasks = tasks_for(missing, Path("out"), workers)
    assert sorted(run.run_id for task in tasks for run in task.runs) == sorted(run.run_id for run in missing)
    widths = [task.runs[0].width for task in tasks]
    assert widths == sorted(widths, reverse=True)
    for task in tasks:
        assert len({run.width for run in task.runs}) == 1
        assert [len(group) for group in settings_of(task.runs)] == [len(task.runs) // 2] * 2
    assert len(tasks) >= min(2 * workers, 3 * 5) or workers == 1


def test_no_runs_no_tasks() -> None:
    assert tasks_for([], Path("out"), 4) == []
