"""Sentences that open the page of a study from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from kagscope.data.functions import accuracy_name
from kagscope.studies.findings import few_points, learning, left_out_sentences, sampled_and_undefined
from kagscope.tables.means import final, per_run


def study_findings(results: pd.DataFrame, runs: pd.DataFrame, varied: Sequence[str], left_out: Mapping[str, str]) -> list[str]:
    """What was run, what stands out, and what to distrust."""
    said = [
        f"{len(runs)} runs; varied: {', '.join(varied) or 'nothing'}. "
        f"Mean test {accuracy_name(runs['data'])} {runs['accuracy'].mean():.3f}."
    ]
    last = final(per_run(results))
    chosen = last[(last["score"] == "pr") & (last["k"] == 2) & (last["selection"] == "all") & last["ratio"].notna()]
    if len(chosen):
        most = chosen.sort_values("ratio").iloc[-1]
        said.append(
            f"The participation ratio of the 2 x 2 minors grew most in layer {most['layer']} of {most['run']}: "
            f"{most['ratio']:.2f} times its initial value."
        )
        share = float((chosen["ratio"] > 1).mean())
        said.append(f"It is above its initial value in {share:.0%} of all layers and runs.")
    if runs["seed"].nunique() == 1:
        said.append("There is one seed only: nothing here says how much nets of the same setting differ.")
    trained = final(results)
    said += [*sampled_and_undefined(trained), *few_points(trained), *learning(results)]
    return said + left_out_sentences(left_out, len(runs))


def related_sentences(related: pd.DataFrame, fixed: Sequence[str]) -> list[str]:
    """The relation of geometry to test accuracy and robustness that stands out most, and how many survive the correction."""
    if related.empty:
        return []
    clear = related[related["p_holm"] < 0.05]
    said = [f"{len(clear)} of {len(related)} rank correlations of geometry with outcomes differ from 0 after Holm's correction."]
    which = "partial" if fixed and related["partial"].notna().any() else "rho"
    most = related.iloc[int(related[which].abs().to_numpy(dtype=float, na_value=0.0).argmax())]
    held = f", {', '.join(fixed)} held fixed" if which == "partial" else ""
    interval = f"{most[f'{which}_low']:.2f} to {most[f'{which}_high']:.2f}, n = {most['n']}"
    return [
        *said,
        f"The strongest{held}: {most['score']} (k = {most['k']}, layer {most['layer']}, {most['measure']}) with "
        f"{most['outcome']}: {most[which]:.2f} ({interval}). It is a correlation, not a cause.",
    ]
