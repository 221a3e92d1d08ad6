"""How far a classifier holds: adversarial accuracy by FGSM and PGD, and how well its probabilities are calibrated.

FGSM: Goodfellow, Shlens & Szegedy 2015. PGD: Madry et al. 2018, here with steps of 2.5 eps / steps, a random start, and a point
counted as fooled if any step of any restart fooled it. Checked against the closed form on linear models:
tests/test_robustness.py.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from kagscope.base.errors import InputError

Norm = Literal["linf", "l2"]
NORMS: tuple[Norm, ...] = ("linf", "l2")
METHODS = ("fgsm", "pgd")


def adversarial_accuracy(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    eps: float,
    *,
    norm: Norm = "linf",
    method: str = "pgd",
    steps: int = 20,
    restarts: int = 1,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    seed: int = 0,
) -> float:
    """Fraction of points that no attack within ``eps`` turned to another class.

    An attack that is not the best possible one overstates it: this is an upper bound of the true robust accuracy.

    Args:
        model: from (B, …) to logits (B, classes), in eval mode; its gradients are left alone.
        inputs: (B, …) floating.
        labels: (B,) integers.
        eps: radius of the allowed change, in the inputs' units, by the norm over all numbers of a point.
        norm: "linf" or "l2".
        method: "fgsm" (one step of length eps) or "pgd".
        steps: of PGD.
        restarts: of PGD, each from another random point; a point counts as fooled if any of them fooled it.
        bounds: what inputs may lie between; None: anywhere.
        seed: of PGD's random start.

    Raises:
        InputError: an unknown norm or method, a negative radius, no steps or restarts, or inputs outside the bounds.
    """
    if norm not in NORMS or method not in METHODS:
        raise InputError(f"norm is {norm!r} and method {method!r}; expected one of {NORMS} and one of {METHODS}")
    if not (math.isfinite(eps) and eps >= 0) or steps < 1 or restarts < 1:
        raise InputError(
            f"eps is {eps!r}, steps {steps!r}, restarts {restarts!r}; expected a radius of at least 0 and counts of at least 1"
        )
    if bounds is not None and bool(((inputs < bounds[0]) | (inputs > bounds[1])).any()):
        raise InputError(f"inputs lie outside the bounds {bounds}; scale them, or give bounds=None")
    standing = _correct(model, inputs, labels)
    if eps == 0:
        return float(standing.double().mean())
    generator = torch.Generator().manual_seed(seed)
    if method == "fgsm":
        standing &= _steps(model, inputs, inputs, labels, eps, norm, bounds, eps, 1)
    else:
        for _ in range(restarts):
            start = _clamp(_start(inputs, eps, norm, generator), bounds)
            standing &= _steps(model, inputs, start, labels, eps, norm, bounds, 2.5 * eps / steps, steps)
    return float(standing.double().mean())


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean over points of |confidence - accuracy| of their bin of confidence, equal widths (Guo et al. 2017, eq. 3).

    Args:
        probabilities: (N, classes), rows that sum to 1.
        labels: (N,) integers.
        bins: number of bins in [0, 1].

    Raises:
        InputError: lengths differ, no point, or no bin.
    """
    if len(probabilities) != len(labels) or not len(labels) or bins < 1:
        raise InputError(
            f"{len(probabilities)} rows of probabilities, {len(labels)} labels, {bins} bins; expected as many and at least one"
        )
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(bin_of, weights=confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def _steps(
    model: nn.Module,
    inputs: Tensor,
    start: Tensor,
    labels: Tensor,
    eps: float,
    norm: Norm,
    bounds: tuple[float, float] | None,
    step: float,
    count: int,
) -> Tensor:
    """(B,) which points were right after each of ``count`` steps up the loss, each projected onto the ball and the bounds."""
    x, standing = start, torch.ones(len(inputs), dtype=torch.bool)
    for _ in range(count):
        moved = x + step * _direction(_gradient(model, x, labels), norm)
        x = _clamp(inputs + _project(moved - inputs, eps, norm), bounds)
        standing &= _correct(model, x, labels)
    return standing


def _correct(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return model(inputs).argmax(1) == labels


def _gradient(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each point's cross-entropy with respect to that point."""
    x = inputs.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        loss = nn.functional.cross_entropy(model(x), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    return gradient


def _direction(gradient: Tensor, norm: Norm) -> Tensor:
    """The unit step that raises the loss most."""
    if norm == "linf":
        return gradient.sign()
    return gradient / _lengths(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)


def _project(change: Tensor, eps: float, norm: Norm) -> Tensor:
    if norm == "linf":
        return change.clamp(-eps, eps)
    return change * (eps / _lengths(change).clamp_min(eps))


def _start(inputs: Tensor, eps: float, norm: Norm, generator: torch.Generator) -> Tensor:
    """A random point of the ball: uniform for "linf", uniform in direction and in volume for "l2"."""
    if norm == "linf":
        return inputs + eps * (2 * torch.rand(inputs.shape, generator=generator, dtype=inputs.dtype) - 1)
    noise = torch.randn(inputs.shape, generator=generator, dtype=inputs.dtype)
    radius = torch.rand(len(inputs), generator=generator, dtype=inputs.dtype) ** (1 / inputs[0].numel())
    return inputs + eps * radius.reshape(-1, *[1] * (inputs.ndim - 1)) * noise / _lengths(noise)


def _lengths(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1).reshape(-1, *[1] * (values.ndim - 1))


def _clamp(values: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    return values if bounds is None else values.clamp(*bounds)
