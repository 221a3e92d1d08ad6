"""Claims for the page, each with links that set the page's controls to show its evidence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from kagscope.tables.schema import VERDICTS


class Link(NamedTuple):
    """Text of a link, section that it leads to, and settings of the controls there."""

    label: str
    place: str
    view: str


ONE_TRAINING = {"width": "*", "training": "standard"}
ALL = {"width": "*", "training": "*"}
PR = {"score": "pr", "k": "2", "measure": "ratio", "selection": "all"}
# evidence of each claim (MATH.md section 5)
EVIDENCE: dict[str, tuple[tuple[str, str, dict[str, str]], ...]] = {
    "1": (
        ("PR ratio", "training", PR | ONE_TRAINING),
        ("KL", "training", PR | ONE_TRAINING | {"score": "kl_uniform", "measure": "difference"}),
        ("rotation ratio", "training", PR | ONE_TRAINING | {"score": "rr_pr", "measure": "ratio"}),
    ),
    "2": (("PR ratio by radius", "scales", PR | ONE_TRAINING | {"axis": "ball", "step": "last"}),),
    "3": (("PR ratio by distance", "scales", PR | ONE_TRAINING | {"axis": "apart", "step": "last"}),),
    "4": (("PR ratio of each width", "scales", PR | ONE_TRAINING | {"axis": "ball", "step": "last"}),),
    "5": (
        ("PR ratio of both trainings", "scales", PR | ALL | {"axis": "ball", "step": "last"}),
        ("along training", "training", PR | ALL),
    ),
    "6": (
        (
            "share of zero rows",
            "training",
            {"score": "zero_rows", "k": "1", "measure": "difference", "selection": "all"} | ONE_TRAINING,
        ),
        ("row means by rank", "minors", {"curvek": "1", "curveselection": "all"} | ALL),
    ),
}
SHORT = {
    "1": "concentrates",
    "2": "at every scale",
    "3": "at every distance",
    "4": "grows with width",
    "5": "with augmentation",
    "6": "zero rows",
}
NOTES = ("criterion", "note")
HEADS = {"selection": "columns", "ci_low": "low", "ci_high": "high", "p_value": "p", "p_against": "p against"}  # in words
REMARKED = re.compile(r"(?s)(.*) (\([^()]*\))")  # a statement that ends with a remark in brackets


def short_name(claim: str) -> str:
    """Short name of a claim by its number and a word or two: "1 concentrates"."""
    return f"{claim[:1]} {SHORT[claim[:1]]}" if claim[:1] in SHORT else claim.replace("-", " ")


def claim_rows(claims: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Claims of ``claims.json`` as the template takes them, with links to their evidence."""
    return [_row(claim) for claim in claims]


def _row(claim: Mapping[str, Any]) -> dict[str, Any]:
    name, verdict, decided_by = (str(claim.get(key) or "") for key in ("id", "verdict", "decided_by"))
    number = name[:1] if name[:1] in EVIDENCE else ""
    numbers = {key: claim.get(key) for key in ("effect", "ci_low", "ci_high", "p_value", "n")}
    low, high = numbers["ci_low"], numbers["ci_high"]
    full_statement = str(claim.get("statement", ""))
    statement, remark = match.groups() if (match := REMARKED.fullmatch(full_statement)) else (full_statement, "")
    csv = [[name], [full_statement], [verdict], [numbers["effect"], decided_by], [low, high]]
    return {
        "mark": number or name,
        "short": SHORT.get(number, ""),
        "statement": statement,
        "remark": remark,
        "verdict": verdict,
        "kind": verdict.replace(" ", "-") if verdict in VERDICTS else "inconclusive",
        "notes": [(key, str(claim[key])) for key in NOTES if claim.get(key)],
        "links": _links(number, _layer(claim)),
        "control": claim.get("control"),
        "details": _details(claim.get("parts")),
        "csv": [json.dumps(cells) for cells in [*csv, [numbers["p_value"]], [numbers["n"]]]],
        "decided_by": decided_by,
        **numbers,
    }


def _links(number: str, layer: str | None) -> list[Link]:
    evidence = EVIDENCE.get(number, (("ratios", "scales", {}),))
    return [
        Link(label, section, urlencode(({"layer": layer} if layer else {}) | view, safe="*~"))
        for label, section, view in evidence
    ]


def _layer(claim: Mapping[str, Any]) -> str | None:
    """Layer of the claim's effect: that of the part with the same effect."""
    parts = claim.get("parts")
    rows = [row for row in parts if isinstance(row, Mapping)] if isinstance(parts, (list, tuple)) else []
    same = [
        row for row in rows if row.get("layer") and row.get("effect") is not None and row.get("effect") == claim.get("effect")
    ]
    return str(same[0]["layer"]) if same else None


def _details(details: Any) -> list[list[Any]]:
    """Column names, then the rows."""
    if not isinstance(details, (list, tuple)) or not details or not all(isinstance(item, Mapping) for item in details):
        return []
    columns = list(dict.fromkeys(str(key) for item in details for key in item))

    def cell(value: Any) -> Any:
        return value if isinstance(value, (bool, int, float)) or value is None else str(value)

    heads = [HEADS.get(column, column.replace("_", " ")) for column in columns]
    return [heads, *([cell(item.get(column, "")) for column in columns] for item in details)]
