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
# # A first look
#
# An MLP learns handwritten digits. Do the minors of its layers' Jacobians concentrate? Half a minute, no GPU, no download.

# %%
import copy
import os

import torch
from IPython.display import display
from torch import nn

import kagscope as kag
from kagscope.data import load

QUICK = bool(os.environ.get("KAGSCOPE_QUICK"))  # a run of seconds, to test this notebook

digits = load("digits")  # 8 x 8 pixels, come with scikit-learn
images, labels = torch.from_numpy(digits.train_images).flatten(1), torch.from_numpy(digits.train_labels)
test_images, test_labels = torch.from_numpy(digits.test_images).flatten(1), torch.from_numpy(digits.test_labels)

# %% [markdown]
# ## Train, and keep a copy from before

# %%
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))
before = copy.deepcopy(model)

optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for _ in range(100 if QUICK else 2000):
    batch = torch.randint(len(images), (64,))
    loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

right = (model(test_images).argmax(1) == test_labels).float().mean().item()
print(f"{right:.1%} of the test images are recognised")

# %% [markdown]
# ## Measure
#
# The layers after their activations are "1" and "3". Beside all pairs of pixels, those at most 2 and 4 pixels apart.

# %%
points = 5 if QUICK else 40
report = kag.measure(
    model,
    test_images[:points],
    layers=["1", "3"],
    selections=[kag.All(), kag.Ball(2), kag.Ball(4), kag.Ball(8)],
    image_shape=(8, 8),
    baseline=before,
    progress=False,
)
display(report)

# %% [markdown]
# A line for each layer and size k of the minors. `PR` is how concentrated they are, `/ baseline` the same over that of the net
# before training with its 95% interval over the images, and below stand the sentences that a careful colleague would add.
#
# ## Where does the concentration sit?
#
# The minors themselves: their sizes over their mean, trained against initial. What is at the left end is nearly zero.

# %%
display(report.plot_histogram(layer="3").figure)

# %% [markdown]
# Rows of the matrix of minors by their mean: a pair of units each. A line that falls early says that few pairs carry the sum.

# %%
display(report.plot_zipf(layer="3").figure)

# %% [markdown]
# ## Does it depend on the distance of the pixels?
#
# The paper found the ratio to be nearly the same at every scale. A dot at each radius; if they are level, it is so here.

# %%
display(report.plot_scales().figure)

# %% [markdown]
# ## By hand
#
# Nothing is hidden: a Jacobian of PyTorch, and its 2 x 2 minors, all 4 million of them.

# %%
J = torch.func.jacrev(model[:4].double())(test_images[0].double()).detach()
moments = kag.minor_moments(J, k=2)
print(moments.plan.explain())
print(f"{moments.count:,} minors, PR {moments.participation_ratio:.3g}")
print(f"rotation ratio {kag.rotation_ratio(J, k=2):.3f}, axis alignment {kag.axis_alignment(J):.3f}")
_ = model.float()

# %% [markdown]
# ## Keep it
#
# `report.to_html("geometry.html")` is the page to explore and send; `report.save("geometry")` what `kag.Report.load` reads.

# %%
display(
    report.summary().query("score == 'pr' and k == 2")[
        ["layer", "selection", "points", "value", "ratio", "ratio_low", "ratio_high"]
    ]
)
