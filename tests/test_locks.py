"""Claims on runs: one holder at a time, dead holders are replaced, clocks do not matter."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kagscope.studies import locks
from kagscope.studies.locks import Leases, writer, writer_is_dead


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = Leases(tmp_path / "l"), Leases(tmp_path / "l")
    with first.acquire(["a", "b"]) as mine:
        assert mine == ["a", "b"]
        assert sorted(second.running()) == ["a", "b"]
        with second.acquire(["b", "c"]) as theirs:
            assert theirs == ["c"]
    assert second.running() == []
    with second.acquire(["a"]) as mine:
        assert mine == ["a"]


def test_released_after_an_error(tmp_path: Path) -> None:
    held = Leases(tmp_path)
    with pytest.raises(RuntimeError), held.acquire(["a"]):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_is_replaced_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from kagscope.studies.locks import Leases\n"
        "with Leases(Path(sys.argv[1])).acquire(['a']): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    mine = Leases(tmp_path)
    with mine.acquire(["a"]) as got:
        assert got == []
    process.kill()
    process.wait()
    assert mine.running() == []
    with mine.acquire(["a"]) as got:
        assert got == ["a"]


def test_a_holder_on_another_machine_is_replaced_when_it_stops_renewing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = tmp_path / "a.lease"
    lease.write_text("00000000.1.1")
    now = [1000.0]
    monkeypatch.setattr("kagscope.studies.locks.time.monotonic", lambda: now[0])
    mine = Leases(tmp_path)

    def claim() -> list[str]:
        with mine.acquire(["a"]) as got:
            return got

    assert claim() == []
    for turn in range(20):  # renewed: with a clock that is years off
        os.utime(lease, ns=(turn, turn))
        now[0] += locks.DEAD_AFTER - 1
        assert claim() == []
    now[0] += locks.DEAD_AFTER + 1
    assert claim() == ["a"]


def test_a_clock_that_is_set_back_takes_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the file server or of the holder: what counts is that the file changes, by the looker's own steady clock."""
    lease = tmp_path / "a.lease"
    lease.write_text("00000000.1.1")
    now = [1000.0]
    monkeypatch.setattr("kagscope.studies.locks.time.monotonic", lambda: now[0])
    monkeypatch.setattr("kagscope.studies.locks.time.time", lambda: 0.0, raising=False)
    mine = Leases(tmp_path)
    for years_ago in (1, 20, 5):
        os.utime(lease, (time.time() - years_ago * 3e7,) * 2)
        with mine.acquire(["a"]) as got:
            assert got == []
        now[0] += locks.DEAD_AFTER - 1
        with mine.acquire(["a"]) as got:
            assert got == []


def test_dead_claims_are_cleared_and_living_ones_stay(tmp_path: Path) -> None:
    machine, process, started = writer().split(".")
    (tmp_path / "dead.lease").write_text(f"{machine}.{process}.{int(started) + 1}")
    (tmp_path / "elsewhere.lease").write_text("00000000.1.1")
    with Leases(tmp_path).acquire(["mine"]):
        Leases(tmp_path).clear_dead()
        assert sorted(os.listdir(tmp_path)) == ["elsewhere.lease", "mine.lease"]


def test_a_lease_is_renewed_while_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW_EVERY", 0.02)
    with Leases(tmp_path).acquire(["a"]):
        os.utime(tmp_path / "a.lease", ns=(0, 0))
        until = time.monotonic() + 5
        while (tmp_path / "a.lease").stat().st_mtime_ns == 0 and time.monotonic() < until:
            time.sleep(0.02)
        assert (tmp_path / "a.lease").stat().st_mtime_ns > 0


def test_writers() -> None:
    assert not writer_is_dead(writer())
    machine, process, started = writer().split(".")
    assert writer_is_dead(f"{machine}.{process}.{int(started) + 1}"), "the number of a dead process, used again"
    assert not writer_is_dead("00000000.1.1")
    assert writer_is_dead("nonsense")
