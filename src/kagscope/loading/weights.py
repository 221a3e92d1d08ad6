"""Weights on disk: written as safetensors, read from safetensors or from ``torch.save`` without running code from the file."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kagscope.base.errors import DataError, InputError
from kagscope.base.files import atomic_path, open_regular
from kagscope.base.messages import close_names, listed

NESTED = ("state_dict", "model_state_dict", "model", "model_state", "module", "net", "network", "weights", "params")
"""Keys under which training loops keep the model's state dict, in the order in which they are looked for."""

Say = Callable[[str], None]


def _silent(_: str) -> None:
    pass


def save_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors, at once or not at all. Raises :class:`~kagscope.base.errors.OutputError`."""
    from safetensors.torch import save

    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def load_state(path: str | os.PathLike[str], *, say: Say = _silent) -> dict[str, Tensor]:
    """Read a state dict, on the CPU, in the dtypes of the file.

    What a file is, its content decides and not its name: safetensors; or ``torch.save`` of a state dict, or of a checkpoint that
    holds one (under a key of :data:`NESTED`, as Lightning and most loops write it, or as the only one there), in the zip or the
    older format. Pickles are read by PyTorch's restricted reader (``weights_only=True``), which builds tensors and plain
    containers and nothing else.

    Args:
        path: the file.
        say: called with a sentence on every choice that was made, such as which part of a checkpoint was taken.

    Raises:
        DataError: missing, no plain file, truncated, a pickle of anything else (refused, with what it asked for and how to
            convert it), or without a state dict.
    """
    content = load_tensors(path)
    if not isinstance(content, Mapping):
        raise DataError(
            f"{path}: holds a {type(content).__name__}, not weights by name; expected torch.save(model.state_dict(), …) or "
            "safetensors"
        )
    return _state_dict(content, Path(path), say)


def load_tensors(path: str | os.PathLike[str]) -> Any:
    """What a safetensors or ``torch.save`` file holds: tensors, on the CPU, in plain containers. Raises :class:`DataError`."""
    path = Path(path)
    with open_regular(path) as stream:
        start = stream.read(9)
        stream.seek(0)
        header_first = start[8:9] == b"{"  # of safetensors; the eight bytes before it are a length, which can look like a pickle
        if start.startswith((b"PK\x03\x04", b"\x80")) and not header_first:
            return _unpickled(stream, path)
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


def _unpickled(stream: BufferedReader, path: Path) -> Any:
    _check_sizes(stream, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickle protocols and TorchScript; both end in an error below
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise a dozen kinds on damaged bytes, IndexError and MemoryError included
        raise DataError(f"{path}: {_refusal(error)}") from error


def _check_sizes(stream: BufferedReader, path: Path) -> None:
    """Refuse archives that unpack to more than they weigh; ``torch.save`` never compresses."""
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
    """One line for what PyTorch says in many."""
    text = str(error)
    asked = re.search(r"GLOBAL (\S+)", text) or re.search(r"(?:unsupported|Unsupported) (?:class|global) (\S+)", text)
    if asked:
        wanted = asked.group(1).strip("'\"`,")
        whole = " (the whole model was pickled, not its state_dict())" if ".nn.modules." in wanted else ""
        return f"refused: this pickle asks for {wanted}{whole}, and a pickle can run any code when it is opened; {_CONVERT}"
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
    """The state dict that a checkpoint is or holds."""
    candidates = [key for key, value in content.items() if isinstance(key, str) and _tensors(value)]
    named = [key for key in NESTED if key in candidates]
    if named or len(candidates) == 1:
        key = (named or candidates)[0]
        left = [str(other) for other in content if other != key]
        say(f"{path}: took {key!r}" + (f"; left {listed(left)}" if left else ""))
        return _tensors(content[key])
    if len(candidates) > 1:
        raise DataError(
            f"{path}: holds several sets of weights ({listed(candidates)}) and none under a usual name; save the one to measure, "
            "for example as safetensors"
        )
    found = _tensors(content)
    if not found:
        raise DataError(f"{path}: holds no weights (found {listed(content) or 'nothing'}); expected a state dict")
    if left := [str(key) for key in content if key not in found]:
        say(f"{path}: left {listed(left)}, which {'is no tensor' if len(left) == 1 else 'are no tensors'}")
    return found


def _tensors(value: Any) -> dict[str, Tensor]:
    """The named tensors directly in ``value``; empty where there are none."""
    if not isinstance(value, Mapping):
        return {}
    return {name: tensor for name, tensor in value.items() if isinstance(name, str) and isinstance(tensor, Tensor)}


def load_into(model: nn.Module, state: Mapping[str, Tensor], where: str = "the weights", *, say: Say = _silent) -> None:
    """Copy ``state`` into ``model``, in its own dtypes; nothing is changed unless all of it fits (see :func:`fitting`)."""
    if any(tensor.is_meta for tensor in model.state_dict().values()):
        raise InputError("the model is on the meta device and holds no weights; build it on the CPU, or call to_empty first")
    model.load_state_dict(fitting(model, state, where, say=say))


def fitting(
    model: nn.Module, state: Mapping[str, Tensor], where: str = "the weights", *, say: Say = _silent
) -> dict[str, Tensor]:
    """``state`` under the names that ``model`` has.

    Names are taken as they are. Where they do not fit, prefixes that wrappers add are dropped if that makes all of them fit:
    ``_orig_mod`` anywhere (``torch.compile``), then a part that all names begin with (``module.`` of data parallel,
    ``model.`` of Lightning). A name that is missing because its tensor is tied to one that is there is filled from that one.

    Args:
        model: left as it is.
        state: tensors by name.
        where: what to call the weights in an error, such as their file.
        say: called with a sentence when prefixes were dropped.

    Raises:
        DataError: a missing or unexpected name (with close ones), or a wrong shape.
    """
    expected = model.state_dict()
    candidates = [(_with_tied(names, expected), dropped) for names, dropped in _renamed(state)]
    found, dropped = max(candidates, key=lambda candidate: len(candidate[0].keys() & expected.keys()))  # the first of the best
    _check_names(expected, found, f"{where} (after dropping {dropped})" if dropped else where)
    for name, tensor in expected.items():
        if not nn.parameter.is_lazy(tensor) and found[name].shape != tensor.shape:
            raise DataError(
                f"{where} do not fit the model: {name} has shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}; "
                "check the widths, the number of classes and the image size"
            )
    if dropped:
        say(f"{where}: dropped {dropped} from the names of the weights, which then fit the model")
    return found


def _renamed(state: Mapping[str, Tensor]) -> list[tuple[dict[str, Tensor], str]]:
    """The names as they are, then with ever more of the wrappers' parts dropped, and what was dropped."""
    names = {name: name for name in state}
    found = [(dict(state), "")]
    said: list[str] = []
    if any("_orig_mod" in name.split(".") for name in state):
        names = {name: ".".join(part for part in name.split(".") if part != "_orig_mod") for name in state}
        said.append("_orig_mod.")
        found.append(({new: state[old] for old, new in names.items()}, "_orig_mod."))
    while names and len(heads := {name.partition(".")[0] for name in names.values()}) == 1:
        if not all("." in name for name in names.values()):
            break
        names = {old: new.partition(".")[2] for old, new in names.items()}
        said.append(f"{heads.pop()}.")
        found.append(({new: state[old] for old, new in names.items()}, " and ".join(said)))
    return found


def _with_tied(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with names added whose tensors share their memory, in the model, with one that is there."""
    absent = [name for name in expected if name not in state and not nn.parameter.is_lazy(expected[name])]
    present = {_memory(expected[name]): name for name in expected if name in state and not nn.parameter.is_lazy(expected[name])}
    tied = {name: present[_memory(expected[name])] for name in absent if _memory(expected[name]) in present}
    return state | {name: state[other] for name, other in tied.items()}


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    empty = None if tensor.numel() else id(tensor)  # empty tensors all live at address 0
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), empty


def _check_names(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    missing, extra = [n for n in expected if n not in state], [n for n in state if n not in expected]
    if not missing and not extra:
        return
    parts = []
    if missing:
        parts.append(f"lack {listed(missing)}")
    if extra:
        parts.append(f"hold in addition {listed(extra)}")
    hint = close_names(missing[0], extra) if missing else close_names(extra[0], list(expected))
    raise DataError(f"{where} do not fit the model: they {' and '.join(parts)}{hint}; expected {listed(list(expected), 12)}")
