"""A folder with every measurement of a training run; killing the run loses at most the measurement in flight.

tracker.json            settings of the measurements, fingerprint of the probe inputs, versions
initial.safetensors     weights of the baseline network of all ratios
parts/0001-000000000400-<checksum>.parquet   session 1, step 400: rows; the part's other fields are in the schema's metadata
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from kagscope.base.errors import DataError, InputError
from kagscope.base.files import atomic_path, atomic_write, holds_mark, open_regular, writing_in
from kagscope.base.messages import one_line
from kagscope.base.provenance import versions
from kagscope.tracking.parts import NEEDED, Part

SETTINGS_FILE = "tracker.json"
INITIAL_FILE = "initial.safetensors"
PARTS = "parts"
HISTORY_VERSION = 1
METADATA = b"kagscope"


@dataclass(frozen=True)
class History:
    """An open history folder."""

    folder: Path

    @classmethod
    def check(cls, folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> History | None:
        """Return the history in ``folder``, or None if one can be begun there; nothing is written.

        Args:
            folder: the history folder.
            settings: JSON values by name that must be the same to continue.

        Raises:
            OutputError: the folder is a file, unreadable, or holds something else.
            InputError: a history with other settings; the message names the first that differs.
            DataError: the settings file is damaged or newer.
        """
        if holds_mark(folder, SETTINGS_FILE, otherwise="holds no history of a tracker", instead="give another history folder"):
            path = Path(folder)
            _check_same(path, dict(settings), read_settings(path)["settings"])
            return cls(path)
        return None

    @classmethod
    def open(cls, folder: str | os.PathLike[str], settings: Mapping[str, Any], facts: Mapping[str, Any]) -> History:
        """Open the history in ``folder`` or begin it; ``facts`` are stored for readers. Raises as :meth:`check` does."""
        history = cls.check(folder, settings) or cls(Path(folder))
        with writing_in(history.folder, "give another history folder"):
            history.folder.mkdir(parents=True, exist_ok=True)
            # Written before parts/ is made: a folder with parts/ alone would be refused as not ours.
            if not (history.folder / SETTINGS_FILE).exists():
                record = {"kagscope_history": HISTORY_VERSION, "settings": settings, **facts, "versions": versions()}
                atomic_write(history.folder / SETTINGS_FILE, json.dumps(record, indent=1) + "\n")
            (history.folder / PARTS).mkdir(exist_ok=True)
        return history

    @classmethod
    def existing(cls, folder: str | os.PathLike[str]) -> History:
        """Open an existing history. Raises :class:`DataError` if the folder holds none."""
        path = Path(folder)
        if not path.is_dir():
            raise DataError(f"{path} is not a folder; give the history folder of a tracker")
        read_settings(path)
        return cls(path)

    def settings(self) -> dict[str, Any]:
        """Settings of the measurements, as plain values. Raises :class:`DataError`."""
        return dict(read_settings(self.folder)["settings"])

    def has_measurements(self) -> bool:
        """Whether there is any measurement, intact or damaged."""
        return any(not file.name.startswith(".") for file in (self.folder / PARTS).glob("*.parquet"))

    def write(self, part: Part) -> None:
        """Add a measurement atomically. Raises :class:`OutputError`."""
        facts = {field.name: getattr(part, field.name) for field in dataclasses.fields(part) if field.name != "table"}
        facts["layers"] = list(part.layers)
        facts["epoch"] = None if math.isnan(part.epoch) else part.epoch
        table = pa.Table.from_pandas(part.table, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA: json.dumps(facts).encode()})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        content = buffer.getvalue()
        atomic_write(self.folder / PARTS / f"{part.session:04d}-{part.step:012d}-{_checksum(content)}.parquet", content)

    def read(self) -> tuple[list[Part], list[str]]:
        """Return all readable measurements and a message for each damaged file."""
        parts, damaged = [], []
        for file in sorted((self.folder / PARTS).glob("*.parquet")):
            if file.name.startswith("."):  # left by a writer that was killed
                continue
            try:
                parts.append(_read_part(file))
            except (OSError, ValueError, KeyError, TypeError, DataError, pa.ArrowException) as error:
                damaged.append(f"{PARTS}/{file.name} is damaged ({one_line(error, 120)})")
        return parts, damaged

    def save_initial(self, state: Mapping[str, torch.Tensor], step: int) -> None:
        """Save the weights of the baseline network. Raises :class:`OutputError`."""
        from safetensors.torch import save_file

        copies = {name: t.detach().cpu().contiguous().clone() for name, t in state.items()}  # tied weights share memory
        with atomic_path(self.folder / INITIAL_FILE) as temporary:
            save_file(copies, temporary, metadata={"step": str(step)})

    def initial(self) -> tuple[dict[str, torch.Tensor], int] | None:
        """Weights of the baseline network and their step; None if not saved yet. Raises :class:`DataError`."""
        from safetensors import SafetensorError, safe_open

        file = self.folder / INITIAL_FILE
        if not file.exists():
            return None
        open_regular(file).close()
        try:
            with safe_open(file, "pt") as stored:
                return {name: stored.get_tensor(name) for name in stored.keys()}, int(stored.metadata()["step"])  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise DataError(f"{file} is damaged ({error}); without it ratios have no baseline: begin a new history") from error


def read_settings(folder: Path) -> dict[str, Any]:
    """Read ``tracker.json``. Raises :class:`DataError` if it is missing, damaged or from a newer version."""
    file = folder / SETTINGS_FILE
    if not file.exists():
        raise DataError(f"{folder} holds no history of a tracker ({SETTINGS_FILE} is missing)")
    try:
        with open_regular(file) as stream:
            record = json.loads(stream.read())
        version, _ = int(record["kagscope_history"]), record["settings"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} cannot be read ({error}); it is damaged or not of a tracker") from error
    if version > HISTORY_VERSION:
        raise DataError(
            f"{folder} was written by a newer kagscope (version {version}, this one reads {HISTORY_VERSION}); upgrade"
        )
    return record


def describe(value: Any) -> Any:
    """A setting as JSON: numbers and text unchanged, arrays and tensors as digests, anything else as text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return digest(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [describe(item) for item in value]
    return str(value)


def digest(value: Any) -> str:
    """SHA-256 of the values, shapes and dtypes of a tensor, an array, or nested mappings and sequences of them."""
    sha = hashlib.sha256()
    _update_hash(sha, value)
    return f"sha256:{sha.hexdigest()}"


def _update_hash(sha: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        plain = (value if value.layout == torch.strided else value.to_dense()).detach().cpu().contiguous()
        sha.update(f"tensor {plain.dtype} {tuple(plain.shape)}".encode())
        sha.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    elif isinstance(value, np.ndarray):
        _update_hash(sha, torch.from_numpy(np.ascontiguousarray(value)))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            sha.update(f"key {key}".encode())
            _update_hash(sha, item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        sha.update(f"sequence {len(value)}".encode())
        for item in value:
            _update_hash(sha, item)
    else:
        sha.update(repr(value).encode())


def _check_same(folder: Path, settings: dict[str, Any], stored: dict[str, Any]) -> None:
    ours, stored = json.loads(json.dumps(settings)), json.loads(json.dumps(stored))
    for record in (ours, stored):  # the memory budget does not affect the numbers
        record.get("budget", {}).pop("memory_budget", None)
    for name in [*ours, *(name for name in stored if name not in ours)]:
        if ours.get(name) != stored.get(name):
            raise InputError(
                f"the history in {folder} was begun with {name}={stored.get(name)!r}, now it is {ours.get(name)!r}; "
                "give the same, or a new folder"
            )


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _read_part(file: Path) -> Part:
    with open_regular(file) as stream:
        content = stream.read()
    if _checksum(content) != file.stem.rpartition("-")[2]:
        raise DataError("its content differs from the checksum in its name")
    table = pq.read_table(io.BytesIO(content))
    facts = json.loads(table.schema.metadata[METADATA])
    frame = table.to_pandas()
    missing = [name for name in NEEDED if name not in frame.columns]
    if missing:
        raise DataError(f"columns {', '.join(missing)} are missing")
    epoch = math.nan if facts["epoch"] is None else float(facts["epoch"])
    return Part(
        step=int(facts["step"]),
        epoch=epoch,
        table=pd.DataFrame(frame),
        session=int(facts["session"]),
        since=int(facts["since"]),
        thinned=tuple(int(step) for step in facts["thinned"]),
        layers=tuple(facts["layers"]),
    )
