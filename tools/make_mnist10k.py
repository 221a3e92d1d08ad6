"""Make the embedded data set ``mnist10k`` from MNIST's four IDX files: ``python tools/make_mnist10k.py FOLDER``.

Of each class the first 1,000 training and the first 200 test images, in the order of the files. Run it again and the file has the
same content; ``tests/test_data.py`` holds the checksum of that.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import kagscope.data
from kagscope.data import Dataset, load

TRAIN, TEST = 1000, 200  # of each class
FILE = Path(kagscope.data.__file__).with_name("mnist10k") / "mnist10k.npz"


def first_of_each_class(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Places of the first ``count`` of each label, increasing."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]))


def arrays(mnist: Dataset) -> dict[str, Any]:
    """What the file holds, by name: uint8."""
    found = {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        images, labels = getattr(mnist, f"{part}_images"), getattr(mnist, f"{part}_labels")
        chosen = first_of_each_class(labels, count)
        found[f"{part}_images"] = np.rint(images[chosen] * 255).astype(np.uint8)
        found[f"{part}_labels"] = labels[chosen].astype(np.uint8)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="holds the four IDX files, plain or gzipped")
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **arrays(load(parser.parse_args().folder)))
    print(f"{FILE}: {FILE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
