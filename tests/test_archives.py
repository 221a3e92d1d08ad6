"""CIFAR-10 and EMNIST: archives read without unpacking them, good ones exactly, bad ones with one line."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import kagscope.data.registry as registry
from kagscope.base.errors import DataError
from kagscope.data import Dataset, load, load_local
from kagscope.data.cifar import ARCHIVE, INSIDE, RECORD, TEST, TRAIN
from kagscope.data.download import Source
from kagscope.data.emnist import SPLITS
from test_idx import idx_bytes

RNG = np.random.default_rng(1)
FILES = {name: RNG.integers(0, 10, (2, RECORD), dtype=np.uint8) for name in (*TRAIN, TEST)}


def packed(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    """A .tar.gz; of a TarInfo alone, a member without content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


GOOD: dict[str, Any] = {f"{INSIDE}/{name}": records.tobytes() for name, records in FILES.items()}
PACKED = packed({f"{INSIDE}/readme.html": b"hello", **GOOD})


def check_cifar(data: Dataset) -> None:
    assert (data.image_shape, data.n_inputs) == ((3, 32, 32), 3072)
    assert (data.train_images.shape, data.test_images.shape) == ((10, 3, 32, 32), (2, 3, 32, 32))
    third = FILES["data_batch_2.bin"][0]
    assert data.train_labels[2] == third[0]
    np.testing.assert_array_equal(np.rint(255 * data.train_images[2]).ravel(), third[1:])
    assert data.train_images[2, 1, 0, 5] == np.float32(third[1 + 1024 + 5]) / np.float32(
        255
    )  # the green of the first row's sixth
    np.testing.assert_array_equal(data.test_labels, FILES[TEST][:, 0])


def test_cifar_archives_and_their_files(tmp_path: Path) -> None:
    (tmp_path / "files" / INSIDE).mkdir(parents=True)
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / ARCHIVE).write_bytes(PACKED)
    for name, records in FILES.items():
        (tmp_path / "files" / INSIDE / name).write_bytes(records.tobytes())
    for folder in ("archive", "files", f"files/{INSIDE}"):
        data = load(tmp_path / folder)
        check_cifar(data)
        assert data.name == Path(folder).name
    assert [file.name for file in (tmp_path / "archive").iterdir()] == [ARCHIVE]  # nothing was unpacked


def test_cifar10_by_name_is_read_from_the_verified_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = ("http://127.0.0.1:9/",)
    monkeypatch.setitem(registry.DOWNLOADS, "cifar10", Source(dead, {ARCHIVE: hashlib.md5(PACKED).hexdigest()}))
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / ARCHIVE).write_bytes(PACKED)
    check_cifar(load("cifar10", cache_dir=tmp_path))
    found = load_local("cifar10", cache_dir=tmp_path)
    assert found is not None
    check_cifar(found)
    (tmp_path / "cifar10" / ARCHIVE).write_bytes(packed(GOOD))
    with pytest.raises(DataError, match=f"could not download {ARCHIVE}"):
        load("cifar10", cache_dir=tmp_path)


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


FIRST = f"{INSIDE}/{TRAIN[0]}"
BAD = {
    "empty": (b"", "damaged archive|lacks"),
    "no gzip": (b"<html>not found</html>", "damaged archive"),
    "no tar": (gzip.compress(b"x" * 2000), "damaged archive"),
    "truncated": (PACKED[: len(PACKED) // 2], "damaged archive"),
    "checksum": (PACKED[:-8] + b"abcd" + PACKED[-4:], "damaged archive"),
    "tar cut": (gzip.compress(gzip.decompress(PACKED)[:9000]), "damaged archive"),
    "a file missing": (packed({name: content for name, content in GOOD.items() if name != FIRST}), f"lacks {FIRST}"),
    "outside its folder": (packed({f"../{name}": content for name, content in GOOD.items()}), f"lacks {FIRST}"),
    "absolute": (packed({f"/{name}": content for name, content in GOOD.items()}), f"lacks {FIRST}"),
    "a link": (packed({**GOOD, FIRST: member(FIRST, tarfile.SYMTYPE, "/etc/passwd")}), "is not a plain file"),
    "a device": (packed({**GOOD, FIRST: member(FIRST, tarfile.CHRTYPE)}), "is not a plain file"),
    "a hard link": (packed({**GOOD, FIRST: member(FIRST, tarfile.LNKTYPE, "x")}), "is not a plain file"),
    "part of a record": (packed({**GOOD, FIRST: b"x" * (RECORD + 1)}), f"is {RECORD + 1} bytes long"),
    "no record": (packed({**GOOD, FIRST: b""}), "is 0 bytes long"),
    "other labels": (packed({**GOOD, FIRST: b"\x0a" + bytes(RECORD - 1)}), "labels up to 10"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_archives_are_one_line(tmp_path: Path, case: str) -> None:
    content, expected = BAD[case]
    folder = tmp_path / "inner" / "data"
    folder.mkdir(parents=True)
    (folder / ARCHIVE).write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [folder / ARCHIVE]


def test_an_archive_that_grows_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kagscope.data.cifar.MAX_BYTES", 10**6)
    (tmp_path / ARCHIVE).write_bytes(packed({"much": bytes(2 * 10**6), **GOOD}))
    with pytest.raises(DataError, match="more than 1000000 bytes"):
        load(tmp_path)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 3 * 512 - 1), value=st.integers(0, 255))
def test_a_tar_with_any_byte_of_its_headers_changed_loads_or_is_refused(tmp_path: Path, at: int, value: int) -> None:
    content = bytearray(gzip.decompress(PACKED))
    content[at] = value
    (tmp_path / ARCHIVE).write_bytes(gzip.compress(bytes(content), 1))
    with contextlib.suppress(DataError):
        check_cifar(load(tmp_path))


def test_bad_files_of_cifar(tmp_path: Path) -> None:
    for name, records in FILES.items():
        (tmp_path / name).write_bytes(records.tobytes())
    (tmp_path / TEST).write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=f"{TEST}: is 100 bytes long"):
        load(tmp_path)
    (tmp_path / TEST).unlink()
    with pytest.raises(DataError, match=f"{TEST}: no such file"):
        load(tmp_path)


LETTERS = {
    "train-images-idx3": RNG.integers(0, 256, (5, 4, 6), dtype=np.uint8),
    "train-labels-idx1": np.array([1, 2, 3, 1, 26], dtype=np.uint8),
    "test-images-idx3": RNG.integers(0, 256, (2, 4, 6), dtype=np.uint8),
    "test-labels-idx1": np.array([26, 1], dtype=np.uint8),
}


def zipped(split: str, **changed: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in LETTERS.items():
            content = changed.get(name.replace("-", "_"), gzip.compress(idx_bytes(array)))
            archive.writestr(f"gzip/emnist-{split}-{name}-ubyte.gz", content)
    return stream.getvalue()


def emnist(folder: Path, content: bytes, split: str, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    name = f"emnist_{split}"
    source = registry.DOWNLOADS[name]
    monkeypatch.setitem(
        registry.DOWNLOADS, name, Source((), {"gzip.zip": hashlib.md5(content).hexdigest()}, source.read, source.folder)
    )
    (folder / "emnist").mkdir(exist_ok=True)
    (folder / "emnist" / "gzip.zip").write_bytes(content)
    found = load_local(name, cache_dir=folder)
    assert found is not None
    return found


def test_emnist_is_upright_and_counts_from_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = emnist(tmp_path, zipped("letters"), "letters", monkeypatch)
    assert (letters.name, letters.image_shape, letters.n_classes) == ("emnist_letters", (6, 4), 26)
    np.testing.assert_array_equal(np.rint(255 * letters.train_images), LETTERS["train-images-idx3"].swapaxes(1, 2))
    assert letters.train_labels.tolist() == [0, 1, 2, 0, 25]
    assert emnist(tmp_path, zipped("balanced"), "balanced", monkeypatch).train_labels.tolist() == [1, 2, 3, 1, 26]
    assert len(SPLITS) == 6


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no zip", "damaged archive"),
        (zipped("letters")[:-200], "damaged archive"),
        (
            zipped("letters")
            .replace(b"gzip/emnist", b"gzip/\xd0mnist", 1)
            .replace(b"PK\3\4\x14\0\0\0", b"PK\3\4\x14\0\0\x08", 1),
            "damaged",
        ),
        (zipped("balanced"), "lacks gzip/emnist-letters-train-images"),
        (zipped("letters", train_images_idx3=gzip.compress(idx_bytes(LETTERS["train-images-idx3"])[:-1])), "truncated"),
        (zipped("letters", test_images_idx3=gzip.compress(idx_bytes(LETTERS["test-images-idx3"]))[:-9]), "damaged gzip"),
        (zipped("letters", train_labels_idx1=gzip.compress(idx_bytes(np.zeros(5, np.uint8)))), "letters from 1"),
        (zipped("letters", train_labels_idx1=gzip.compress(idx_bytes(np.ones(4, np.uint8)))), "4 labels"),
    ],
)
def test_bad_emnist_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str) -> None:
    with pytest.raises(DataError, match=expected) as caught:
        emnist(tmp_path, content, "letters", monkeypatch)
    assert "gzip.zip" in str(caught.value)
    assert "\n" not in str(caught.value)


ZIPPED = zipped("letters")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(ZIPPED) - 1), value=st.integers(0, 255))
@example(at=ZIPPED.index(b"PK\1\2") + 10, value=14)  # says that LZMA was used
def test_a_zip_with_any_byte_changed_loads_or_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, value: int
) -> None:
    content = bytearray(ZIPPED)
    content[at] = value
    with contextlib.suppress(DataError):
        assert emnist(tmp_path, bytes(content), "letters", monkeypatch).image_shape == (6, 4)
