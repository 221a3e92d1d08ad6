"""The page of a finished study from a file: its file, findings, pictures and strongest relations, as docs/results/NAME.md.

    python docs/make_study_page.py out/phase
    python docs/make_study_page.py out/robustness out/robustness-mnist

Everything on the page comes from the studies' folders; the first gives the name, the others are parts of its page. What stands
between ``<!-- by hand: NAME -->`` and ``<!-- end -->`` on the old page, an answer in words, is kept: read it again.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from contrasts import CONTRASTS, command_of, contrast_lines

from kagscope.base.provenance import hardware
from kagscope.studies.setting_tables import tied_axes, varied_axes
from kagscope.studies.statistics.student import Estimate, t_interval
from kagscope.studies.store import RunStore
from kagscope.studies.study import conclude

TARGET = Path(__file__).resolve().parent / "results"
SHOWN = 12  # relations
LEVEL = 0.05
FINE = 10  # kept states: between fewer, steps to an accuracy are not read
PICTURES = {
    "map_*": "Scores over the two axes of the study with most values",
    "by_*": "Scores against what was varied; means, 95% intervals over nets",
    "training_*": "Along training: test accuracy or R², PR, rotation ratio, zero rows; means, 95% intervals over nets",
    "relations": "Correlations over seeds within settings, 95% intervals; * differs from 0 "
    "after correction for all pairs asked for. Below, the nets behind the strongest of each outcome",
    "robustness": "Accuracy under attack against its radius; means, 95% intervals over nets",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args()
    page = TARGET / f"{RunStore.existing(given.folders[0]).study['name']}.md"
    kept = by_hand(page.read_text()) if page.exists() else {}
    parts = [_part(folder, kept) for folder in given.folders]
    further = [line for part in parts[1:] for line in ["", *part]]
    lines = parts[0] + [f"#{line}" if line.startswith("#") else line for line in further]
    page.write_text("\n".join(lines).rstrip() + "\n")
    print(f"{TARGET.name}/{page.name}")


def by_hand(text: str) -> dict[str, list[str]]:
    """The blocks of an old page that were written by hand, with their marks, by the name of their study."""
    found = re.finditer(r"^<!-- by hand: (.*?) -->\n.*?^<!-- end -->$", text, flags=re.MULTILINE | re.DOTALL)
    return {block[1]: [*block[0].split("\n"), ""] for block in found}


def _part(folder: Path, kept: dict[str, list[str]]) -> list[str]:
    """What is said of one study."""
    store = RunStore.existing(folder)
    study = store.study
    outcome = conclude(store)
    name, settings = study["name"], study["settings"]
    missing = f", of {len(study['runs'])} that the file asks for" if outcome.left_out else ""
    lines = [
        f"# {name}",
        "",
        *kept.get(name, []),
        settings["description"],
        "",
        "```sh",
        command_of(folder, study["command"]),
        "```",
        "",
    ]
    lines += [
        f"{len(outcome.runs)} runs{missing}. On {hardware()}: {outcome.seconds['train'] / 60:.1f} minutes of training and "
        f"{outcome.seconds['geometry'] / 60:.1f} of geometry, added up over processes that shared the cores with other work. "
        "Made by `docs/make_study_page.py`.",
        "",
        *contrast_lines(name, folder),
        "## Findings",
        "",
        *(f"- {sentence}" for sentence in outcome.findings if " was left out: not finished" not in sentence),
        "",
    ]
    related = pd.read_csv(folder / "relations.csv")
    varied = _axes(pd.read_parquet(folder / "runs.parquet"))
    for pattern, about in PICTURES.items():
        if pattern == "by_*" and len(varied) != 1:
            continue
        if (pattern == "relations" and not (related["p_joint"] < LEVEL).any()) or (pattern == "map_*" and name in CONTRASTS):
            continue
        for picture in sorted((folder / "figures").glob(f"{pattern}.png")):
            shutil.copyfile(picture, TARGET / f"{name}_{picture.name}")
            lines += [f"![{about}]({name}_{picture.name})", ""]
    lines += _phase_diagram(folder / "phase_diagram.csv")
    return lines + _outcomes(pd.read_parquet(folder / "runs.parquet"), _kept_steps(folder)) + _relations(related)


def _kept_steps(folder: Path) -> int:
    return int(pd.read_parquet(folder / "results.parquet", columns=["step"])["step"].nunique())


def _axes(runs: pd.DataFrame) -> list[str]:
    return [name for name in tied_axes(runs, varied_axes(runs)) if name != "seed"]


def _outcomes(runs: pd.DataFrame, kept: int) -> list[str]:
    """Each outcome that differs: means over nets, and differences from the first setting within seeds, of steps as ratios.

    Steps to an accuracy are told only where ``kept``, the number of states, is large enough to read them off.
    """
    axes = _axes(runs)
    steps = ("steps_to_",) if kept >= FINE else ()
    named = [name for name in runs.columns if name.startswith((*steps, "pgd_")) or name in ("accuracy", "train_accuracy")]
    shown = [name for name in named if runs[name].nunique() > 1]
    if not axes or runs["seed"].nunique() < 2 or not shown:
        return []
    lines = [
        "## Outcomes",
        "",
        "Means over nets; in brackets the mean difference within seeds from the first setting (for steps, the ratio), with its "
        "95% interval (t), not corrected for their number.",
        "",
        f"| {' | '.join([*axes, 'nets', *shown])} |",
        "|" + "---|" * (len(axes) + 1 + len(shown)),
    ]
    settings = list(runs.groupby(axes, sort=False, dropna=False))
    first = settings[0][1].set_index("seed")
    for values, nets in settings:
        cells = [*map(str, values), str(len(nets)), *(_change(nets.set_index("seed")[name], first[name]) for name in shown)]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _change(values: pd.Series, first: pd.Series) -> str:
    """A mean, and what it is against ``first``: both by seed; seeds without a number are left out and counted."""
    if values.isna().all():
        return f"none of {len(values)}"
    steps = str(values.name).startswith("steps_to_")
    change = ((values / first).map(np.log) if steps else values - first).dropna()
    few = "" if values.notna().all() else f", {values.notna().sum()} of {len(values)}"
    mean = f"{values.mean():.4g}{few}"
    if len(change) < 2 or not change.any():
        return mean
    estimate = Estimate(change.mean(), change.std() / len(change) ** 0.5, len(change) - 1)
    numbers = [float(number) for number in (change.mean(), *t_interval(estimate))]
    middle, low, high = np.exp(numbers) if steps else numbers
    return f"{mean} ({middle:.3g}: {low:.3g} to {high:.3g})"


def _phase_diagram(file: Path) -> list[str]:
    """The three signatures and the verdict for each setting, of a study over data and widths of nets with one hidden layer."""
    table = pd.read_csv(file) if file.stat().st_size > 1 else pd.DataFrame()
    if not {"data", "width"} <= set(table.columns) or table["layer"].nunique() > 1:
        return []
    axes = list(dict.fromkeys(["data", "width", *table.columns[: list(table.columns).index("layer")]]))
    head = [
        "## Where it occurs",
        "",
        "Trained over initial, geometric means over nets with 95% intervals; p after Holm's adjustment over all rows.",
        "",
        f"| {' | '.join(axes)} | R² | PR | KL | rotation ratio | p | occurs | from step |",
        f"|{'---|' * (len(axes) + 7)}",
    ]
    order = {name: place for place, name in enumerate(table["data"].unique())}
    table = table.sort_values(axes, key=lambda values: values.map(order) if values.name == "data" else values)
    rows = []
    for row in table.to_dict("records"):
        ratios = [
            f"{row[name]:.2f} ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})" for name in ("pr", "kl_uniform", "rr_pr")
        ]
        onset = f"{row['onset_step']:g}" if row["occurs"] and row["onset_step"] == row["onset_step"] else ""
        verdict = "**yes**" if row["occurs"] else "no"
        cells = [*(row[name] for name in axes), f"{row['accuracy']:.2f}", *ratios, f"{row['p_holm']:.2g}", verdict, onset]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return [*head, *rows, ""]


def _relations(table: pd.DataFrame) -> list[str]:
    """The relations that the correction leaves, strongest first."""
    if table.empty or table["p_value"].isna().all():
        return [f"## Relations\n\nNothing can be said: {table['reason'].iloc[0]}." if len(table) else ""]
    clear = table[table["p_joint"] < LEVEL]
    ordered = clear.reindex(clear["rho"].abs().sort_values(ascending=False).index).head(SHOWN)
    head = [
        f"## Relations: {len(clear)} of {len(table)} survive",
        "",
        f"Correlations over {table['n'].iloc[0]} seeds within {table['settings'].iloc[0]} settings, corrected for all "
        "that were asked for. None of them is a cause.",
    ]
    rows = ["", "| score | k | layer | of | outcome | correlation | corrected p |", "|---|---|---|---|---|---|---|"]
    rows += [
        f"| `{row['score']}` | {row['k']} | {row['layer']} | {row['measure']} | {row['outcome']} | {row['rho']:.2f} "
        f"({row['rho_low']:.2f} to {row['rho_high']:.2f}) | {row['p_joint']:.2g} |"
        for row in ordered.to_dict("records")
    ]
    return [*head, *rows] if len(ordered) else head


if __name__ == "__main__":
    main()
