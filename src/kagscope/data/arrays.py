"""Read NumPy files: folders with ``train.npz`` and ``test.npz`` or one file with both, and single files of arrays.

Archives are read member by member, after checking headers against the sizes in the zip directory; objects
(pickles) are never loaded.
"""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from kagscope.base.errors import DataError
from kagscope.base.files import open_regular
from kagscope.data.dataset import Dataset, Split, split_from
from kagscope.data.idx import MAX_BYTES

_EXPECTED = (
    "expected train.npz and test.npz, each with arrays `images` and `labels`, or one .npz file with "
    "`train_images`, `train_labels`, `test_images` and `test_labels`"
)


class NoNumbers(DataError):
    """An array of anything but numbers or booleans, which is not loaded."""


def load_arrays(folder: Path, files: list[Path], name: str | None = None) -> Dataset:
    """Read the data set in the ``.npz`` ``files`` of ``folder``. Raises :class:`DataError`."""
    by_name = {file.name: file for file in files}
    if {"train.npz", "test.npz"} <= by_name.keys():
        train, test = (_archive(by_name[f"{split}.npz"], {"images", "labels"}, _EXPECTED) for split in ("train", "test"))
        parts = (*_split_of(train, by_name["train.npz"], ""), *_split_of(test, by_name["test.npz"], ""))
    elif len(files) == 1:
        names = {f"{split}_{kind}" for split in ("train", "test") for kind in ("images", "labels")}
        arrays = _archive(files[0], names, _EXPECTED)
        parts = (*_split_of(arrays, files[0], "train_"), *_split_of(arrays, files[0], "test_"))
    else:
        raise DataError(f"{folder}: found {', '.join(sorted(by_name))}; {_EXPECTED}")
    return Dataset(name or folder.resolve().name, *parts)


def _split_of(arrays: dict[str, npt.NDArray[Any]], file: Path, prefix: str) -> Split:
    images, labels = f"{prefix}images", f"{prefix}labels"
    return split_from(arrays[images], arrays[labels], f"{file}: `{images}`", f"{file}: `{labels}`", f"`{images}`")


def read_npz(file: Path, left: list[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of numbers or booleans in an archive, by name.

    Args:
        file: the archive.
        left: list to which names of other arrays (text, complex, objects) are added; if None, these are an error.

    Raises:
        DataError: not an archive, damaged, or arrays that disagree with their headers.
    """
    return _archive(file, None, "expected arrays written by numpy.savez", left)


def read_npy(file: Path) -> npt.NDArray[Any]:
    """Read the array of numbers or booleans in a ``.npy`` file. Raises :class:`DataError`, also for objects (pickles)."""
    with open_regular(file) as stream:
        try:
            return _array(stream, os.fstat(stream.fileno()).st_size, str(file))
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{file}: not a readable .npy file ({_short(error)}); expected one written by numpy.save") from error


def _archive(file: Path, names: set[str] | None, expected: str, left: list[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    with open_regular(file) as raw:
        try:
            with zipfile.ZipFile(raw) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                chosen = set(members) if names is None else names
                if missing := sorted(chosen - members.keys()):
                    content = ", ".join(f"`{name}`" for name in sorted(members)[:8]) or "nothing"
                    raise DataError(f"{file}: lacks {', '.join(f'`{name}`' for name in missing)} (found {content}); {expected}")
                arrays = {}
                for name in sorted(chosen):
                    with archive.open(members[name]) as stream:
                        try:
                            arrays[name] = _array(stream, members[name].file_size, f"{file}: `{name}`")
                        except NoNumbers:
                            if left is None:
                                raise
                            left.append(name)
                return arrays
        except DataError:
            raise
        except Exception as error:  # zipfile and numpy raise many kinds, even NotImplementedError and MemoryError
            raise DataError(f"{file}: not a readable .npz archive ({_short(error)}); {expected}") from error


def _array(stream: IO[bytes], size: int, label: str) -> npt.NDArray[Any]:
    """Read the array in a ``.npy`` stream of ``size`` bytes, checking its header before memory is allocated."""
    shape, fortran, dtype = _npy_header(stream)
    if dtype.hasobject:
        raise NoNumbers(f"{label}: holds Python objects (a pickle), which are never loaded; expected an array of numbers")
    if dtype.kind not in "iufb":
        raise NoNumbers(f"{label}: found dtype {dtype}; expected an array of numbers")
    expected = math.prod(shape) * dtype.itemsize
    if expected > MAX_BYTES * dtype.itemsize:
        raise DataError(f"{label}: announces {math.prod(shape)} numbers; at most {MAX_BYTES} can be read")
    if expected != size - stream.tell():
        raise DataError(
            f"{label}: its header announces shape {shape} of {dtype} = {expected} bytes, its content is "
            f"{size - stream.tell()} bytes long: save it again"
        )
    content = stream.read(expected)
    if len(content) != expected or stream.read(1):
        raise DataError(f"{label}: truncated: expected {expected} bytes, found {len(content)}: save it again")
    array = np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="))  # a copy, as views of bytes are read-only


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__
