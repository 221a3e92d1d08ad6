"""What a store holds of networks that were measured for other numbers: a study that asks for more trains nothing again.

A run is named by what it is, the scores it was measured for among it; asking for another score therefore makes new runs. Their
networks are the old ones: weights come from the old run, and of its numbers those that are asked for again are kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd
from torch import Tensor

from kagscope.base.errors import DataError
from kagscope.loading.weights import load_state
from kagscope.studies.config import RunConfig
from kagscope.studies.store import RunStore
from kagscope.tables.schema import BOOKKEEPING
from kagscope.training import TrainedNetwork, TrainingSettings
from kagscope.wanted import SCORE_NAMES

CURVE = ["step", "layer", "k", "selection", "curve", "x"]


@dataclass(frozen=True)
class Earlier:
    """A finished run of the same network.

    Attributes:
        run: how it was measured.
        net: the network.
        table, curves: its rows.
        robustness: its accuracies under attack, by name.
    """

    run: RunConfig
    net: TrainedNetwork
    table: pd.DataFrame
    curves: pd.DataFrame
    robustness: dict[str, float]


def earlier_runs(store: RunStore) -> dict[str, str]:
    """Runs that the store holds and its study no longer names, by what decides their weights: training fingerprint to run id.

    Of several of one network the last that was made.
    """
    return _by_training(store, frozenset(store.folders() - set(store.study["runs"])))


@lru_cache(maxsize=1)
def _by_training(store: RunStore, names: frozenset[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: store.run_folder(name).stat().st_mtime_ns):
        try:
            config = RunConfig(**json.loads((store.run_folder(name) / "config.json").read_text()))
        except (OSError, ValueError):  # damaged: no use to anybody
            continue
        found[config.training_fingerprint()] = name
    return found


def earlier(store: RunStore, name: str, settings: TrainingSettings, n_images: int) -> Earlier | None:
    """Run ``name`` as far as it serves ``settings``; None where it is damaged or holds not all steps.

    Args:
        store: of the run.
        name: its id.
        settings: of the network wanted, the same training.
        n_images: training images.
    """
    folder = store.run_folder(name)
    if store.damage(name) is not None:
        return None
    manifest = store.manifest(name)
    table, curves = (pd.read_parquet(folder / part) for part in ("table.parquet", "curves.parquet"))
    accuracy = {int(step): float(value) for step, value in table.groupby("step")["accuracy"].first().items()}  # type: ignore[call-overload]
    states = _states(folder)
    wanted = settings.checkpoint_steps(n_images)
    if not set(wanted) <= set(states) & set(accuracy):
        return None
    run = RunConfig(**json.loads((folder / "config.json").read_text()))
    net = TrainedNetwork(
        run.seed,
        settings,
        {step: states[step] for step in wanted},
        {step: accuracy[step] for step in wanted},
        {},
        manifest["train_accuracy"],
        settings.steps_per_epoch(n_images),
    )
    return Earlier(run, net, table, curves, manifest.get("robustness", {}))


def still_to_measure(run: RunConfig, known: Earlier) -> RunConfig | None:
    """``run`` asking only for scores that ``known`` lacks, None where it lacks none; ``run`` where all is to be measured."""
    same = {"scores": None}
    if run.geometry.model_copy(update=same) != known.run.geometry.model_copy(update=same):
        return run
    if (run.checkpoints, run.schedule) != (known.run.checkpoints, known.run.schedule):
        return run
    had = known.run.geometry.scores or SCORE_NAMES
    new = tuple(score for score in run.geometry.scores or SCORE_NAMES if score not in had)
    return run.model_copy(update={"geometry": run.geometry.model_copy(update={"scores": new})}) if new else None


def together(run: RunConfig, known: Earlier, new: tuple[pd.DataFrame, pd.DataFrame] | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows and curves of ``run``: those of ``known`` that it asks for, and ``new`` ones, step by step."""
    table, curves = known.table, known.curves
    if run.geometry.scores is not None:
        table = table[table["score"].isin([*run.geometry.scores, *BOOKKEEPING])]
    if new is not None:
        fresh = new[0][~new[0]["score"].isin(BOOKKEEPING & set(table["score"].unique()))]
        table = pd.concat([_plain(table), _plain(fresh)], ignore_index=True).sort_values("step", kind="stable", ignore_index=True)
        curves = pd.concat([_plain(curves), _plain(new[1])], ignore_index=True).drop_duplicates(CURVE, ignore_index=True)
    return table.assign(run=run.run_id), curves.assign(run=run.run_id)


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Categories as text, so that rows of two tables go together."""
    return table.astype({name: object for name in table.columns if isinstance(table[name].dtype, pd.CategoricalDtype)})


def _states(folder: Path) -> dict[int, dict[str, Tensor]]:
    """Checkpoints by step, of the keys "<step>/<parameter>". Empty where the file cannot be read."""
    found: dict[int, dict[str, Tensor]] = {}
    try:
        for key, tensor in load_state(folder / "weights.safetensors").items():
            step, _, name = key.partition("/")
            found.setdefault(int(step), {})[name] = tensor
    except (DataError, ValueError):
        return {}
    return found
