"""Tables of the present version against the golden ones, number by number."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

RELATIVE = 1e-12
INTENDED = Path(__file__).with_name("intended.toml")


@dataclass(frozen=True)
class Change:
    """An intended change: what it covers, as patterns by column, and how far numbers may move (None: anywhere, or away)."""

    reason: str
    case: str = "*"
    table: str = "*"
    column: str = "*"
    where: Mapping[str, str] = field(default_factory=dict)
    relative: float | None = None
    absolute: float | None = None

    def covers(self, found: pd.DataFrame) -> np.ndarray:
        """(differences,) which of the differences it accounts for."""
        fits = np.ones(len(found), dtype=bool)
        for name, pattern in {"case": self.case, "table": self.table, "column": self.column, **self.where}.items():
            values = found[name].tolist() if name in found.columns else [None] * len(found)
            fits &= np.array([one is not None and one == one and fnmatchcase(str(one), pattern) for one in values], dtype=bool)
        if self.relative is None and self.absolute is None:
            return fits
        golden, now = found["golden"].to_numpy(float), found["now"].to_numpy(float)
        near: np.ndarray = np.abs(now - golden) <= np.abs(golden) * (self.relative or 0.0) + (self.absolute or 0.0)
        fits &= near
        return fits


@dataclass(frozen=True)
class Rename:
    """Another name for the same numbers: of a column, or of a value of the key ``of`` (a layer, a score)."""

    reason: str
    old: str
    new: str
    of: str = "column"
    case: str = "*"
    table: str = "*"


@dataclass(frozen=True)
class Intended:
    """What ``intended.toml`` holds."""

    changes: Sequence[Change] = ()
    renames: Sequence[Rename] = ()

    @classmethod
    def read(cls, path: Path = INTENDED) -> Intended:
        """The file; every entry has to say why."""
        given: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        changes, renames = given.pop("change", []), given.pop("rename", [])
        if given:
            raise ValueError(f"{path.name} has {', '.join(given)}; expected [[change]] and [[rename]]")
        return cls([Change(**entry) for entry in changes], [Rename(**entry) for entry in renames])

    def renamed(self, golden: pd.DataFrame, case: str, table: str) -> pd.DataFrame:
        """The golden table in today's names."""
        chosen = [one for one in self.renames if fnmatchcase(case, one.case) and fnmatchcase(table, one.table)]
        columns = {one.old: one.new for one in chosen if one.of == "column"}
        for name in {one.of for one in chosen} & set(golden.columns):
            names = {one.old: one.new for one in chosen if one.of == name}
            golden = golden.assign(**{name: [names.get(one, one) for one in golden[name].astype(str)]})
        return golden.rename(columns=columns)


def differences(golden: pd.DataFrame, now: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Numbers of ``golden`` that are others or missing in ``now``: the keys, ``column``, ``golden``, ``now``, ``what``.

    Rows are matched by those of ``keys`` that the golden table has; rows and columns that only ``now`` has do not matter.
    """
    keys = [name for name in keys if name in golden.columns]
    golden = golden.astype(dict.fromkeys(keys, str))
    lacking = [name for name in keys if name not in now.columns]
    if lacking:
        raise ValueError(f"the table has no column {', '.join(lacking)} any more; say so as a rename")
    now = now.astype(dict.fromkeys(keys, str))
    twice = now.duplicated(keys)
    if twice.any():
        raise ValueError(f"the table has several rows with the same {', '.join(keys)}, such as {now[twice].iloc[0].to_dict()}")
    both = golden[keys].merge(now.assign(present=True), on=keys, how="left")
    missing = both["present"].isna().to_numpy()
    parts = []
    for name in golden.columns.difference(keys, sort=False):
        old = golden[name].to_numpy(float)
        new = both[name].to_numpy(float) if name in both.columns else np.full(len(old), np.nan)
        same = np.isclose(new, old, rtol=RELATIVE, atol=0.0, equal_nan=True)
        what = np.where(missing, "no such row", "no such column" if name not in both.columns else "another number")
        wrong = missing | ~same | (name not in both.columns)
        parts.append(golden[keys].assign(column=name, golden=old, now=new, what=what)[wrong])
    return pd.concat(parts, ignore_index=True) if parts else golden.iloc[:0].assign(column="", golden=0.0, now=0.0, what="")


def unintended(
    golden: pd.DataFrame, now: pd.DataFrame, keys: Sequence[str], case: str, table: str, intended: Intended
) -> pd.DataFrame:
    """:func:`differences` that no entry of ``intended`` accounts for."""
    found = differences(intended.renamed(golden, case, table), now, keys).assign(case=case, table=table)
    for change in intended.changes:
        if found.empty:
            break
        found = found[~change.covers(found)]
    return found.reset_index(drop=True)
