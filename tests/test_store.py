"""The run store: whole runs or none, whatever kills the writer, and nothing of anybody else's touched."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import kagscope as kag
from kagscope.base.errors import DataError, KagscopeError, OutputError
from kagscope.studies.record import CONFIG, MANIFEST, STORE_VERSION, STUDY_FILE, WEIGHTS, read_study
from kagscope.studies.store import RunStore

STUDY = {"settings": {"data": "digits"}}
RUN_FILES = (CONFIG, WEIGHTS, "tables/a.parquet", "curves/a.parquet")
PRINT = "0f" * 32


def fill(folder: Path, content: str = "content") -> None:
    for name in RUN_FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{content} of {name}")


def name_outside(run: Path) -> None:
    """A manifest of a stranger that names a file outside the run's folder, with its right checksum."""
    (run.parent / "b.parquet").write_text("mine")
    manifest = json.loads((run / MANIFEST).read_text())
    manifest["files"]["../b.parquet"] = hashlib.sha256(b"mine").hexdigest()
    (run / MANIFEST).write_text(json.dumps(manifest))


def new_store(folder: Path) -> RunStore:
    return RunStore.open(folder, STUDY, PRINT)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def refused(folder: Path, error: type[KagscopeError], message: str, act: Callable[[], object]) -> None:
    """``act`` fails with one line and leaves ``folder`` as it was."""
    before = snapshot(folder)
    with pytest.raises(error, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert snapshot(folder) == before


def test_a_run_is_published_whole(tmp_path: Path) -> None:
    store = new_store(tmp_path / "deep" / "study")
    assert not store.is_complete("a")
    seen: list[bool] = []

    def write(folder: Path) -> None:
        fill(folder)
        seen.append(store.run_folder("a").exists())

    store.publish("a", write, {"seconds": 1.5})
    assert seen == [False]
    assert store.is_complete("a")
    assert store.check("a").damage is None
    assert os.listdir(store.folder / "runs") == ["a"]
    written = {str(path.relative_to(store.run_folder("a"))) for path in store.run_folder("a").rglob("*") if path.is_file()}
    assert written == {*RUN_FILES, MANIFEST}
    manifest = store.manifest("a")
    assert (manifest["run"], manifest["seconds"], set(manifest["files"])) == ("a", 1.5, set(RUN_FILES))
    assert store.run_folder("a").stat().st_mode & 0o777 == 0o755


def test_reopening_finds_the_study_and_its_runs(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.publish("a", fill, {})
    before = snapshot(tmp_path)
    again = new_store(tmp_path)
    again.clear_leftovers()
    assert again.is_complete("a")
    assert snapshot(tmp_path) == before
    about = {"kagscope_store": STORE_VERSION, "kagscope": kag.__version__}
    assert RunStore.existing(tmp_path).study == {**about, "fingerprint": PRINT, **STUDY}


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda run: (run / "tables/a.parquet").write_text("contenT of table.parquet"), "tables/a.parquet differs"),
        (lambda run: (run / "weights.safetensors").write_bytes(b""), "weights.safetensors differs"),
        (lambda run: (run / "curves/a.parquet").unlink(), "a.parquet"),
        (lambda run: (run / MANIFEST).unlink(), "manifest.json"),
        (lambda run: (run / MANIFEST).write_text("{"), "JSONDecodeError"),
        (lambda run: (run / MANIFEST).write_bytes(b"\xff\xfe"), "JSONDecodeError"),
        (lambda run: (run / MANIFEST).write_text("[]"), "TypeError"),
        (lambda run: (run / MANIFEST).write_text('{"files": null}'), "TypeError"),
        (lambda run: name_outside(run), "../b.parquet differs"),
        (lambda run: (run / MANIFEST).write_text('{"files": {}}'), "KeyError"),
    ],
)
def test_damage_is_found_and_mended_by_publishing_again(tmp_path: Path, harm: Callable[[Path], object], message: str) -> None:
    store = new_store(tmp_path)
    store.publish("a", fill, {})
    harm(store.run_folder("a"))
    assert message in str(store.check("a").damage)
    assert not store.is_complete("a")
    store.publish("a", fill, {})
    assert store.is_complete("a")
    assert [name for name in os.listdir(tmp_path / "runs") if name != "b.parquet"] == ["a"]


def test_the_first_of_two_drivers_wins(tmp_path: Path) -> None:
    one, two = new_store(tmp_path), new_store(tmp_path)
    one.publish("a", lambda folder: fill(folder, "first"), {})
    two.publish("a", lambda folder: fill(folder, "second"), {})
    assert (one.run_folder("a") / "config.json").read_text() == "first of config.json"
    assert os.listdir(tmp_path / "runs") == ["a"]


def test_many_threads_publishing_the_same_runs(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    failures: list[BaseException] = []

    def work(content: str) -> None:
        try:
            for run in range(10):
                store.publish(f"run{run}", lambda folder: fill(folder, content), {})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(os.listdir(tmp_path / "runs")) == sorted(f"run{run}" for run in range(10))
    assert all(store.is_complete(f"run{run}") for run in range(10))


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path)

    def disk_full(folder: Path) -> None:
        (folder / "config.json").write_text("half")
        raise OSError(28, "No space left on device")

    refused(tmp_path, OutputError, "cannot store run a: No space left", lambda: store.publish("a", disk_full, {}))

    def forgets_a_file(folder: Path) -> None:
        fill(folder)
        (folder / WEIGHTS).unlink()

    refused(tmp_path, OutputError, "cannot store run a", lambda: store.publish("a", forgets_a_file, {}))

    def fails(folder: Path) -> None:
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.publish("a", fails, {})
    assert os.listdir(tmp_path / "runs") == []


WRITER = """
    import sys, time
    from pathlib import Path
    from kagscope.studies.store import RunStore
    store = RunStore.open(sys.argv[1], {{"settings": {{"data": "digits"}}}}, "{print}")
    def write(folder):
        (folder / "tables").mkdir()
        for name in ("config.json", "weights.safetensors", "tables/a.parquet", "tables/b.parquet"):
            (folder / name).write_text("content of " + name)
            {between}
    for run in range(10_000):
        store.publish(f"run{{run}}", write, {{}})
        print(run, flush=True)
"""


def start_writer(folder: Path, between: str) -> subprocess.Popen[str]:
    code = textwrap.dedent(WRITER).format(print=PRINT, between=between)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src")}
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, env=environment)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_in_the_middle_of_a_run(tmp_path: Path) -> None:
    process = start_writer(tmp_path, between='print("writing", flush=True); time.sleep(60)')
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    leftovers = os.listdir(tmp_path / "runs")
    assert len(leftovers) == 1
    assert leftovers[0].startswith(".run0.")
    store = new_store(tmp_path)
    store.clear_leftovers()
    assert os.listdir(tmp_path / "runs") == leftovers  # its writer lives: not ours to remove
    kill(process)
    assert not store.is_complete("run0")
    store = new_store(tmp_path)
    store.clear_leftovers()
    assert os.listdir(tmp_path / "runs") == []
    store.publish("run0", fill, {})
    assert store.is_complete("run0")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_at_random_moments_no_run_is_lost_or_broken(tmp_path: Path) -> None:
    rng = random.Random(0)
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        process = start_writer(folder, between="pass")
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.1))
        kill(process)
        finished = 1 + max((int(line) for line in process.stdout.read().split()), default=0)
        store = new_store(folder)
        store.clear_leftovers()
        runs = os.listdir(folder / "runs")
        assert set(runs) >= {f"run{run}" for run in range(finished)}
        assert len(runs) <= finished + 1  # the last one may have been stored but not yet reported
        assert all(store.is_complete(run) for run in runs)


def test_leftovers_of_other_machines_are_given_a_day(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    young, old, odd = (tmp_path / "runs" / name for name in (".a.00000000.1.xyz", ".b.00000000.1.xyz", ".c"))
    for folder in (young, old, odd):
        folder.mkdir()
        (folder / "config.json").write_text("half")
    two_days_ago = time.time() - 2 * 86_400
    os.utime(old, (two_days_ago, two_days_ago))
    store.clear_leftovers()
    assert os.listdir(tmp_path / "runs") == [young.name]


def test_a_start_that_was_killed_can_be_started_again(tmp_path: Path) -> None:
    (tmp_path / f".{STUDY_FILE}.abc.json").write_text("{")
    assert new_store(tmp_path).study["fingerprint"] == PRINT


def test_a_foreign_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".mine").write_text("hidden")
    refused(
        tmp_path, OutputError, r"not empty and holds no kagscope study \(found runs, thesis.tex\)", lambda: new_store(tmp_path)
    )


def test_another_study_is_refused_and_untouched(tmp_path: Path) -> None:
    new_store(tmp_path).publish("a", fill, {})
    other = {"settings": {"data": "mnist"}}
    for study, said in ((STUDY, "other data"), (other, 'data is "digits" there and "mnist" here')):
        start = partial(RunStore.open, tmp_path, study, "1e" * 32)
        refused(tmp_path, OutputError, f"holds another study .{said}", start)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"text"', b"{}", b"\xff", b'{"kagscope_store": 2}'])
def test_a_damaged_study_file_is_refused_and_untouched(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STUDY_FILE).write_bytes(content)
    refused(tmp_path, OutputError, "damaged or not a kagscope study", lambda: new_store(tmp_path))
    refused(tmp_path, DataError, "damaged or not a kagscope study", lambda: RunStore.existing(tmp_path))


@pytest.mark.parametrize("version", ['"one"', "null", "[1]"])
def test_a_version_that_is_no_number(tmp_path: Path, version: str) -> None:
    (tmp_path / STUDY_FILE).write_text(f'{{"kagscope_store": {version}, "fingerprint": "{PRINT}"}}')
    refused(tmp_path, OutputError, "damaged or not a kagscope study", lambda: new_store(tmp_path))


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (STORE_VERSION + 1, "newer kagscope .* upgrade"),
        (1, "kagscope 0.1.0 or earlier .store version 1, this one reads .* in a new folder"),
    ],
)
def test_another_version_is_refused_and_untouched(tmp_path: Path, version: int, message: str) -> None:
    (tmp_path / STUDY_FILE).write_text(json.dumps({"kagscope_store": version, "fingerprint": PRINT}))
    refused(tmp_path, OutputError, message, lambda: new_store(tmp_path))
    refused(tmp_path, DataError, message, lambda: RunStore.existing(tmp_path))


def test_an_older_version_is_refused_by_its_writer(tmp_path: Path) -> None:
    (tmp_path / STUDY_FILE).write_text(json.dumps({"kagscope_store": 1, "fingerprint": PRINT}))
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / MANIFEST).write_text('{"versions": {"kagscope": "0.1.0"}}')
    message = r"was written by kagscope 0\.1\.0 \(store version 1, this one reads 2\); run the study again in a new folder"
    refused(tmp_path, OutputError, message, lambda: new_store(tmp_path))
    refused(tmp_path, DataError, message, lambda: RunStore.existing(tmp_path))


def add_table(folder: Path) -> None:
    (folder / "tables").mkdir()
    (folder / "tables" / "b.parquet").write_text("more")


def test_a_run_gets_further_tables(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.publish("a", fill, {"seconds": 1.0, "device": "cpu"})
    before = store.manifest("a")["files"]
    store.add("a", add_table, {"seconds": 2.0})
    manifest = store.manifest("a")
    assert {name: digest for name, digest in manifest["files"].items() if name in before} == before
    assert set(manifest["files"]) == {*RUN_FILES, "tables/b.parquet"}
    assert (manifest["seconds"], manifest["device"]) == (2.0, "cpu")
    assert store.is_complete("a", ["tables/a.parquet", "tables/b.parquet"])
    assert not store.is_complete("a", ["tables/c.parquet"])
    assert os.listdir(tmp_path / "runs") == ["a"]


def test_tables_that_cannot_be_added_leave_the_run_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(tmp_path)
    store.publish("a", fill, {})

    def disk_full(folder: Path) -> None:
        add_table(folder)
        raise OSError(28, "No space left on device")

    refused(tmp_path, OutputError, "cannot store run a: No space left", lambda: store.add("a", disk_full, {}))
    with monkeypatch.context() as killed:  # after the files are in place and before the manifest names them
        killed.setattr("kagscope.studies.store.atomic_write", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.add("a", add_table, {})
    assert store.check("a").damage is None
    assert not store.is_complete("a", ["tables/b.parquet"])
    store.add("a", add_table, {})
    assert store.is_complete("a", ["tables/b.parquet"])


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    fifo = (tmp_path / "fifo").stat()
    for name, message in (("file", "is a file"), ("fifo", "is a file"), ("file/below", "cannot write in|is a file")):
        with pytest.raises(OutputError, match=message) as caught:
            new_store(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(OutputError, match="nowhere"):
        new_store(tmp_path / "nowhere")
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "fifo").stat().st_ino == fifo.st_ino
    assert sorted(os.listdir(tmp_path)) == ["fifo", "file", "nowhere"]


@pytest.mark.parametrize("name", ["x" * 300, "null\0byte"], ids=["too long", "null byte"])
def test_a_path_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="give another --out"):
        new_store(tmp_path / name)


def test_runs_that_is_a_file(tmp_path: Path) -> None:
    new_store(tmp_path)
    (tmp_path / "runs").rmdir()
    (tmp_path / "runs").write_text("mine")
    refused(tmp_path, OutputError, "runs", lambda: new_store(tmp_path))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    store = new_store(tmp_path / "study")
    empty = tmp_path / "empty"
    empty.mkdir()
    try:
        for folder in (empty, tmp_path / "study", tmp_path / "study" / "runs"):
            folder.chmod(0o555)
        refused(tmp_path, OutputError, "cannot write in", lambda: new_store(empty))
        refused(tmp_path, OutputError, "cannot write in", lambda: new_store(empty / "below"))
        refused(tmp_path, OutputError, "cannot write in", lambda: new_store(tmp_path / "study"))
        refused(tmp_path, OutputError, "cannot write in", lambda: store.publish("a", fill, {}))
        assert RunStore.existing(tmp_path / "study").study["fingerprint"] == PRINT
        empty.chmod(0o000)
        with pytest.raises(OutputError, match="cannot read"):
            new_store(empty)
    finally:
        for folder in (empty, tmp_path / "study", tmp_path / "study" / "runs"):
            folder.chmod(0o755)


def test_only_a_study_is_an_existing_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        RunStore.existing(tmp_path / "missing")
    with pytest.raises(DataError, match=r"study.json is missing"):
        RunStore.existing(tmp_path)
    with pytest.raises(DataError, match=r"study.json is missing"):
        read_study(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_start_cut_short_at_any_point_can_be_repeated(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    new_store(whole)
    (tmp_path / "started").mkdir()
    (tmp_path / "named").mkdir()
    shutil.copy(whole / STUDY_FILE, tmp_path / "named" / STUDY_FILE)
    for name in ("started", "named"):
        new_store(tmp_path / name)
        assert sorted(os.listdir(tmp_path / name)) == ["runs", STUDY_FILE]


def test_files_that_a_killed_driver_left_half_written_are_removed(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    (tmp_path / "figures").mkdir()
    left, mine = tmp_path / "figures" / ".scores.pdf.a1b2_c3d.pdf", tmp_path / "figures" / ".notes.txt"
    new = tmp_path / ".results.parquet.k3j9fma_.parquet"
    for file in (left, mine, new):
        file.write_text("x")
    for file in (left, mine):
        os.utime(file, (time.time() - 3600,) * 2)
    store.clear_leftovers()
    assert [file.exists() for file in (left, mine, new)] == [False, True, True]  # the last may still be written
