"""The page shows the table's numbers, what users named cannot act in it, and it works in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from browser import Browser, find_chromium
from figure_tables import make_claims, make_provenance, make_tables
from kagscope import figures
from kagscope.errors import InputError, OutputError
from kagscope.figures import tables
from kagscope.report import render_report, write_report
from kagscope.report.page import json_for_html, number
from kagscope.report.payload import build_payload, clean, undefined_counts

HOSTILE = "</script><script>alert(1)</script>{training}-{width}-{seed}<img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def study() -> tuple[pd.DataFrame, pd.DataFrame]:
    return make_tables(points=3, last_step=20)


@pytest.fixture(scope="module")
def page(study: tuple[pd.DataFrame, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    results, curves = study
    return write_report(path, results=results, curves=curves, claims=make_claims(), provenance=make_provenance())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium or Chrome is installed")
    with Browser(executable) as found:
        yield found


def embedded(page: str) -> Any:
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[0])


def find(series: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (found,) = [s for s in series if all(s[key] == value for key, value in wanted.items())]
    return found


def test_embedded_numbers_are_those_of_the_table(study: tuple[pd.DataFrame, pd.DataFrame], page: Path) -> None:
    payload = embedded(page.read_text())
    one = {"layer": "3", "k": 2, "selection": "apart(6)", "score": "pr", "width": 8, "training": "augmented"}
    raw = tables.select(study[0], step=20, **one)
    means = raw.groupby("seed", observed=True)["ratio"].mean()
    entry = find(payload["series"], **one)
    ratio = entry["data"][payload["columns"].index("ratio")][entry["step"].index(20)]
    assert ratio == pytest.approx(means.mean(), rel=1e-5)
    assert entry["last"] == 20
    window = tables.select(study[0], layer="1", k=2, selection="window(6,1,2)", score="pr", width=16, training="standard")
    grid = find(payload["maps"], layer="1", width=16, training="standard")
    assert grid["ratio"][6 * 8 + 1] == pytest.approx(window.groupby("seed", observed=True)["ratio"].mean().mean(), rel=1e-5)
    run = find(payload["runs"], run="standard-w16-s1")
    own = tables.select(study[0], run="standard-w16-s1", layer="1", k=2, selection="all", score="pr", step=20)
    assert run["pr"][0] == pytest.approx(own["ratio"].mean(), rel=1e-5)


def test_single_numbers_are_not_embedded(study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    few = build_payload(*study, [8, 8])
    results = pd.concat([study[0]] * 5, ignore_index=True)
    assert len(json.dumps(build_payload(results, study[1], [8, 8]))) < 1.05 * len(json.dumps(few))


def test_histogram_gaps_are_zeros_and_mass_is_kept(study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    for entry in build_payload(*study)["curves"]:
        if entry["curve"] == "histogram":
            assert np.diff(entry["x"]) == pytest.approx(1 / 8)
            assert sum(entry["y"]) + entry["zeros"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("value", "kept"), [(float("nan"), None), (float("inf"), None), (2.0, 2), (1 / 3, 0.333333), (-1.5e-9, -1.5e-9)]
)
def test_embedded_numbers_are_json(value: float, kept: float | None) -> None:
    assert clean(value) == kept


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (1.2345, "1.23"), (-0.5, "−0.5"), (3e-9, "3 × 10<sup>−9</sup>"), ("<b>", "&lt;b&gt;")],
)
def test_numbers_in_words(value: Any, text: str) -> None:
    assert number(value) == text


def test_json_cannot_leave_its_element() -> None:
    text = "</script><!--\u2028&"
    assert not set("<>&\u2028") & set(json_for_html([text]))
    assert json.loads(json_for_html([text])) == [text]


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
    assert page.stat().st_size < 12e6


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results, curves = make_tables(seeds=1, points=2, last_step=2, widths=(8,), windows=False, run_name=HOSTILE)
    rename = {"augmented": "</script><svg onload=alert(3)>"}
    results = results.assign(training=results["training"].cat.rename_categories(rename))
    claim = dict.fromkeys(("id", "statement", "verdict", "effect_name", "criterion", "note", "test"), HOSTILE) | {
        "details": [{HOSTILE: HOSTILE}]
    }
    provenance = {
        "command": HOSTILE,
        "data": HOSTILE,
        "versions": {HOSTILE: HOSTILE},
        "config": {"a": [HOSTILE]},
        "hardware": HOSTILE,
    }
    return write_report(
        tmp_path_factory.mktemp("hostile") / "hostile.html", results=results, curves=curves, claims=[claim], provenance=provenance
    )


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
    payload = build_payload(results, study[1])
    assert sorted(label for _, label in payload["settings"]["layers"]) == ["hidden layer 1", "hidden layer 2", "whole net"]
    assert payload["settings"]["runLayers"] == ["hidden layer 1", "hidden layer 2"]
    drawn, left_out = figures.draw_figures(results, study[1], (8, 8))
    assert left_out == {}
    assert len(drawn["pr_ratio_by_radius"].axes) == 2


def test_reasons_are_counted(study: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    missing = study[0]["value"].isna().sum()
    assert undefined_counts(study[0]) == [("near_zero", "all minors are zero", missing)]


def test_bad_input_and_output(study: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks the columns"):
        render_report(results=pd.DataFrame({"a": [1]}), curves=study[1], claims=[], provenance={})
    with pytest.raises(OutputError, match="cannot write"):
        write_report(tmp_path / "no" / "r.html", results=study[0].iloc[:0], curves=study[1].iloc[:0], claims=[], provenance={})


# ---- in a browser

TABLE = "[...document.querySelectorAll('[data-table={0}] tbody tr')].map(r => [...r.cells].map(c => c.textContent))"


def shown(browser: Browser, name: str) -> list[list[str]]:
    browser.run(f"(() => {{ const d = document.querySelector('[data-table={name}] details'); if (d) d.open = true; }})()")
    browser.run("new Promise(r => setTimeout(r, 60))")
    return list(browser.run(TABLE.format(name)))


def choose(browser: Browser, key: str, value: str) -> None:
    browser.run(f"""(() => {{ const s = document.querySelector('select[data-key={key}]'); s.value = {json.dumps(value)};
        if (s.value !== {json.dumps(value)}) throw new Error('no such option');
        s.dispatchEvent(new Event('change')); }})()""")


def value_of(rows: list[list[str]], *start: str, place: int) -> float:
    (row,) = [row for row in rows if row[: len(start)] == list(start)]
    return float(row[place].replace("−", "-"))


def test_every_control_shows_the_numbers_of_the_table(
    browser: Browser, page: Path, study: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    browser.open(page)
    assert float(browser.run("document.documentElement.dataset.ready")) < 2000
    means = tables.over_runs(tables.per_run(study[0]))

    def expected(measure: str, **wanted: Any) -> float:
        return float(tables.select(means, **wanted)[measure].iloc[0])

    where = {"k": 2, "width": 16, "training": "standard", "step": 20, "score": "pr"}
    rows = shown(browser, "scales")
    assert value_of(rows, "16", "standard", "ball(2)", place=4) == pytest.approx(
        expected("ratio", layer="1", selection="ball(2)", **where), rel=1e-3
    )
    for key, value, measure, wanted in (
        ("layer", "3", "ratio", {"layer": "3"}),
        ("k", "3", "ratio", {"layer": "3", "k": 3}),
        ("score", "kl_uniform", "ratio", {"layer": "3", "k": 3, "score": "kl_uniform"}),
        ("measure", "difference", "difference", {"layer": "3", "k": 3, "score": "kl_uniform"}),
        ("measure", "value", "value", {"layer": "3", "k": 3, "score": "kl_uniform"}),
    ):
        choose(browser, key, value)
        found = value_of(shown(browser, "scales"), "16", "standard", "ball(6)", place=4)
        assert found == pytest.approx(expected(measure, **(where | {"selection": "ball(6)"} | wanted)), rel=1e-3)
    choose(browser, "axis", "apart")
    assert {row[2] for row in shown(browser, "scales")} == {"all", "apart(2)", "apart(4)", "apart(6)", "apart(8)"}
    browser.run("document.querySelector('[data-toggle=widths][value=\"8\"]').click()")
    assert {row[0] for row in shown(browser, "scales")} == {"16"}
    browser.run(
        "(() => { const s = document.querySelector('[data-slider]'); s.value = 0; s.dispatchEvent(new Event('input')); })()"
    )
    rows = shown(browser, "scales")
    assert {(row[2], row[3]) for row in rows} == {("all", "0")}
    assert browser.run("location.hash").startswith("#s:layer=3&")
    for key in ("layer", "k", "score", "measure", "axis", "selection", "width", "training", "mapmeasure", "curvek", "rankaxis"):
        browser.run(
            f"(() => {{ const s = document.querySelector('select[data-key={key}]'), values = [...s.options].map(o => o.value);"
            " for (const v of values) { s.value = v; s.dispatchEvent(new Event('change')); } })()"
        )
    assert browser.problems == []
    assert [address for address in browser.requests if not address.startswith(("file:", "data:"))] == []


def test_an_address_restores_a_view_and_runs_sort_and_filter(
    browser: Browser, page: Path, study: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    browser.open(page, "#s:layer=3&score=zero_rows&k=1&measure=value&training=augmented&width=8&widths=8")
    (row, *_) = [row for row in shown(browser, "training") if row[1:3] == ["augmented", "20"]]
    wanted = {"layer": "3", "k": 1, "score": "zero_rows", "selection": "all", "width": 8, "training": "augmented", "step": 20}
    mean = tables.select(tables.over_runs(tables.per_run(study[0])), **wanted)["value"].iloc[0]
    assert float(row[3]) == pytest.approx(mean, rel=1e-3)
    grid = shown(browser, "where")
    raw = tables.select(study[0], layer="3", width=8, training="augmented", selection="window(2,5,2)", score="pr")
    assert value_of(grid, "2", "5", place=2) == pytest.approx(raw.groupby("seed", observed=True)["ratio"].mean().mean(), rel=1e-3)
    browser.run("document.querySelector('[data-sort=accuracy]').click()")
    accuracies = [float(row[6]) for row in shown(browser, "runs")]
    assert accuracies == sorted(accuracies)
    assert len(accuracies) == 12
    browser.run(
        "(() => { const f = document.querySelector('[data-filter]'); f.value = 'augmented w8';"
        " f.dispatchEvent(new Event('input')); })()"
    )
    assert {row[0] for row in shown(browser, "runs")} == {f"augmented-w8-s{seed}" for seed in range(3)}
    assert browser.problems == []


def test_evidence_of_a_claim_sets_the_controls(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("document.querySelectorAll('a[data-view]')[2].click()")
    assert browser.run("location.hash") == "#scales"
    assert "apart(4)" in {row[2] for row in shown(browser, "scales")}
    assert browser.run("document.querySelector('[data-table=runs] td a').getAttribute('href')").startswith(
        "runs/augmented-w8-s0/"
    )


def test_charts_and_numbers_can_be_saved(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("""(() => { window.saved = []; HTMLAnchorElement.prototype.click = () => {};
        URL.createObjectURL = (blob) => { saved.push(blob); return 'data:,'; }; })()""")
    browser.run(
        "for (const b of document.querySelectorAll('[data-chart=scales] .tools button, [data-table=scales] button')) b.click()"
    )
    browser.run("(async () => { while (saved.length < 3) await new Promise(r => setTimeout(r, 20)); })()")
    assert sorted(browser.run("saved.map(b => b.type)")) == ["image/png", "image/svg+xml", "text/csv"]
    svg, csv = (browser.run(f"saved.find(b => b.type.startsWith('{kind}')).text()") for kind in ("image/svg", "text/csv"))
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in svg
    head, *rows = csv.strip().splitlines()
    assert head == "width,training,selection,step,trained / initial,low,high,seeds,how"
    assert len(rows) == 2 * 2 * 5
    assert browser.problems == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (390, True)])
def test_it_fits_the_screen(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("getComputedStyle(document.body).backgroundColor") == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")


def test_without_scripts_the_figures_remain(browser: Browser, page: Path) -> None:
    browser.open(page, script=False)
    assert (
        browser.run("[...document.querySelectorAll('figure img')].filter(i => i.getBoundingClientRect().height > 50).length") == 8
    )
    assert browser.run("document.querySelector('noscript p').textContent").startswith("This browser runs no scripts")
    assert browser.run("[...document.querySelectorAll('.interactive')].every(e => e.hidden)") is True


def test_hostile_names_do_nothing(browser: Browser, hostile_page: Path) -> None:
    browser.open(hostile_page)
    assert browser.problems == []
    assert "</script><script>alert(1)</script>" in json.dumps(shown(browser, "runs"))
    assert browser.run("document.querySelectorAll('svg[onload], img[onerror]').length") == 0
