"""Train the networks of one setting together, one per seed."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kagscope.base.errors import InputError
from kagscope.data import Dataset
from kagscope.minors.threads import limit_threads
from kagscope.steering.gradients import NORMS, InputGradientPenalty
from kagscope.steering.penalty import DRAWN, GeometryPenalty
from kagscope.training.augmentation import Warper, draw_maps
from kagscope.training.first_layer import DONORS, OF_DONORS, start_first_layer
from kagscope.training.models import check_seed
from kagscope.training.optimizers import optimizer
from kagscope.training.settings import TrainingSettings
from kagscope.training.stacked import Batch, Stacked, StackedMLP, StackedModules

MAX_SEEDS = 1000

State = dict[str, Tensor]
Progress = Callable[[int, int, dict[str, Any]], None]


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """One network and its checkpoints.

    Attributes:
        seed: seed of initialisation, batch order and augmentation.
        settings: the training settings.
        checkpoints: state dict (float32) by optimiser step; step 0 is the untrained network.
        accuracy: test accuracy in [0, 1] by step; R² for a regression.
        loss: mean test cross-entropy in nats by step; mean squared error for a regression.
        train_accuracy: accuracy, or R², of the last state on the unaugmented training images and the labels it learned.
        steps_per_epoch: optimiser steps per pass over the training set.
    """

    seed: int
    settings: TrainingSettings
    checkpoints: dict[int, State]
    accuracy: dict[int, float]
    loss: dict[int, float]
    train_accuracy: float
    steps_per_epoch: int

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints, in increasing order."""
        return sorted(self.checkpoints)

    @property
    def initial(self) -> State:
        """The untrained state."""
        return self.checkpoints[0]

    @property
    def final(self) -> State:
        """The last state."""
        return self.checkpoints[self.steps[-1]]


def train(
    dataset: Dataset,
    settings: TrainingSettings,
    seeds: Sequence[int],
    *,
    on_progress: Progress | None = None,
    device: str = "cpu",
    donors: Dataset | None = None,
) -> list[TrainedNetwork]:
    """Train one network per seed, all side by side in the calling thread.

    A seed's result depends neither on the other seeds nor on the number of threads: everything runs on one torch thread
    (use processes for more cores). Step 0 is ``settings.network(..., seed)``, with the first layer that the settings
    name.

    Args:
        dataset: images are flattened in row-major order.
        settings: architecture and training settings.
        seeds: distinct integers from 0 to 2**31 - 1.
        on_progress: called as ``on_progress(steps done, total steps, {"epoch": float, "accuracy": float or None})`` at every
            checkpoint and at the end of every epoch; accuracy is the mean over the seeds, None if not evaluated.
        device: device of the steps; "cuda" rounds differently from "cpu". Batches are drawn and networks evaluated on the CPU.
        donors: data for the networks that provide the first layers, if ``first_layer`` needs any; None for ``dataset``.

    Returns:
        One :class:`TrainedNetwork` per seed, in the order of ``seeds``.

    Raises:
        InputError: no seeds, repeated or invalid ones; or training diverged (the message says which setting to change).
    """
    if dataset.is_regression and settings.augmentation is not None:
        raise InputError(f"{dataset.name} is a regression on points in space, not on images; only standard training fits it")
    if not 1 <= len(seeds) <= MAX_SEEDS:
        raise InputError(f"{len(seeds)} seeds were given; expected 1 to {MAX_SEEDS} of them")
    seeds = [check_seed(seed) for seed in seeds]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds are {seeds!r}; expected each once")
    report = on_progress or (lambda done, total, info: None)
    with one_thread(), torch.no_grad():
        trained = _train_donors(dataset if donors is None else donors, settings, seeds, device)
        return _Run(dataset, settings, seeds, report, device, trained).run()


def _train_donors(dataset: Dataset, settings: TrainingSettings, seeds: Sequence[int], device: str) -> list[list[State]]:
    """Train the networks that first layers come from, for each seed: the same for all, or one of a single hidden layer each.

    Raises:
        InputError: training diverged.
    """
    if settings.first_layer not in OF_DONORS:
        return [[] for _ in seeds]
    plain = replace(settings, first_layer="drawn", frozen=False, penalty=None, augmentation=None, labels="true")
    own = settings.first_layer == "trained"
    plain = replace(plain, checkpoints=2, schedule="linear", hidden=settings.hidden[:1] if own else settings.hidden)
    nets = _Run(dataset, plain, seeds if own else DONORS, lambda done, total, info: None, device, []).run()
    return [[net.final] for net in nets] if own else [[net.final for net in nets]] * len(seeds)


class _Run:
    """The state of one call of :func:`train`."""

    def __init__(
        self,
        dataset: Dataset,
        settings: TrainingSettings,
        seeds: Sequence[int],
        on_progress: Progress,
        device: str,
        donors: Sequence[Sequence[State]],
    ) -> None:
        self.settings, self.seeds, self.on_progress = settings, seeds, on_progress
        self.train_set, self.test_set = _flatten_images(dataset, "train"), _flatten_images(dataset, "test")
        self.n_images = len(self.train_set[1])
        self.per_epoch = settings.steps_per_epoch(self.n_images)
        self.total = settings.epochs * self.per_epoch
        build = partial(settings.network, dataset.image_shape, dataset.n_classes)
        self.model = build(seed=0)
        starts = [build(seed=seed).state_dict() for seed in seeds]
        if settings.first_layer != "drawn":
            draws = [_generator(seed, "first layer") for seed in seeds]
            starts = [start_first_layer(settings.first_layer, *args) for args in zip(starts, donors, draws, strict=True)]
        self.nets: Stacked[Any]
        if settings.architecture == "mlp":
            self.nets = StackedMLP(starts, settings.activation, device)
        else:
            sizes = dataset.n_inputs, dataset.n_classes
            self.nets = StackedModules([build(seed=0) for _ in seeds], starts, sizes, device)
        self.regression = dataset.is_regression
        targets = self.train_set[1] if self.regression else torch.eye(dataset.n_classes)[self.train_set[1]]
        shuffled = seeds if settings.labels == "shuffled" else ()
        self.shuffles = [torch.randperm(self.n_images, generator=_generator(seed, "labels")) for seed in shuffled]
        self.orders = [_generator(seed, "batch order") for seed in seeds]
        self.draws = [_generator(seed, "augmentation") for seed in seeds]
        self.image_shape = dataset.image_shape
        self.warper = Warper(torch.from_numpy(dataset.train_images)) if settings.augmentation else None
        self.mean, self.spread = _mean_and_spread(dataset) if settings.normalize else (0.0, 1.0)
        self.images, self.targets = self.train_set[0].to(device), targets.to(device)
        self.steered = [self._build_steered(build, s) for s in range(len(seeds))] if settings.penalty else []
        self.workspaces: dict[int, Batch] = {}  # a full batch's, and that of the smaller last one
        self.kept: list[dict[int, State]] = [{} for _ in seeds]
        self.scores: list[dict[int, tuple[float, float]]] = [{} for _ in seeds]

    def run(self) -> list[TrainedNetwork]:
        keep = set(self.settings.checkpoint_steps(self.n_images))
        chosen = optimizer(self.settings, self.nets.parameters)  # one for all: a number's step depends on its own gradients only
        self.nets.parameters.grad = self.nets.gradients
        self._record_states(0)
        step = 0
        for epoch in range(1, self.settings.epochs + 1):
            for work in self._batches():
                self.nets.backward(work, squared_error=self.regression)
                step += 1
                self._steer(work, step)
                if self.settings.frozen:
                    for s in range(len(self.seeds)):
                        for gradient in self.nets.gradient_parts(s)[:2]:
                            gradient.zero_()
                chosen.step()
                if step in keep:
                    self._record_states(step)
            if step not in keep:
                self.on_progress(step, self.total, {"epoch": float(epoch), "accuracy": None})
        return [self._result(s) for s in range(len(self.seeds))]

    def _build_steered(
        self, build: Callable[..., torch.nn.Module], s: int
    ) -> tuple[torch.nn.Module, GeometryPenalty | InputGradientPenalty]:
        """Network ``s`` as a module whose parameters are views of the block, and its penalty."""
        term = self.settings.penalty
        assert term is not None
        model = self.nets.module(s, build(seed=0))
        if term.score in NORMS:
            return model, InputGradientPenalty(model, term.score, term.weight, term.points, squared_error=self.regression)
        rows = term.rows if term.rows and term.score in DRAWN else None
        options: dict[str, Any] = {"rows": rows, "seed": self.seeds[s]}
        return model, GeometryPenalty(model, [term.layer], term.score, term.weight, term.points, **options)

    def _steer(self, work: Batch, step: int) -> None:
        """Add the penalty's gradient to that of the loss. Raises :class:`InputError` if either is not finite."""
        for s, (model, penalty) in enumerate(self.steered):
            names, parameters = zip(*model.named_parameters(), strict=True)
            try:
                with torch.enable_grad(), limit_threads(1):
                    term = penalty((work.inputs[s], work.targets[s]))
                    of_term = torch.autograd.grad(term, parameters, allow_unused=True)
                gradients = dict(zip(self.nets.names, self.nets.gradient_parts(s), strict=True))
                for name, gradient in zip(names, of_term, strict=True):
                    if gradient is not None:
                        gradients[name].add_(gradient)
                if not bool(self.nets.gradients[s].isfinite().all()):
                    raise InputError("the gradient is NaN or infinite")
            except InputError as error:
                raise InputError(
                    f"training diverged at step {step} of seed {self.seeds[s]}: {error}; "
                    f"choose a penalty weight nearer to 0 than {penalty.weight:g}, or a lower learning_rate"
                ) from None

    def _batches(self) -> Iterator[Batch]:
        """Fill and yield the workspace for each batch of one epoch, in each seed's own order."""
        orders = [torch.randperm(self.n_images, generator=generator) for generator in self.orders]
        augmentation = self.settings.augmentation
        maps = [draw_maps(augmentation, self.n_images, self.image_shape, g) for g in self.draws] if augmentation else []
        for start in range(0, self.n_images, self.settings.batch_size):
            stop = min(start + self.settings.batch_size, self.n_images)
            work = self._workspace(stop - start)
            for s, order in enumerate(orders):
                index = order[start:stop]
                image_index = index.to(self.nets.device)
                label_index = self.shuffles[s][index].to(self.nets.device) if self.shuffles else image_index
                torch.index_select(self.targets, 0, label_index, out=work.targets[s])
                if self.warper is None:
                    torch.index_select(self.images, 0, image_index, out=work.inputs[s])
                elif self.nets.device == "cpu":
                    self.warper.warp(index, maps[s][start:stop], work.inputs[s])
                else:
                    warped = torch.empty(work.inputs[s].shape)
                    self.warper.warp(index, maps[s][start:stop], warped)
                    work.inputs[s].copy_(warped)
                if self.settings.normalize:
                    work.inputs[s].sub_(self.mean).div_(self.spread)
            yield work

    def _workspace(self, batch: int) -> Batch:
        if batch not in self.workspaces:
            self.workspaces[batch] = self.nets.workspace(batch)
        return self.workspaces[batch]

    def _record_states(self, step: int) -> None:
        """Store and evaluate the state of every network."""
        for s, seed in enumerate(self.seeds):
            self.kept[s][step] = state = self._absorb_normalisation(self.nets.state(s))
            loss, accuracy = self._evaluate(state, *self.test_set)
            if not math.isfinite(loss):
                steered = "a penalty weight nearer to 0, " if self.steered else ""
                raise InputError(
                    f"training diverged: the loss of seed {seed} is {loss} at step {step}; "
                    f"choose a learning_rate below {self.settings.learning_rate:g}, {steered}or check the scale of the images"
                )
            self.scores[s][step] = (loss, accuracy)
        mean = sum(scores[step][1] for scores in self.scores) / len(self.seeds)
        self.on_progress(step, self.total, {"epoch": step / self.per_epoch, "accuracy": mean})

    def _absorb_normalisation(self, state: State) -> State:
        """The same function of unnormalised images x: W (x - mean) / spread + b = (W / spread) x + (b - mean W 1 / spread)."""
        if self.settings.normalize:
            weight, bias = list(state)[:2]
            scaled = state[weight].double() / self.spread
            moved = state[bias].double() - self.mean * scaled.sum(1)
            state |= {weight: scaled.float(), bias: moved.float()}
        return state

    def _evaluate(self, state: State, inputs: Tensor, labels: Tensor) -> tuple[float, float]:
        """Mean cross-entropy and accuracy, in chunks that fit the cache; mean squared error and R² for a regression."""
        self.model.load_state_dict(state)
        if self.regression:
            squares = (self.model(inputs).double() - labels.double()) ** 2
            spread = ((labels.double() - labels.double().mean(0)) ** 2).mean()
            return float(squares.mean()), float(1 - squares.mean() / spread) if spread > 0 else math.nan
        loss, right = 0.0, 0
        for x, y in zip(torch.split(inputs, 1024), torch.split(labels, 1024), strict=True):
            logits = self.model(x)
            loss += float(torch.nn.functional.cross_entropy(logits, y, reduction="sum"))
            right += int((logits.argmax(1) == y).sum())
        return loss / len(labels), right / len(labels)

    def _result(self, s: int) -> TrainedNetwork:
        loss = {step: score[0] for step, score in self.scores[s].items()}
        accuracy = {step: score[1] for step, score in self.scores[s].items()}
        images, labels = self.train_set
        labels = labels[self.shuffles[s]] if self.shuffles else labels
        train_accuracy = self._evaluate(self.kept[s][self.total], images, labels)[1]
        return TrainedNetwork(self.seeds[s], self.settings, self.kept[s], accuracy, loss, train_accuracy, self.per_epoch)


def _flatten_images(dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
    images = getattr(dataset, f"{split}_images")
    labels = getattr(dataset, f"{split}_targets" if dataset.is_regression else f"{split}_labels")
    return torch.from_numpy(images).flatten(1).contiguous(), torch.from_numpy(labels)


def _mean_and_spread(dataset: Dataset) -> tuple[float, float]:
    images = dataset.train_images.astype(np.float64)
    if not images.std() > 0:
        raise InputError(f"normalize is true, but all pixels of {dataset.name} are equal; leave it out")
    return float(images.mean()), float(images.std())


def _generator(seed: int, purpose: str) -> torch.Generator:
    """A generator with a stream independent of other purposes and other seeds."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
