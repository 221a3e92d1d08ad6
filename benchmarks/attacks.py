"""Do kagscope's attacks fool as many points as those of well-known libraries? And what do they cost?

    python benchmarks/attacks.py [--data FOLDER] [--nets 6] [--points 500]

Prints the share of test points that PGD leaves standing and the processor time of one thread. Needs foolbox (with GitPython,
which it imports) and adversarial-robustness-toolbox besides the dependencies; one that is missing is left out and named. Every
PGD takes 20 steps of 2.5 radius / 20 from one random start. "most at work" is kagscope with five restarts of 100 steps: what
another attack leaves standing beyond it, that attack failed to fool.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

import kagscope as kag
from kagscope.base.provenance import hardware
from kagscope.data import Dataset, load
from kagscope.robustness import Norm, adversarial_accuracy
from kagscope.training import TrainingSettings, train
from kagscope.training.models import mlp

RADII: tuple[tuple[Norm, float], ...] = (("linf", 0.05), ("linf", 0.1), ("l2", 0.5), ("l2", 1.0))
STEPS = 20
HIDDEN = (64, 64)
Attack = Callable[[nn.Module, Tensor, Tensor, Norm, float], float]


def ours(**more: int) -> Attack:
    def attack(model: nn.Module, inputs: Tensor, labels: Tensor, norm: Norm, eps: float) -> float:
        return adversarial_accuracy(model, inputs, labels, eps, norm=norm, **more)  # type: ignore[arg-type]

    return attack


def foolbox(model: nn.Module, inputs: Tensor, labels: Tensor, norm: Norm, eps: float) -> float:
    attacks = importlib.import_module("foolbox.attacks")
    kind = attacks.LinfPGD if norm == "linf" else attacks.L2PGD
    seen = importlib.import_module("foolbox").PyTorchModel(model, bounds=(0, 1), device="cpu")
    torch.manual_seed(0)
    _, _, fooled = kind(rel_stepsize=2.5 / STEPS, steps=STEPS, random_start=True)(seen, inputs, labels, epsilons=eps)
    return 1 - float(fooled.double().mean())


def toolbox(model: nn.Module, inputs: Tensor, labels: Tensor, norm: Norm, eps: float) -> float:
    estimators = importlib.import_module("art.estimators.classification")
    attacks = importlib.import_module("art.attacks.evasion")
    seen = estimators.PyTorchClassifier(
        model, nn.CrossEntropyLoss(), inputs.shape[1:], int(labels.max()) + 1, clip_values=(0, 1), device_type="cpu"
    )
    order = np.inf if norm == "linf" else 2
    np.random.seed(0)  # noqa: NPY002 (it draws from NumPy's global generator)
    found = attacks.ProjectedGradientDescent(
        seen, order, eps, 2.5 * eps / STEPS, max_iter=STEPS, num_random_init=1, batch_size=len(inputs), verbose=False
    ).generate(inputs.numpy(), labels.numpy())
    with torch.no_grad():
        return float((model(torch.from_numpy(found)).argmax(1) == labels).double().mean())


def attacks_here() -> dict[str, Attack]:
    found: dict[str, Attack] = {"kagscope": ours(), "most at work": ours(steps=100, restarts=5)}
    for name, package, attack in (("foolbox", "foolbox", foolbox), ("ART", "art.attacks.evasion", toolbox)):
        try:
            importlib.import_module(package)
        except ImportError as error:
            print(f"{name} is left out: {error}")
        else:
            found[name] = attack
    return found


def nets(data: Dataset, count: int) -> list[nn.Sequential]:
    models = []
    for network in train(data, TrainingSettings(hidden=HIDDEN, checkpoints=2), range(count)):
        model = mlp(data.n_inputs, HIDDEN, data.n_classes, "gelu", seed=0)
        model.load_state_dict(network.final)
        models.append(model.eval())
    return models


def standing(attacks: Mapping[str, Attack], models: list[nn.Sequential], inputs: Tensor, labels: Tensor) -> None:
    print(f"{'norm':>6} {'radius':>7}" + "".join(f"{name:>15}" for name in attacks) + "   share standing, mean over nets")
    spent = dict.fromkeys(attacks, 0.0)
    found: dict[str, list[list[float]]] = {name: [] for name in attacks}
    for norm, eps in RADII:
        for name, attack in attacks.items():
            began = time.process_time()
            found[name].append([attack(model, inputs, labels, norm, eps) for model in models])
            spent[name] += time.process_time() - began
        print(f"{norm:>6} {eps:>7}" + "".join(f"{np.mean(found[name][-1]):>15.4f}" for name in attacks))
    print(f"{'seconds a net':>14}" + "".join(f"{spent[name] / len(models):>15.3f}" for name in attacks))
    least = np.array(found["most at work"])
    missed = {name: np.array(values) - least for name, values in found.items()}
    print("missed, largest" + "".join(f"{values.max():>15.4f}" for values in missed.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, or a folder with MNIST's files")
    parser.add_argument("--nets", type=int, default=6, help="seeds of a net 64 wide")
    parser.add_argument("--points", type=int, default=500, help="test points, at most")
    given = parser.parse_args()
    print(hardware())
    torch.set_num_threads(1)
    data = load(given.data)
    inputs = torch.from_numpy(data.test_images[: given.points]).flatten(1)
    labels = torch.from_numpy(data.test_labels[: given.points]).long()
    with kag.limit_threads(1):
        standing(attacks_here(), nets(data, given.nets), inputs, labels)


if __name__ == "__main__":
    main()
