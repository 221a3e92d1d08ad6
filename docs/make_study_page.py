"""The page of a finished study from a file: its file, findings, map and strongest relations, as docs/results/NAME.md.

    python docs/make_study_page.py out/phase --minutes 2.7

Everything on the page comes from the study's folder; the time of the whole command, which no file knows, is given.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pandas as pd

from kagscope.provenance import hardware
from kagscope.studies.run_file import collector
from kagscope.studies.store import RunStore

TARGET = Path(__file__).resolve().parent / "results"
SHOWN = 12  # relations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, required=True, help="of the command that made it")
    given = parser.parse_args()
    store = RunStore.existing(given.folder)
    outcome = collector(store)(store, store.study["runs"], lambda event: None)
    name, settings = store.study["name"], store.study["settings"]
    seconds = outcome.seconds
    lines = [f"# {name}", "", settings["description"], "", "```sh", store.study["command"], "```", ""]
    lines += [
        f"On {hardware()}: {given.minutes:g} minutes in all; added up over processes {seconds['train'] / 60:.1f} minutes of "
        f"training and {seconds['geometry'] / 60:.1f} of geometry. {len(outcome.runs)} runs. Made by `docs/make_study_page.py`.",
        "",
        *(f"- {sentence}" for sentence in outcome.findings),
        "",
    ]
    for picture in sorted((given.folder / "figures").glob("map_[0-9]*.png")):
        shutil.copyfile(picture, TARGET / f"{name}_{picture.name}")
        lines += [f"![Scores over the two axes of the study with most values]({name}_{picture.name})", ""]
    lines += _relations(pd.read_csv(given.folder / "relations.csv"))
    (TARGET / f"{name}.md").write_text("\n".join(lines).rstrip() + "\n")
    print(TARGET.name + f"/{name}.md")


def _relations(table: pd.DataFrame) -> list[str]:
    """The relations with the largest partial correlations whose intervals exclude 0, of pairs that the correction leaves."""
    clear = table[(table["p_holm"] < 0.05) & (table["partial_low"] * table["partial_high"] > 0)]
    ordered = clear.reindex(clear["partial"].abs().sort_values(ascending=False).index).head(SHOWN)
    head = [
        f"## The {len(ordered)} strongest of {len(clear)} relations",
        "",
        f"Of {len(table)} rank correlations over runs, {int((table['p_holm'] < 0.05).sum())} differ from 0 after Holm's "
        f"adjustment; of these {len(clear)} have a partial correlation, all that varies but the seed held fixed, whose 95% "
        "interval excludes 0. None of them is a cause.",
        "",
        "| score | k | layer | of | outcome | rank correlation | partial | n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = [
        f"| `{row['score']}` | {row['k']} | {row['layer']} | {row['measure']} | {row['outcome']} | {row['rho']:.2f} "
        f"({row['rho_low']:.2f} to {row['rho_high']:.2f}) | {row['partial']:.2f} ({row['partial_low']:.2f} to "
        f"{row['partial_high']:.2f}) | {row['n']} |"
        for row in ordered.to_dict("records")
    ]
    return [*head, *rows] if len(ordered) else [head[2]]


if __name__ == "__main__":
    main()
