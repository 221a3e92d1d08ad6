"""Numbers of NumPy are as good as Python's wherever a user gives numbers; what is no number is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import kagscope as kag
import layer_models as zoo
from kagscope.base.errors import InputError
from kagscope.data import load
from kagscope.tracking.overhead import check_max_overhead
from kagscope.tracking.schedule import parse_schedule
from kagscope.training import TrainingSettings, train

BOTH: dict[str, tuple[Any, Any]] = {
    "k": (np.int64(2), 2),
    "tokens": (np.int64(2), 2),
    "image_shape": (np.array([2, 3]), (2, 3)),
    "points": (np.int32(4), 4),
    "wrt": (np.int64(1), 1),
    "seed": (np.uint8(3), 3),
    "rel_error": (np.float32(0.5), 0.5),
    "exact": (np.True_, True),
    "max_rows": (np.int64(3), 3),
    "layer_map": (np.str_("block"), "block"),
}


@pytest.mark.parametrize("name", BOTH)
def test_fields_of_a_spec(name: str) -> None:
    one, other = (kag.MeasureSpec(**{name: value}) for value in BOTH[name])
    assert one == other
    assert one.id == other.id
    assert kag.MeasureSpec(k=np.array([2, 1])).k == kag.MeasureSpec(k=[np.int64(2), np.int64(1)]).k == (1, 2)


def test_a_number_of_tokens_and_of_networks() -> None:
    model, x = zoo.seeded(zoo.encoder), zoo.numbers(2, 3, 4)
    tables = [
        kag.measure(model, x, layers="layers.0.linear1", k=1, tokens=count, baseline="reinit", baseline_seeds=count).table
        for count in (np.int64(1), 1)
    ]
    assert tables[0].equals(tables[1])


def test_steps_schedules_and_shares() -> None:
    model, x = zoo.seeded(zoo.mlp), zoo.numbers(3, 5)
    series = kag.measure_series(model, {np.int64(3): model, np.int64(0): model.state_dict()}, x, k=1)
    assert list(series.table["step"].unique()) == [0, 3]
    for one, other in (("epochs", np.float32(0.5)), ("epochs", 0.5)), (np.int64(10), 10):
        assert parse_schedule(one) == parse_schedule(other)
    assert check_max_overhead(np.float32(0.5)) == 0.5  # type: ignore[arg-type]


def test_settings_and_seeds_of_training() -> None:
    given: dict[str, Any] = {"hidden": [np.int64(4)], "epochs": np.int64(1), "weight_decay": np.float32(0)}
    settings = TrainingSettings(**given)
    assert settings.hidden == (4,)
    seeds: list[Any] = [np.int64(3), 3]
    one, other = (train(load("digits"), settings, [seed])[0] for seed in seeds)
    assert (one.seed, one.accuracy) == (3, other.accuracy)


@pytest.mark.parametrize("epoch", ["1", -1, float("inf"), True])
def test_an_epoch_is_a_number(epoch: Any) -> None:
    tracker = kag.Tracker(zoo.seeded(zoo.mlp), zoo.numbers(3, 5), every=("epochs", 1), k=1)
    with pytest.raises(InputError, match="epoch"):
        tracker.step(1, epoch=epoch)


REFUSED: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "log_scores": lambda model, x: kag.Tracker(model, x, log=print, log_scores="pr"),
    "'nope'": lambda model, x: kag.Tracker(model, x, log=print, log_scores=["nope"]),
    "no path": lambda model, x: kag.Tracker(model, x, history=3),
    "seed": lambda model, x: kag.GeometryPenalty(model, ["1"], seed=2**70),
    "k is 2.0": lambda model, x: kag.GeometryPenalty(model, ["1"], k=2.0),
    "labels": lambda model, x: kag.prune(model, x, labels=["a", "b", "c"]),
    "labels are list": lambda model, x: kag.prune(model, x, labels=[None] * 3),
    "max_overhead": lambda model, x: kag.Tracker(model, x, max_overhead=10**400),
    "learning_rate": lambda model, x: TrainingSettings((4,), learning_rate=10**400),
    "activation is array": lambda model, x: TrainingSettings((4,), activation=np.array(["gelu", "relu"])),  # type: ignore[arg-type]
    r"labels have shape \(\)": lambda model, x: kag.Tracker(model, x, labels={0: 1}.keys()),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_no_number_is_refused(said: str) -> None:
    with pytest.raises(InputError, match=said):
        REFUSED[said](zoo.seeded(zoo.mlp), zoo.numbers(3, 5))


def test_labels_of_any_whole_numbers() -> None:
    model, x = zoo.seeded(zoo.mlp), zoo.numbers(3, 5)
    accuracies = [kag.prune(model, x, labels=np.arange(3, dtype=kind))[1].accuracy_before for kind in ("u2", "i8")]
    assert accuracies[0] == accuracies[1]


def test_arrays_that_may_not_be_written_are_read(recwarn: pytest.WarningsRecorder) -> None:
    x = zoo.numbers(3, 5).numpy()
    x.flags.writeable = False
    assert len(kag.measure(zoo.seeded(zoo.mlp), x, k=1).table)
    assert not recwarn.list


def test_a_score_of_ones_own_may_write_into_its_matrices() -> None:
    def spoils(J: np.ndarray) -> Any:
        J *= 0
        return J.sum((1, 2))

    scores = {"spoils": spoils, "size": lambda J: np.abs(J).sum((1, 2))}
    table = kag.measure(zoo.seeded(zoo.mlp), zoo.numbers(3, 5), k=1, jacobian_scores=scores).table
    assert (table.loc[table["score"] == "size", "value"] > 0).all()


def test_as_many_rows_as_there_are_or_more_are_all() -> None:
    model, x = zoo.seeded(zoo.mlp), zoo.numbers(3, 5)
    terms = [float(kag.GeometryPenalty(model, ["1"], rows=rows)(x).detach()) for rows in (10**12, None)]
    assert terms[0] == terms[1]
