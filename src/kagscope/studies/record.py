"""``study.json``, the record of a study, and the names of the files in the folders of its runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kagscope.base.errors import DataError

STUDY_FILE, MANIFEST = "study.json", "manifest.json"
CONFIG, WEIGHTS = "config.json", "weights.safetensors"
STORE_VERSION = 2
T = TypeVar("T")


def table_file(spec_id: str) -> str:
    """File of a run's rows for a spec."""
    return f"tables/{spec_id}.parquet"


def curves_file(spec_id: str) -> str:
    """File of a run's distributions for a spec."""
    return f"curves/{spec_id}.parquet"


def robustness_file(settings_id: str) -> str:
    """File of a run's accuracies under attack."""
    return f"robustness/{settings_id}.json"


class MeasuredFiles(NamedTuple):
    """Files of a run with the measurements of a study."""

    tables: tuple[str, ...]
    curves: tuple[str, ...]
    robustness: str | None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> MeasuredFiles:
        """Make from the entry "measured" of ``study.json``."""
        ids = record["tables"]
        attacks = record.get("robustness")
        return cls(
            tuple(table_file(spec_id) for spec_id in ids.values()),
            (curves_file(ids["main"]),),
            None if attacks is None else robustness_file(attacks),
        )

    @property
    def files(self) -> tuple[str, ...]:
        """All files."""
        return (*self.tables, *self.curves, *([self.robustness] if self.robustness else []))


def read_study(folder: Path) -> dict[str, Any]:
    """Read ``study.json``. Raises :class:`DataError` if it is missing, damaged or from a newer version."""
    file = folder / STUDY_FILE
    try:
        study = json.loads(file.read_text())
        version, _ = int(study["kagscope_store"]), study["fingerprint"]
    except FileNotFoundError:
        raise DataError(f"{folder} holds no kagscope study ({STUDY_FILE} is missing)") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({error}); it is damaged or not a kagscope study") from error
    if version > STORE_VERSION:
        raise DataError(
            f"{folder} was written by a newer kagscope (store version {version}, this one reads {STORE_VERSION}); upgrade"
        )
    if version < STORE_VERSION:
        raise DataError(
            f"{folder} was written by kagscope {_writer_version(folder)} (store version {version}, this one reads "
            f"{STORE_VERSION}); run the study again in a new folder, or read it with that version"
        )
    return study


def measured_files(study: Mapping[str, Any]) -> dict[str, MeasuredFiles]:
    """Files with the measurements of each run, in the study's order, from the content of ``study.json``."""
    return _by_run(study, MeasuredFiles.of)


def main_specs(study: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Main spec of each run as plain values, from the content of ``study.json``."""
    return _by_run(study, lambda record: record["specs"]["main"])


def _by_run(study: Mapping[str, Any], read: Callable[[Any], T]) -> dict[str, T]:
    try:
        kinds = [read(record) for record in study["measured"]]
        return {run: kinds[index] for run, index in study["runs"].items()}
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise DataError(
            f"{STUDY_FILE} is damaged: its runs, or what is measured of them, cannot be made out ({error})"
        ) from error


def _writer_version(folder: Path) -> str:
    """Version of kagscope that wrote the first run of an old store."""
    for file in sorted((folder / "runs").glob(f"*/{MANIFEST}")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(file.read_text())["versions"]["kagscope"])
    return "0.1.0 or earlier"
