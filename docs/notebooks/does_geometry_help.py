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
# # Does geometry help?
#
# The article asks whether geometry is merely a byproduct of gradient descent. Measuring cannot tell; pushing can. Here small nets learn scikit-learn's
# digits while a term of the loss pushes their hidden layer towards geometry, away from it, or, as a control, towards smaller gradients whatever
# the minors. Then they are attacked.
#
# This is a demonstration on small nets. The study that is to decide is `kagscope study run steering`; its criterion stands in
# [its design](../interventions.md#steering).

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from torch import nn
from torch.nn.functional import cross_entropy

import kagscope as kag
from kagscope.data import load
from kagscope.robustness import adversarial_accuracy

QUICK = bool(os.environ.get("KAGSCOPE_QUICK"))  # a run of seconds, to test this notebook
SEEDS, STEPS, POINTS = (2, 20, 30) if QUICK else (4, 400, 355)

# %%
data = load("digits")
x, x_test = (torch.from_numpy(part).flatten(1) for part in (data.train_images, data.test_images))
y, y_test = (torch.from_numpy(part) for part in (data.train_labels, data.test_labels))

# %% [markdown]
# ## Push while it learns
#
# The penalty is one more term of the loss: `weight` times the mean log of the participation ratio of the 2 × 2 minors at the first four images of a
# batch. Below 0 is towards geometry. The control has the same form, with the norm of the Jacobian instead.


# %%
def trained(seed: int, score: str, weight: float) -> nn.Module:
    """A net 64-24-10 after STEPS steps of Adam; nets of one seed start alike and see the same batches."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 24), nn.GELU(), nn.Linear(24, 10))
    penalty = kag.GeometryPenalty(model, ["1"], score, weight, points=4) if weight else None
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batches = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        chosen = torch.randint(len(x), (64,), generator=batches)
        loss = cross_entropy(model(x[chosen]), y[chosen])
        if penalty is not None:
            loss = loss + penalty(x[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


# %%
CELLS = {"towards": ("pr", -0.1), "left alone": ("pr", 0.0), "away": ("pr", 0.1), "smaller gradients": ("jacobian_l2", 0.1)}
rows = []
for name, cell in CELLS.items():
    for seed in range(SEEDS):
        model = trained(seed, *cell)
        report = kag.measure(model, x_test, layers=["1"], k=2, scores=["pr"], points=24, progress=False)
        attacked = {
            f"PGD {norm} {eps}": adversarial_accuracy(model, x_test[:POINTS], y_test[:POINTS], eps, norm=norm, seed=seed)
            for norm, eps in (("linf", 0.1), ("l2", 0.5))
        }
        right = float((model(x_test).argmax(1) == y_test).float().mean())
        pr = report.table.loc[report.table["score"] == "pr", "value"].mean()
        rows.append({"pushed": name, "seed": seed, "PR": pr, "accuracy": right} | attacked)
nets = pd.DataFrame(rows)
display(nets.groupby("pushed", sort=False).mean(numeric_only=True).drop(columns="seed").round(4))

# %% [markdown]
# ## Compare within seeds
#
# Each net against the net of the same seed that was left alone: mean difference, and the interval of twice its standard error over seeds, which with so few
# seeds is a rough one.

# %%
outcomes = ["accuracy", *attacked]
alone = nets[nets["pushed"] == "left alone"].set_index("seed")[outcomes]
figure, axes = plt.subplots(1, len(outcomes), figsize=(9, 3), layout="constrained")
for axis, outcome in zip(axes, outcomes, strict=True):
    for place, name in enumerate(name for name in CELLS if name != "left alone"):
        change = nets[nets["pushed"] == name].set_index("seed")[outcome] - alone[outcome]
        axis.errorbar(place, change.mean(), 2 * change.std() / np.sqrt(SEEDS), marker="o", capsize=3, color="C0")
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set_xticks(range(3), ["towards", "away", "smaller\ngradients"])
    axis.set_title(outcome, fontsize=10)
axes[0].set_ylabel("difference from left alone")
display(figure)
plt.close(figure)

# %% [markdown]
# ## What this does not show
#
# One small architecture, one easy data set, four seeds, and attacks that may be weaker than the best. Where nets that were pushed towards geometry resist an
# attack better, look at the control first: a net with smaller gradients resists as well, and has nothing to do with minors. Equal weights are equal
# only as terms of the loss. Accuracy without an attack, on the left, says what the push costs.
