"""Every number equals that of the version before the modules moved, or stands in ``intended.toml`` with the reason."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from compare import Change, Intended, Rename, differences, unintended
from make_golden import CASES, KEYS, TABLES, computed, made

SLOW = {"study", "sampled"}
TRAINED_IN_SINGLE = {"study"}  # float32 training amplifies how a processor rounds


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] if case in SLOW else []) for case in CASES])
def test_numbers_are_those_of_the_golden_tables(case: str) -> None:
    before = json.loads((TABLES / "made.json").read_text())
    before.pop("commits")
    if case in TRAINED_IN_SINGLE and before != made():
        pytest.skip(f"trained with {before}; here {made()} rounds differently")
    paths = sorted(TABLES.glob(f"{case}.*.parquet"))
    assert paths, f"no golden table of {case}"
    now = {name.replace(" ", "_"): table for name, table in computed(case).items()}
    intended = Intended.read()
    left = []
    for path in paths:
        table = path.name.split(".")[1]
        assert table in now, f"{case} has no {table} any more"
        left.append(unintended(pd.read_parquet(path), now[table], KEYS, case, table, intended))
    found = pd.concat(left, ignore_index=True)
    assert found.empty, _told(found)


def _told(found: pd.DataFrame) -> str:
    by = [name for name in ("table", "what", "column", "score", "layer", "k") if name in found.columns]
    counts = found.groupby(by, dropna=False).size().reset_index(name="numbers")
    with pd.option_context("display.width", 200, "display.max_columns", 30, "display.precision", 17):
        return f"{len(found)} numbers differ\n{counts.head(60).to_string()}\nsuch as\n{found.head(12).to_string()}"


# -- the comparison itself -------------------------------------------------------------------------------------------------------

GOLDEN = pd.DataFrame({"layer": ["1", "1", "3"], "score": ["pr", "ipr", "pr"], "value": [1.0, np.nan, 3.0], "points": [4.0] * 3})


def test_order_new_rows_and_new_columns_do_not_matter() -> None:
    now = pd.concat([GOLDEN, GOLDEN[:2].assign(layer="5")]).iloc[::-1].assign(more=1.0)
    now = now[["value", "more", "points", "score", "layer"]]
    assert differences(GOLDEN, now, KEYS).empty


def test_differences_are_found() -> None:
    now = GOLDEN.assign(value=[1.0 + 1e-11, 2.0, 3.0])
    found = differences(GOLDEN, now.drop(columns="points").iloc[:2], KEYS)
    assert list(found["what"]) == ["another number"] * 2 + ["no such row"] + ["no such column"] * 2 + ["no such row"]
    assert differences(GOLDEN, GOLDEN.assign(value=[1.0 + 1e-13, np.nan, 3.0]), KEYS).empty


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (Change("all may differ", where={"score": "p*"}), 0),
        (Change("rounds", where={"layer": "1"}, relative=1e-6), 0),
        (Change("rounds less", relative=1e-8), 1),
        (Change("of another layer", where={"layer": "3"}), 1),
        (Change("of another case", case="other"), 1),
        (Change("of tokens", where={"token": "*"}), 1),
    ],
    ids=lambda value: value.reason if isinstance(value, Change) else "",
)
def test_intended_changes_cover_what_they_name(change: Change, left: int) -> None:
    now = GOLDEN.assign(value=[1.0 + 1e-7, np.nan, 3.0])
    assert len(unintended(GOLDEN, now, KEYS, "case", "table", Intended([change]))) == left


def test_renames_of_layers_and_columns() -> None:
    now = GOLDEN.assign(layer=["hidden1", "hidden1", "hidden2"]).rename(columns={"points": "n"})
    renames = [Rename("names", "points", "n"), Rename("names", "1", "hidden1", "layer"), Rename("names", "3", "hidden2", "layer")]
    assert unintended(GOLDEN, now, KEYS, "case", "table", Intended((), renames)).empty
    assert not unintended(GOLDEN, now, KEYS, "case", "table", Intended((), renames[:2])).empty
