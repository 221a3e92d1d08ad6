"""Weights on disk: written as safetensors, read from safetensors or ``torch.save`` files without running code from the file."""

from __future__ import annotations

import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kagscope.base.errors import DataError
from kagscope.base.files import atomic_path, open_regular
from kagscope.base.messages import listing
from kagscope.base.progress import Say, silent

NESTED = ("state_dict", "model_state_dict", "model", "model_state", "module", "net", "network", "weights", "params")
"""Keys under which training loops store the model's state dict, in order of preference."""

INDEX = ".index.json"
MAX_INDEX = 2**26  # bytes of an index; typical ones have about 100 kB
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors")
"""Weight files in a Hugging Face folder; with :data:`INDEX` appended if there are several parts."""


def save_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors, atomically. Raises :class:`~kagscope.base.errors.OutputError`."""
    from safetensors.torch import save

    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def load_state(path: str | os.PathLike[str], *, say: Say = silent) -> dict[str, Tensor]:
    """Read a state dict, on the CPU, in the dtypes of the file.

    The format is detected from the content, not the name: safetensors; or ``torch.save`` of a state dict, or of a checkpoint that
    holds one (under a key of :data:`NESTED`, as Lightning and most loops write it, or as its only one), in the zip or the
    older format. Pickles are read by PyTorch's restricted reader (``weights_only=True``), which builds only tensors and plain
    containers.

    A folder written by Hugging Face's ``save_pretrained`` is read too, with its weights in one file or in several with an
    ``index.json``.

    Args:
        path: the file or folder.
        say: called with a sentence on every choice made, such as which part of a checkpoint was used.

    Raises:
        DataError: missing, not a regular file, truncated, a pickle of anything else (with what it asked for and how to
            convert it), or without a state dict.
    """
    folder = Path(path)
    if folder.is_dir() or folder.name.endswith(INDEX):
        return load_shards(folder, say)
    content = load_tensors(path)
    if not isinstance(content, Mapping):
        raise DataError(
            f"{path}: holds a {type(content).__name__}, not weights by name; expected torch.save(model.state_dict(), …) or "
            "safetensors"
        )
    return _state_dict(content, Path(path), say)


def weights_in(folder: Path) -> Path | None:
    """The weight file in a folder, or the index of several; None if there is none, or none with a usual name."""
    usual = [folder / f"{name}{suffix}" for name in FOLDER_FILES for suffix in (INDEX, "")]
    others = sorted(folder.glob("*.safetensors"))
    return next((file for file in usual if file.is_file()), others[0] if len(others) == 1 else None)


def load_shards(path: Path, say: Say = silent) -> dict[str, Tensor]:
    """Read the weights in a folder, or those listed in the index ``path``. Raises :class:`DataError`."""
    if path.is_dir():
        file_found = weights_in(path)
        if file_found is None:
            present = listing(sorted(entry.name for entry in path.iterdir()), 4) or "nothing"
            raise DataError(
                f"{path}: is a folder without weights of a usual name ({', '.join(FOLDER_FILES)}); it holds {present}"
            )
        say(f"{path}: took {file_found.name}")
        return load_shards(file_found) if file_found.name.endswith(INDEX) else load_state(file_found, say=say)
    try:
        with open_regular(path) as stream:
            named = json.loads(stream.read(MAX_INDEX))["weight_map"]
        files = sorted(set(named.values()))
        names = set(named)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: no index of weights ({error}); expected JSON with a weight_map of names to files") from error
    for file in files:
        if not isinstance(file, str) or Path(file).name != file:
            raise DataError(f"{path}: names the file {file!r}; expected names of files beside it")
    state: dict[str, Tensor] = {}
    for file in files:
        shard = path.parent / file
        if not shard.is_file():
            raise DataError(f"{path}: names {file}, which is not beside it; copy every part of the weights")
        state |= load_state(shard)
    if missing := sorted(names - state.keys()):
        raise DataError(f"{path}: names {listing(missing)}, which its files do not hold; copy the weights again")
    return state


def load_tensors(path: str | os.PathLike[str]) -> Any:
    """Read a safetensors or ``torch.save`` file: CPU tensors in plain containers. Raises :class:`DataError`."""
    path = Path(path)
    with open_regular(path) as stream:
        start = stream.read(9)
        stream.seek(0)
        header_first = start[8:9] == b"{"  # of safetensors; the eight bytes before it, a length, can look like a pickle
        if start.startswith((b"PK\x03\x04", b"\x80")) and not header_first:
            return _unpickle(stream, path)
        return _safetensors(stream.read(), path)


def _safetensors(content: bytes, path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: truncated, damaged or no weights ({error}); expected safetensors, or a state dict written by torch.save"
        ) from error


def _unpickle(stream: BufferedReader, path: Path) -> Any:
    _check_sizes(stream, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd pickle protocols and TorchScript, which raise an error below
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the readers raise many kinds, even IndexError and MemoryError
        raise DataError(f"{path}: {_refusal(error)}") from error


def _check_sizes(stream: BufferedReader, path: Path) -> None:
    """Refuse archives that unpack to more than their own size; ``torch.save`` never compresses."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if not zipfile.is_zipfile(stream):
        stream.seek(0)
        return
    try:
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path}: damaged archive ({error}); copy or save it again") from error
    stream.seek(0)
    if unpacked > size:
        raise DataError(
            f"{path}: an archive of {size} bytes that unpacks to {unpacked}; torch.save does not compress: save the weights again"
        )


_CONVERT = (
    "where you trust the file, convert it: from safetensors.torch import save_file; "
    "save_file(STATE_DICT, 'weights.safetensors') with the model's state dict from torch.load(path, weights_only=False)"
)


def _refusal(error: Exception) -> str:
    """Summarise PyTorch's message in one line."""
    text = str(error)
    match = re.search(r"GLOBAL (\S+)", text) or re.search(r"(?:unsupported|Unsupported) (?:class|global) (\S+)", text)
    if match:
        name = match.group(1).strip("'\"`,")
        hint = " (the whole model was pickled, not its state_dict())" if ".nn.modules." in name else ""
        return f"refused: this pickle asks for {name}{hint}, and a pickle can run any code when it is opened; {_CONVERT}"
    if "TorchScript" in text:
        return (
            "refused: this is a TorchScript program, not weights; expected a state dict, such as "
            "torch.jit.load(path).state_dict(), saved as safetensors"
        )
    if "Weights only load failed" in text:
        return f"refused: no pickle that torch.save writes for weights, and any other can run code when it is opened; {_CONVERT}"
    reason = text.splitlines()[0][:120] if text else type(error).__name__
    return f"truncated or damaged ({reason}); copy or save it again"


def _state_dict(content: Mapping[Any, Any], path: Path, say: Say) -> dict[str, Tensor]:
    """The state dict that is, or is in, a checkpoint."""
    candidates = [key for key, value in content.items() if isinstance(key, str) and _tensors(value)]
    named = [key for key in NESTED if key in candidates]
    if named or len(candidates) == 1:
        key = (named or candidates)[0]
        ignored = [str(other) for other in content if other != key]
        say(f"{path}: took {key!r}" + (f"; left {listing(ignored)}" if ignored else ""))
        return _tensors(content[key])
    if len(candidates) > 1:
        raise DataError(
            f"{path}: holds several sets of weights ({listing(candidates)}) and none under a usual name; save the one to measure,"
            " for example as safetensors"
        )
    tensors = _tensors(content)
    if not tensors:
        raise DataError(f"{path}: holds no weights (found {listing(content) or 'nothing'}); expected a state dict")
    if ignored := [str(key) for key in content if key not in tensors]:
        say(f"{path}: left out {listing(ignored)}, which {'is not a tensor' if len(ignored) == 1 else 'are not tensors'}")
    return tensors


def _tensors(value: Any) -> dict[str, Tensor]:
    """Named tensors directly in ``value``, possibly none."""
    if not isinstance(value, Mapping):
        return {}
    return {name: tensor for name, tensor in value.items() if isinstance(name, str) and isinstance(tensor, Tensor)}
