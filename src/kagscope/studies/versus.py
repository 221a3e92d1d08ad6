"""Two studies side by side: which settings they share, how their networks differ there, and what else differs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from kagscope.base.errors import InputError
from kagscope.studies.contrasts import ACCURACY, WHAT, contrasts
from kagscope.studies.side import MEASURED, Side, names_of, read_side, text_of, with_data_named
from kagscope.studies.versus_findings import versus_findings
from kagscope.tables.means import final, layers_of, parse_selection, per_run
from kagscope.tables.schema import ALL_SETTINGS, BOOKKEEPING

APART = ("seed", "accuracy", "schema_version", "image_shape", "data_fingerprint")  # columns of Side.runs that set nothing apart
THE_SETTING = "the one setting"


@dataclass(frozen=True)
class Comparison:
    """Two studies side by side, from :func:`compare_studies`.

    Attributes:
        sides: the two, A and B.
        table: effects, intervals and tests, see :func:`kagscope.studies.contrasts.contrasts`; B beside A.
        settings: one row per setting of either: ``setting``, ``nets_a``, ``nets_b``, ``paired`` (whether networks of the
            same seed start from the same weights), ``seeds`` in common.
        differences: one row per value that differs: ``value``, ``a``, ``b``, ``kind`` ("network", "measurement" or "version").
        same_points: whether scores were compared at the same test images.
        findings: sentences about what stands out and what to distrust.
    """

    sides: tuple[Side, Side]
    table: pd.DataFrame
    settings: pd.DataFrame
    differences: pd.DataFrame
    same_points: bool

    @property
    def findings(self) -> list[str]:
        return versus_findings(self.sides, self.table, self.settings, self.differences, self.same_points)

    @property
    def claims(self) -> pd.DataFrame:
        """Verdicts side by side, of claims that both test: id, statement, verdict_a, effect_a, ci_low_a, …, n_b."""
        of = [{str(claim.get("id")): claim for claim in side.claims} for side in self.sides]
        names = ("verdict", "effect", "ci_low", "ci_high", "n")
        return pd.DataFrame(
            [
                {"id": claim, "statement": found.get("statement", "")}
                | {f"{name}_{end}": one[claim].get(name) for one, end in zip(of, "ab", strict=True) for name in names}
                for claim, found in of[0].items()
                if claim in of[1]
            ]
        )

    def as_json(self) -> dict[str, Any]:
        """Settings, differences, claims, and the table's rows over all settings and columns, as JSON has them (no NaN)."""
        main = self.table[(self.table["setting"] == ALL_SETTINGS) & (self.table["selection"] == "all")]
        tables = {"settings": self.settings, "differences": self.differences, "claims": self.claims, "effects": main}
        return {name: json.loads(table.to_json(orient="records", double_precision=15)) for name, table in tables.items()}

    def write(self, page: str | os.PathLike[str], numbers: str | os.PathLike[str]) -> Path:
        """Write the page (HTML) and the table (CSV), both or neither. Raises :class:`~kagscope.base.errors.OutputError`."""
        from kagscope.report.versus import write_comparison

        return write_comparison(self, Path(page), Path(numbers))


def compare_studies(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Comparison:
    """Compare two studies: their folders are read and left as they are.

    Settings (all values of a configuration that vary within either study, but the seed) are matched where both have them; what is
    constant in each but differs between them is what the comparison is about. Networks of the same seed are pairs where they
    start from the very same weights. Scores are those of trained networks; where both studies use the same data, at the test
    images that both measured.

    Args:
        a, b: folders of studies, of ``reproduce`` or of a study file; they may still be running.

    Returns:
        A :class:`Comparison` of B with A.

    Raises:
        DataError: a folder is no study, of a newer version, or holds no finished run.
        InputError: the same folder twice, or studies with no setting, or no score, in common.
    """
    paths = Path(a), Path(b)
    names = names_of(*paths)
    first, second = with_data_named([read_side(path, name) for path, name in zip(paths, names, strict=True)])
    sides = first, second
    axes = _axes(sides)
    labels = [_labels(side.runs, axes) for side in sides]
    settings = _settings(sides, labels, axes)
    shared = settings[(settings["nets_a"] > 0) & (settings["nets_b"] > 0)]
    paired = dict(zip(shared["setting"], shared["paired"], strict=True))
    trained = [_trained(side, label[label.isin(paired)]) for side, label in zip(sides, labels, strict=True)]
    same_points = set(first.runs["data"]) == set(second.runs["data"])
    if same_points:
        trained = _at_common_points(*trained)
    cells = [_cells(side, table, label) for side, table, label in zip(sides, trained, labels, strict=True)]
    table = contrasts(cells[0], cells[1], paired)
    if (table["score"] == ACCURACY).all():
        layers = [", ".join(name for name in layers_of(side.results) if name) or "none" for side in sides]
        raise InputError(
            f"{names[0]} (layers {layers[0]}) and {names[1]} (layers {layers[1]}) have no score of the same layer, order "
            "and selection in common; compare studies that measure the same"
        )
    return Comparison(sides, table, settings, _differences(sides, axes), same_points)


def _axes(sides: Sequence[Side]) -> list[str]:
    """Values that vary within a study, and therefore set its networks apart. Raises :class:`InputError` where none is shared."""
    every = list(dict.fromkeys(name for side in sides for name in side.runs.columns if name not in APART))
    axes = []
    for name in every:
        values = [_values(side, name) for side in sides]
        if max(map(len, values)) > 1:
            axes.append(name)
            if not set(values[0]) & set(values[1]):
                raise InputError(
                    f"{sides[0].name} and {sides[1].name} have no setting in common: {name} is {_some(values[0])} in the "
                    f"first and {_some(values[1])} in the second; compare studies that share at least one"
                )
    return axes


def _values(side: Side, name: str) -> list[str]:
    """The values of a column, as text, in order."""
    return list(dict.fromkeys(map(text_of, side.runs[name]))) if name in side.runs else [""]


def _some(values: Sequence[str]) -> str:
    return ", ".join(value or "none" for value in values[:5]) + (", …" if len(values) > 5 else "")


def _labels(runs: pd.DataFrame, axes: Sequence[str]) -> pd.Series:
    """The setting of each run, as text."""

    def label(row: dict[Any, Any]) -> str:
        return ", ".join(f"{name} {text}" for name in axes if (text := text_of(row.get(name))))

    return pd.Series([label(row) or THE_SETTING for row in runs.to_dict("records")], index=runs.index, dtype=object)


def _settings(sides: Sequence[Side], labels: Sequence[pd.Series], axes: Sequence[str]) -> pd.DataFrame:
    rows = []
    for setting in dict.fromkeys([*labels[0], *labels[1]]):
        seeds = [dict(zip(side.runs["seed"], side.runs.index, strict=True)) for side in _restricted(sides, labels, setting)]
        common = [seed for seed in seeds[0] if seed in seeds[1]]
        whole = bool(common) and len(common) == min(map(len, seeds))
        paired = whole and all(_same_start(sides, seeds[0][seed], seeds[1][seed]) for seed in common)
        rows.append(
            {"setting": setting, "nets_a": len(seeds[0]), "nets_b": len(seeds[1]), "seeds": len(common), "paired": paired}
        )
    found = pd.DataFrame(rows)
    if not ((found["nets_a"] > 0) & (found["nets_b"] > 0)).any():
        raise InputError(
            f"{sides[0].name} and {sides[1].name} have no setting in common: no combination of {', '.join(axes)} is in both; "
            "compare studies that share at least one"
        )
    return found


def _restricted(sides: Sequence[Side], labels: Sequence[pd.Series], setting: str) -> list[Side]:
    return [Side(**{**vars(side), "runs": side.runs[label == setting]}) for side, label in zip(sides, labels, strict=True)]


def _same_start(sides: Sequence[Side], a: str, b: str) -> bool:
    """Whether two networks have the same weights before any step."""
    try:
        first, second = (_initial(side.store.run_folder(run)) for side, run in zip(sides, (a, b), strict=True))
    except (OSError, SafetensorError):
        return False
    return bool(first) and first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def _initial(run: Path) -> dict[str, np.ndarray]:
    with safe_open(run / "weights.safetensors", "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith("0/")}  # noqa: SIM118


def _trained(side: Side, labels: pd.Series) -> pd.DataFrame:
    """Results after training of the runs in ``labels``, without windows and bookkeeping; text in place of categories."""
    last = final(side.results[side.results["run"].isin(labels.index)])
    kinds = {name: parse_selection(str(name))[0] for name in last["selection"].cat.categories}
    chosen = last[~last["score"].isin(BOOKKEEPING) & (last["selection"].map(kinds).astype(str) != "window")]
    return chosen.astype(dict.fromkeys(("run", "layer", "selection", "score"), str))


def _at_common_points(a: pd.DataFrame, b: pd.DataFrame) -> list[pd.DataFrame]:
    """Rows of the points that both measured for the same cell."""
    keys = [*WHAT, "point"]
    common = a[keys].drop_duplicates().merge(b[keys].drop_duplicates(), on=keys)
    return [table.merge(common, on=keys) for table in (a, b)]


def _cells(side: Side, table: pd.DataFrame, labels: pd.Series) -> pd.DataFrame:
    """One row per network and cell, and its test accuracy as a score of the whole net."""
    cells = per_run(table)[["run", *WHAT, "seed", "value", "ratio", "exact"]]
    runs = side.runs.loc[table["run"].unique()] if len(table) else side.runs.iloc[:0]
    accuracy = pd.DataFrame(
        {
            "run": runs.index,
            "layer": "",
            "k": 0,
            "selection": "all",
            "score": ACCURACY,
            "seed": runs["seed"].astype(int).to_numpy(),
        }
    ).assign(value=runs["accuracy"].astype(float).to_numpy(), ratio=float("nan"), exact=True)
    joined = pd.concat([cells, accuracy], ignore_index=True).astype({"k": int, "seed": int})
    return joined.assign(setting=joined["run"].map(labels))


def _differences(sides: Sequence[Side], axes: Sequence[str]) -> pd.DataFrame:
    """Values constant in each study but not the same, versions that differ, and axes whose values are not the same."""
    rows = []
    every = list(dict.fromkeys(name for side in sides for name in side.runs.columns if name not in APART))
    for name in every:
        values = [_values(side, name) for side in sides]
        if set(values[0]) != set(values[1]) and name not in axes:
            kind = "measurement" if name.startswith(MEASURED) else "network"
            rows.append({"value": name, "a": _some(values[0]), "b": _some(values[1]), "kind": kind})
    for name in dict.fromkeys(part for side in sides for part in side.versions):
        a, b = (side.versions.get(name, "unknown") for side in sides)
        if a != b:
            rows.append({"value": name, "a": a, "b": b, "kind": "version"})
    return pd.DataFrame(rows, columns=["value", "a", "b", "kind"])
