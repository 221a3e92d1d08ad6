"""What is embedded in the page is what the table says, and what users named cannot act in it."""

from __future__ import annotations

import base64
import gzip
import json
import re
import string
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import kagscope as kag
from figure_tables import make_claims, make_exhibits, make_provenance, make_tables, make_units
from hostile import make_hostile_page
from kagscope import figures
from kagscope.base.errors import InputError, OutputError
from kagscope.report import render_report, write_report
from kagscope.report.claims import EVIDENCE, claim_rows
from kagscope.report.numbers import clean, number
from kagscope.report.page import pack, script
from kagscope.report.payload import build_payload, undefined_counts
from kagscope.report.units import STEPS, ZERO
from kagscope.tables import means as reduced


@pytest.fixture(scope="module")
def study() -> tuple[pd.DataFrame, pd.DataFrame]:
    return make_tables(points=3, last_step=20)


@pytest.fixture(scope="module")
def payload(study: tuple[pd.DataFrame, pd.DataFrame]) -> dict[str, Any]:
    """What the page holds of the study, with its shape, the units of a run and labels of the images."""
    return build_payload(*study, {"image_shape": [8, 8], "units": make_units(["standard-w16-s0"]), "labels": {0: 4, 1: 7, 2: 7}})


@pytest.fixture(scope="module")
def page(study: tuple[pd.DataFrame, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    results, curves = study
    return write_report(
        path, results=results, curves=curves, claims=make_claims(), provenance=make_provenance() | make_exhibits(results)
    )


def unpack(text: str) -> str:
    return gzip.decompress(base64.b64decode(text)).decode()


def embedded(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/octet-stream" id="data">([A-Za-z0-9+/=]*)</script>', page)
    return json.loads(unpack(text))


def find(series: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (found,) = [s for s in series if all(s[key] == value for key, value in wanted.items())]
    return found


def test_embedded_numbers_are_those_of_the_table(study: tuple[pd.DataFrame, pd.DataFrame], page: Path) -> None:
    payload = embedded(page.read_text())
    one = {"layer": "hidden2", "k": 2, "selection": "apart(6)", "score": "pr", "width": 8, "training": "augmented"}
    raw = reduced.select(study[0], step=20, **one)
    means = raw.groupby("seed", observed=True)["ratio"].mean()
    entry = find(payload["series"], **one)
    ratio = entry["data"][payload["columns"].index("ratio")][entry["step"].index(20)]
    assert ratio == pytest.approx(means.mean(), rel=1e-3)
    assert entry["last"] == 20
    window = reduced.select(study[0], layer="hidden1", k=2, selection="window(6,1,2)", score="pr", width=16, training="standard")
    grid = find(payload["maps"], layer="hidden1", width=16, training="standard", label=None)
    assert grid["ratio"][6 * 8 + 1] == pytest.approx(window.groupby("seed", observed=True)["ratio"].mean().mean(), rel=1e-3)
    run = find(payload["runs"], run="standard-w16-s1")
    own = reduced.select(study[0], run="standard-w16-s1", layer="hidden1", k=2, selection="all", score="pr", step=20)
    assert run["pr"][0] == pytest.approx(own["ratio"].mean(), rel=1e-3)


def test_single_numbers_are_not_embedded(study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    results, curves = (one[one["width"] == 8] for one in study)
    few, many = (build_payload(pd.concat([results] * times, ignore_index=True), curves) for times in (1, 5))
    assert len(json.dumps(many)) < 1.05 * len(json.dumps(few))


def test_histogram_gaps_are_zeros_and_mass_is_kept(study: tuple[pd.DataFrame, pd.DataFrame], payload: dict[str, Any]) -> None:
    raw = study[1][(study[1]["curve"] == "histogram") & np.isfinite(study[1]["x"])]
    for entry in payload["curves"]:
        if entry["curve"] == "histogram":
            assert sum(entry["y"]) + entry["zeros"] + entry["below"] == pytest.approx(1, abs=2e-3)
            stage = 0 if entry["stage"] == "initial" else 20
            one = reduced.select(
                raw, layer=entry["layer"], k=entry["k"], width=entry["width"], training=entry["training"], step=stage
            )
            edges = (entry["first"] + np.arange(len(entry["y"]))) / 8
            dense = one.groupby("x")["y"].sum().reindex(edges).fillna(0.0) / one["seed"].nunique()
            assert entry["y"] == pytest.approx(dense.to_numpy(), rel=1e-3)


@pytest.mark.parametrize(
    ("value", "kept"),
    [(float("nan"), None), (float("inf"), None), (2.0, 2), (1 / 3, 0.3333), (123456.0, 123456), (-1.5e-9, -1.5e-9)],
)
def test_embedded_numbers_are_json(value: float, kept: float | None) -> None:
    assert clean(value) == kept


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (1.2345, "1.23"), (-0.5, "−0.5"), (3e-9, "3 × 10<sup>−9</sup>"), ("<b>", "&lt;b&gt;")],
)
def test_numbers_in_words(value: Any, text: str) -> None:
    assert number(value) == text


def test_embedded_data_cannot_leave_their_element() -> None:
    text = "</script><!--\u2028&"
    assert set(pack([text])) <= set(string.ascii_letters + string.digits + "+/=")
    assert json.loads(unpack(pack([text]))) == [text]
    assert "</" not in script().replace("</g", "")


class Outline(HTMLParser):
    """Names of the elements, their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if name := dict(attrs).get("id"):
            self.ids.add(name)


def test_the_page_asks_for_nothing_and_its_links_lead_somewhere(page: Path) -> None:
    outline = Outline(page.read_text())
    policy = next(a["content"] for tag, a in outline.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    for _, attributes in outline.tags:
        assert (attributes.get("src") or "data:").startswith("data:")
        link = attributes.get("href")
        assert link is None or (link.startswith("#") and link[1:] in outline.ids)
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert all(attributes.get("alt") for tag, attributes in outline.tags if tag == "img")


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hostile_page(tmp_path_factory.mktemp("hostile") / "hostile.html")


def test_names_from_users_are_escaped(hostile_page: Path) -> None:
    text = hostile_page.read_text()
    outline = Outline(text)
    assert sum(tag == "script" for tag, _ in outline.tags) == 2
    assert not [a for tag, a in outline.tags if tag == "img" and not (a.get("src") or "").startswith("data:")]
    assert "svg" not in {tag for tag, _ in outline.tags}
    assert any(run["run"].startswith("</script>") for run in embedded(text)["runs"])


def test_without_anything_measured_there_is_a_page(study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    text = render_report(results=study[0].iloc[:0], curves=study[1].iloc[:0], claims=[], provenance={})
    assert "No claims were tested" in text
    assert "left out" in text
    assert embedded(text)["series"] == []


def test_scores_of_the_whole_net_are_no_layer_of_the_figures(study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    pruned = study[0].iloc[:12].assign(layer="", score="prune_change", k=0, point=-1)
    results = pd.concat([study[0].astype({"layer": str, "score": str}), pruned], ignore_index=True)
    payload = build_payload(results, study[1].iloc[:0])
    assert sorted(payload["settings"]["layers"]) == ["", "hidden1", "hidden2"]
    assert payload["settings"]["runLayers"] == ["hidden1", "hidden2"]
    assert len(figures.figure_by_radius(results, (8, 8)).axes) == 2


def test_reasons_are_counted(study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    missing = study[0]["value"].isna().sum()
    assert undefined_counts(study[0]) == [("near_zero", "all minors are zero", missing)]


def test_bad_input_and_output(study: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks the columns"):
        render_report(results=pd.DataFrame({"a": [1]}), curves=study[1], claims=[], provenance={})
    with pytest.raises(OutputError, match="cannot write"):
        write_report(tmp_path / "no" / "r.html", results=study[0].iloc[:0], curves=study[1].iloc[:0], claims=[], provenance={})


def test_units_are_the_rows_in_steps_of_colour(payload: dict[str, Any]) -> None:
    units = make_units(["standard-w16-s0"])
    found = payload["units"]
    assert [entry["layer"] for entry in found] == ["hidden1", "hidden2"]
    for entry in found:
        one = units["standard-w16-s0"].query("layer == @entry['layer']")
        rows = np.stack(one["row"].to_list())
        steps = np.array([ord(character) - ZERO for character in entry["images"]]).reshape(rows.shape)
        assert not set(entry["images"]) & {'"', "\\"}
        peak = np.abs(rows).max(axis=1, keepdims=True)
        assert np.abs(steps * peak / STEPS - rows).max() <= peak.max() / (2 * STEPS) * 1.001
        assert entry["zero_share"] == pytest.approx(one["zero_share"], rel=1e-3)
        assert (entry["width"], entry["training"], entry["seed"], entry["shape"]) == (16, "standard", 0, [8, 8])


def test_units_keep_within_their_budget(study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    runs = [str(run) for run in study[0]["run"].unique()]
    found = build_payload(study[0], study[1].iloc[:0], {"units": make_units(runs, count=300, columns=2000)})["units"]
    assert sum(len(entry["images"]) for entry in found) < 2_200_000
    assert {len(entry["unit"]) for entry in found} == {256}
    assert found[0]["unit"][-1] == 299


def test_maps_of_a_class_are_means_over_its_images(study: tuple[pd.DataFrame, pd.DataFrame], payload: dict[str, Any]) -> None:
    maps = payload["maps"]
    assert {entry["label"] for entry in maps} == {None, 4, 7}
    raw = reduced.select(study[0], layer="hidden1", k=2, selection="window(6,1,2)", score="pr", width=16, training="standard")
    for label, points in ((4, [0]), (7, [1, 2])):
        grid = find(maps, layer="hidden1", width=16, training="standard", label=label, radius=2)
        mine = raw[raw["point"].isin(points)]
        assert grid["images"] == len(points)
        assert grid["ratio"][6 * 8 + 1] == pytest.approx(mine.groupby("seed")["ratio"].mean().mean(), rel=1e-3)


def test_onsets_are_those_of_intervals_over_nets(payload: dict[str, Any]) -> None:
    seen = 0
    for entry in payload["series"]:
        if "onset" not in entry or entry["onset"]["reason"]:
            continue
        ratio, low, high, base, b_low, b_high = (
            np.array(entry["data"][payload["columns"].index(name)], dtype=float)
            for name in ("ratio", "ratio_low", "ratio_high", "baseline", "baseline_low", "baseline_high")
        )
        side = (low > b_high / base).astype(int) - (high < b_low / base).astype(int)
        first = next(i for i in range(len(side) - 1) if side[i] and side[i] == side[i + 1])
        assert entry["onset"] | {"ratio": 0} == {
            "step": entry["step"][first],
            "confirmed": entry["step"][first + 1],
            "reason": "",
            "over": "nets",
            "ratio": 0,
        }
        assert entry["onset"]["ratio"] == pytest.approx(ratio[first], rel=1e-3)
        seen += 1
    assert seen > 10


def test_of_one_net_onsets_are_over_its_points() -> None:
    payload = build_payload(*make_tables(seeds=1, points=6, last_step=200, windows=False))
    found = [entry["onset"] for entry in payload["series"] if "onset" in entry]
    assert found
    assert {one["over"] for one in found} == {"points"}
    assert any(one["step"] is not None for one in found)


def test_each_claim_leads_to_the_layer_of_its_number() -> None:
    details = [{"layer": "hidden1", "effect": 1.7}, {"layer": "hidden2", "effect": 1.3}]
    shown = claim_rows([{"id": f"{number}-x", "effect": 1.3, "parts": details} for number in EVIDENCE])
    for claim in shown:
        assert claim["links"]
        for link in claim["links"]:
            assert link.view.startswith("layer=hidden2&")
            assert link.place in {"scales", "training", "minors"}
    assert {link.place for link in shown[5]["links"]} == {"training", "minors"}


def test_a_remark_stands_apart_from_the_statement_it_is_added_to() -> None:
    own = "(a) Rows (b) of it."
    plain, remarked = claim_rows([{"statement": own}, {"statement": f"{own} (A control passes.)"}])
    assert (plain["statement"], plain["remark"]) == (own, "")
    assert (remarked["statement"], remarked["remark"]) == (own, "(A control passes.)")
    assert "A control passes" in remarked["csv"][1]


def test_of_one_network_intervals_are_those_over_points(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, other = (nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 2)) for _ in range(2))
    report = kag.measure(model, torch.randn(7, 6), layers=["1"], k=(1, 2), baseline=other, progress=False)
    payload = embedded(report.to_html(tmp_path / "page.html").read_text())
    summary = report.summary().set_index(["score", "k", "selection"])
    checked = 0
    for entry in payload["series"]:
        row = summary.loc[entry["score"], entry["k"], entry["selection"]]
        if not entry["exact"] or pd.isna(row["ratio_low"]):
            continue
        found = [entry["data"][payload["columns"].index(name)][-1] for name in ("ratio", "ratio_low", "ratio_high")]
        assert found == pytest.approx([row["ratio"], row["ratio_low"], row["ratio_high"]], rel=1e-3)
        checked += 1
    assert checked > 5
    assert payload["settings"]["names"] == ["model", "baseline"]
    assert {entry["layer"] for entry in payload["units"]} == {"1"}
