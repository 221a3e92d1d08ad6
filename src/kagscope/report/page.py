"""Build the page. The templates escape all text from users; the script reads data, never code."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from kagscope.base.files import atomic_write
from kagscope.base.messages import MANNER
from kagscope.figures.study import net_means
from kagscope.figures.style import style
from kagscope.figures.write import FAMILIES, draw_figures
from kagscope.report.claims import claim_rows
from kagscope.report.numbers import compact_json, number
from kagscope.report.payload import build_payload, undefined_counts
from kagscope.tables.means import curve_means, last_step, layers_of, trainings_of, widths_of

PAPERS = (
    "Vanherreweghe, Freedman & Adams 2025, arXiv:2511.21626 (MNIST, spatial scales)",
    "Freedman & Mulligan 2025, arXiv:2509.12326 (shallow MLPs)",
    "Freedman 2024, arXiv:2410.08451 (minor concentration)",
)
SECTIONS = (
    ("claims", "Claims"),
    ("scales", "Scales"),
    ("where", "Where"),
    ("minors", "Minors"),
    ("units", "Units"),
    ("training", "Training"),
    ("runs", "Runs"),
    ("computed", "How computed"),
)
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
FACTS = {
    "seeds": "Seeds",
    "hardware": "Hardware",
    "timings": "Seconds taken, over all processes",
    "versions": "Versions",
    "config": "Configuration",
}
FILLED_BY = {"units": "units", "where": "maps"}  # sections hidden if this part of the payload is empty
IN_FILES = "every single number is in results.parquet beside it."
DPI = 150
PALETTE = 64  # colours of an embedded figure
LEVEL = 6  # of compression; the highest takes three times as long for 1.5% less
MAX_REASONS = 20
VARIABLES = {"input": "the network's input", "block": "the layer's own input", "output": "the output"}  # of a layer's map
FIRST_FINDINGS = 5  # on the first screen
MOST_VALUES = 8  # of an axis that are listed individually


def write_report(
    path: str | Path,
    *,
    results: pd.DataFrame,
    curves: pd.DataFrame,
    claims: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    nets: pd.DataFrame | None = None,
) -> Path:
    """Write the report atomically.

    Args:
        path: path of the HTML file.
        results: the ``results`` table of :mod:`kagscope.tables.schema`.
        curves: the ``curves`` table, or :func:`~kagscope.tables.means.curve_means` of it.
        claims: content of ``claims.json``.
        provenance: optional entries. Shown unchanged: ``command``, ``versions``, ``seeds``, ``data``, ``hardware``,
            ``timings``, ``config``, ``findings`` (sentences for the top of the page), ``title`` and ``summary`` (in place of
            those of a study). ``image_shape``: (H, W) or (C, H, W); ``without``: names of sections that are not
            shown; ``names``: labels of trained and initial networks; ``intervals``: "points" for intervals over the data
            points of one network, by default over networks; ``numbers``: where to find every single number, for the footer;
            ``maps``: measured maps of a layer ("input", "block"); ``thing``: word for a layer, such as "matrix";
            ``study``: result of :func:`~kagscope.report.axes.pack_axes`, which the exhibit "varied"
            shows; ``follow``: seconds after which the page reloads itself; ``figures``: what
            :func:`~kagscope.figures.write_figures` wrote from the same tables, so that they are not drawn twice, or a
            function that returns it, called last; empty: none are shown. ``printed``: further figures, each with
            its section and caption.
            ``exhibits``: sections to come first (id, link, template among the assets, its variable ``shown``).
            ``elsewhere``: whether the page is in another folder than its runs. For the interactive part: ``configs`` (run id
            to configuration), ``labels`` (index of a test image to its class), ``pictures`` (``mean``: an image, ``classes``:
            class to image), ``units`` (run id to its table of units, see :func:`~kagscope.report.units.pack_units`).
        nets: :func:`~kagscope.figures.study.net_means` of ``results``, if already computed.

    Returns:
        ``path``.

    Raises:
        InputError: a table lacks columns.
        OutputError: the file cannot be written.
    """
    page = render_report(results=results, curves=curves, claims=claims, provenance=provenance, nets=nets)
    atomic_write(path, page)
    return Path(path)


def _split_findings(findings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split findings into the first few and those that fold out, which include all on how it was measured."""
    manner = [getattr(finding, "code", "") in MANNER for finding in findings]
    first = [i for i, folded in enumerate(manner) if not folded][:FIRST_FINDINGS]
    shown = [str(finding) for i, finding in enumerate(findings) if i in first]
    return shown, [str(finding) for i, finding in enumerate(findings) if i not in first]


def render_report(
    *,
    results: pd.DataFrame,
    curves: pd.DataFrame,
    claims: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    nets: pd.DataFrame | None = None,
) -> str:
    """Return the page as text; arguments as for :func:`write_report`."""
    nets, averaged = net_means(results) if nets is None else nets, curve_means(curves)
    shape = tuple(int(side) for side in provenance.get("image_shape") or (1, 1))
    payload = build_payload(results, averaged, provenance, nets=nets)
    packed = pack(payload)
    written = provenance.get("figures")
    figures, left_out = _figures(nets, averaged, shape, written() if callable(written) else written)
    without = {*provenance.get("without", ()), *(name for name, key in FILLED_BY.items() if not payload[key])}
    exhibits: Sequence[tuple[str, str, str, Any]] = provenance.get("exhibits", ())
    sections = [*((section, name) for section, name, *_ in exhibits), *(entry for entry in SECTIONS if entry[0] not in without)]
    over_points, outcome = provenance.get("intervals") == "points", payload["settings"]["accuracy"]
    chart = _first_chart(payload, over_points=over_points, along="training" not in without)
    if any(section == "varied" for section, *_ in exhibits):
        chart = "axes"
    code, look = script(), _asset("page.css")
    data = str(provenance.get("data", "unnamed data"))
    data = PurePath(data).name or data
    return (
        _templates()
        .get_template("page.html")
        .render(
            script_hash=_hash(code),
            style_hash=_hash(look),
            style=look,
            script=code,
            title=str(provenance.get("title") or f"Kolmogorov–Arnold geometry of MLPs on {data}"),
            without=" ".join(sorted(without)),
            exhibits=exhibits,
            sections=sections,
            first=sections[0][0],
            first_chart=chart,
            numbers=provenance.get("numbers", IN_FILES),
            follow=provenance.get("follow"),
            summary=provenance.get("summary") or _summary(nets, provenance, data) | {"outcome": outcome},
            outcome=outcome,
            findings=_split_findings(provenance.get("findings") or ()),
            claims=claim_rows(claims),
            figures={
                section: _section_figures(figures, left_out, section) + _unsaved_figures(provenance.get("printed", ()), section)
                for section in set(FIGURE_PLACE.values())
            },
            over_points=over_points,
            thing=payload["settings"]["thing"],
            command=str(provenance.get("command") or ""),
            sampled=_sampling_errors(nets),
            undefined_values=undefined_counts(results)[:MAX_REASONS],
            facts=[(title, _drop_empty(provenance[key])) for key, title in FACTS.items() if provenance.get(key)],
            papers=PAPERS,
            payload=packed,
        )
    )


def _drop_empty(value: Any) -> Any:
    """Settings without empty entries, at any depth."""
    if not isinstance(value, Mapping):
        return value
    full = {key: _drop_empty(item) for key, item in value.items()}
    return {key: item for key, item in full.items() if not (item is None or (isinstance(item, (str, list, dict)) and not item))}


def _first_chart(payload: Mapping[str, Any], *, over_points: bool, along: bool) -> str | None:
    """Chart at the top: PR by scale if balls were measured; for one network its training, else its layers."""
    pairs = [series for series in payload["series"] if series["score"] == "pr" and series["k"] == 2]
    if not over_points and any(series["kind"] == "ball" and series["layer"] for series in pairs):
        return "scales"
    if not any(series["selection"] == "all" and series["layer"] for series in pairs):
        return None
    return "steps" if over_points and along else "layers"


def pack(payload: object) -> str:
    """Compressed JSON in base64, which no markup can end: about a fifth of its size."""
    return base64.b64encode(gzip.compress(compact_json(payload).encode(), LEVEL, mtime=0)).decode()


@cache
def script() -> str:
    """The page's script: the files of ``assets/script`` in the order of their names."""
    folder = resources.files("kagscope.report").joinpath("assets", "script")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".js")), key=lambda file: file.name)
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(loader=jinja2.FunctionLoader(_asset), autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = number
    return environment


@cache
def _asset(name: str) -> str:
    return resources.files("kagscope.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _summary(nets: pd.DataFrame, provenance: Mapping[str, Any], data: str) -> dict[str, Any]:
    runs = int(nets["run"].nunique())
    shape = provenance.get("image_shape")
    true = nets[nets["labels"] == "true"] if "labels" in nets and (nets["labels"] == "true").any() else nets
    accuracy = float(last_step(true).drop_duplicates("run")["accuracy"].mean())
    return {
        "runs": runs,
        "data": data,
        "size": f" ({' × '.join(str(int(side)) for side in shape)} pixels)" if shape else "",
        "kinds": _kinds(nets, (provenance.get("study") or {}).get("axes", ())),
        "seeds": int(nets["seed"].nunique()),
        "last": int(nets["step"].max()) if runs else 0,
        "accuracy": accuracy if math.isfinite(accuracy) else None,
        "layers": len([layer for layer in layers_of(nets) if layer]),  # "" is the whole net
        "map": _join_words([VARIABLES.get(name, name) for name in provenance.get("maps") or ("input",)]),
    }


def _kinds(nets: pd.DataFrame, axes: Sequence[Mapping[str, Any]]) -> str:
    """How the networks differ: every axis with its values, or widths and trainings."""
    if axes:
        return "; ".join(f"{axis['label']} {_list_values(axis['values'])}" for axis in axes)
    trainings = _join_words([name.replace(", shuffled", " on shuffled") for name in trainings_of(nets)]) or "none"
    widths = widths_of(nets)
    return f"width{'s' * (len(widths) > 1)} {', '.join(map(str, widths)) or '–'}, training {trainings}"


def _list_values(values: Sequence[Any]) -> str:
    """List a few values; of more, the first, the last and their number."""
    if len(values) <= MOST_VALUES:
        return _join_words([str(number(value)) for value in values])
    return f"{number(values[0])} to {number(values[-1])} ({len(values)} values)"


def _join_words(names: Sequence[str]) -> str:
    """List names: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _sampling_errors(nets: pd.DataFrame) -> list[tuple[str, int, float]]:
    """Score, k and median relative standard error of a run's mean, for sampled scores."""
    chosen = nets[~nets["exact"]]
    size = (chosen["stderr"] / chosen["value"].abs()).replace([math.inf, 0.0], math.nan)  # 0: unknown
    error = size.groupby([chosen["score"].astype(str), chosen["k"].astype(int)]).median()
    entries: list[tuple[Any, float]] = list(zip(error.index, error, strict=True))
    return [(score, k, value) for (score, k), value in entries]


def _figures(
    nets: pd.DataFrame, averaged: pd.DataFrame, shape: tuple[int, ...], written: Sequence[Path] | None
) -> tuple[dict[str, Image.Image], dict[str, str]]:
    """Pictures of all figures by name, read from files if written, and the reasons for those left out."""
    if written is not None:
        files = {Path(file).stem: Path(file) for file in written if Path(file).suffix == ".png"}
        return {name: Image.open(file) for name, file in files.items()}, dict(getattr(written, "left_out", {}))
    drawn, left_out = draw_figures(nets, averaged, shape)
    return {name: _picture(figure) for name, figure in drawn.items()}, left_out


def _picture(figure: Figure) -> Image.Image:
    stream = io.BytesIO()
    with style():
        figure.savefig(stream, format="png", dpi=DPI)
    return Image.open(stream)


def _section_figures(figures: Mapping[str, Image.Image], left_out: Mapping[str, str], section: str) -> list[dict[str, Any]]:
    """Figures of a section with their captions, as PNG with few colours, or the reason for their absence."""
    entries = []
    for family in FAMILIES:
        if FIGURE_PLACE.get(family.name) != section or not (figures or left_out):
            continue
        if picture := figures.get(family.name):
            entries.append(_figure_entry(picture, family.caption, family.name))
        else:
            reason = left_out.get(family.name, "not drawn")
            entries.append({"name": family.name, "caption": family.caption, "image": None, "reason": reason})
    return entries


def _unsaved_figures(printed: Sequence[tuple[str, str, Figure]], section: str) -> list[dict[str, Any]]:
    """Figures of a section that are not written to files."""
    return [_figure_entry(_picture(figure), caption) for at, caption, figure in printed if at == section]


def _figure_entry(picture: Image.Image, caption: str, name: str = "") -> dict[str, Any]:
    return {"name": name, "caption": caption, "image": _png(picture), "width": picture.width, "height": picture.height}


def embed(figure: Figure) -> str:
    """A figure as PNG with few colours, in base64."""
    return _png(_picture(figure))


def _png(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE).save(stream, format="png", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
