"""Strangers' models and inputs, by name and from files."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kagscope.base.errors import DataError, InputError
from kagscope.data import load
from kagscope.loading import fit_inputs, load_inputs, load_model

NETS = """
from __future__ import annotations
import dataclasses
import torch
from torch import nn
import helper_beside

@dataclasses.dataclass
class Size:
    width: int = 3

def small(width: int = 3, *, bias: bool = True) -> nn.Module:
    import late_helper
    return nn.Linear(2, Size(width).width, bias=bias)

def needs(width):
    return nn.Linear(2, width)

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 2))

    @classmethod
    def build(cls):
        return cls()

    def method(self):
        return self

ready = nn.Linear(4, 5)
number = 3

def raises():
    raise RuntimeError("no such\\n  width")

def leaves():
    raise SystemExit(3)

def weights():
    return nn.Linear(2, 2).state_dict()
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "nets.py").write_text(NETS)
    for helper in ("helper_beside", "late_helper"):
        (tmp_path / "models" / f"{helper}.py").write_text("")
    (tmp_path / "models" / "broken.py").write_text("def f(:\n")
    (tmp_path / "models" / "fails.py").write_text("import torch\n1 / 0\n")
    (tmp_path / "models" / "wants.py").write_text("import a_library_nobody_has\n")
    (tmp_path / "models" / "exits.py").write_text("import sys\nsys.exit('usage: exits FILE')\n")
    number = next(UNIQUE)
    package = tmp_path / f"package_{number}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text("from torch import nn\nclass Zoo:\n    small = staticmethod(lambda: nn.Linear(3, 1))\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for helper in ("helper_beside", "late_helper"):
        monkeypatch.delitem(sys.modules, helper, raising=False)
    return package


UNIQUE = itertools.count()


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("small", {}, (3, 2)),
        ("small", {"width": 7, "bias": False}, (7, 2)),
        ("needs", {"width": 4}, (4, 2)),
        ("Net", {}, (2, 2)),
        ("Net.build", {}, (2, 2)),
        ("ready", {}, (5, 4)),
    ],
)
@pytest.mark.parametrize("absolute", [True, False])
def test_models_from_files(name: str, arguments: dict[str, Any], shape: tuple[int, int], absolute: bool, nets: Path) -> None:
    before = list(sys.path)
    file = Path("models/nets.py")
    model = load_model(f"{file.resolve() if absolute else file}:{name}", arguments)
    assert isinstance(model, nn.Module)
    assert tuple(next(model.parameters()).shape) == shape
    assert sys.path == before


def test_models_from_modules(nets: Path) -> None:
    before = list(sys.path)
    model = load_model(f"{nets.name}.nets:Zoo.small")
    assert isinstance(model, nn.Linear)
    assert isinstance(load_model("torch.nn:Identity"), nn.Identity)
    assert sys.path == before


def test_a_seed_decides_and_is_forgotten(nets: Path) -> None:
    before = torch.get_rng_state()
    a, b, c = (load_model("models/nets.py:small", seed=seed).state_dict()["weight"] for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("models/nets.py", r"names no module or nothing in it; models/nets.py defines Size, small, needs, Net, raises, leaves"),
        ("models/nets.py:", "defines Size, small"),
        (":small", "expected package.module:factory or path/to/file.py:factory"),
        ("", "expected package.module:factory"),
        ("resnet18", "names no module or nothing in it; expected"),
        ("models/net.py:small", r"models/net.py: no such file \(did you mean models/nets.py"),
        ("models:small", "models.*has no 'small'"),
        ("./models:small", r"\./models is a folder"),
        ("nowhere/nets.py:small", "nowhere/nets.py: no such file"),
        (f"{'x' * 300}.py:small", "cannot be a file|no such file"),
        ("nul\0.py:small", "cannot be a file|no such file"),
        ("modles:small", r"no module 'modles' \(did you mean models"),
        ("torch.nnn:Linear", r"no module 'torch.nnn' \(did you mean nn"),
        ("not-a-module:f", "is not the name of a module"),
        ("models/nets.py:smal", r"has no 'smal' \(did you mean small"),
        ("models/nets.py:zzzz", "has no 'zzzz'; it has Size, small"),
        ("models/nets.py:Net.bild", r"models/nets.py.Net has no 'bild' \(did you mean build"),
        ("models/nets.py:needs", r"cannot be called with no arguments \(missing a required argument: 'width'\); its parameters"),
        ("models/nets.py:Net.method", "missing a required argument: 'self'"),
        ("models/nets.py:number", "number is a int; expected a function or class"),
        ("models/nets.py:weights", "weights returned a OrderedDict; expected an nn.Module"),
        ("models/nets.py:Size", "Size returned a Size"),
        ("models/nets.py:raises", r"calling models/nets.py:raises raised RuntimeError: no such width \(nets.py, line 34\)"),
        ("models/nets.py:leaves", "raised SystemExit: 3"),
        ("models/broken.py:f", r"running models/broken.py raised SyntaxError: .*broken.py, line 1"),
        ("models/fails.py:f", r"raised ZeroDivisionError: division by zero \(fails.py, line 2\)"),
        ("models/wants.py:f", "ModuleNotFoundError: No module named 'a_library_nobody_has'"),
        ("models/exits.py:f", "raised SystemExit: usage: exits FILE"),
    ],
)
def test_bad_models(spec: str, message: str, nets: Path) -> None:
    before = list(sys.path)
    with pytest.raises(InputError, match=message) as caught:
        load_model(spec)
    assert "\n" not in str(caught.value)
    assert sys.path == before


def test_bad_arguments_of_models(nets: Path) -> None:
    with pytest.raises(InputError, match=r"unexpected keyword argument 'widht'.*did you mean width"):
        load_model("models/nets.py:small", {"widht": 3})
    with pytest.raises(InputError, match="ready is a ready model and takes no arguments, but width were given"):
        load_model("models/nets.py:ready", {"width": 3})
    with pytest.raises(InputError, match="named by a int"):
        load_model(3)  # type: ignore[arg-type]


# -- inputs ----------------------------------------------------------------------------------------------------------------------

rng = np.random.default_rng(0)
IMAGES = rng.random((20, 6, 5), dtype=np.float32)
LABELS = np.arange(20) % 3


def test_a_data_set_by_name() -> None:
    found, digits = load_inputs("digits"), load("digits")
    assert isinstance(found.inputs, Tensor)
    assert found.labels is not None
    assert len(found) == 355
    np.testing.assert_array_equal(found.inputs.numpy(), digits.test_images)
    np.testing.assert_array_equal(found.labels.numpy(), digits.test_labels)
    assert found.image_shape == (8, 8)
    assert len(load_inputs("digits", split="train")) == 1442
    assert load_inputs("digits", shape=(1, 8, 8)).inputs.shape == (355, 1, 8, 8)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["npz", "npy", "pt", "safetensors"])
def test_files_of_inputs(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"inputs.{kind}"
    tensors = {"images": torch.from_numpy(IMAGES), "labels": torch.from_numpy(LABELS)}
    if kind == "npz":
        np.savez(file, images=IMAGES, labels=LABELS)
    elif kind == "npy":
        np.save(file, IMAGES)
    elif kind == "pt":
        torch.save(tensors, file)
    else:
        save_file(tensors, file)
    found = load_inputs(file)
    assert isinstance(found.inputs, Tensor)
    np.testing.assert_array_equal(found.inputs.numpy(), IMAGES)
    assert found.image_shape == (6, 5)
    if kind == "npy":
        assert found.labels is None
    else:
        assert found.labels is not None
        assert found.labels.tolist() == LABELS.tolist()


def test_names_in_files(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    tokens, mask = rng.integers(0, 50, (4, 7), dtype=np.int32), np.ones((4, 7), dtype=bool)
    np.savez(file, input_ids=tokens, attention_mask=mask, labels=np.zeros(4, dtype=np.int16))
    found = load_inputs(file)
    assert isinstance(found.inputs, dict)
    assert {key: value.dtype for key, value in found.inputs.items()} == {
        "input_ids": torch.int64,
        "attention_mask": torch.bool,
    }
    assert found.image_shape is None
    np.savez(file, anything=tokens)
    assert load_inputs(file).inputs.dtype == torch.int64  # type: ignore[union-attr]
    assert load_inputs(file).image_shape is None
    np.savez(file, train_images=IMAGES, test_images=IMAGES[:3], train_labels=LABELS, test_labels=LABELS[:3])
    assert [len(load_inputs(file, split=split)) for split in ("test", "train")] == [3, 20]
    np.savez(file, x=(255 * IMAGES).astype(np.uint8))
    assert float(load_inputs(file).inputs.max()) <= 1  # type: ignore[union-attr]
    torch.save((torch.zeros(3, 2), torch.zeros(3, dtype=torch.int32)), tmp_path / "pair.pt")
    pair = load_inputs(tmp_path / "pair.pt")
    assert pair.labels is not None
    assert pair.labels.dtype == torch.int64


def test_arrays_of_a_file_are_fed_where_the_model_requires_them_and_named_where_it_is_not_fed(tmp_path: Path) -> None:
    file, mask = tmp_path / "a.npz", np.ones((20, 30), np.float32)
    np.savez(file, x=IMAGES, mask=mask, labels=LABELS)
    both = load_inputs(file, required=["mask", "x"])
    assert isinstance(both.inputs, dict)
    assert set(both.inputs) == {"x", "mask"}
    assert both.left_out == ()
    for required in ([], ["x"], ["x", "bias"]):
        one = load_inputs(file, required=required)
        assert isinstance(one.inputs, Tensor)
        assert one.left_out == ("mask",)
    np.savez(file, anything=IMAGES, y=LABELS)
    assert load_inputs(file).left_out == ()
    np.savez(file, train_images=IMAGES, test_images=IMAGES[:3], train_labels=LABELS, test_labels=LABELS[:3])
    assert load_inputs(file).left_out == ()


def write(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


def test_bad_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("lengths.npz"), inputs=IMAGES, labels=LABELS[:-1])
    write(Path("empty.npz"), inputs=IMAGES[:0])
    write(Path("number.npz"), inputs=np.float32(3))
    write(Path("nothing.npz"))
    write(Path("onlylabels.npz"), labels=LABELS)
    write(Path("floatlabels.npz"), inputs=IMAGES, labels=LABELS / 2)
    write(Path("objects.npz"), inputs=np.array([{}, {}], dtype=object))
    write(Path("text.npz"), inputs=np.array(["a", "b"]))
    write(Path("complex.npz"), inputs=IMAGES * 1j)
    bad = IMAGES.copy()
    bad[2, 1, 3] = np.nan
    np.save("nan.npy", bad)
    np.save("objects.npy", np.array([{}], dtype=object))
    np.save("good.npy", IMAGES)
    Path("cut.npy").write_bytes(Path("good.npy").read_bytes()[:-3])
    Path("junk.npy").write_bytes(b"junk")
    Path("junk.npz").write_bytes(b"junk")
    torch.save(nn.Linear(2, 2), "module.pt")
    torch.save([1, 2], "list.pt")
    save_file({"inputs": torch.zeros(2, 2, dtype=torch.complex64)}, "complex.safetensors")
    Path("notes.txt").write_text("hello")
    os.mkfifo("fifo.npy")
    data: list[tuple[str, str]] = [
        ("lengths.npz", r"different lengths \(inputs: 20, labels: 19\)"),
        ("empty.npz", r"holds no inputs \(float32 \(0, 6, 5\)\)"),
        ("number.npz", "is a single number"),
        ("nothing.npz", "expected a tensor"),
        ("onlylabels.npz", "and no inputs"),
        ("floatlabels.npz", r"labels are float64 \(20,\); expected integers"),
        ("objects.npz", "Python objects"),
        ("text.npz", "dtype <U1"),
        ("complex.npz", "dtype complex"),
        ("complex.safetensors", "is complex64"),
        ("nan.npy", r"NaN or infinite, first at \(2, 1, 3\)"),
        ("objects.npy", "Python objects"),
        ("cut.npy", "save it again"),
        ("junk.npy", "not a readable .npy"),
        ("junk.npz", "not a readable .npz"),
        ("module.pt", "asks for torch.nn.modules.linear.Linear"),
        ("list.pt", "holds a list"),
        ("missing.npz", "no such file"),
        ("fifo.npy", "is a FIFO"),
    ]
    for name, message in data:
        with pytest.raises(DataError, match=message) as refused:
            load_inputs(name)
        assert name in str(refused.value)
    for name, options, message in (
        ("notes.txt", {}, "not from .txt"),
        ("mnits", {}, r"unknown data set 'mnits' \(did you mean mnist.*or a file of inputs"),
        ("good.npy", {"shape": (7, 5)}, r"input shape \(7, 5\) is 35 numbers, .*\(6, 5\), which is 30"),
        ("good.npy", {"shape": (-6, -5)}, "must be whole numbers"),
        ("good.npy", {"split": "valid"}, "expected test or train"),
    ):
        with pytest.raises(InputError, match=message):
            load_inputs(name, **options)


# -- shapes ----------------------------------------------------------------------------------------------------------------------


class Viewing(nn.Module):
    """Takes images in its own words, as many small networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(36, 2)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width = x.shape
        logits: Tensor = self.linear(x.reshape(batch, height * width))
        return logits


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        (nn.Linear(36, 2), (4, 6, 6), (4, 36)),
        (nn.Linear(36, 2), (4, 36), (4, 36)),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout()), (4, 6, 6), (4, 1, 6, 6)),
        (nn.Conv2d(1, 2, 3), (4, 36), (4, 1, 6, 6)),
        (nn.Conv2d(3, 2, 3), (4, 3, 6, 6), (4, 3, 6, 6)),
        (nn.Sequential(nn.Flatten(), nn.Linear(108, 2)), (4, 3, 6, 6), (4, 3, 6, 6)),
        (nn.Linear(108, 2), (4, 3, 6, 6), (4, 108)),
        (Viewing(), (4, 6, 6), (4, 6, 6)),
        (nn.LSTM(6, 3, batch_first=True), (4, 5, 6), (4, 5, 6)),
    ],
)
def test_shapes_are_found_by_trying(model: nn.Module, given: tuple[int, ...], expected: tuple[int, ...]) -> None:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = torch.get_rng_state()
    inputs = torch.randn(given, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fitted = fit_inputs(model, inputs)
    assert tuple(fitted.shape) == expected
    assert fitted.dtype == torch.float32
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_shapes_that_are_not_found() -> None:
    with pytest.raises(InputError, match=r"\(4, 36\): .*cannot be multiplied.*say which with --input-shape"):
        fit_inputs(nn.Linear(35, 2), torch.zeros(4, 6, 6))
    with pytest.raises(InputError, match="takes the inputs in no shape"):
        fit_inputs(nn.Linear(36, 2), torch.zeros(4, 6, 6), keep_shape=True)
    with pytest.raises(InputError, match=r"2 inputs gave an output of shape \(\)"):
        fit_inputs(Mean(), torch.zeros(4, 6, 6))
    tokens = torch.zeros(4, 7, dtype=torch.int64)
    assert fit_inputs(nn.Embedding(5, 3), tokens).dtype == torch.int64


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean()
