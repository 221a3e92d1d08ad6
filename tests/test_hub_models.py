"""Published models by name, without a network: from folders, and what is said of everything that cannot be loaded."""

from __future__ import annotations

import json
import logging
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from kagscope.base.errors import InputError
from kagscope.cli import app
from kagscope.loading import load_published, save_weights
from kagscope.measuring.report import Report

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="no transformers here")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def _bert() -> Any:
    import transformers  # seconds, and every worker imports every test file

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, max_position_embeddings=8
    )
    return transformers.BertModel(config)


def test_a_folder_is_loaded_and_measured(tmp_path: Path) -> None:
    model = _bert()
    model.save_pretrained(tmp_path / "tiny")
    np.savez(tmp_path / "tokens.npz", input_ids=np.arange(24).reshape(4, 6) % 20, attention_mask=np.ones((4, 6), dtype=np.int64))
    found = load_published("hf:tiny")
    assert not found.model.training
    for name, value in model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name
    options = ["--data", "tokens.npz", "--layer", "encoder.layer.*.intermediate", "--layer-map", "block", "--points", "3"]
    done = CliRunner().invoke(app, ["measure", "hf:tiny", *options, "--out", "out", "--score", "pr", "--json"])
    assert done.exit_code == 0, done.output
    report = Report.load(tmp_path / "out")
    assert report.provenance["model"] == "hf:tiny"
    assert report.provenance["revision"] == found.revision
    assert report.provenance["versions"]["transformers"] == metadata.version("transformers")
    assert len({one["name"] for one in report.layers}) == 2
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.save_pretrained(tmp_path / "tiny")
    assert load_published("hf:tiny").revision != found.revision


def test_pickles_are_not_read(tmp_path: Path) -> None:
    model = _bert()
    model.save_pretrained(tmp_path / "tiny")
    (tmp_path / "tiny" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "tiny" / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"hf:tiny: .*safetensors"):
        load_published("hf:tiny")


def test_code_beside_a_model_is_not_run(tmp_path: Path) -> None:
    _bert().save_pretrained(tmp_path / "tiny")
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"}}
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(config))
    (tmp_path / "tiny" / "mine.py").write_text("open('ran', 'w').close()\n")
    with pytest.raises(InputError, match="hf:tiny: "):
        load_published("hf:tiny")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("spec", "arguments", "said"),
    [
        ("hf:nobody/nothing-like-this", {}, "not in the local cache"),
        ("hf:a/b/c", {}, "no such model"),
        ("hf:", {}, "names no model"),
        ("hf:nobody/nothing", {"width": 3}, "no argument width"),
    ],
)
def test_one_line_on_what_cannot_be_loaded(spec: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_published(spec, arguments)
    assert "\n" not in str(caught.value)


def test_tries_of_the_hub_are_not_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import transformers

    hub = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(hub, "propagate", True)
    hub.setLevel(logging.WARNING)

    def unreachable(*_: Any, **__: Any) -> Any:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", unreachable)
    with pytest.raises(InputError, match="cannot be reached"):
        load_published("hf:nobody/nothing-like-this")
    assert caplog.records == []
    assert hub.level == logging.WARNING


def test_without_a_network_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    import transformers
    from huggingface_hub import constants

    asked: list[Any] = []

    def ask(self: Any, name: str, **_: Any) -> Any:
        asked.append(name)
        raise ConnectionError("Name or service not known")

    def load(name: str, **options: Any) -> Any:
        asked.append(options["local_files_only"])
        raise OSError("no file named config.json")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", ask)
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", load)
    with pytest.raises(InputError, match=r"config\.json"):
        load_published("hf:nobody/nothing-like-this")
    assert asked == ["nobody/nothing-like-this", True]


def test_a_cached_model_has_the_commit_of_its_snapshot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    commit = "0123abcd" * 5
    folder = tmp_path / "models--nobody--tiny"
    _bert().save_pretrained(folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert load_published("hf:nobody/tiny").revision == commit
    assert load_published("hf:nobody/tiny", {"revision": commit}).revision == commit


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for kind, name in (("hf", "transformers"), ("timm", "timm")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=f"needs {name}, which is not installed"):
            load_published(f"{kind}:anything")


def test_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    import huggingface_hub

    model = timm.create_model("resnet10t", pretrained=False)
    folder = tmp_path / "0123abcd"
    folder.mkdir()
    save_weights(folder / "model.safetensors", model.state_dict())
    with pytest.raises(InputError, match="not in the local cache"):
        load_published("timm:resnet10t")
    with pytest.raises(InputError, match="did you mean"):
        load_published("timm:resnet10tt")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(folder / "model.safetensors"))
    found = load_published("timm:resnet10t")
    assert found.revision == "0123abcd"
    assert not found.model.training
    for name, value in model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name
