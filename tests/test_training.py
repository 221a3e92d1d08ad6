"""Training: right gradients, right optimiser, same seed same bits, seeds independent of one another."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kagscope.base.errors import InputError
from kagscope.data import Dataset, load
from kagscope.loading.fitting import load_into
from kagscope.training import Augmentation, TrainedNetwork, TrainingSettings, train
from kagscope.training.models import ACTIVATIONS, mlp
from kagscope.training.optimizers import optimizer
from kagscope.training.settings import geometric_steps
from kagscope.training.stacked import StackedMLP

SMALL = TrainingSettings(hidden=(33, 17), epochs=3, batch_size=37)  # sizes that no vector unit divides


def legacy_state() -> np.ndarray:
    """State of numpy's global generator, (624,) uint32."""
    return np.array(np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002


def digest(network: TrainedNetwork) -> str:
    total = hashlib.sha256()
    for step in network.steps:
        for name, tensor in sorted(network.checkpoints[step].items()):
            total.update(f"{step} {name}".encode() + tensor.numpy().tobytes())
    total.update(repr((network.accuracy, network.loss, network.train_accuracy)).encode())
    return total.hexdigest()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(5,), (7, 6), (4, 5, 3)])
def test_gradients_are_autograds(activation: str, hidden: tuple[int, ...]) -> None:
    models = [mlp(9, hidden, 4, activation, seed=seed) for seed in range(3)]
    nets = StackedMLP([model.state_dict() for model in models], activation)
    work = nets.workspace(11)
    inputs, labels = torch.randn(3, 11, 9), torch.randint(0, 4, (3, 11))
    for s, model in enumerate(models):
        work.inputs[s].copy_(inputs[s])
        work.targets[s].copy_(torch.eye(4)[labels[s]])
        torch.nn.functional.cross_entropy(model(inputs[s]), labels[s]).backward()
    with torch.no_grad():
        nets.backward(work)
    for s, model in enumerate(models):
        linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        for layer, linear in enumerate(linears):
            torch.testing.assert_close(nets.weight_gradients[s][layer], linear.weight.grad, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(nets.bias_gradients[s][layer], linear.bias.grad, rtol=1e-4, atol=1e-6)


def test_training_is_what_the_textbook_loop_does() -> None:
    """Whole-set batches make the order immaterial, so a plain autograd loop must arrive at the same weights."""
    full = load("digits")
    data = Dataset("part", full.train_images[:200], full.train_labels[:200], full.test_images, full.test_labels)
    setting = TrainingSettings(hidden=(16, 12), epochs=20, batch_size=500, weight_decay=0.01)
    network = train(data, setting, [5])[0]
    model = mlp(64, (16, 12), 10, seed=5)
    assert all(torch.equal(tensor, network.initial[name]) for name, tensor in model.state_dict().items())
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=0.01)
    x, y = torch.from_numpy(data.train_images).flatten(1), torch.from_numpy(data.train_labels)
    for _ in range(20):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        adam.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(network.final[name], tensor, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD), ("rmsprop", torch.optim.RMSprop)],
)
def test_a_step_is_that_of_torch(name: str, kind: Any) -> None:
    momentum: dict[str, Any] = {"momentum": 0.5} if name in ("sgd", "rmsprop") else {}
    setting = TrainingSettings((3,), optimizer=name, learning_rate=0.01, weight_decay=0.1, **momentum)
    blocks = [torch.arange(6.0).view(2, 3) for _ in range(2)]
    chosen: list[torch.optim.Optimizer] = [
        optimizer(setting, blocks[0]),
        kind([blocks[1]], lr=0.01, weight_decay=0.1, **momentum),
    ]
    with torch.no_grad():
        for step in range(3):
            for block, one in zip(blocks, chosen, strict=True):
                block.grad = torch.full((2, 3), 1.0 - step)
                one.step()
    torch.testing.assert_close(*blocks, rtol=1e-6, atol=0)


@pytest.mark.parametrize("augmentation", [None, Augmentation()], ids=["standard", "augmented"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_seed_does_not_feel_the_others(activation: str, augmentation: Augmentation | None) -> None:
    data = load("digits")
    setting = TrainingSettings((33, 17), activation, epochs=2, batch_size=37, augmentation=augmentation)
    together = [digest(network) for network in train(data, setting, (0, 1, 2, 3, 4))]
    assert len(set(together)) == 5
    assert [digest(train(data, setting, [seed])[0]) for seed in range(5)] == together
    assert [digest(network) for network in train(data, setting, (4, 1))] == [together[4], together[1]]


def test_threads_do_not_matter_and_are_restored() -> None:
    before, seen = torch.get_num_threads(), set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            seen.add(digest(train(load("digits"), SMALL, [0])[0]))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 1


FRESH = """
import sys; sys.path[:0] = [{src!r}, {tests!r}]
from test_training import *
print(digest(train(load("digits"), TrainingSettings((33, 17), epochs=2, batch_size=37, augmentation=Augmentation()), [1])[0]))
assert not {{"torch._dynamo", "sympy"}} & set(sys.modules)  # which take 1.5 s to import
"""


@pytest.mark.slow
def test_fresh_processes_give_the_same_bits() -> None:
    tests = Path(__file__).resolve().parent
    code = FRESH.format(src=str(tests.parent / "src"), tests=str(tests))
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": n}, capture_output=True, text=True, check=True
        ).stdout
        for n in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().strip()) == 64


def test_shuffled_labels_are_a_shuffle_of_each_seeds_own_and_share_all_else() -> None:
    data = load("digits")
    runs = {labels: train(data, replace(SMALL, labels=labels), [0, 1]) for labels in ("true", "shuffled")}
    for true, shuffled in zip(*runs.values(), strict=True):
        assert all(torch.equal(true.initial[name], shuffled.initial[name]) for name in true.initial)
        assert true.accuracy[true.steps[-1]] > 0.5 > 0.25 > shuffled.accuracy[true.steps[-1]]
    alone = train(data, replace(SMALL, labels="shuffled"), [1])[0]
    assert digest(alone) == digest(runs["shuffled"][1])
    one = train(replace(data, train_labels=np.zeros_like(data.train_labels)), replace(SMALL, labels="shuffled"), [0])[0]
    same = train(replace(data, train_labels=np.zeros_like(data.train_labels)), SMALL, [0])[0]
    assert digest(one) == digest(same)  # equal labels stay equal, and nothing else is shuffled


@pytest.mark.parametrize("augmentation", [None, Augmentation()], ids=["standard", "augmented"])
def test_normalized_images_and_plain_ones_to_the_net_that_is_kept(augmentation: Augmentation | None) -> None:
    """Without augmentation, training on images that were normalised beforehand, from the same weights, is the same net."""
    data = load("digits")
    mean, spread = data.train_images.mean(dtype=float), data.train_images.std(dtype=float)
    images = [((part - mean) / spread).astype(np.float32) for part in (data.train_images, data.test_images)]
    before = train(replace(data, train_images=images[0], test_images=images[1]), SMALL, [3])[0]
    within = train(data, replace(SMALL, normalize=True, augmentation=augmentation), [3])[0]
    x, z = (torch.from_numpy(part).flatten(1) for part in (data.test_images, images[1]))
    model, plain = mlp(64, SMALL.hidden, 10, seed=3), mlp(64, SMALL.hidden, 10, seed=3)
    for step in within.steps if augmentation is None else [0]:
        load_into(model, within.checkpoints[step])
        load_into(plain, before.checkpoints[step])
        torch.testing.assert_close(model(x), plain(z), rtol=1e-3, atol=1e-3)
    assert within.accuracy[within.steps[-1]] > 0.7


def test_normalizing_needs_more_than_one_grey_level() -> None:
    data = load("digits")
    with pytest.raises(InputError, match="all pixels of digits are equal"):
        train(replace(data, train_images=np.ones_like(data.train_images)), replace(SMALL, normalize=True), [0])


def test_global_random_state_is_untouched() -> None:
    torch_before, numpy_before = torch.get_rng_state(), legacy_state()
    train(load("digits"), SMALL, [0])
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (legacy_state() == numpy_before).all()


def test_digits_are_learnt_and_checkpoints_belong_to_their_scores() -> None:
    data = load("digits")
    network = train(data, TrainingSettings((32, 32), epochs=40, batch_size=32), [0])[0]
    last = network.steps[-1]
    assert last == 40 * network.steps_per_epoch == 40 * 46
    assert network.accuracy[0] < 0.3
    assert network.accuracy[last] >= 0.95
    assert network.train_accuracy >= 0.98
    assert abs(network.loss[0] - math.log(10)) < 0.1
    assert network.loss[last] < 0.2
    model = mlp(64, (32, 32), 10, seed=99)
    for step in network.steps:
        load_into(model, network.checkpoints[step])
        right = model(torch.from_numpy(data.test_images).flatten(1)).argmax(1) == torch.from_numpy(data.test_labels)
        assert network.accuracy[step] == pytest.approx(right.double().mean().item(), abs=0.003)


def test_images_that_are_not_square() -> None:
    data = load("digits")
    wide = Dataset("wide", data.train_images[:, :5], data.train_labels, data.test_images[:, :5], data.test_labels)
    network = train(wide, TrainingSettings((32,), epochs=30, batch_size=32, augmentation=Augmentation()), [0])[0]
    assert network.accuracy[network.steps[-1]] > 0.7


def test_no_epochs_leave_the_initial_network() -> None:
    network = train(load("digits"), TrainingSettings((8,), epochs=0), [3])[0]
    assert network.steps == [0]
    assert network.final is network.initial
    assert torch.equal(network.initial["hidden1.0.weight"], mlp(64, (8,), 10, seed=3).state_dict()["hidden1.0.weight"])


def test_progress_reaches_the_end() -> None:
    calls: list[tuple[int, int, dict[str, Any]]] = []
    network = train(load("digits"), SMALL, [0, 1], on_progress=lambda done, total, info: calls.append((done, total, info)))[0]
    done = [call[0] for call in calls]
    assert done == sorted(set(done))
    assert set(network.steps) | {39, 78, 117} == set(done)
    assert {call[1] for call in calls} == {117}
    assert calls[-1][2]["epoch"] == 3
    assert 0 <= calls[-1][2]["accuracy"] <= 1


@settings(deadline=None)
@given(last=st.integers(0, 10**6), count=st.integers(2, 40))
def test_geometric_steps(last: int, count: int) -> None:
    steps = geometric_steps(last, count)
    assert steps[0] == 0
    assert steps[-1] == last
    assert steps == sorted(set(steps))
    assert len(steps) <= count
    if last > 0 and count > 2:
        assert steps[1] == 1


def test_geometric_steps_by_hand() -> None:
    assert geometric_steps(1000, 5) == [0, 1, 10, 100, 1000]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"hidden": ()}, "hidden"),
        ({"hidden": None}, "hidden"),
        ({"hidden": (64, 0)}, "hidden width is 0"),
        ({"activation": "RELU"}, "did you mean relu"),
        ({"epochs": -1}, "epochs is -1"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": math.inf}, "learning_rate is inf"),
        ({"learning_rate": -1e-3}, "learning_rate is -0.001"),
        ({"weight_decay": math.nan}, "weight_decay is nan"),
        ({"checkpoints": 1}, "checkpoints is 1"),
        ({"augmentation": True}, "augmentation is True"),
    ],
)
def test_bad_settings(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingSettings(**bad)


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], ["0"], range(2000)])
def test_bad_seeds(seeds: list[Any]) -> None:
    with pytest.raises(InputError, match="seed"):
        train(load("digits"), SMALL, seeds)


def test_divergence_is_an_error_that_names_the_setting() -> None:
    data = load("digits")
    huge = Dataset("huge", data.train_images * 1e37, data.train_labels, data.test_images * 1e37, data.test_labels)
    with pytest.raises(InputError, match=r"diverged.*learning_rate below 1000"):
        train(huge, TrainingSettings((8,), epochs=1, learning_rate=1000.0), [0])
