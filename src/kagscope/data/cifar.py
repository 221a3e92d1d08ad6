"""CIFAR-10 in its binary version (A. Krizhevsky 2009): six files of records, or their archive; never a pickle.

A record is one byte of label and 3 x 32 x 32 bytes of pixels: red, green, blue, each in row-major order.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from kagscope.base.errors import DataError
from kagscope.base.files import open_regular
from kagscope.base.messages import reason_of
from kagscope.data.dataset import Dataset, Split, split_from
from kagscope.data.idx import MAX_BYTES

ARCHIVE = "cifar-10-binary.tar.gz"
INSIDE = "cifar-10-batches-bin"  # folder in the archive
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32  # bytes


def is_cifar(path: Path) -> bool:
    """Whether the name of a file or folder is part of this data set."""
    return path.name in (ARCHIVE, INSIDE, *TRAIN, TEST)


def load_cifar(folder: Path, name: str | None = None) -> Dataset:
    """Read the six ``.bin`` files in ``folder`` or in its ``cifar-10-batches-bin``, else the archive in ``folder``.

    Nothing is unpacked: only the six files in the archive are read, if they are regular files at their usual place.

    Raises:
        DataError: a file is missing, damaged, or not a whole number of records.
    """
    for source in (folder, folder / INSIDE):
        if any((source / file).exists() for file in (*TRAIN, TEST)):
            records = {file: _records_of(source / file) for file in (*TRAIN, TEST)}
            break
    else:
        source = folder / ARCHIVE
        records = _unpack(source)
    train = np.concatenate([records[file] for file in TRAIN])
    return Dataset(
        name or folder.resolve().name,
        *_split_of(train, f"{source}: training part"),
        *_split_of(records[TEST], f"{source}: {TEST}"),
    )


def _split_of(records: npt.NDArray[np.uint8], label: str) -> Split:
    images, labels = split_from(records[:, 1:].reshape(-1, *SHAPE), records[:, 0], label, label)
    if labels.max() > 9:
        raise DataError(f"{label}: found labels up to {labels.max()}; expected 0 to 9: no binary file of CIFAR-10, or damaged")
    return images, labels


def _records_of(file: Path) -> npt.NDArray[np.uint8]:
    with open_regular(file) as stream:
        return _records(stream, os.fstat(stream.fileno()).st_size, str(file))


def _records(stream: IO[bytes], size: int, label: str) -> npt.NDArray[np.uint8]:
    """Read the records (N, 3073) in a stream of ``size`` bytes."""
    if size == 0 or size % RECORD or size > MAX_BYTES:
        raise DataError(
            f"{label}: is {size} bytes long; expected records of {RECORD} bytes (a label and 3 x 32 x 32 pixels), at most "
            f"{MAX_BYTES // RECORD}: copy or download it again"
        )
    content = stream.read(size)
    if len(content) != size:
        raise DataError(f"{label}: truncated: expected {size} bytes, found {len(content)}: copy or download it again")
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD)


def _unpack(archive: Path) -> dict[str, npt.NDArray[np.uint8]]:
    """Read the six files of an archive, by name."""
    files = {f"{INSIDE}/{file}": file for file in (*TRAIN, TEST)}
    records: dict[str, npt.NDArray[np.uint8]] = {}
    with open_regular(archive) as raw:
        try:
            with gzip.open(raw) as unzipped:
                content = _LimitedStream(unzipped, archive)
                with tarfile.open(fileobj=content, mode="r|") as members:
                    for member, stream in _plain(members, archive, files):
                        records[files[member.name]] = _records(stream, member.size, f"{archive}: {member.name}")
                while content.read(2**20):  # to the end, to verify the checksum
                    pass
        except DataError:
            raise
        except Exception as error:  # tarfile raises many kinds, also for extended headers
            raise DataError(f"{archive}: damaged archive ({reason_of(error)}); copy or download it again") from error
    if missing := [name for name, file in files.items() if file not in records]:
        raise DataError(f"{archive}: lacks {', '.join(missing)}; expected the binary version of CIFAR-10: download it again")
    return records


def _plain(members: tarfile.TarFile, archive: Path, files: dict[str, str]) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Yield wanted members and their contents. Raises :class:`DataError` for a link, a folder or a device."""
    for member in members:
        if member.name in files:
            stream = members.extractfile(member) if member.isreg() else None
            if stream is None:
                raise DataError(f"{archive}: {member.name} is not a plain file; expected the archive that the authors publish")
            yield member, stream


class _LimitedStream(io.RawIOBase):
    """A stream with a size limit, as a small archive can be made to unpack without end."""

    def __init__(self, stream: gzip.GzipFile, archive: Path) -> None:
        super().__init__()
        self.stream, self.archive, self.left = stream, archive, MAX_BYTES

    def read(self, size: int = -1, /) -> bytes:
        """Read up to ``size`` bytes. Raises :class:`DataError` beyond the limit."""
        if self.left <= 0:
            raise DataError(f"{self.archive}: holds more than {MAX_BYTES} bytes; expected {ARCHIVE} as its authors publish it")
        piece = self.stream.read(size)
        self.left -= len(piece)
        return piece
