"""EMNIST (G. Cohen et al. 2017): handwritten letters and digits in six splits, IDX files within one zip archive."""

from __future__ import annotations

import zipfile
from io import BufferedReader
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from kagscope.base.errors import DataError
from kagscope.base.files import open_regular
from kagscope.base.messages import reason_of
from kagscope.data.dataset import Dataset, Split, split_from
from kagscope.data.idx import parse_idx

ARCHIVE = "gzip.zip"
SPLITS = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")


def load_split(folder: Path, name: str) -> Dataset:
    """Read one split from the archive in ``folder``; nothing is unpacked.

    The archive has images with rows and columns exchanged; they are transposed to be upright as in MNIST. Letters are numbered
    from 1 there, and from 0 here.

    Args:
        folder: folder with ``gzip.zip``.
        name: ``"emnist_letters"`` and so on.

    Raises:
        DataError: the archive is missing or damaged.
    """
    split = name.removeprefix("emnist_")
    archive = folder / ARCHIVE
    with open_regular(archive) as raw:
        try:
            with zipfile.ZipFile(raw) as members:
                train, test = (
                    _split_of(members, archive, f"gzip/emnist-{split}-{subset}", split) for subset in ("train", "test")
                )
        except DataError:
            raise
        except Exception as error:  # zipfile raises many kinds, also for undecodable names and unknown compression
            raise DataError(f"{archive}: damaged archive ({reason_of(error)}); copy or download it again") from error
    return Dataset(name, *train, *test)


def _split_of(members: zipfile.ZipFile, archive: Path, stem: str, split: str) -> Split:
    stored = _member(members, archive, f"{stem}-images-idx3-ubyte.gz", 3)
    numbers = _member(members, archive, f"{stem}-labels-idx1-ubyte.gz", 1)
    names = f"{archive}: {stem}-images", f"{archive}: {stem}-labels"
    images, labels = split_from(stored.swapaxes(1, 2), numbers, *names, "it")
    if split != "letters":
        return images, labels
    if labels.min() < 1:
        raise DataError(f"{archive}: {stem}-labels: found label {labels.min()}; expected letters from 1")
    return images, labels - 1


def _member(members: zipfile.ZipFile, archive: Path, name: str, dimensions: int) -> npt.NDArray[np.uint8]:
    if name not in members.namelist():
        raise DataError(f"{archive}: lacks {name}; expected EMNIST's archive of IDX files: download it again")
    info = members.getinfo(name)
    with members.open(info) as stream:
        return parse_idx(BufferedReader(cast(zipfile.ZipExtFile, stream)), f"{archive}: {name}", dimensions, info.file_size)
