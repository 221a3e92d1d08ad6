"""The IDX reader: good files exactly, bad files with one line, and nothing else for any bytes at all."""

from __future__ import annotations

import contextlib
import gzip
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kagscope.base.errors import DataError
from kagscope.data.idx import read_idx

IMAGES = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_reads_images_and_labels(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "images").write_bytes(pack(idx_bytes(IMAGES)))
    (tmp_path / "labels").write_bytes(pack(idx_bytes(IMAGES[:, 0, 0])))
    np.testing.assert_array_equal(read_idx(tmp_path / "images", 3), IMAGES)
    np.testing.assert_array_equal(read_idx(tmp_path / "labels", 1), IMAGES[:, 0, 0])


def _lying_size(data: bytes) -> bytes:
    packed = gzip.compress(data)
    return packed[:-4] + struct.pack("<I", len(data) + 7)


def _wrong_checksum(data: bytes) -> bytes:
    packed = gzip.compress(data)
    return packed[:-8] + struct.pack("<I", zlib.crc32(data) ^ 1) + packed[-4:]


GOOD = idx_bytes(IMAGES)
BAD = {
    "empty": (b"", "empty"),
    "empty gzip": (gzip.compress(b""), "empty"),
    "labels for images": (idx_bytes(IMAGES[:, 0, 0]), "0x00000801"),
    "other dtype": (b"\0\0\x0d\3" + GOOD[4:], "0x00000d03"),
    "not IDX": (b"<html>not found</html>", "0x3c68746d"),
    "header cut": (GOOD[:9], "within its header"),
    "content cut": (GOOD[:-1], "truncated"),
    "gzip of content cut": (gzip.compress(GOOD[:-1]), "truncated"),
    "too long": (GOOD + b"\0", "goes on"),
    "gzip of too long": (gzip.compress(GOOD + b"\0" * 10_000), "goes on"),
    "no images": (GOOD[:4] + struct.pack(">III", 0, 28, 28), "nothing"),
    "huge counts": (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "at most"),
    "gzip of huge counts": (gzip.compress(GOOD[:4] + b"\xff" * 12 + GOOD[16:]), "at most"),
    "large counts": (GOOD[:4] + struct.pack(">III", 60000, 28, 28) + GOOD[16:], "more than the file can hold"),
    "gzip cut": (gzip.compress(GOOD)[:-9], "damaged gzip"),
    "gzip header cut": (gzip.compress(GOOD)[:5], "damaged gzip"),
    "gzip garbled": (gzip.compress(GOOD)[:10] + b"\xff" * 20, "damaged gzip"),
    "gzip lies about its size": (_lying_size(GOOD), "damaged gzip"),
    "gzip lies about its checksum": (_wrong_checksum(GOOD), "damaged gzip"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_content_is_one_line_naming_the_file(tmp_path: Path, case: str) -> None:
    content, expected = BAD[case]
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(file, 3)
    message = str(caught.value)
    assert expected in message
    assert str(file) in message
    assert "\n" not in message


def test_a_bomb_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """50 MB of zeros behind a header that announces 30 bytes: only the announced ones and one more are read."""
    (tmp_path / "bomb").write_bytes(gzip.compress(GOOD + bytes(50_000_000)))
    asked: list[int] = []
    true_read = gzip.GzipFile.read

    def read(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        asked.append(-1 if size is None else size)
        return true_read(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", read)
    with pytest.raises(DataError, match="goes on"):
        read_idx(tmp_path / "bomb", 3)
    assert min(asked) > 0
    assert sum(asked) == 4 + 12 + 31


def test_what_is_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="is a FIFO"):
        read_idx(tmp_path / "fifo", 3)
    with pytest.raises(DataError, match="is a folder"):
        read_idx(tmp_path, 3)
    with pytest.raises(DataError, match="no such file"):
        read_idx(tmp_path / "missing", 3)
    with pytest.raises(DataError, match="a device"):
        read_idx(Path("/dev/zero"), 3)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=60).map(lambda tail: b"\0\0\x08\3" + tail),
        st.binary(max_size=60).map(lambda tail: b"\x1f\x8b\x08" + tail),
        st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)).map(
            lambda e: GOOD[: e[0]] + bytes([e[1]]) + GOOD[e[0] + 1 :]
        ),
        st.tuples(st.integers(0, 45), st.integers(0, 255)).map(
            lambda e: gzip.compress(GOOD, mtime=0)[: e[0]] + bytes([e[1]]) + gzip.compress(GOOD, mtime=0)[e[0] + 1 :]
        ),
    ),
    dimensions=st.sampled_from([1, 3]),
)
def test_any_bytes_give_an_array_or_a_data_error(tmp_path: Path, content: bytes, dimensions: int) -> None:
    file = tmp_path / "fuzz"
    file.write_bytes(content)
    with contextlib.suppress(DataError):
        array = read_idx(file, dimensions)
        assert array.ndim == dimensions
        assert array.dtype == np.uint8
        assert array.size <= 1032 * len(content)
