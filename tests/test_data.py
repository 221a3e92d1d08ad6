"""Data sets by name and by folder, and every way in which they can be bad."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kagscope.data
import kagscope.data.registry as registry
from kagscope.base.errors import DataError, InputError, KagscopeError, OutputError
from kagscope.data import NAMES, Dataset, load, load_local
from kagscope.data.download import Source
from kagscope.data.emnist import SPLITS
from test_idx import idx_bytes

MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
RNG = np.random.default_rng(0)
PARTS = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (7, 4, 6), dtype=np.uint8),
    "train-labels-idx1-ubyte": np.array([0, 1, 2, 0, 1, 2, 0], dtype=np.uint8),
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (3, 4, 6), dtype=np.uint8),
    "t10k-labels-idx1-ubyte": np.array([0, 1, 2], dtype=np.uint8),
}
ARRAYS: dict[str, Any] = dict(zip(("train_images", "train_labels", "test_images", "test_labels"), PARTS.values(), strict=True))


def write_idx(folder: Path, dotted: bool = False, zipped: bool = False, **changed: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in {**PARTS, **changed}.items():
        file = folder / ((name.replace("-idx", ".idx") if dotted else name) + (".gz" if zipped else ""))
        file.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    return folder


def check_contents(data: Dataset) -> None:
    assert data.image_shape == (4, 6)
    assert (data.n_inputs, data.n_classes) == (24, 3)
    for attribute, array in ARRAYS.items():
        stored = getattr(data, attribute)
        if attribute.endswith("images"):
            assert stored.dtype == np.float32
            np.testing.assert_array_equal(np.rint(stored * 255), array)
            assert 0 <= stored.min() <= stored.max() <= 1
        else:
            assert stored.dtype == np.int64
            np.testing.assert_array_equal(stored, array)


def test_digits_are_split_the_same_way_always() -> None:
    data = load("digits")
    assert (data.train_images.shape, data.test_images.shape) == ((1442, 8, 8), (355, 8, 8))
    assert data.n_classes == 10
    assert 0 == data.train_images.min() < data.train_images.max() == 1
    share = np.bincount(data.test_labels) / (np.bincount(data.test_labels) + np.bincount(data.train_labels))
    assert (np.abs(share - 0.2) < 0.005).all()
    together = np.concatenate([data.train_images, data.test_images]).reshape(1797, -1)
    from sklearn.datasets import load_digits

    assert sorted(map(bytes, together)) == sorted(map(bytes, (load_digits().data / 16).astype(np.float32)))
    assert data.fingerprint() == "9498be60838a0e5128a85f9555f7bb9e4a8c9d0c5671dc644297e5a72bdceac4"


MNIST10K = Path(kagscope.data.__file__).with_name("mnist10k")


def test_mnist10k_is_the_first_of_each_class() -> None:
    data = load("mnist10k")
    assert data.name == "mnist10k"
    assert (data.train_images.shape, data.test_images.shape) == ((10_000, 28, 28), (2_000, 28, 28))
    assert (np.bincount(data.train_labels) == 1000).all()
    assert (np.bincount(data.test_labels) == 200).all()
    assert data.fingerprint() == "07023664e658bb20c08e7c6f9903938bd5f3346eec3493c65e31ed5015aea075"
    assert "CC BY-SA 3.0" in (MNIST10K / "README.md").read_text()


@pytest.mark.skipif(not MNIST.is_dir(), reason="shared/data/mnist is not here")
def test_mnist10k_is_part_of_mnist() -> None:
    whole, part = load(MNIST), load("mnist10k")
    for name, count in (("train", 1000), ("test", 200)):
        images, labels = getattr(whole, f"{name}_images"), getattr(whole, f"{name}_labels")
        rank = np.array([(labels[:place] == label).sum() for place, label in enumerate(labels[:15_000])])
        chosen = np.flatnonzero(rank < count)
        assert np.array_equal(getattr(part, f"{name}_images"), images[chosen])
        assert np.array_equal(getattr(part, f"{name}_labels"), labels[chosen])


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folders(tmp_path: Path, dotted: bool, zipped: bool) -> None:
    data = load(write_idx(tmp_path / "mine", dotted, zipped))
    check_contents(data)
    assert data.name == "mine"
    check_contents(load(str(tmp_path / "mine")))


@pytest.mark.parametrize("inner", ["raw", "MNIST/raw", "FashionMNIST/raw"])
def test_folders_as_torchvision_keeps_them(tmp_path: Path, inner: str) -> None:
    (tmp_path / "root" / inner).parent.mkdir(parents=True, exist_ok=True)
    write_idx(tmp_path / "root" / inner, False, True)
    data = load(tmp_path / "root")
    check_contents(data)
    assert data.name == (tmp_path / "root" / inner).parent.name
    check_contents(load(tmp_path / "root" / inner))


def test_several_data_sets_in_one_folder(tmp_path: Path) -> None:
    for name in ("MNIST", "KMNIST"):
        (tmp_path / name).mkdir()
        write_idx(tmp_path / name / "raw", False, True)
    with pytest.raises(DataError, match=r"holds several data sets .*KMNIST/raw.*MNIST/raw"):
        load(tmp_path)
    check_contents(load(tmp_path / "KMNIST"))


def test_npz_folders(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    for part in ("train", "test"):
        np.savez_compressed(tmp_path / "two" / f"{part}.npz", images=ARRAYS[f"{part}_images"], labels=ARRAYS[f"{part}_labels"])
    np.savez(tmp_path / "one" / "anything.npz", **ARRAYS)
    two, one = load(tmp_path / "two"), load(tmp_path / "one")
    check_contents(two)
    check_contents(one)
    assert one.fingerprint() == two.fingerprint() == load(write_idx(tmp_path / "idx")).fingerprint()


def test_npz_floats_are_taken_as_they_are(tmp_path: Path) -> None:
    images = RNG.standard_normal((7, 4, 6))
    np.savez(tmp_path / "a.npz", **{**ARRAYS, "train_images": np.asfortranarray(images.astype(">f8"))})
    np.testing.assert_array_equal(load(tmp_path).train_images, images.astype(np.float32))


def test_fingerprint_sees_every_part() -> None:
    data = load("digits")
    parts: list[Any] = [data.train_images, data.train_labels, data.test_images, data.test_labels]
    seen = {data.fingerprint()}
    for i, part in enumerate(parts):
        changed = part.copy()
        changed.flat[-1] = 1 - changed.flat[-1]
        seen.add(Dataset("x", *[*parts[:i], changed, *parts[i + 1 :]]).fingerprint())
    assert len(seen) == 5
    assert Dataset("other name", *parts).fingerprint() == data.fingerprint()


def test_unknown_names_list_the_valid_ones() -> None:
    for bad, hint in (
        ("minst", "mnist"),
        ("Fashion-MNIST", "did you mean fashion_mnist?"),
        ("no/such/folder", "folder"),
        ("", "digits"),
    ):
        with pytest.raises(InputError) as caught:
            load(bad)
        assert hint in str(caught.value)
        assert all(name in str(caught.value) for name in NAMES)
    with pytest.raises(InputError, match="int"):
        load(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown"):
        load("a\0b")


def test_bad_folders(tmp_path: Path) -> None:
    file = write_idx(tmp_path / "idx") / "train-images-idx3-ubyte"
    with pytest.raises(DataError, match="single file; give the folder"):
        load(file)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found nothing"):
        load(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"found notes\.txt"):
        load(tmp_path / "empty")
    file.unlink()
    with pytest.raises(DataError, match="lacks train-images-idx3-ubyte"):
        load(tmp_path / "idx")
    file.mkdir()
    with pytest.raises(DataError, match="is a folder"):
        load(tmp_path / "idx")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train-labels-idx1-ubyte": np.zeros(6, np.uint8)}, "6 labels, but train-images-idx3-ubyte holds 7 images"),
        ({"t10k-labels-idx1-ubyte": np.zeros(4, np.uint8)}, "4 labels"),
        ({"t10k-images-idx3-ubyte": np.zeros((3, 6, 4), np.uint8)}, "4 x 6 pixels and test images 6 x 4"),
        ({"train-labels-idx1-ubyte": np.zeros((7, 4, 6), np.uint8)}, "0x00000803; expected 0x00000801"),
    ],
)
def test_idx_files_that_do_not_fit_together(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write_idx(tmp_path / "idx", **changed))


NAN = np.zeros((7, 4, 6), np.float32)
NAN[2, 1, 3] = np.nan


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_images": NAN}, r"1 pixels are NaN.*\(2, 1, 3\)"),
        ({"train_images": np.full((7, 4, 6), 1e300)}, "too large for float32"),
        ({"train_images": np.zeros((7, 24), np.uint8)}, "flat rows"),
        ({"train_images": np.zeros((7, 2, 4, 6), np.uint8)}, r"shape \(7, 2, 4, 6\); expected images of shape"),
        ({"train_images": np.zeros((7, 4, 6), np.int64)}, "int64"),
        ({"train_images": np.zeros((7, 4, 6), complex)}, "complex128"),
        ({"train_images": np.zeros((0, 4, 6), np.uint8)}, "no pixel"),
        ({"train_images": np.array(["a"] * 7)}, "numbers"),
        ({"train_images": np.array([None] * 7)}, "pickle"),
        ({"train_labels": np.zeros(6, int)}, "6 labels"),
        ({"train_labels": np.zeros(7)}, "expected integers"),
        ({"train_labels": np.zeros((7, 10), int)}, "expected integers"),
        ({"train_labels": np.array([-1, 0, 1, 2, 3, 4, 5])}, "from -1"),
        ({"train_labels": np.array([10**9, 0, 1, 2, 3, 4, 5])}, "1000000000"),
    ],
)
def test_bad_arrays(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **{**ARRAYS, **changed})
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path)
    assert "a.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_channel_images_are_grey_images(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        **{**ARRAYS, "train_images": ARRAYS["train_images"][:, None], "test_images": ARRAYS["test_images"][..., None]},
    )
    check_contents(load(tmp_path))


def _npz_bytes() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **ARRAYS)
    return stream.getvalue()


NPZ = _npz_bytes()


def test_bad_archives(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    for content in (b"", b"no zip", NPZ[: len(NPZ) // 2]):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.npz: not a readable"):
            load(tmp_path)
    np.savez(file, images=1)
    with pytest.raises(DataError, match="lacks `test_images`"):
        load(tmp_path)
    np.savez(tmp_path / "b.npz", images=1)
    with pytest.raises(DataError, match=r"found a\.npz, b\.npz"):
        load(tmp_path)


def test_an_archive_that_announces_more_than_it_holds(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 28, 28)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ARRAYS:
            archive.writestr(f"{name}.npy", header.getvalue() + b"abc")
    with pytest.raises(DataError, match="at most"):
        load(tmp_path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(NPZ) - 1), value=st.integers(0, 255))
def test_an_archive_with_any_byte_changed_loads_or_is_refused(tmp_path: Path, at: int, value: int) -> None:
    (tmp_path / "a.npz").write_bytes(NPZ[:at] + bytes([value]) + NPZ[at + 1 :])
    with contextlib.suppress(DataError):
        assert np.isfinite(load(tmp_path).train_images).all()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """A web server on this machine that serves the IDX files of PARTS, gzipped."""
    folder = write_idx(tmp_path / "published", zipped=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def source_of(tmp_path: Path, *mirrors: str) -> Source:
    files = sorted((tmp_path / "published").iterdir())
    return Source(mirrors, {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in files})


DEAD = "http://127.0.0.1:9/"


def test_download_tries_mirrors_verifies_and_caches(
    tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(registry.DOWNLOADS, "mnist", source_of(tmp_path, DEAD, mirror + "missing/", mirror))
    check_contents(load("mnist", cache_dir=tmp_path / "cache", progress=False))
    assert capfd.readouterr() == ("", "")
    monkeypatch.setitem(registry.DOWNLOADS, "mnist", source_of(tmp_path, DEAD))
    check_contents(load("mnist", cache_dir=tmp_path / "cache"))  # no network needed any more
    damaged = tmp_path / "cache" / "mnist" / "t10k-labels-idx1-ubyte.gz"
    damaged.write_bytes(b"damaged")
    with pytest.raises(DataError, match="could not download t10k-labels"):
        load("mnist", cache_dir=tmp_path / "cache", progress=False)
    monkeypatch.setitem(registry.DOWNLOADS, "mnist", source_of(tmp_path, mirror))
    check_contents(load("mnist", cache_dir=tmp_path / "cache", progress=True))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "mnist: t10k-labels" in captured.err


def test_download_refuses_what_is_not_the_published_file(tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.DOWNLOADS, "mnist", source_of(tmp_path, mirror))
    (tmp_path / "published" / "train-images-idx3-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"wrong checksum.*--data DIR"):
        load("mnist", cache_dir=tmp_path / "cache", progress=False)
    assert not (tmp_path / "cache" / "mnist" / "train-images-idx3-ubyte.gz").exists()


def test_download_without_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.DOWNLOADS, "kmnist", Source((DEAD,), registry.DOWNLOADS["kmnist"].md5))
    with pytest.raises(DataError, match=r"check the network, or put train-images.* into .* --data DIR") as caught:
        load("kmnist", cache_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_cache_that_cannot_be_written(tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.DOWNLOADS, "mnist", source_of(tmp_path, mirror))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write the data cache"):
        load("mnist", cache_dir=tmp_path / "file", progress=False)


def test_registered_sources_are_complete() -> None:
    for name, source in registry.DOWNLOADS.items():
        archives = {"cifar10": ["cifar-10-binary.tar.gz"]} | {f"emnist_{split}": ["gzip.zip"] for split in SPLITS}
        assert set(source.md5) == set(archives.get(name, [f"{part}.gz" for part in PARTS]))
        assert all(len(md5) == 32 for md5 in source.md5.values())
        assert all(mirror.endswith("/") for mirror in source.mirrors)


@pytest.mark.skipif(not MNIST.is_dir(), reason="the local copy of MNIST is absent")
def test_real_mnist() -> None:
    data = load(MNIST)
    assert (data.train_images.shape, data.test_images.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert data.n_classes == 10
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    pixels = np.rint(data.test_images * 255).astype(np.uint8)
    assert hashlib.md5(idx_bytes(pixels)).hexdigest() == "2646ac647ad5339dbf082846283269ea"


OWN = """
import numpy as np
from kagscope.data import load
whole = load("digits")
four = whole.train_images, whole.train_labels, whole.test_images, whole.test_labels
names = "train_images", "train_labels", "test_images", "test_labels"
def ready(): return whole
def arrays(): return four
def by_name(): return dict(zip(names, four))
def bytes_(): return [np.zeros((3, 2, 2), np.uint8), [0, 1, 2], np.full((2, 2, 2), 255, np.uint8), [0, 1]]
def three(): return four[:3]
def flat(): return {**by_name(), "train_images": whole.train_images.reshape(-1, 64)}
def few(): return {**by_name(), "test_labels": [1]}
def tensors():
    import torch
    return [torch.as_tensor(a).to(torch.bfloat16).requires_grad_() if a.dtype.kind == "f" else torch.as_tensor(a) for a in four]
def masked(): return {**by_name(), "train_images": np.ma.masked_less(whole.train_images, 0.5)}
def wrong(): raise KeyError("no such thing")
def needs(seed): return four
"""


def test_data_from_a_function(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    wanted = load("digits").fingerprint()
    for name in ("ready", "arrays", "by_name", "whole"):
        assert load(f"{file}:{name}").fingerprint() == wanted
    bytes_ = load(f"{file}:bytes_")
    assert (bytes_.train_images.max(), bytes_.test_images.min(), bytes_.n_classes) == (0, 1, 3)
    assert abs(load(f"{file}:tensors").train_images - load("digits").train_images).max() < 2**-8
    assert load_local(f"{file}:arrays") is None  # opening a stranger's study runs none of its code


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", "returned a tuple; expected train_images, train_labels"),
        ("flat", "`train_images`: found flat rows"),
        ("few", "`test_labels`: found 1 labels"),
        ("masked", "`train_images`: is a masked array"),
        ("wrong", "calling .*own.py:wrong raised KeyError.*own.py, line 18"),
        ("needs", "cannot be called with no arguments"),
        ("arrys", "has no 'arrys'.*arrays"),
    ],
)
def test_functions_that_return_no_data(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(KagscopeError, match=message) as caught:
        load(f"{tmp_path / 'own.py'}:{name}")
    assert "\n" not in str(caught.value)
