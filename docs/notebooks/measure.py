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
# of its layers' Jacobians are. This notebook trains two small networks on 10,000 images of MNIST, which come with the package, keeps a copy of each
# from before training, and looks at three sorts of map (a few minutes in all):
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

# %%
data = load("mnist10k")
display(data)

# %%
images, test_images = (torch.from_numpy(part)[:, None] for part in (data.train_images, data.test_images))
labels, test_labels = (torch.from_numpy(part) for part in (data.train_labels, data.test_labels))
if QUICK:
    images, labels = images[:1000], labels[:1000]

side = data.image_shape[0]
shape = data.image_shape
balls = [kag.All(), *[kag.Ball(radius) for radius in (side // 4, side // 2, side)]]
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
# Three blocks of convolution, batch normalisation and ReLU, with strides that leave few places. Batch normalisation often breaks Jacobians of single
# points; `measure` runs the model in eval mode, where it is a fixed affine map, and puts the mode back afterwards.

# %%
torch.manual_seed(0)


def conv_block(inputs: int, outputs: int, size: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=1)
    return nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(outputs), act=nn.ReLU()))


cnn = nn.Sequential(
    OrderedDict(
        block1=conv_block(1, 4, size=6, stride=4),
        block2=conv_block(4, 8, size=3, stride=2),
        block3=conv_block(8, 16, size=3, stride=2),
        flatten=nn.Flatten(),
        head=nn.Linear(64, 10),
    )
)
cnn_before = copy.deepcopy(cnn)
train(cnn, epochs=1 if QUICK else 6)

# %% [markdown]
# ### Three lines
#
# The layers are named as `cnn.named_modules()` names them; `*` stands for one part of a name. Layers are measured whole; `max_rows=256`
# would draw so many units of a larger one at random and estimate it from these. `~` stands before what was sampled. The columns are pixels, so selections can ask for pairs
# of pixels at most 7, 14, … apart.

# %%
report = kag.measure(cnn, probe, layers="block*", selections=balls, image_shape=shape, baseline=cnn_before, progress=False)
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
# On these ten images the 2 × 2 minors are *less* concentrated after training in the first block (0.6 times) and the second (0.9), hardly changed in the
# third (1.06, with an interval that includes 1), and much the same at every distance between pixels. Before reading anything into this, look at units that are off.
# A ReLU that is off has a row of zeros; if nothing else changed, going from a share `baseline` of rows that are off to `value` would multiply PR by
# (1 − baseline) / (1 − value), the column `explained`: 0.50, 0.74 and 0.94. Training turned units on, which alone would lower PR by more than it fell; among
# the units that are on, minors concentrate by 1.1 to 1.2 times in every block. The interval is over images of one network and says nothing of other trainings.

# %%
off = report.summary().query("score == 'zero_rows_exact' and k == 1")[["layer", "value", "baseline"]]
display(off.assign(explained=(1 - off["baseline"]) / (1 - off["value"])))

# %% [markdown]
# ### Each block on its own
#
# The *block* map leaves out what came before: its columns are the entries of the block's own input, 4 × 7 × 7 for the second.

# %%
blocks = kag.measure(cnn, probe, layers=["block2", "block3"], layer_map="block", baseline=cnn_before, progress=False)
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
train(vit, epochs=1 if QUICK else 8)

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
# A layer with its attention and both residual connections. A token's output now depends on all tokens; what is measured is each token's
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
# - In the MLPs of single tokens PR rises by 6 to 8%: small, above the interval of these images in all three layers, and nearly alike at all tokens.
# - Whole layers change much more and not in one direction: in the first layer PR falls, in the other two it rises, and in all three it depends on the
#   token. Here a residual connection adds the identity, so PR says as much about how large the rest of the layer is beside it as about the rest itself.
# - From the pixels to the class token PR rises by about 30% (14 to 46%), at every distance much alike.
#
# Ten images and one network: a reason to look further (more inputs, several trainings, another baseline), not a result.

# %% [markdown]
# ## Keeping it
#
# `report.save("folder")` writes tables (Parquet) and settings (JSON) that `kagscope.Report.load` reads,
# `report.to_csv("table.csv")` the tidy table, `report.to_html("page.html")` one self-contained page.

# %%
display(report.table.head())
