"""Read a data set in a user's folder: IDX files with their usual names, CIFAR-10's binary files, or ``.npz`` archives."""

from __future__ import annotations

from pathlib import Path

from kagscope.base.errors import DataError
from kagscope.base.messages import reason_of
from kagscope.data import cifar
from kagscope.data.arrays import load_arrays
from kagscope.data.dataset import Dataset, Split, split_from
from kagscope.data.idx import read_idx

IDX_STEMS = {"train": "train", "test": "t10k"}


def load_folder(folder: Path, name: str | None = None) -> Dataset:
    """Read the data set in ``folder``.

    Args:
        folder: folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
            ``t10k-labels-idx1-ubyte`` (each plain or ``.gz``, also with ``.idx3-ubyte`` for ``-idx3-ubyte``), or such
            files in ``raw`` or ``*/raw``, as torchvision does; CIFAR-10's binary archive or its ``.bin`` files;
            ``train.npz`` and ``test.npz``, or one ``.npz`` file.
        name: name of the data set; by default that of the folder.

    Raises:
        DataError: not a folder, no usable files, or a bad file (which, what was found, what was expected).
    """
    entries = _entries(folder)
    if any(_is_idx(entry) for entry in entries):
        train, test = (_idx_split(folder, stem) for stem in IDX_STEMS.values())
        return Dataset(name or folder.resolve().name, *train, *test)
    if any(cifar.is_cifar(entry) for entry in entries):
        return cifar.load_cifar(folder, name)
    if archives := [entry for entry in entries if entry.suffix == ".npz"]:
        return load_arrays(folder, archives, name)
    inside = [raw for raw in (folder / "raw", *sorted(folder.glob("*/raw"))) if raw.is_dir() and any(map(_is_idx, raw.iterdir()))]
    if len(inside) == 1:  # as torchvision stores MNIST and its relatives
        return load_folder(inside[0], name or inside[0].resolve().parent.name)
    if inside:
        raise DataError(f"{folder}: holds several data sets ({', '.join(map(str, inside))}); give the folder of one")
    names = ", ".join(sorted(entry.name for entry in entries)[:6]) or "nothing"
    raise DataError(
        f"{folder}: no data set in this folder (found {names}); expected the four IDX files train-images-idx3-ubyte, "
        "train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (plain or .gz), train.npz and test.npz, or "
        f"{cifar.ARCHIVE} or its .bin files"
    )


def _entries(folder: Path) -> list[Path]:
    if not folder.exists():
        raise DataError(f"{folder}: no such folder; give the folder that holds the data set's files")
    if not folder.is_dir():
        raise DataError(f"{folder}: is a single file; give the folder that holds it and its companions: {folder.parent}")
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({reason_of(error)}); give a folder that can be read") from error


def _is_idx(path: Path) -> bool:
    return any(path.name in _spellings(stem, kind) for stem in IDX_STEMS.values() for kind in ("images", "labels"))


def _spellings(stem: str, kind: str) -> list[str]:
    dimensions = 3 if kind == "images" else 1
    return [f"{stem}-{kind}{joint}idx{dimensions}-ubyte{suffix}" for suffix in ("", ".gz") for joint in ("-", ".")]


def _idx_split(folder: Path, stem: str) -> Split:
    images, labels = (_find(folder, stem, kind) for kind in ("images", "labels"))
    return split_from(read_idx(images, 3), read_idx(labels, 1), str(images), str(labels), images.name)


def _find(folder: Path, stem: str, kind: str) -> Path:
    spellings = _spellings(stem, kind)
    for spelling in spellings:
        if (folder / spelling).exists():
            return folder / spelling
    raise DataError(f"{folder}: lacks {spellings[0]} (plain or .gz); put it beside the other IDX files of the data set")
