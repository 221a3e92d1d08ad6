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
# `kagscope.measure` takes any `torch.nn.Module`, inputs, and something to compare with, and reports how concentrated the minors
# of its layers' Jacobians are. This notebook trains two small networks for about a minute each, keeps a copy of each from before
# training, and looks at three sorts of map:
#
# - **input**: model input → layer output,
# - **block**: the layer's own input → its output,
# - **output**: layer output → model output.
#
# Every number of a trained network stands beside the same number of the same network before training. A ratio of 1 says that
# training left it as it was.

# %%
import copy
import os
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from IPython.display import display
from torch import Tensor, nn
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
    print(
        f"There is no folder {folder}: these are the digits of scikit-learn, for which what the text says of MNIST need not hold."
    )
display(data)

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


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """A Hugging Face model returns an object, a plain one a tensor."""
    found = model(x)
    return found if isinstance(found, Tensor) else found.logits


def train(model: nn.Module, epochs: int, rate: float = 2e-3, batch: int = 128) -> None:
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
        batches = zip(test_images.split(1000), test_labels.split(1000), strict=True)
        right = sum([int((logits(model, x).argmax(1) == y).sum()) for x, y in batches])
    print(f"{type(model).__name__}: {right / len(test_labels):.1%} of the test images are recognised")


# %% [markdown]
# ## A CNN
#
# Three blocks of convolution (stride 2), batch normalisation and ReLU. Batch normalisation often breaks Jacobians of single
# points; `measure` runs the model in eval mode, where it is a fixed affine map, and puts the mode back afterwards.

# %%
torch.manual_seed(0)


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    return nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(outputs), act=nn.ReLU()))


features = 32 * (-(-side // 8)) ** 2
cnn = nn.Sequential(
    OrderedDict(
        block1=conv_block(1, 8),
        block2=conv_block(8, 16),
        block3=conv_block(16, 32),
        flatten=nn.Flatten(),
        head=nn.Linear(features, 10),
    )
)
cnn_before = copy.deepcopy(cnn)
train(cnn, epochs=1 if QUICK else 2)

# %% [markdown]
# ### Three lines
#
# The layers are named as `cnn.named_modules()` names them; `*` stands for one part of a name. To save time, layers with many
# units are thinned here to `max_rows` of them, drawn at random and the same ones in both networks; by default a layer is measured
# whole. The columns are pixels, so selections can ask for pairs of pixels at most 4, 7, … apart.

# %%
report = kag.measure(
    cnn, probe, layers="block*", selections=balls, image_shape=shape, baseline=cnn_before, max_rows=48, progress=False
)
display(report)

# %% [markdown]
# One row for each layer and order k of minors. `PR` is the participation ratio of the minors: higher means that fewer of them
# carry the sum. Its ratio to that before training is the mean over the images of the ratio at each, with a 95% interval. `KL` is
# the divergence of the minors from all being equal, `rr_pr` compares PR with that of randomly rotated rows, and `zero rows` is
# the share of rows of the minor matrix that are as good as zero. Every number is in `report.table`.

# %%
display(report.plot_scales().figure)

# %%
display(report.plot_layers().figure)

# %%
display(report.plot_zipf(layer="block1").figure)

# %% [markdown]
# ### What is seen
#
# On these ten images the 2 × 2 minors are more concentrated after training in the first block (1.5 times) and the third (1.3),
# less in the second (0.8), and much the same at every distance between pixels. Before reading geometry into this, look at units
# that are off. A ReLU that is off has a row of zeros; if nothing else changed, going from a share `baseline` of rows that are
# off to `value` would multiply PR by (1 − baseline) / (1 − value), the column `explained`. That is most of each ratio: about a
# tenth is left over for the first two blocks, a sixth for the third. The interval is over images of one network and says
# nothing of other trainings.

# %%
off = report.summary().query("score == 'zero_rows_exact' and k == 1")[["layer", "value", "baseline"]]
display(off.assign(explained=(1 - off["baseline"]) / (1 - off["value"])))

# %% [markdown]
# ### Each block on its own
#
# The *block* map leaves out what came before: its columns are the entries of the block's own input, 8 × 14 × 14 for the second.

# %%
blocks = kag.measure(cnn, probe, layers=["block2", "block3"], layer_map="block", baseline=cnn_before, max_rows=48, progress=False)
display(blocks.plot_layers(score="kl_uniform").figure)

# %%
for sentence in blocks.findings:
    print("-", sentence)

# %% [markdown]
# ### What the output feels
#
# The *output* map goes from a layer's output to the logits. A column that is zero at every image is a unit that the output never
# feels on these images. Here there is none, before or after.

# %%
felt = kag.measure(cnn, probe, layers="block*", layer_map="output", k=1, baseline=cnn_before, progress=False)
display(felt.summary().query("score == 'unfelt_units_exact'")[["layer", "value", "baseline"]])

# %% [markdown]
# ## A vision transformer
#
# The model class of Hugging Face `transformers`, small and built from a configuration: nothing is downloaded.

# %%
torch.manual_seed(0)
sizes = {"image_size": side, "patch_size": side // 4, "num_channels": 1, "num_labels": 10}
widths = {"hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4}
vit = ViTForImageClassification(ViTConfig(**sizes, **widths))
vit_before = copy.deepcopy(vit)
train(vit, epochs=1 if QUICK else 3)

# %% [markdown]
# Its layers work on sequences of 17 tokens: one that is learned, from which the class is read (token 0), and 16 patches.
# `named_modules()` gives the names (in other releases of transformers they may differ):

# %%
print(*[name for name, _ in vit.named_modules() if name.startswith("vit.layers.0")], sep="\n")

# %% [markdown]
# ### The MLPs, token by token
#
# An MLP treats each token alone, so its *block* Jacobian is one 48 × 48 matrix for each image and token.

# %%
mlps = kag.measure(
    vit, probe, layers="vit.layers.*.mlp", layer_map="block", baseline=vit_before, tokens=3 if QUICK else 6, progress=False
)
display(mlps)

# %%
display(mlps.plot_tokens().figure)

# %% [markdown]
# ### Whole layers
#
# A layer with its attention and both residual connections. A token's output now depends on all tokens; measured is each token's
# output with respect to the same token's input, here at four tokens evenly spaced.

# %%
layers = kag.measure(
    vit, probe, layers="vit.layers.*", layer_map="block", baseline=vit_before, tokens=2 if QUICK else 4, progress=False
)
display(layers.plot_tokens().figure)

# %%
display(layers.plot_layers().figure)

# %% [markdown]
# ### From pixels to the class token
#
# The *input* map from the image to token 0 after the last layer: its columns are pixels again.

# %%
token = kag.measure(
    vit,
    probe,
    layers="vit.layernorm",
    tokens=[0],
    selections=balls,
    image_shape=shape,
    baseline=vit_before,
    progress=False,
)
display(token.plot_scales().figure)

# %%
for sentence in token.findings:
    print("-", sentence)

# %% [markdown]
# ### What is seen
#
# - In the MLPs of single tokens PR rises by 5 to 7%: small, above the interval of these images in all three layers, and nearly
#   alike at all tokens.
# - Whole layers change much more and not in one direction: in the first layer PR falls, in the second it rises, and in all
#   three it depends on the token. Here a residual connection adds the identity, so PR says as much about how large the rest of
#   the layer is beside it as about the rest itself.
# - From the pixels to the class token PR rises by about 15%, at every distance much alike.
#
# Ten images and one network: a reason to look further (more inputs, several trainings, another baseline), not a result.

# %% [markdown]
# ## Keeping it
#
# `report.save("folder")` writes tables (Parquet) and settings (JSON) that `kagscope.Report.load` reads,
# `report.to_csv("table.csv")` the tidy table, `report.to_html("page.html")` one self-contained page.

# %%
display(report.table.head())
