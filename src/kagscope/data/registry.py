"""Data sets known by name. To add one, add an entry to :data:`DOWNLOADS` or a loader to :data:`EMBEDDED`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kagscope.base.errors import InputError
from kagscope.base.messages import close_names
from kagscope.data import cifar, emnist
from kagscope.data.dataset import Dataset
from kagscope.data.digits import load_digits
from kagscope.data.download import Source, load_download
from kagscope.data.folder import load_folder
from kagscope.data.functions import is_function, load_function
from kagscope.data.modular import is_modular, load_modular
from kagscope.data.users import is_users, load_named

EMBEDDED: dict[str, Callable[[], Dataset]] = {
    "mnist10k": lambda: load_folder(Path(__file__).with_name("mnist10k"), "mnist10k"),
    "digits": load_digits,
}

DOWNLOADS: dict[str, Source] = {
    "mnist": Source(
        mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        md5={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion_mnist": Source(
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        md5={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "kmnist": Source(
        mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
        md5={
            "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
            "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
            "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
            "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
        },
    ),
    "cifar10": Source(
        mirrors=("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"),
        md5={cifar.ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530"},
    ),
} | {
    f"emnist_{split}": Source(
        mirrors=("https://biometrics.nist.gov/cs_links/EMNIST/",),
        md5={emnist.ARCHIVE: "58c8d27c78d21e728a6bc7b3cc06412e"},
        read=emnist.load_split,
        folder="emnist",
    )
    for split in emnist.SPLITS
}

NAMES: tuple[str, ...] = (*EMBEDDED, *DOWNLOADS)


def load(source: str | Path, *, cache_dir: Path | None = None, progress: bool = True) -> Dataset:
    """Load a data set by name or from a folder.

    Args:
        source: ``"mnist10k"`` or ``"digits"`` (embedded), a function of three variables such as ``"xor3"``
            (:mod:`kagscope.data.functions`), ``"modular31"`` (:mod:`kagscope.data.modular`), ``"mnist"``, ``"fashion_mnist"``,
            ``"kmnist"``, ``"cifar10"``, ``"emnist_letters"`` and EMNIST's other splits (downloaded on first use, then cached),
            or a folder (see :func:`kagscope.data.folder.load_folder`).
            A name takes precedence over a folder: write ``./mnist``. Or a function of your own, ``"module:function"`` or
            ``"file.py:function"``, whose code is run (:mod:`kagscope.data.users`).
        cache_dir: folder of downloads; by default the user's cache folder of the operating system.
        progress: show a progress bar on standard error while downloading.

    Raises:
        InputError: neither a known name nor an existing folder.
        DataError: a bad file, or no network; the message says what to do.
        OutputError: the cache cannot be written.
    """
    if isinstance(source, str):
        if source in EMBEDDED:
            return EMBEDDED[source]()
        if is_function(source):
            return load_function(source)
        if is_modular(source):
            return load_modular(source)
        if source in DOWNLOADS:
            return load_download(source, DOWNLOADS[source], cache_dir, progress)
    elif not isinstance(source, Path):
        raise InputError(f"data set {source!r} is a {type(source).__name__}; expected a name ({', '.join(NAMES)}) or a folder")
    path = _existing(source)
    if path is None and isinstance(source, str) and is_users(source):
        return load_named(source)
    if path is None:
        raise InputError(f"unknown data set {str(source)!r}{_close(str(source))}: no folder of this name; {_CHOICES}")
    return load_folder(path)


def load_local(source: str | Path, *, cache_dir: Path | None = None) -> Dataset | None:
    """Like :func:`load`, but without the network or running a user's function; None if the data are not on this machine.

    Raises:
        DataError: a bad file.
    """
    if isinstance(source, str) and (source in EMBEDDED or is_function(source) or is_modular(source)):
        return load(source)
    if isinstance(source, str) and source in DOWNLOADS:
        known = DOWNLOADS[source]
        folder = known.cache_folder(source, cache_dir)
        return known.read(folder, source) if folder.is_dir() else None
    path = _existing(source)
    return load_folder(path) if path is not None else None


_CHOICES = f"expected one of {', '.join(NAMES)}, a folder of IDX, CIFAR-10 or .npz files, or module:function"


def _existing(source: str | Path) -> Path | None:
    try:
        path = Path(source).expanduser()
        return path if str(source) and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # name too long or with a NUL, no home folder
        return None


def _close(source: str) -> str:
    folded = source.lower().replace("-", "_")
    return close_names(folded, NAMES, 1 if folded in NAMES else 2)
