"""The tidy tables that stages hand to each other: names and dtypes of their columns, nothing else.

``results`` has one row per number. Beside the columns of a measured model (``layer`` … ``reason``) it carries those of the run.

================ ======== ===============================================================================================
column           dtype    meaning
================ ======== ===============================================================================================
run              category run id, the name of its folder under ``runs/``
width            int32    units per hidden layer
training         category "standard" or "augmented"
labels           category of the training images: "true" or "shuffled"
seed             int32    seed of initialisation, batch order and augmentation
step             int32    optimiser steps taken; 0 is the untrained net
epoch            float64  the same in passes over the training set
accuracy         float64  test accuracy at that step, in [0, 1]
layer            category path of the module: "hidden1" and "hidden2" are the hidden layers of kagscope's own nets
k                int8     order of the minors; 0 for scores that are not about minors
selection        category canonical string of the column selection: "all", "ball(7)", "apart(7)", "window(13,13,7)"
point            int32    index of the data point in the test set; -1 for a score of the layer over many points
score            category name in MATH.md section 3, e.g. "pr", "kl_uniform", "rr_pr", "zero_rows", "kernel_alignment"
value            float64  the score; NaN where undefined
baseline         float64  the same score of the same net at initialisation
ratio            float64  value / baseline, per data point; NaN where undefined
stderr           float64  standard error of value where sampled; 0 where exact
baseline_stderr  float64  the same of baseline
exact            bool     whether value was computed exactly
reason           category why value is NaN; "" otherwise
================ ======== ===============================================================================================

``curves`` holds distributions, averaged over the measured points of one run: ``curve`` is "zipf" (``x`` rank from 1 by falling
row mean of the k-minor matrix, ``y`` that mean over the overall mean), or "histogram" (``x`` lower edge of the bin of
log2(M / mean M), 1/8 wide, ``y`` fraction of the minors; exact zeros at ``x = -inf``).
"""

from __future__ import annotations

RUN_COLUMNS: dict[str, str] = {
    "run": "category",
    "width": "int32",
    "training": "category",
    "labels": "category",
    "seed": "int32",
    "step": "int32",
    "epoch": "float64",
    "accuracy": "float64",
}

SCORE_COLUMNS: dict[str, str] = {
    "layer": "category",
    "k": "int8",
    "selection": "category",
    "point": "int32",
    "score": "category",
    "value": "float64",
    "baseline": "float64",
    "ratio": "float64",
    "stderr": "float64",
    "baseline_stderr": "float64",
    "exact": "bool",
    "reason": "category",
}

RESULT_COLUMNS: dict[str, str] = RUN_COLUMNS | SCORE_COLUMNS

CURVE_COLUMNS: dict[str, str] = {
    "run": "category",
    "width": "int32",
    "training": "category",
    "seed": "int32",
    "step": "int32",
    "layer": "category",
    "k": "int8",
    "selection": "category",
    "curve": "category",
    "x": "float64",
    "y": "float64",
}

ALPHA = 0.05
"""Level of every test, after correction."""
VERDICTS = ("reproduced", "not reproduced", "inconclusive")
TRAININGS = ("standard", "augmented")
BOOKKEEPING = frozenset({"column_subsets"})  # rows that describe the measurement, not the net
