"""The page of a full run: claims, findings and figures of a study's folder as docs/results/.

    python docs/make_results.py out/mnist10k --minutes 12.3 [--memory 1.9] [--note "A sentence on time."]
    python docs/make_results.py out/mnist --page mnist --figures pr_ratio_by_radius scores_by_step --minutes 31

Everything on the page comes from the study's files; time and memory of the whole command, which no file knows, are given. What
stands between ``<!-- by hand: NAME -->`` and ``<!-- end -->`` on the old page is kept: read it again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from contrasts import command_of
from make_study_page import by_hand

from kagscope.base.provenance import hardware
from kagscope.studies.collect import with_labels
from kagscope.studies.findings import study_findings
from kagscope.studies.setting_tables import labels_of, varied_axes
from kagscope.studies.store import RunStore

TARGET = Path(__file__).resolve().parent / "results"
FIGURES = {
    "pr_ratio_by_radius": "Participation ratio over that at initialisation, pairs of pixels within a radius.",
    "pr_ratio_by_distance": "The same, pairs at least so far apart, and how many pairs are left.",
    "scores_by_step": "Scores and test accuracy along training.",
    "zipf": "Row means of the k-minor matrix by rank, trained and initial; the dot is where zero rows begin.",
    "minor_histogram": "Sizes of the minors, trained and initial; exact zeros at the left end.",
    "window_map": "Where in the image: the PR ratio in windows.",
    "scores_overview": "Every score, trained over initial.",
}


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def claim_rows(claims: list[dict[str, Any]]) -> list[str]:
    rows = ["| claim | verdict | control | effect | 95% interval | p | n |", "|---|---|---|---|---|---|---|"]
    for claim in claims:
        interval = "–" if claim["ci_low"] is None else f"{number(claim['ci_low'])} to {number(claim['ci_high'])}"
        effect = number(claim["effect"]) + (f" ({claim['decided_by']})" if claim["decided_by"] else "")
        verdicts = (f"**{claim['verdict']}**", claim["control"] or "–")
        cells = (claim["statement"], *verdicts, effect, interval, number(claim["p_value"]), str(claim["n"]))
        rows.append(f"| {claim['id'][0]}. " + " | ".join(cells) + " |")
    return rows


def answer(claims: list[dict[str, Any]], runs: pd.DataFrame) -> str:
    """What came out, what it does not show, and how far it reaches: three sentences."""
    held = [claim["id"][0] for claim in claims if claim["verdict"] == "reproduced"]
    others = {verdict: [c["id"][0] for c in claims if c["verdict"] == verdict] for verdict in ("not reproduced", "inconclusive")}
    rest = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in others.items() if names)
    passed = [claim["id"][0] for claim in claims if "control_passes" in claim.get("remarks", ())]
    named = "; ".join(part for part in (", ".join(held), rest) if part)
    count = f"Of the paper's six claims {len(held)} are" if held else "None of the paper's six claims is"
    first = f"{count} reproduced here ({named})."
    if not any(claim["control"] for claim in claims):
        control = "No nets were trained on shuffled labels beside these, so that nothing here tells learning from moved weights."
    elif passed:
        control = (
            f"The same nets trained on shuffled labels pass claims {', '.join(passed)} too: concentration shows that weights "
            "moved on these images, **not** that something was learnt."
        )
    elif undecided := [claim["id"][0] for claim in claims if "control_open" in claim["remarks"]]:
        control = f"Whether nets trained on shuffled labels pass claims {', '.join(undecided)} too is open."
    elif not held:
        control = ""
    else:
        control = "No claim that holds is passed by the same nets trained on shuffled labels."
    seeds, widths = runs["seed"].nunique(), ", ".join(str(int(width)) for width in sorted(runs["width"].unique()))
    reach = f"Not shown: what other data, depths or optimisers give; the evidence is {seeds} seeds of nets {widths} wide."
    return " ".join(sentence for sentence in (first, control, reach) if sentence)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="output folder of kagscope reproduce")
    parser.add_argument("--minutes", type=float, required=True, help="wall-clock time of the whole command")
    parser.add_argument("--memory", type=float, help="largest resident memory of one process, GiB")
    parser.add_argument("--note", default="", help="a sentence on time")
    parser.add_argument("--page", default="README", help="its name; figures of another page than the README carry it")
    parser.add_argument("--title", help="of the page")
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES))
    options = parser.parse_args()
    store = RunStore.existing(options.study)
    study, claims = store.study, json.loads((options.study / "claims.json").read_text())
    runs = pd.read_parquet(options.study / "runs.parquet")
    train, geometry = (runs[f"{part}_seconds"].sum() / 60 for part in ("train", "geometry"))
    versions = store.manifest(runs["run"].iloc[0])["versions"]
    results = pd.read_parquet(options.study / "results.parquet")
    last = results.groupby("run", observed=True)["step"].transform("max")
    accuracy = (
        results[results["step"] == last].groupby(["training", "labels", "width"], observed=True)["accuracy"].mean().reset_index()
    )
    reached = ", ".join(f"{row.training} {row.width} ({row.labels} labels): {row.accuracy:.3f}" for row in accuracy.itertuples())
    page = TARGET / f"{options.page}.md"
    kept = by_hand(page.read_text()).get(options.page, []) if page.exists() else []
    default = f"A full run on {Path(runs['data'].iloc[0]).name}"
    lines = [
        f"# {options.title or default}",
        "",
        *kept,
        answer(claims, runs),
        "",
        "Made by `docs/make_results.py` from the files that this command wrote:",
        "",
        "```sh",
        command_of(options.study, study["command"]),
        "```",
        "",
        f"On {hardware()}: {options.minutes:.1f} minutes in all; summed over processes, {train:.1f} minutes of training and "
        f"{geometry:.1f} of geometry{f'; at most {options.memory:.1f} GiB in one process' if options.memory else ''}. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
        + (f" {options.note}" if options.note else ""),
        "",
        "## Claims",
        "",
        "Judged by [criteria written before any result](../claims.md).",
        "",
        *claim_rows(claims),
        "",
        *(f"- Claim {claim['id'][0]}: {claim['note']}." for claim in claims if claim["note"]),
        "",
        "## Findings",
        "",
        *(f"- {sentence}" for sentence in study_findings(with_labels(results, labels_of(runs, varied_axes(runs))), {})),
        "",
        f"Mean test accuracy: {reached}.",
        "",
        "## Figures",
        "",
    ]
    TARGET.mkdir(exist_ok=True)
    prefix = "" if options.page == "README" else f"{options.page}_"
    for name in options.figures:
        shutil.copy(options.study / "figures" / f"{name}.png", TARGET / f"{prefix}{name}.png")
        lines += [f"![{FIGURES[name]}]({prefix}{name}.png)", "", FIGURES[name], ""]
    shutil.copy(options.study / "claims.json", TARGET / f"{prefix}claims.json")
    page.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
