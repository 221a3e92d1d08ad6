"""Settings of a training run: everything but the data and the seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from kagscope.base.checks import check_choice, is_real, is_whole
from kagscope.base.errors import InputError
from kagscope.base.messages import close_names
from kagscope.steering.gradients import NORMS
from kagscope.steering.penalty import SCORES
from kagscope.training.first_layer import FIRST_LAYERS
from kagscope.training.models import ACTIVATIONS, INITS, layer_names, layer_sizes, mlp
from kagscope.training.vit import check_vit, vit

MAX_EPOCHS = 100_000
ARCHITECTURES = ("mlp", "vit")
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
SCHEDULES = ("geometric", "linear")
STEERED_BY = (*SCORES, *NORMS)


@dataclass(frozen=True)
class Augmentation:
    """Random spatial transforms of the training images, uniform and independent, drawn anew for each image in each epoch.

    Attributes:
        rotation: degrees; the angle is drawn from [-rotation, rotation].
        translation: fraction of the image's height and width (2 pixels of 28 by default); shifts are drawn from
            [-translation, translation] times the side, separately along both.
        scale: the zoom factor is drawn from [1 - scale, 1 + scale].
    """

    rotation: float = 10.0
    translation: float = 1 / 14
    scale: float = 0.1

    def __post_init__(self) -> None:
        _check_real("rotation", self.rotation, 0, 180)
        _check_real("translation", self.translation, 0, 1)
        _check_real("scale", self.scale, 0, 0.9)


@dataclass(frozen=True)
class Penalty:
    """A loss term that steers one hidden layer towards geometry or away from it (:class:`kagscope.GeometryPenalty`).

    Attributes:
        weight: negative steers towards geometry; for norms, positive steers towards smaller ones.
        score: "pr", "effective_minors", "rr_pr" or "alignment"; as controls "jacobian_l1" and "jacobian_l2", or
            "loss_gradient_l1" and "loss_gradient_l2" (:class:`kagscope.steering.gradients.InputGradientPenalty`).
        layer: "hidden1", "hidden2", …; ignored for gradients of the loss.
        points: number of images per batch at which it is evaluated.
        rows: pairs of rows drawn in each step for "pr" and "effective_minors"; 0 for all.
    """

    weight: float
    score: str = "pr"
    layer: str = "hidden1"
    points: int = 4
    rows: int = 32

    def __post_init__(self) -> None:
        _check_real("penalty weight", self.weight, -1e38, 1e38)
        _check_integer("penalty points", self.points, 1, 2**20)
        _check_integer("penalty rows", self.rows, 0, 2**31)
        if self.score not in STEERED_BY:
            close = close_names(self.score, STEERED_BY)
            raise InputError(f"there is no differentiable score {self.score!r}{close}; expected one of {', '.join(STEERED_BY)}")


@dataclass(frozen=True)
class TrainingSettings:
    """How the networks of one setting are built and trained (cross-entropy for classes, squared error for regressions).

    Attributes:
        architecture: "mlp", or "vit", a small vision transformer with a block for each hidden layer
            (:class:`kagscope.training.vit.ViT`), whose first layer embeds its patches.
        hidden: widths of the hidden layers.
        activation: "gelu", "relu", "tanh" or "silu".
        epochs: passes over the training set; 0 for untrained networks.
        batch_size: images per step; the last batch of an epoch may be smaller.
        learning_rate: learning rate of the optimiser.
        weight_decay: as in ``torch.optim``: decoupled in "adamw", else an L2 term.
        optimizer: "adam" (betas 0.9 and 0.999, eps 1e-8), "adamw", "sgd" or "rmsprop".
        momentum: momentum of "sgd" and "rmsprop".
        init: initialisation scheme, see :func:`kagscope.training.models.mlp`.
        init_scale: factor on the initial weights (not biases).
        first_layer: initial first layer: "drawn" as ``init`` says, or see
            :func:`kagscope.training.first_layer.start_first_layer`.
        frozen: do not train the first layer.
        augmentation: spatial augmentation, or None for standard training.
        penalty: loss term that steers a layer, or None.
        labels: "true", or "shuffled": each network learns the labels (or targets) of the training images in its own
            random order, drawn from its seed, so that they are independent of the images.
        normalize: standardise images by mean and standard deviation over all pixels of the training images.
            Checkpoints take unnormalised images: the two numbers are folded into the first layer's weights and biases.
        checkpoints: number of states to keep, from the initial to the last one.
        schedule: spacing of their steps, "geometric" or "linear"; or the steps themselves, to which the first and the last
            are added, ignoring ``checkpoints``.
    """

    hidden: tuple[int, ...] = (64, 64)
    activation: str = "gelu"
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    augmentation: Augmentation | None = field(default=None)
    checkpoints: int = 12
    optimizer: str = "adam"
    momentum: float = 0.0
    init: str = "default"
    init_scale: float = 1.0
    first_layer: str = "drawn"
    frozen: bool = False
    labels: Literal["true", "shuffled"] = "true"
    penalty: Penalty | None = None
    normalize: bool = False
    schedule: Literal["geometric", "linear"] | Sequence[int] = "geometric"
    architecture: str = "mlp"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(layer_sizes(1, self.hidden, 1)[1:-1]))
        check_choice("architecture", self.architecture, ARCHITECTURES)
        if self.architecture == "vit":
            check_vit(self.hidden)
            if self.penalty is not None:
                raise InputError("a penalty steers a layer's Jacobians of the image, which a vit has none of; leave it out")
        check_choice("activation", self.activation, ACTIVATIONS)
        _check_integer("epochs", self.epochs, 0, MAX_EPOCHS)
        _check_integer("batch_size", self.batch_size, 1, 2**20)
        _check_integer("checkpoints", self.checkpoints, 2, 1000)
        _check_real("learning_rate", self.learning_rate, 0, 1e3)
        _check_real("weight_decay", self.weight_decay, 0, 1e3)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _check_real("momentum", self.momentum, 0, 1)
        if self.momentum and self.optimizer not in ("sgd", "rmsprop"):
            raise InputError(f"momentum is {self.momentum:g}, but {self.optimizer} takes none; use sgd or rmsprop, or momentum 0")
        check_choice("init", self.init, INITS)
        check_choice("first_layer", self.first_layer, FIRST_LAYERS)
        if self.frozen and self.weight_decay:
            raise InputError(f"frozen is true, but weight_decay is {self.weight_decay:g}, which would shrink that layer; use 0")
        if self.normalize and self.first_layer != "drawn":
            raise InputError(f"normalize is true, but first_layer is {self.first_layer!r}, which is for images as they are")
        if self.penalty is not None and self.penalty.layer not in layer_names(len(self.hidden)):
            names = ", ".join(layer_names(len(self.hidden)))
            raise InputError(f"the penalty's layer is {self.penalty.layer!r}; this network has {names}")
        check_choice("labels", self.labels, ("true", "shuffled"))
        if isinstance(self.schedule, str):
            if self.schedule not in SCHEDULES:
                raise InputError(f"schedule is {self.schedule!r}; expected one of {', '.join(SCHEDULES)}, or steps")
        else:
            for step in self.schedule:
                _check_integer("a step of the schedule", step, 0, 2**62)
            object.__setattr__(self, "schedule", tuple(self.schedule))
        _check_real("init_scale", self.init_scale, 0, 1e6)
        if self.augmentation is not None and not isinstance(self.augmentation, Augmentation):
            raise InputError(f"augmentation is {self.augmentation!r}; expected an Augmentation or None")

    def network(self, image_shape: Sequence[int], n_classes: int, seed: int) -> nn.Module:
        """A freshly drawn network (before any other initial first layer is set); it takes flattened images."""
        args = (self.hidden, n_classes, self.activation, self.init, self.init_scale)
        return vit(image_shape, *args, seed=seed) if self.architecture == "vit" else mlp(math.prod(image_shape), *args, seed=seed)

    def steps_per_epoch(self, n_images: int) -> int:
        """Optimiser steps in one pass over ``n_images``."""
        return -(-n_images // self.batch_size)

    def checkpoint_steps(self, n_images: int) -> list[int]:
        """Steps at which states are kept, by ``schedule``, from 0 to the last step.

        Raises:
            InputError: the schedule has a step after the last one.
        """
        last = self.epochs * self.steps_per_epoch(n_images)
        if self.schedule == "geometric":
            return geometric_steps(last, self.checkpoints)
        if self.schedule == "linear":
            return linear_steps(last, self.checkpoints)
        beyond = [step for step in self.schedule if int(step) > last]
        if beyond:
            raise InputError(
                f"the schedule names step {beyond[0]}, but training ends at step {last}; leave it out or train longer"
            )
        return sorted({0, last} | {int(step) for step in self.schedule})


def geometric_steps(last: int, count: int) -> list[int]:
    """At most ``count`` increasing steps: 0, then a geometric sequence from 1 to ``last`` rounded to integers."""
    if last == 0:
        return [0]
    if count == 2:
        return [0, last]
    return sorted({0, last} | {round(last ** (i / (count - 2))) for i in range(count - 1)})


def linear_steps(last: int, count: int) -> list[int]:
    """At most ``count`` increasing steps from 0 to ``last``, evenly spaced and rounded to integers."""
    return sorted({round(last * i / (count - 1)) for i in range(count)})


def _check_integer(name: str, value: int, low: int, high: int) -> None:
    if not is_whole(value, low, high):
        raise InputError(f"{name} is {value!r}; expected an integer from {low} to {high}")


def _check_real(name: str, value: float, low: float, high: float) -> None:
    if not is_real(value, low, high):
        raise InputError(f"{name} is {value!r}; expected a number from {low:g} to {high:g}")
