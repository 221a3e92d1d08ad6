"""Weights on disk: what is read, what is taken from checkpoints, what is refused, and what fits a model."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import kagscope as kag
from kagscope.base.errors import DataError, InputError, OutputError
from kagscope.loading.fitting import load_into
from kagscope.loading.inputs import load_inputs
from kagscope.loading.weights import load_state, save_weights
from kagscope.training.models import mlp


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_weights_survive_the_disk(tmp_path: Path) -> None:
    model, other = mlp(6, [5, 4], 3, seed=0), mlp(6, [5, 4], 3, seed=1)
    save_weights(tmp_path / "w.safetensors", model.state_dict())
    load_into(other, load_state(tmp_path / "w.safetensors"))
    assert same(model.state_dict(), other.state_dict())
    assert os.listdir(tmp_path) == ["w.safetensors"]
    with pytest.raises(OutputError, match="cannot write"):
        save_weights(tmp_path / "missing" / "w.safetensors", model.state_dict())


STATE = mlp(6, [5], 3, seed=0).state_dict()
OPTIMIZER = torch.optim.Adam(mlp(6, [5], 3, seed=0).parameters()).state_dict()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        (STATE, []),
        ({"state_dict": STATE, "epoch": 3, "optimizer": OPTIMIZER}, ["took 'state_dict'; left epoch, optimizer"]),
        ({"model": STATE}, ["took 'model'"]),
        ({"my_net": STATE, "loss": torch.tensor(0.5)}, ["took 'my_net'; left loss"]),
        ({"ema": STATE, "model_state_dict": STATE}, ["took 'model_state_dict'; left ema"]),
        ({**STATE, "epoch": 3}, ["left out epoch, which is not a tensor"]),
    ],
)
def test_what_is_taken_from_torch_files(checkpoint: dict[str, Any], said: list[str], zipped: bool, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.ckpt"
    torch.save(checkpoint, file, _use_new_zipfile_serialization=zipped)
    notes: list[str] = []
    assert same(load_state(file, say=notes.append), STATE)
    assert notes == [f"{file}: {note}" for note in said]


def test_a_lightning_checkpoint(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Wrapped(lightning.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = mlp(4, [3], 2, seed=5)

        def training_step(self, batch: Any) -> Tensor:
            loss: Tensor = self.model(batch[0]).square().sum()
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    trainer = lightning.Trainer(
        max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(2, 4)))
    trainer.fit(Wrapped(), data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    notes: list[str] = []
    model = mlp(4, [3], 2, seed=6)
    load_into(model, load_state(tmp_path / "last.ckpt", say=notes.append), "last.ckpt", say=notes.append)
    assert same(model.state_dict(), mlp(4, [3], 2, seed=5).state_dict())
    assert "took 'state_dict'" in notes[0]
    assert notes[1] == "last.ckpt: dropped model. from the names of the weights, which then fit the model"


def test_a_header_length_that_looks_like_a_pickle(tmp_path: Path) -> None:
    lengths = set()
    for letters in range(1, 120):
        save_weights(tmp_path / "w", {"w" * letters: torch.ones(1)})
        lengths.add((tmp_path / "w").read_bytes()[0])
        assert list(load_state(tmp_path / "w")) == ["w" * letters]
    assert 0x80 in lengths


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("exploded", "w"))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**STATE, "bomb": Bomb()}, r"asks for \S*\.open, and a pickle can run any code.*convert"),
        (nn.Linear(2, 2), r"asks for torch\.nn\.modules\.linear\.Linear \(the whole model was pickled, not its state_dict"),
        ({"state_dict": STATE, "hyper": argparse.Namespace(width=3)}, r"asks for argparse\.Namespace"),
        ({"state_dict": STATE, "loss": np.float64(1)}, r"asks for numpy\S*scalar"),
        (torch.zeros(3), "holds a Tensor, not weights by name"),
        ([1, 2], "holds a list"),
        ({}, "holds no weights .found nothing"),
        ({"epoch": 3, "lr": 0.1}, "holds no weights .found epoch, lr"),
        ({"generator": STATE, "critic": STATE}, "several sets of weights .generator, critic"),
    ],
)
def test_torch_files_that_are_refused(
    content: Any, message: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "file.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=message) as caught:
        load_state("file.pt")
    assert "\n" not in str(caught.value)
    assert not Path("exploded").exists()


def test_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_weights("good", STATE)
    good = Path("good").read_bytes()
    for content in (b"", b"short", good[:-1], good[:100], b"\xff" * 200, b"\xff" * 7 + b"\x7f" + good[8:], good + b"x"):
        Path("bad").write_bytes(content)
        with pytest.raises(DataError, match="bad: truncated, damaged or no weights") as caught:
            load_state("bad")
        assert "\n" not in str(caught.value)
    for zipped in (True, False):
        torch.save(STATE, "good.pt", _use_new_zipfile_serialization=zipped)
        good = Path("good.pt").read_bytes()
        for length in (4, 60, len(good) // 2, len(good) - 5):
            Path("bad").write_bytes(good[:length])
            with pytest.raises(DataError, match=r"bad: (truncated|damaged)"):
                load_state("bad")


def test_no_weights_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    Path("raw.pkl").write_bytes(pickle.dumps(Bomb()))
    torch.jit.script(nn.Linear(2, 2)).save("script.pt")
    with zipfile.ZipFile("bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    for name, message in (
        ("missing", "no such file"),
        (".", "is a folder"),
        ("fifo", "is a FIFO"),
        ("nul\0", "cannot be opened"),
        ("raw.pkl", "refused: "),
        ("script.pt", "TorchScript program"),
        ("bomb.pt", "unpacks to 10000000"),
    ):
        with pytest.raises(DataError, match=message):
            load_state(name)
    assert not Path("exploded").exists()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=80),
        st.binary(max_size=80).map(lambda b: len(b).to_bytes(8, "little") + b),
        st.binary(max_size=80).map(lambda b: b"\x80\x02" + b),
        st.binary(max_size=80).map(lambda b: b"PK\x03\x04" + b),
    )
)
def test_any_bytes_are_weights_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fuzz").write_bytes(content)
    with contextlib.suppress(DataError):
        assert all(isinstance(tensor, Tensor) for tensor in load_state(tmp_path / "fuzz").values())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255), zipped=st.booleans())
def test_a_flipped_byte_is_read_or_refused(tmp_path: Path, place: int, byte: int, zipped: bool) -> None:
    file = tmp_path / "flipped.pt"
    torch.save({"state_dict": STATE, "epoch": 3}, file, _use_new_zipfile_serialization=zipped)
    content = bytearray(file.read_bytes())
    content[place % len(content)] = byte
    file.write_bytes(content)
    with contextlib.suppress(DataError):
        load_state(file)


# -- into a model ----------------------------------------------------------------------------------------------------------------


def test_weights_that_do_not_fit_change_nothing() -> None:
    model = mlp(6, [5], 3, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lacking = dict(list(before.items())[:-1])
    misspelt = {**lacking, "output.bais": torch.zeros(3)}
    for state, message in (
        (lacking, r"they lack output\.bias; expected hidden1\.0\.weight"),
        ({**before, "9.weight": torch.zeros(1)}, r"hold in addition 9\.weight"),
        (misspelt, r"lack output\.bias and hold in addition output\.bais \(did you mean output\.bais"),
        ({f"module.{name}": tensor for name, tensor in lacking.items()}, r"after dropping module\.\) .*they lack output\.bias"),
        ({}, "lack hidden1.0.weight"),
        (mlp(6, [5], 4, seed=1).state_dict(), r"output\.weight has shape \(4, 5\), expected \(3, 5\)"),
    ):
        with pytest.raises(DataError, match=message):
            load_into(model, state, "weights.safetensors")
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.", "net.", "module._orig_mod.", "model.module."])
def test_prefixes_are_dropped_where_that_fits(prefix: str) -> None:
    model = mlp(6, [5], 3, seed=1)
    notes: list[str] = []
    load_into(model, {prefix + name: tensor for name, tensor in STATE.items()}, "w", say=notes.append)
    assert same(model.state_dict(), STATE)
    assert len(notes) == 1
    assert all(part in notes[0] for part in prefix.split(".") if part)


def test_a_compiled_part_of_a_model() -> None:
    class Outer(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.model = mlp(6, [5], 3, seed=seed)
            self.head = nn.Linear(3, 2)

    source, target = Outer(0), Outer(1)
    renamed = {name.replace("model.", "model._orig_mod."): tensor for name, tensor in source.state_dict().items()}
    load_into(target, renamed)
    assert same(target.state_dict(), source.state_dict())


def test_names_that_fit_keep_their_prefix() -> None:
    outer = nn.ModuleDict({"model": mlp(6, [5], 3, seed=1)})
    notes: list[str] = []
    load_into(outer, {f"model.{name}": tensor for name, tensor in STATE.items()}, say=notes.append)
    assert same(outer["model"].state_dict(), STATE)
    assert notes == []


def test_tied_weights_may_be_stored_once() -> None:
    """Hugging Face writes a tied output matrix under one of its names."""

    class Tied(nn.Module):
        def __init__(self, seed: int, tie: bool = True) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.embed, self.head = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
            if tie:
                self.head.weight = self.embed.weight

    stored, target = {"embed.weight": Tied(0).embed.weight.detach()}, Tied(1)
    load_into(target, stored)
    assert torch.equal(target.head.weight, stored["embed.weight"])
    with pytest.raises(DataError, match=r"lack head\.weight"):
        load_into(Tied(1, tie=False), stored)


def test_other_dtypes_lazy_layers_and_the_meta_device() -> None:
    model = mlp(6, [5], 3, seed=1).double()
    load_into(model, {name: tensor.half() for name, tensor in STATE.items()})
    loaded = model.state_dict()["hidden1.0.weight"]
    assert loaded.dtype == torch.float64
    assert torch.equal(loaded.float(), STATE["hidden1.0.weight"].half().float())
    lazy = nn.Sequential(nn.LazyLinear(5), nn.GELU(), nn.Linear(5, 3))
    state = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3)).state_dict()
    load_into(lazy, state)
    assert same(lazy.state_dict(), state)
    with torch.device("meta"):
        empty = nn.Linear(2, 2)
    with pytest.raises(InputError, match="meta device"):
        load_into(empty, nn.Linear(2, 2).state_dict())


# -- checkpoints as they lie about -----------------------------------------------------------------------------------------------


def shards(
    folder: Path, state: Mapping[str, Tensor], index: Mapping[str, Any] | None = None, suffix: str = "safetensors"
) -> Path:
    """A folder as ``save_pretrained`` writes it: two files of weights and an index."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = list(state)
    places: dict[str, str] = {}
    for number in (0, 1):
        file = f"{stem}-0000{number + 1}-of-00002.{suffix}"
        part = {name: state[name] for name in names[number::2]}
        places |= dict.fromkeys(part, file)
        save_weights(folder / file, part) if suffix == "safetensors" else torch.save(part, folder / file)
    content = {"metadata": {"total_size": 1}, "weight_map": places} if index is None else index
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_sharded_folders(suffix: str, tmp_path: Path) -> None:
    folder = shards(tmp_path / "net", STATE, suffix=suffix)
    notes: list[str] = []
    assert same(load_state(folder, say=notes.append), STATE)
    (index,) = folder.glob("*.index.json")
    assert notes == [f"{folder}: took {index.name}"]
    assert same(load_state(index), STATE)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "anything.safetensors"])
def test_folders_with_one_file_of_weights(name: str, tmp_path: Path) -> None:
    save_weights(tmp_path / name, STATE) if name.endswith("safetensors") else torch.save(STATE, tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    assert same(load_state(tmp_path), STATE)


def test_a_transformer_that_was_saved_in_parts(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 10}
    config = transformers.BertConfig(vocab_size=20, max_position_embeddings=16, **sizes)
    torch.manual_seed(0)
    model, other = transformers.BertModel(config), transformers.BertModel(config)
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    load_into(other, load_state(tmp_path))
    assert same(other.state_dict(), model.state_dict())


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"0.weight": "../model.safetensors"}}, "names of files beside it"),
        ({"weight_map": {"0.weight": "/etc/passwd"}}, "names of files beside it"),
        ({"weight_map": {"0.weight": 3}}, "names of files beside it"),
        ({"weight_map": {"0.weight": "model-00003-of-00003.safetensors"}}, "which is not beside it"),
        ({"weight_map": {"9.weight": "model-00001-of-00002.safetensors"}}, "9.weight, which its files do not hold"),
        ({"weight_map": [1]}, "no index of weights"),
        ({}, "no index of weights"),
        ([], "no index of weights"),
    ],
)
def test_bad_indices(index: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_state(shards(tmp_path / "net", STATE, index))
    assert "\n" not in str(caught.value)


def test_folders_without_usual_weights(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("no weights")
    with pytest.raises(DataError, match=r"is a folder without weights of a usual name .*it holds readme\.md"):
        load_state(tmp_path)
    for name in ("a.safetensors", "b.safetensors"):
        save_weights(tmp_path / name, STATE)
    with pytest.raises(DataError, match="a folder without weights of a usual name"):
        load_state(tmp_path)


def test_a_git_lfs_pointer_is_no_file(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    for name in ("model.safetensors", "weights.pt", "points.npz", "points.npy"):
        (tmp_path / name).write_text(pointer)
        read = load_state if name in ("model.safetensors", "weights.pt") else load_inputs
        with pytest.raises(DataError, match=r"is a Git LFS pointer and not the file itself; fetch the file"):
            read(tmp_path / name)
    with pytest.raises(DataError, match="Git LFS pointer"):
        load_state(tmp_path)


WRAPPED: dict[str, tuple[Mapping[str, Tensor], list[str]]] = {
    "Lightning with class weights": (
        {**{f"model.{name}": tensor for name, tensor in STATE.items()}, "class_weights": torch.ones(3)},
        ["left class_weights, which is not the model's", "dropped model. "],
    ),
    "Lightning with a loss and metrics": (
        {
            "criterion.weight": torch.ones(3),
            **{f"net.{name}": tensor for name, tensor in STATE.items()},
            "accuracy.count": torch.zeros(()),
        },
        ["left criterion.weight, accuracy.count, which are not the model's", "dropped net. "],
    ),
    "AveragedModel": (dict(torch.optim.swa_utils.AveragedModel(mlp(6, [5], 3, seed=0)).state_dict()), ["left n_averaged"]),
    "AveragedModel of a compiled one": (
        {"n_averaged": torch.tensor(3), **{f"module._orig_mod.{name}": tensor for name, tensor in STATE.items()}},
        ["left n_averaged", "dropped module. "],
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_wrappers_keep_beside_the_model_is_left(name: str) -> None:
    state, said = WRAPPED[name]
    model, notes = mlp(6, [5], 3, seed=1), list[str]()
    load_into(model, state, "w", say=notes.append)
    assert same(model.state_dict(), STATE)
    assert all(any(words in note for note in notes) for words in said), notes


def test_parts_that_could_be_the_models_are_not_dropped() -> None:
    names = list(STATE)
    deeper = {f"model.{name}": tensor for name, tensor in mlp(6, [5, 3], 3, seed=0).state_dict().items()}
    twice = {f"{part}.{name}": STATE[name] for part in ("student", "teacher") for name in names}
    beside = {**STATE, "extra": torch.zeros(1)}
    for state, message in (
        (deeper, "do not fit"),
        (twice, r"several times \(student\.…, teacher\.…\)"),
        (beside, "addition extra"),
    ):
        with pytest.raises(DataError, match=message):
            load_into(mlp(6, [5], 3, seed=1), state, "w")


def test_baselines_by_the_names_that_wrappers_give() -> None:
    model, before, x = mlp(6, [5], 3, seed=1), mlp(6, [5], 3, seed=0), torch.randn(4, 6)
    averaged = torch.optim.swa_utils.AveragedModel(before)
    given = {
        "plain": before,
        "mapping": {f"module.{name}": tensor for name, tensor in before.state_dict().items()},
        "averaged": averaged,
        "averaged mapping": dict(averaged.state_dict()),
        "data parallel": nn.DataParallel(before),
    }
    tables = {name: kag.measure(model, x, k=1, baseline=baseline).table for name, baseline in given.items()}
    assert tables["plain"]["ratio"].notna().any()
    for table in tables.values():
        pd.testing.assert_frame_equal(table, tables["plain"])
