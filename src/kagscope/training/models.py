"""Multi-layer perceptrons, the networks of the reproduction."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from kagscope.base.checks import check_choice, is_whole
from kagscope.base.errors import InputError

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}
"""Activation functions by name; GELU is the exact one, z Phi(z)."""

DRAWN_BY: dict[str, Callable[..., Tensor]] = {
    "kaiming_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "xavier_normal": nn.init.xavier_normal_,
    "lecun_normal": partial(nn.init.kaiming_normal_, nonlinearity="linear"),
    "orthogonal": nn.init.orthogonal_,
    "kaiming_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "xavier_uniform": nn.init.xavier_uniform_,
    "lecun_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="linear"),
    "mean_field": partial(nn.init.kaiming_normal_, nonlinearity="linear"),
}
INITS = ("default", *DRAWN_BY)
"""Initialisation schemes, see :func:`mlp`."""
MAX_SEED = 2**31 - 1
MAX_WIDTH = 2**16


def mlp(
    n_inputs: int,
    hidden: Sequence[int],
    n_classes: int,
    activation: str = "gelu",
    init: str = "default",
    init_scale: float = 1.0,
    *,
    seed: int,
) -> nn.Sequential:
    """Build a multi-layer perceptron with weights drawn as ``init`` says.

    Its modules are ``hidden1``, ``hidden2``, … (each a Linear and its activation, with outputs h_1, h_2, … of the papers)
    and ``output``, a Linear.

    Args:
        n_inputs: dimension of the inputs.
        hidden: widths of the hidden layers, at least one.
        n_classes: number of outputs.
        activation: one of :data:`ACTIVATIONS`.
        init: "default" (PyTorch's: weights and biases uniform in ±1/sqrt(fan_in)); "kaiming_normal", "kaiming_uniform" (He et
            al. 2015: variance 2/fan_in); "xavier_normal", "xavier_uniform" (Glorot & Bengio 2010: 2/(fan_in + fan_out));
            "lecun_normal", "lecun_uniform" (1/fan_in: as a network in the neural tangent parametrisation computes at the
            start); "orthogonal" (Saxe et al. 2014); or "mean_field" ("lecun_normal" except for the last layer, whose variance is
            1/fan_in^2, so that outputs start near zero: Mei, Montanari & Nguyen 2018). All but the default start with zero
            biases.
        init_scale: factor on the weights.
        seed: seed of a local generator; the global one is neither read nor changed.

    Raises:
        InputError: a width is not a positive integer, the activation is unknown, or the seed is outside 0 … 2**31 - 1.
    """
    sizes = layer_sizes(n_inputs, hidden, n_classes)
    check_choice("activation", activation, ACTIVATIONS)
    check_choice("init", init, INITS)
    generator = torch.Generator().manual_seed(check_seed(seed))
    names = [*layer_names(len(hidden)), "output"]
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        linear = nn.Linear(fan_in, fan_out, device="meta", dtype=torch.float32)  # draws nothing
        allocate(linear)
        last = index == len(hidden)
        with torch.no_grad():
            draw_weights(linear, init, init_scale, generator, last=last)
        modules[names[index]] = linear if last else nn.Sequential(linear, ACTIVATIONS[activation]())
    return nn.Sequential(modules)


def allocate(module: nn.Module) -> None:
    """Allocate parameters on the meta device on the CPU, as ``to_empty``, which imports a computer algebra system (0.5 s)."""
    for submodule in module.modules():
        for name, parameter in list(submodule.named_parameters(recurse=False)):
            setattr(submodule, name, nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype)))


def draw_weights(linear: nn.Linear, init: str, init_scale: float, generator: torch.Generator, *, last: bool) -> None:
    """Draw weights and biases of a layer in place, as ``init`` says; ``last``: whether it is the output layer."""
    bound = 1 / math.sqrt(linear.in_features)
    _draw(linear, init, bound, generator)
    if init == "mean_field" and last:
        linear.weight.mul_(bound)
    linear.weight.mul_(init_scale)


def _draw(linear: nn.Linear, init: str, bound: float, generator: torch.Generator) -> None:
    if init == "default":
        linear.weight.uniform_(-bound, bound, generator=generator)
        linear.bias.uniform_(-bound, bound, generator=generator)
        return
    linear.bias.zero_()
    DRAWN_BY[init](linear.weight, generator=generator)


def layer_sizes(n_inputs: int, hidden: Sequence[int], n_classes: int) -> list[int]:
    """Check and return all widths from input to output. Raises :class:`InputError`."""
    if isinstance(hidden, (int, str)) or not hasattr(hidden, "__len__") or len(hidden) == 0:
        raise InputError(f"hidden widths are {hidden!r}; expected a list of at least one positive integer, such as [64, 64]")
    for name, width in (("n_inputs", n_inputs), *(("hidden width", width) for width in hidden), ("n_classes", n_classes)):
        if not is_whole(width, 1, MAX_WIDTH):
            raise InputError(f"{name} is {width!r}; expected an integer from 1 to {MAX_WIDTH}")
    return [int(width) for width in (n_inputs, *hidden, n_classes)]


def check_seed(seed: int) -> int:
    """Return ``seed``. Raises :class:`InputError` unless it is an integer from 0 to 2**31 - 1."""
    if not is_whole(seed, 0, MAX_SEED):
        raise InputError(f"seed is {seed!r}; expected an integer from 0 to {MAX_SEED}")
    return int(seed)


def layer_names(depth: int) -> list[str]:
    """Names of the hidden layers of an MLP: ``["hidden1", "hidden2"]`` for ``depth`` 2."""
    return [f"hidden{number}" for number in range(1, depth + 1)]
