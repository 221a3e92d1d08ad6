"""A finished study in a notebook: its table, its networks, and their inputs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from kagscope.base.errors import DataError, InputError
from kagscope.base.messages import close_names
from kagscope.data import Dataset, load_local
from kagscope.measuring.spec import MeasureSpec
from kagscope.studies.config import RunConfig
from kagscope.studies.networks import inputs_of, network
from kagscope.studies.record import CONFIG
from kagscope.studies.runs import load_network
from kagscope.studies.store import RunStore
from kagscope.studies.tables import CURVES, RESULTS, find_finished_runs, no_runs_error, read_without_writing


def open_study(folder: str | os.PathLike[str]) -> Study:
    """Open the output folder of a study to work with its networks; nothing in it is written.

    Args:
        folder: output folder of ``kagscope reproduce`` or ``kagscope study run``.

    Returns:
        A :class:`Study`: ``runs``, ``table``, ``model(run)``, ``inputs``, ``labels``, ``spec``.

    Raises:
        DataError: not a study, one of another version of the store, or one without a finished run.
    """
    return Study(folder)


class Study:
    """The finished runs of a study.

    Attributes:
        folder: folder of the study.
        runs: ids of the finished runs, in the study's order.
        left_out: reasons for all other runs, by id.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        store = RunStore.existing(folder)
        finished, self.left_out = find_finished_runs(store)
        if not finished:
            raise no_runs_error(store, self.left_out)
        self.folder: Path = store.folder
        self.runs: list[str] = list(finished)
        self._store, self._finished = store, finished

    def __repr__(self) -> str:
        record = self._store.study
        missing = f", {len(self.left_out)} not finished or left out" if self.left_out else ""
        data = ", ".join(sorted({config.data for config in self._configs.values()}))
        return f"<Study {record['name']!r} in {self.folder}: {len(self.runs)} runs{missing}; data {data}>"

    @cached_property
    def table(self) -> pd.DataFrame:
        """Every number of every run: columns of :mod:`kagscope.tables.schema`."""
        return read_without_writing(self._store, self._finished, RESULTS)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Zipf curves and histograms of every run."""
        return read_without_writing(self._store, self._finished, CURVES)

    def config(self, run: str) -> RunConfig:
        """Configuration of a run. Raises :class:`InputError` for an unknown run, with close names."""
        self._check(run)
        return self._configs[run]

    def steps(self, run: str) -> list[int]:
        """Optimiser steps at which a run keeps weights, increasing."""
        return list(self.config(run).steps)

    def model(self, run: str, step: int = -1) -> nn.Module:
        """Build the network of a run, in eval mode.

        Args:
            run: id of the run.
            step: kept checkpoint: an optimiser step, or a negative index from the last one (-1).

        Raises:
            InputError: an unknown run or step.
        """
        config = self.config(run)
        net = load_network(self._store, config)
        steps = net.steps
        if step < 0 and -step <= len(steps):
            step = steps[step]
        if step not in steps:
            raise InputError(f"run {run} keeps no step {step}; expected one of {', '.join(map(str, steps))}, or -1 for the last")
        return network(config, net.checkpoints[step])

    @property
    def inputs(self) -> Tensor:
        """All test images as inputs of the networks: (N, n) float32."""
        return inputs_of(self._data)

    @property
    def labels(self) -> np.ndarray:
        """(N,) true classes of the test images."""
        return self._data.test_labels

    @property
    def spec(self) -> MeasureSpec:
        """The main spec, for the first and last step.

        Raises:
            InputError: the runs were measured with several.
        """
        return self.specs["main"]

    @cached_property
    def specs(self) -> dict[str, MeasureSpec]:
        """All specs: "main", "along" for the steps between, "output" for the map from a layer to the output.

        Raises:
            InputError: the runs were measured with several, for instance as their images or depths differ.
        """
        first = self.specs_of(self.runs[0])
        places: Mapping[str, int] = self._store.study["runs"]
        if len({places[run] for run in self.runs}) > 1:
            raise InputError("the runs of this study were measured with several specs; specs_of(run) gives those of one run")
        return first

    def specs_of(self, run: str) -> dict[str, MeasureSpec]:
        """Specs with which a run was measured, by name."""
        self._check(run)
        study = self._store.study
        record: Mapping[str, Any] = study["measured"][study["runs"][run]]
        return {name: MeasureSpec.from_json(plain) for name, plain in record["specs"].items()}

    @cached_property
    def _configs(self) -> dict[str, RunConfig]:
        return {run: RunConfig(**json.loads((self._store.run_folder(run) / CONFIG).read_text())) for run in self.runs}

    def _check(self, run: str) -> None:
        if run in self._finished:
            return
        if run in self.left_out:
            raise InputError(f"run {run} cannot be used: {self.left_out[run]}")
        raise InputError(f"there is no run {run!r} in {self.folder}{close_names(str(run), self.runs)}; .runs lists them")

    @cached_property
    def _data(self) -> Dataset:
        configs = [self.config(run) for run in self.runs]
        if len({config.data_fingerprint for config in configs}) > 1:
            raise InputError(
                "the runs of this study have several data sets; kagscope.data.load(study.config(run).data) loads one"
            )
        name, fingerprint = configs[0].data, configs[0].data_fingerprint
        dataset = load_local(name)
        if dataset is None:
            raise DataError(f"the data {name} are not on this machine; bring them back to where they were, or download them")
        if dataset.fingerprint() != fingerprint:
            raise DataError(f"the data {name} are not those that this study was run on: their content changed")
        return dataset
