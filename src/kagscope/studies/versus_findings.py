"""Sentences about two studies side by side: what stands out, what differs besides, what to distrust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kagscope.labels import score_label
from kagscope.studies.contrasts import ACCURACY
from kagscope.studies.findings import learning, left_out_sentences
from kagscope.studies.side import Side
from kagscope.tables.schema import ALL_SETTINGS

LEVEL = 0.05
FEW_NETS = 5
LISTED = 4


def versus_findings(
    sides: Sequence[Side], table: pd.DataFrame, settings: pd.DataFrame, differences: pd.DataFrame, same_points: bool
) -> list[str]:
    """Sentences in order of weight; arguments as the attributes of :class:`kagscope.studies.versus.Comparison`."""
    a, b = (side.name for side in sides)
    pooled = table[(table["setting"] == ALL_SETTINGS) & (table["selection"] == "all")]
    return [
        *_what_differs(a, b, differences),
        *_main(a, b, pooled),
        *_counted(pooled),
        *_verdicts(sides),
        *_shares(a, b, settings),
        *_distrust(sides, settings, differences, pooled, same_points),
        *(
            f"{side.name}: {sentence}"
            for side in sides
            for sentence in [*learning(side.results), *left_out_sentences(side.left_out, len(side.runs))]
        ),
    ]


def _what_differs(a: str, b: str, differences: pd.DataFrame) -> list[str]:
    networks = differences[differences["kind"] == "network"]
    if networks.empty:
        return [f"{a} and {b} trained their networks with the same values, so they should differ by chance or by versions only."]
    listed = "; ".join(
        f"{row['value']} {row['a'] or 'none'} in {a}, {row['b'] or 'none'} in {b}" for row in networks.to_dict("records")
    )
    many = " More than one thing differs, so no effect can be put down to one of them." if len(networks) > 1 else ""
    return [f"What differs between the networks: {listed}.{many}"]


def _main(a: str, b: str, pooled: pd.DataFrame) -> list[str]:
    said = []
    for row in pooled[(pooled["score"] == "pr") & (pooled["k"] == 2)].to_dict("records"):
        what = "PR ratio (trained over initial)" if row["measure"] == "ratio" else "PR"
        said.append(f"{b}'s {what} at layer {row['layer']} is {_effect(row)} {a}'s {_evidence(row)}.")
    for row in pooled[pooled["score"] == ACCURACY].to_dict("records"):
        gain = row["estimate"]
        if gain == 0:
            said.append("Test accuracy is the same in both.")
        else:
            interval = _interval(row["low"], row["high"], 4)
            said.append(
                f"Test accuracy is {abs(gain):.4f} {'higher' if gain > 0 else 'lower'} in {b} "
                f"({row['b']:.3f} against {row['a']:.3f}; difference {interval}{_p(row)})."
            )
    return said


def _effect(row: Mapping[Any, Any]) -> str:
    if row["effect"] == "ratio":
        return f"{row['estimate']:.2f} times"
    return f"{abs(row['estimate']):.3g} {'above' if row['estimate'] >= 0 else 'below'}"


def _evidence(row: Mapping[Any, Any]) -> str:
    count = f"n = {row['n_a']} pairs" if row["paired"] else f"n = {row['n_a']} and {row['n_b']} networks"
    return f"({_interval(row['low'], row['high'], 2)}, {count}{_p(row)})"


def _interval(low: float, high: float, digits: int) -> str:
    return "no interval" if low != low else f"{low:.{digits}f} to {high:.{digits}f}"


def _p(row: Mapping[Any, Any]) -> str:
    p = row["p_holm"]
    return "" if p != p else f", p {'< 0.001' if p < 0.001 else f'= {p:.2g}'} after Holm's correction"


def _counted(pooled: pd.DataFrame) -> list[str]:
    tested = pooled[pooled["p_holm"].notna()]
    if tested.empty:
        return ["Nothing could be tested: no setting has two networks in both studies."]
    clear = tested[tested["p_holm"] < LEVEL]
    if (tested["estimate"] == (tested["effect"] == "ratio")).all():
        return [f"The networks of both are the same, to rounding, in all {len(tested)} scores over all columns."]
    if clear.empty:
        return [
            f"Nothing differs after correction: of {len(tested)} scores over all columns the smallest adjusted p is "
            f"{tested['p_holm'].min():.2g} (Holm)."
        ]
    factors = clear[clear["effect"] == "ratio"]
    said = [f"{len(clear)} of {len(tested)} scores over all columns differ between the two after Holm's correction."]
    if len(factors):
        most = factors.iloc[int(factors["estimate"].where(factors["estimate"] > 1, 1 / factors["estimate"]).to_numpy().argmax())]
        order = f"{most['score']}, k = {most['k']}" if most["k"] else most["score"]
        of = "trained over initial" if most["measure"] == "ratio" else "the score itself"
        said.append(
            f"The largest factor is that of the {score_label(most['score'])} ({order}) at layer {most['layer']}, {of}: "
            f"{most['estimate']:.2f} ({_interval(most['low'], most['high'], 2)})."
        )
    return said


def _verdicts(sides: Sequence[Side]) -> list[str]:
    if not all(side.claims for side in sides):
        return []
    of = [{str(claim.get("id")): str(claim.get("verdict")) for claim in side.claims} for side in sides]
    both = [name for name in of[0] if name in of[1]]
    other = [name for name in both if of[0][name] != of[1][name]]
    if not other:
        return [f"All {len(both)} claims that both test have the same verdict."]
    listed = "; ".join(
        f"claim {name.replace('-', ', ', 1).replace('-', ' ')}, {of[0][name]} in {sides[0].name}, "
        f"{of[1][name]} in {sides[1].name}"
        for name in other
    )
    return [f"{len(other)} of {len(both)} claims {'have' if len(other) > 1 else 'has'} another verdict: {listed}."]


def _shares(a: str, b: str, settings: pd.DataFrame) -> list[str]:
    said = []
    for name, has, lacks in ((a, "nets_a", "nets_b"), (b, "nets_b", "nets_a")):
        only = settings[(settings[has] > 0) & (settings[lacks] == 0)]["setting"].tolist()
        if only:
            listed = "; ".join(only[:LISTED]) + (f" and {len(only) - LISTED} more" if len(only) > LISTED else "")
            many = len(only) != 1
            said.append(f"{len(only)} setting{'s are' if many else ' is'} only in {name} and left out: {listed}.")
    return said


def _distrust(
    sides: Sequence[Side], settings: pd.DataFrame, differences: pd.DataFrame, pooled: pd.DataFrame, same_points: bool
) -> list[str]:
    shared = settings[(settings["nets_a"] > 0) & (settings["nets_b"] > 0)]
    fewest = int(shared[["nets_a", "nets_b"]].min(axis=1).min())
    said = []
    if fewest == 1:
        said.append(
            "A setting has one network only on one side: nothing there says how much networks of the same setting differ."
        )
    elif fewest < FEW_NETS:
        said.append(f"A setting has as few as {fewest} networks: intervals rest on logarithms being about normal.")
    unpaired = shared[~shared["paired"]]
    if len(unpaired):
        said.append(
            f"In {len(unpaired)} of {len(shared)} settings the networks do not start from the same weights, or seeds differ: "
            "they were compared as two groups, not in pairs."
        )
    if not same_points:
        said.append("The data differ, so the scores are of different images, and selections of columns mean other places.")
    measured = differences[differences["kind"] == "measurement"]
    if len(measured):
        listed = ", ".join(f"{row['value']} {row['a'] or 'none'} and {row['b'] or 'none'}" for row in measured.to_dict("records"))
        where = " at the images that both measured" if same_points else ""
        said.append(f"They measured differently ({listed}); scores are compared{where} all the same.")
    versions = differences[differences["kind"] == "version"]
    if len(versions):
        listed = ", ".join(f"{row['value']} {row['a']} and {row['b']}" for row in versions.to_dict("records"))
        said.append(f"Versions differ: {listed}.")
    sampled = pooled[~pooled["exact"]]["score"].unique()
    if len(sampled):
        said.append(
            f"Sampled, not exact, are {', '.join(sorted(sampled))}; their sampling error is part of the spread over networks."
        )
    return said
