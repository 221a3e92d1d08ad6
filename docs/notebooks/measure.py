# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own network: a CNN and a vision transformer on MNIST
#
# `kagscope.measure` takes any `torch.nn.Module`, inputs, and something to compare with, and reports how concentrated the minors of
# its layers' Jacobians are. This notebook trains two small networks for about a minute each, keeps a copy of each from before
# training, and looks at three sorts of map:
#
# - **input**: model input → layer output,
# - **block**: the layer's own input → its output,
# - **output**: layer output → model output.
#
# Every number of a trained network stands beside the same number of the same network before training. A ratio of 1 says that training
# left it as it was.

# %%
import copy
import os
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import ViTConfig, ViTForImageClassification

import kagscope as kag
from kagscope.data import load

QUICK = bool(os.environ.get("KAGSCOPE_QUICK"))  # a run of seconds, to test this notebook

# %% [markdown]
# ## Data
#
# MNIST as IDX files from a folder (plain or gzipped); without the folder the 8 × 8 digits that come with scikit-learn.

# %%
folder = Path(os.environ.get("KAGSCOPE_MNIST", "../../../shared/data/mnist"))
if folder.is_dir():
    data = load(folder)
else:
    data = load("digits")
    print(f"There is no folder {folder}; these are the digits of scikit-learn, and what the text below says of MNIST need not hold.")
data

# %%
images, test_images = (torch.from_numpy(part)[:, None] for part in (data.train_images, data.test_images))
labels, test_labels = (torch.from_numpy(part) for part in (data.train_labels, data.test_labels))
if QUICK:
    images, labels = images[:1000], labels[:1000]

side = data.image_shape[0]
shape = data.image_shape
balls = [kag.All(), *[kag.Ball(radius) for radius in (side // 7, side // 4, side // 2, side)]]
points = 3 if QUICK else 10
probe = test_images[:points]


def logits(model, x):
    """A Hugging Face model returns an object, a plain one a tensor."""
    found = model(x)
    return getattr(found, "logits", found)


def train(model, epochs, rate=2e-3, batch=128):
    """Plain training with AdamW and one cycle of the learning rate; says the accuracy on the test images."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    steps = epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(batch):
            loss = F.cross_entropy(logits(model, images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        right = sum(int((logits(model, x).argmax(1) == y).sum()) for x, y in zip(test_images.split(1000), test_labels.split(1000)))
    print(f"{type(model).__name__}: {right / len(test_labels):.1%} of the test images are recognised")


# %% [markdown]
# ## A CNN
#
# Three blocks of convolution (stride 2), batch normalisation and ReLU. Batch normalisation is what often breaks per-sample Jacobians;
# `measure` runs the model in eval mode, where it is a fixed affine map, and puts the mode back afterwards.

# %%
torch.manual_seed(0)


def conv_block(inputs, outputs):
    convolution = torch.nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    return torch.nn.Sequential(OrderedDict(conv=convolution, norm=torch.nn.BatchNorm2d(outputs), act=torch.nn.ReLU()))


features = 32 * (-(-side // 8)) ** 2
cnn = torch.nn.Sequential(
    OrderedDict(
        block1=conv_block(1, 8),
        block2=conv_block(8, 16),
        block3=conv_block(16, 32),
        flatten=torch.nn.Flatten(),
        head=torch.nn.Linear(features, 10),
    )
)
cnn_before = copy.deepcopy(cnn)
train(cnn, epochs=1 if QUICK else 3)

# %% [markdown]
# ### Three lines
