"""How long do thousands of points of a first hidden layer take? J_b = diag(d_b) W for every test image b (MATH.md section 4.7).

    python benchmarks/first_layer.py [--data FOLDER] [--width 64] [--points 10000] [--rounds 5]

One net, k = 2, all column pairs, S1, S2, S4 and top: the one-time pass over W, then all points; beside it the same points as
dense Jacobians (timed on few, scaled up) and as one 500-minor sample each, the published practice. Medians of several rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

import kagscope as kag
from kagscope.data import load
from kagscope.jacobians import FactoredJacobian
from kagscope.training import TrainingSettings, train
from kagscope.training.models import mlp

WANTED = ("s1", "s2", "s4", "top")
DENSE_POINTS = 8
SAMPLED_MINORS = 500


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Median time of ``work``."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def sampled(matrix: np.ndarray, rng: np.random.Generator) -> float:
    """Participation ratio from random minors, one determinant at a time."""
    values = np.empty(SAMPLED_MINORS)
    for draw in range(SAMPLED_MINORS):
        rows, columns = (rng.choice(size, 2, replace=False) for size in matrix.shape)
        values[draw] = abs(np.linalg.det(matrix[np.ix_(rows, columns)]))
    return float(np.sqrt((values**2).sum()) / values.sum())


def first_layer(net: nn.Sequential, inputs: torch.Tensor) -> FactoredJacobian:
    """Jacobians of the first hidden layer at all inputs."""
    block = net[0]
    assert isinstance(block, nn.Sequential)
    linear, activation = block.double()
    assert isinstance(linear, nn.Linear)
    z = linear(inputs.double()).detach().requires_grad_()
    (slopes,) = torch.autograd.grad(activation(z).sum(), z)
    return FactoredJacobian(slopes.numpy(), linear.weight.detach().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a data set to train on for an epoch; default: random inputs")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    kag.warm_up()
    hidden = (options.width, options.width)
    if options.data:
        data = load(options.data)
        net = mlp(data.n_inputs, hidden, data.n_classes, seed=0)
        net.load_state_dict(train(data, TrainingSettings(hidden=hidden, epochs=1), [0])[0].final)
        inputs = torch.from_numpy(data.test_images[: options.points].reshape(-1, data.n_inputs))
    else:
        net = mlp(784, hidden, 10, seed=0)
        inputs = torch.rand(options.points, 784, generator=torch.Generator().manual_seed(0))
    jacobian = first_layer(net, inputs)
    tables: list[kag.FactoredMoments] = []

    def one_time_pass() -> None:
        tables[:] = [kag.FactoredMoments(jacobian.W, 2, moments=WANTED)]

    print(f"{len(jacobian)} points, J of {jacobian.shape[0]} x {jacobian.shape[1]}, k = 2, {', '.join(WANTED)} over all pairs")
    print(f"one-time pass over W  {seconds(one_time_pass, options.rounds):8.3f} s")
    every = seconds(lambda: tables[0].at(jacobian.d), options.rounds)
    print(f"all points after it   {every:8.3f} s")
    few = jacobian.dense(slice(0, DENSE_POINTS))
    dense = seconds(lambda: kag.minor_moments(few, 2, moments=WANTED), options.rounds) * len(jacobian) / DENSE_POINTS
    print(f"dense, one by one     {dense:8.1f} s  ({dense / every:.0f} times as long; from {DENSE_POINTS} points)")
    rng = np.random.default_rng(0)
    loop = seconds(lambda: sampled(few[0], rng), options.rounds) * len(jacobian)
    print(f"{SAMPLED_MINORS} minors a point    {loop:8.1f} s  ({loop / every:.0f} times as long, without top; from one point)")


if __name__ == "__main__":
    main()
