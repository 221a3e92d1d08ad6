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
# # A study
#
# One net is an anecdote. Here: does label noise change the geometry of small MLPs on the digits? Nine nets from a short file, about a minute.

# %%
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

import kagscope as kag

QUICK = bool(os.environ.get("KAGSCOPE_QUICK"))  # a run of seconds, to test this notebook
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The file
#
# What all runs share, what varies, what is measured. `kagscope study init study.toml` writes one with every value and its default.

# %%
(folder / "study.toml").write_text(f"""
name = "noise"
description = "Geometry against label noise."

[run]
data = "digits"
epochs = {1 if QUICK else 20}
depth = 2

[grid]
width = [{6 if QUICK else 16}]
label_noise = {[0.0, 0.4] if QUICK else [0.0, 0.2, 0.4]}
seed = {{ count = {2 if QUICK else 3} }}

[measure]
k = [1, 2]
checkpoints = {2 if QUICK else 3}
points = {3 if QUICK else 12}
""")


def kagscope(*arguments: str) -> str:
    """A command line, as in a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "kagscope", *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


print(kagscope("study", "plan", "study.toml"))

# %% [markdown]
# ## Run
#
# Stop it at any moment: the same command goes on. A larger grid in the file computes only what is new.

# %%
print(kagscope("study", "run", "study.toml", "--out", "out", "--quiet"))
print(kagscope("study", "status", "out"))

# %% [markdown]
# ## Read
#
# `runs.parquet` has a line for each net, `summary.csv` the means over the seeds of each setting with intervals over nets.

# %%
runs = pd.read_parquet(folder / "out" / "runs.parquet")
display(runs.groupby("label_noise")[["accuracy", "train_accuracy"]].mean())

# %%
summary = pd.read_csv(folder / "out" / "summary.csv", dtype={"layer": str})
chosen = summary.query("score == 'pr' and k == 2 and selection == 'all'")
display(chosen[["label_noise", "layer", "nets", "accuracy", "value", "baseline", "ratio", "ratio_low", "ratio_high"]])

# %% [markdown]
# ## Look
#
# `out/report.html` is the page to explore, `out/figures` has the printed figures. One of our own from the summary: the ratio of PR to
# that before training, mean and 95% interval over nets.

# %%
figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
for layer, rows in chosen.groupby("layer"):
    ends = [rows["ratio"] - rows["ratio_low"], rows["ratio_high"] - rows["ratio"]]
    ax.errorbar(rows["label_noise"], rows["ratio"], ends, marker="o", capsize=3, label=layer)
ax.axhline(1, color="grey", linewidth=0.8)
ax.set(xlabel="label noise", ylabel="PR, trained / initial")
ax.legend()
display(figure)
plt.close(figure)

# %% [markdown]
# Intervals that do not overlap are a hint, not a verdict: the study varied one thing, on one data set, with three nets each.
# `relations.csv` asks whether geometry goes with outcomes within settings: five seeds can tell, three cannot, and it says so.

# %% [markdown]
# ## Go on
#
# `kag.open_study` gives the networks, before and after training, with the inputs and the spec that they were measured with: here one
# of them at other distances between pixels.

# %%
study = kag.open_study(folder / "out")
run = study.runs[0]
spec = study.spec.with_(selections=["all", "ball(2)", "apart(4)"], scores=["pr"], k=2, window_map=0)
report = kag.measure(study.model(run), study.inputs, spec=spec, baseline=study.model(run, step=0), progress=False)
display(report)
