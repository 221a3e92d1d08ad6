"""Building the page. Whatever comes from users is escaped here; the script reads data, never code."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from kagscope.figures.style import style
from kagscope.figures.tables import curve_means, final, layers_of, per_run, trainings_of, widths_of
from kagscope.figures.write import FAMILIES, draw_figures
from kagscope.files import atomic_write
from kagscope.report.payload import build_payload, undefined_counts

PAPERS = (
    "Vanherreweghe, Freedman & Adams 2025, arXiv:2511.21626 (MNIST, spatial scales)",
    "Freedman & Mulligan 2025, arXiv:2509.12326 (shallow MLPs)",
    "Freedman 2024, arXiv:2410.08451 (minor concentration)",
)
# where the evidence for each claim of MATH.md section 5 is, and how its controls stand to show it
EVIDENCE = {
    "1": ("training", "score=pr&k=2&measure=ratio&selection=all"),
    "2": ("scales", "score=pr&k=2&measure=ratio&axis=ball&step=last"),
    "3": ("scales", "score=pr&k=2&measure=ratio&axis=apart&step=last"),
    "4": ("scales", "score=pr&k=2&measure=ratio&axis=ball&step=last"),
    "5": ("scales", "score=pr&k=2&measure=ratio&axis=ball&step=last"),
    "6": ("minors", "curvek=1&score=zero_rows&k=1&measure=value"),
}
FIGURE_PLACE = {
    "pr_ratio_by_radius": "scales",
    "pr_ratio_by_distance": "scales",
    "k_comparison": "scales",
    "window_map": "where",
    "zipf": "minors",
    "minor_histogram": "minors",
    "scores_by_step": "training",
    "scores_overview": "training",
}


def write_report(
    path: str | Path,
    *,
    results: pd.DataFrame,
    curves: pd.DataFrame,
    claims: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write the report, at once or not at all.

    Args:
        path: of the HTML file.
        results: the ``results`` table of :mod:`kagscope.schema`.
        curves: the ``curves`` table.
        claims: what ``claims.json`` holds.
        provenance: ``command``, ``versions``, ``seeds``, ``data``, ``image_shape``, ``hardware``, ``timings``, ``config``,
            ``findings`` (sentences for the top of the page), ``title`` and ``summary`` (in place of those of a study),
            ``without`` (names of sections that are not shown); each may be missing.
        progress: called with each figure's name before it is drawn.

    Returns:
        ``path``.

    Raises:
        InputError: a table lacks columns.
        OutputError: the file cannot be written.
    """
    page = render_report(results=results, curves=curves, claims=claims, provenance=provenance, progress=progress)
    atomic_write(path, page)
    return Path(path)


def render_report(
    *,
    results: pd.DataFrame,
    curves: pd.DataFrame,
    claims: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    progress: Callable[[str], None] | None = None,
) -> str:
    """The page as text; arguments as for :func:`write_report`."""
    reduced, averaged = per_run(results), curve_means(curves)
    shape = tuple(int(side) for side in provenance.get("image_shape") or ()) or (1, 1)
    figures, left_out = draw_figures(reduced, averaged, (shape[0], shape[-1]), progress)
    payload = build_payload(reduced, averaged, provenance.get("image_shape"))
    code, look = _asset("charts.js") + "\n" + _asset("app.js"), _asset("page.css")
    data = str(provenance.get("data", "unnamed data"))
    return Template(_asset("page.html")).substitute(
        script_hash=_hash(code),
        style_hash=_hash(look),
        style=look,
        script=code,
        title=html.escape(str(provenance.get("title") or f"Kolmogorov–Arnold geometry of MLPs on {data}")),
        without=html.escape(" ".join(provenance.get("without", ()))),
        summary=html.escape(str(provenance["summary"])) if provenance.get("summary") else _summary(reduced, provenance, data),
        findings=_findings(provenance.get("findings")),
        claims=_claims(claims),
        computed=_computed(reduced, undefined_counts(results), left_out, provenance),
        payload=json_for_html(payload),
        **{f"figures_{place}": _figures(figures, left_out, place) for place in ("scales", "where", "minors", "training")},
    )


def json_for_html(data: object) -> str:
    """JSON that cannot end the script element it stands in, whatever strings it holds."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return (
        text.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def number(value: Any, digits: int = 3) -> str:
    """A number as people write it; a dash where there is none."""
    if value is None or isinstance(value, str):
        return html.escape(value) if value else "–"
    if not math.isfinite(float(value)):
        return "–"
    text = f"{float(value):.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        return f"{mantissa} × 10<sup>{int(exponent)}</sup>".replace("<sup>-", "<sup>−")
    return text.replace("-", "−")


def _asset(name: str) -> str:
    return resources.files("kagscope.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _summary(reduced: pd.DataFrame, provenance: Mapping[str, Any], data: str) -> str:
    runs = int(reduced["run"].nunique())
    widths = ", ".join(str(width) for width in widths_of(reduced))
    trainings = " and ".join(html.escape(name) for name in trainings_of(reduced))
    seeds = int(reduced["seed"].nunique())
    shape = provenance.get("image_shape")
    size = f" ({' × '.join(str(int(side)) for side in shape)} pixels)" if shape else ""
    count = len([layer for layer in layers_of(reduced) if layer])  # "" is the whole net
    last = int(reduced["step"].max()) if runs else 0
    accuracy = float(final(reduced).drop_duplicates("run")["accuracy"].mean())
    text = (
        f"{runs} network{'s' * (runs != 1)} trained on <strong>{html.escape(data)}</strong>{size}: "
        f"width{'s' * (len(widths_of(reduced)) > 1)} {widths or '–'}, {trainings or 'no'} training, "
        f"{seeds} seed{'s' * (seeds != 1)} each, up to {last} steps"
    )
    text += f", mean test accuracy {accuracy:.3f}. " if math.isfinite(accuracy) else ". "
    text += (
        f"Measured: the minors of the Jacobians of {count} layer{'s' * (count != 1)} with respect to the input, "
        "compared with the same network at initialisation. Intervals are 95% intervals over seeds."
    )
    if seeds == 1:
        text += " <strong>One seed only: there are no intervals.</strong>"
    return text


def _findings(findings: Any) -> str:
    if not isinstance(findings, (list, tuple)) or not findings:
        return ""
    return "<ul class=lead>" + "".join(f"<li>{html.escape(str(finding))}</li>" for finding in findings) + "</ul>"


def _claims(claims: Sequence[Mapping[str, Any]]) -> str:
    if not claims:
        return '<p class="note">No claims were tested.</p>'
    rows = []
    for claim in claims:
        name, verdict = str(claim.get("id", "")), str(claim.get("verdict", ""))
        kind = verdict.replace(" ", "-") if verdict in ("reproduced", "not reproduced", "inconclusive") else "inconclusive"
        notes = "".join(
            f"<div><span class=muted>{label}:</span> {html.escape(str(claim[key]))}</div>"
            for key, label in (("criterion", "criterion"), ("test", "test"), ("note", "note"))
            if claim.get(key)
        )
        place, view = EVIDENCE.get(name[:1], ("scales", ""))
        rows.append(
            f'<tr><td data-label="claim">{html.escape(name[:1] if name[:1] in EVIDENCE else name)}</td>'
            f'<td data-label="statement"><strong>{html.escape(str(claim.get("statement", "")))}</strong>'
            f'<div class="small">{notes}<div class="more"><a href="#{place}" data-view="{html.escape(view)}" '
            f'aria-label="evidence for claim {html.escape(name)}">evidence</a>'
            f"{_details(claim.get('details'))}</div></div></td>"
            f'<td data-label="verdict"><span class="chip {kind}">{html.escape(verdict) or "–"}</span></td>'
            f'<td data-label="effect" class="number">{number(claim.get("effect"))}'
            f'<div class="small">{html.escape(str(claim.get("effect_name") or ""))}</div></td>'
            f'<td data-label="95% interval" class="number">{number(claim.get("ci_low"))} to {number(claim.get("ci_high"))}</td>'
            f'<td data-label="p" class="number">{number(claim.get("p_value"), 2)}</td>'
            f'<td data-label="n" class="number">{number(claim.get("n"), 6)}</td></tr>'
        )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("", "claim", "verdict", "effect", "95% interval", "p", "n"))
    return f'<table class="claims"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _details(details: Any) -> str:
    if not isinstance(details, (list, tuple)) or not details or not all(isinstance(item, Mapping) for item in details):
        return ""
    columns = list(dict.fromkeys(str(key) for item in details for key in item))
    head = "".join(f"<th scope=col>{html.escape(column)}</th>" for column in columns)

    def cell(value: Any) -> str:
        return number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else html.escape(str(value))

    rows = "".join("<tr>" + "".join(f"<td>{cell(item.get(column, ''))}</td>" for column in columns) + "</tr>" for item in details)
    return f"<details><summary>in detail</summary>{_table(head, rows)}</details>"


def _table(head: str, rows: str) -> str:
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _figures(figures: Mapping[str, Figure], left_out: Mapping[str, str], place: str) -> str:
    parts = []
    for family in FAMILIES:
        if FIGURE_PLACE.get(family.name) != place:
            continue
        if family.name not in figures:
            reason = html.escape(left_out.get(family.name, "not drawn"))
            parts.append(f'<p class="note">Figure {html.escape(family.name)} left out: {reason}.</p>')
            continue
        caption = html.escape(family.caption)
        image = _png(figures[family.name])
        parts.append(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{image}"><figcaption>{caption} '
            f"<span class=muted>(figures/{family.name}.pdf)</span></figcaption></figure>"
        )
    if not parts:
        return ""
    return f'<details class="static" open><summary>Figures as printed</summary>{"".join(parts)}</details>'


def _png(figure: Figure) -> str:
    stream = io.BytesIO()
    with style():
        figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return base64.b64encode(stream.getvalue()).decode()


def _computed(
    reduced: pd.DataFrame, undefined: Sequence[tuple[str, str, int]], left_out: Mapping[str, str], provenance: Mapping[str, Any]
) -> str:
    parts = []
    if provenance.get("command"):
        parts.append(f"<h3>Run it again</h3><pre>{html.escape(str(provenance['command']))}</pre>")
    sampled = reduced[~reduced["exact"]]
    if sampled.empty:
        parts.append("<h3>Exact or sampled</h3><p>Every number was computed exactly, up to rounding.</p>")
    else:
        size = (sampled["stderr"] / sampled["value"].abs()).replace([math.inf], math.nan)
        error = size.groupby([sampled["score"].astype(str), sampled["k"].astype(int)]).median()
        entries: list[tuple[Any, float]] = list(zip(error.index, error, strict=True))
        rows = "".join(f"<tr><td>{html.escape(s)}</td><td>{k}</td><td>{number(e, 2)}</td></tr>" for (s, k), e in entries)
        parts.append(
            "<h3>Exact or sampled</h3><p>These were sampled in some runs; all others were computed exactly, up to rounding.</p>"
            + _table("<th>score</th><th>k</th><th>relative standard error of a run’s mean (median)</th>", rows)
        )
    if undefined:
        items = "".join(
            f"<li>{html.escape(s)}: {html.escape(reason)} ({count} values)</li>" for s, reason, count in undefined[:20]
        )
        parts.append(f"<h3>Undefined values</h3><ul>{items}</ul><p>They are left out of means, never counted as zero.</p>")
    for key, title in (
        ("seeds", "Seeds"),
        ("hardware", "Hardware"),
        ("timings", "Seconds taken"),
        ("versions", "Versions"),
        ("config", "Configuration"),
    ):
        if provenance.get(key):
            parts.append(f"<h3>{title}</h3>{_plain(provenance[key])}")
    papers = "".join(f"<li>{html.escape(paper)}</li>" for paper in PAPERS)
    parts.append(
        "<h3>How to cite</h3><p>The software (CITATION.cff in its repository) and the papers whose claims it tests:</p>"
        f"<ul>{papers}</ul>"
    )
    return "".join(parts)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        items = "".join(f"<dt>{html.escape(str(key))}</dt><dd>{_plain(item)}</dd>" for key, item in value.items())
        return f"<dl>{items}</dl>"
    if isinstance(value, (list, tuple)):
        return html.escape(", ".join(str(item) for item in value))
    if isinstance(value, float):
        return number(value, 4)
    return html.escape(str(value))
