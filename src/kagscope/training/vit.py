"""A small vision transformer whose blocks' hidden layers are named as an MLP's: ``hidden1``, ``hidden2``, …"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kagscope.base.checks import check_choice
from kagscope.base.errors import InputError
from kagscope.training.models import ACTIVATIONS, INITS, allocate, check_seed, draw_weights, layer_sizes

SIDE = 4  # patches along a side of the image
TOKENS = SIDE**2
HEADS = 2
WIDTHS = 2 * HEADS  # hidden widths are multiples of this, as tokens are half as wide as the first block
SPREAD = 0.5  # standard deviation of initial positional embeddings


class Attention(nn.Module):
    """Self-attention of normalised tokens, (batch, tokens, width) to the same shape (Vaswani et al. 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        heads = self.project(self.norm(x)).view(batch, tokens, 3, HEADS, width // HEADS)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return output


class ViT(nn.Module):
    """4 x 4 patches of an image, residual blocks of attention and one hidden layer, mean over tokens, and a linear output.

    Its modules are ``embed`` (patch to token), ``places``, in block l ``attention<l>``, ``norm<l>``, ``hidden<l>`` (a
    Linear and its activation, as in an MLP of kagscope) and ``back<l>``; then ``norm`` and ``output``. Normalisation precedes
    each part of a block (Xiong et al. 2020); there is no class token (Beyer et al. 2022).
    """

    def __init__(self, image_shape: Sequence[int], hidden: Sequence[int], n_classes: int, activation: str) -> None:
        super().__init__()
        *channels, height, width = image_shape
        self.patch = (channels[0] if channels else 1, height // SIDE, width // SIDE)
        n = hidden[0] // 2
        self.embed = nn.Linear(math.prod(self.patch), n)  # defined first: studies treat it as the first layer
        self.places = nn.Embedding(TOKENS, n)
        self.depth = len(hidden)
        for number, units in enumerate(hidden, start=1):
            self.add_module(f"attention{number}", Attention(n))
            self.add_module(f"norm{number}", nn.LayerNorm(n))
            self.add_module(f"hidden{number}", nn.Sequential(nn.Linear(n, units), ACTIVATIONS[activation]()))
            self.add_module(f"back{number}", nn.Linear(units, n))
        self.norm = nn.LayerNorm(n)
        self.output = nn.Linear(n, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, pixels), flattened in row-major order."""
        channels, height, width = self.patch
        patches = images.view(-1, channels, SIDE, height, SIDE, width).permute(0, 2, 4, 1, 3, 5)
        x = self.embed(patches.reshape(len(images), TOKENS, -1)) + self.places.weight
        for number in range(1, self.depth + 1):
            attention, norm, hidden, back = (
                self.get_submodule(f"{name}{number}") for name in ("attention", "norm", "hidden", "back")
            )
            x = x + attention(x)
            x = x + back(hidden(norm(x)))
        logits: Tensor = self.output(self.norm(x).mean(1))
        return logits


def vit(
    image_shape: Sequence[int],
    hidden: Sequence[int],
    n_classes: int,
    activation: str = "gelu",
    init: str = "default",
    init_scale: float = 1.0,
    *,
    seed: int,
) -> ViT:
    """Build a :class:`ViT` with one block per entry of ``hidden``, drawn as by :func:`kagscope.training.models.mlp`.

    Args:
        image_shape: (H, W) or (C, H, W), sides multiples of 4.
        hidden: units of the hidden layer of each block, multiples of 4; tokens are half as wide as the first one.
        n_classes: number of outputs.
        activation, init, init_scale, seed: as for an MLP; positional embeddings start normal with standard deviation 0.5.

    Raises:
        InputError: images or widths do not fit, the activation is unknown, or the seed is invalid.
    """
    check_vit(hidden, image_shape)
    layer_sizes(1, hidden, n_classes)
    check_choice("activation", activation, ACTIVATIONS)
    check_choice("init", init, INITS)
    generator = torch.Generator().manual_seed(check_seed(seed))
    with torch.device("meta"):  # draws nothing
        model = ViT(image_shape, hidden, n_classes, activation)
    allocate(model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                draw_weights(module, init, init_scale, generator, last=module is model.output)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
        model.places.weight.normal_(0, SPREAD, generator=generator)
    return model


def check_vit(hidden: Sequence[int], image_shape: Sequence[int] | None = None) -> None:
    """Raise :class:`InputError` if these widths are impossible, or images of this shape cannot be cut into patches."""
    if wrong := [units for units in hidden if units % WIDTHS]:
        raise InputError(f"a block of a vit is {wrong[0]} units wide; expected a multiple of {WIDTHS}")
    if image_shape is not None and (len(image_shape) < 2 or any(side % SIDE for side in image_shape[-2:])):
        shape = " x ".join(map(str, image_shape))
        raise InputError(f"a vit cuts images into {SIDE} x {SIDE} patches, but these are {shape}; expected sides that divide so")
