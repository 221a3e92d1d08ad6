"""The page in a real browser: every control moved, the numbers shown are those of the table, nothing a user named can act."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from browser import Browser, find_chromium
from figure_tables import make_claims, make_exhibits, make_provenance, make_tables
from hostile import LAYER, make_hostile_page
from kagscope.base.messages import Finding
from kagscope.figures.colours import palettes, ratio_colours, ratio_norm
from kagscope.figures.study import net_means, study_means
from kagscope.figures.write import FAMILIES
from kagscope.report import write_report
from kagscope.report.axes import pack_axes
from kagscope.report.numbers import number_cell, text_cell
from kagscope.tables import means as reduced
from studies import shown_figures

Tables = tuple[pd.DataFrame, pd.DataFrame]
CHECKS = (Path(__file__).parent / "page_checks.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def study() -> Tables:
    return make_tables(points=3, last_step=20, window_radii=(2, 3))


@pytest.fixture(scope="module")
def facts(study: Tables) -> dict[str, Any]:
    return make_provenance() | make_exhibits(study[0])


@pytest.fixture(scope="module")
def page(study: Tables, facts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    results, curves = study
    return write_report(path, results=results, curves=curves, claims=make_claims(), provenance=facts)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium or Chrome is installed")
    with Browser(executable) as found:
        yield found


SEEN_FIGURES = "[...document.querySelectorAll('figure img')].filter(i => i.getBoundingClientRect().height > 50).length"
TABLE = "[...document.querySelectorAll('[data-table={0}] tbody tr')].map(r => [...r.cells].map(c => c.textContent))"


def shown(browser: Browser, name: str) -> list[list[str]]:
    browser.run(f"(() => {{ const d = document.querySelector('[data-table={name}] details'); if (d) d.open = true; }})()")
    browser.run("new Promise(r => setTimeout(r, 60))")
    return list(browser.run(TABLE.format(name)))


def choose(browser: Browser, key: str, value: str) -> None:
    browser.run(f"""(() => {{ const s = document.querySelector('select[data-key={key}]'); s.value = {json.dumps(value)};
        if (s.value !== {json.dumps(value)}) throw new Error('no such option');
        s.dispatchEvent(new Event('change')); }})()""")


def slide(browser: Browser, name: str, place: int) -> None:
    browser.run(f"""(() => {{ const s = document.querySelector('[data-slider={name}]'); s.value = {place};
        s.dispatchEvent(new Event('input')); }})()""")


def check(browser: Browser, what: str) -> Any:
    """Of page_checks.js."""
    return browser.run(f"(() => {{ {CHECKS}\nreturn {what}(); }})()")


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def value_of(rows: list[list[str]], *start: str, place: int) -> float:
    (row,) = [row for row in rows if row[: len(start)] == list(start)]
    return number(row[place])


def test_the_scale_explorer_shows_the_numbers_of_the_table(browser: Browser, page: Path, study: Tables) -> None:
    browser.open(page)
    assert float(browser.run("document.documentElement.dataset.ready")) < 2000
    means = study_means(study[0])

    def expected(measure: str, **wanted: Any) -> float:
        return float(reduced.select(means, **wanted)[measure].iloc[0])

    where = {"k": 2, "width": 16, "training": "standard", "step": 20, "score": "pr"}
    rows = shown(browser, "scales")
    for place, measure in ((4, "ratio"), (5, "ratio_low"), (6, "ratio_high")):
        found = value_of(rows, "16", "standard", "ball(2)", place=place)
        assert found == pytest.approx(expected(measure, layer="hidden1", selection="ball(2)", **where), rel=1e-3)
    for key, value, measure, wanted in (
        ("layer", "hidden2", "ratio", {"layer": "hidden2"}),
        ("k", "3", "ratio", {"layer": "hidden2", "k": 3}),
        ("score", "kl_uniform", "ratio", {"layer": "hidden2", "k": 3, "score": "kl_uniform"}),
        ("measure", "difference", "difference", {"layer": "hidden2", "k": 3, "score": "kl_uniform"}),
        ("measure", "value", "value", {"layer": "hidden2", "k": 3, "score": "kl_uniform"}),
    ):
        choose(browser, key, value)
        found = value_of(shown(browser, "scales"), "16", "standard", "ball(6)", place=4)
        assert found == pytest.approx(expected(measure, **(where | {"selection": "ball(6)"} | wanted)), rel=1e-3)
    assert {row[8].split(" error")[0] for row in shown(browser, "scales")} == {"~ sampled, standard"}  # k = 3
    assert "were sampled" in browser.run("document.querySelector('[data-note=scales]').textContent")
    choose(browser, "axis", "apart")
    assert {row[2] for row in shown(browser, "scales")} == {"all", "apart(2)", "apart(4)", "apart(6)", "apart(8)"}
    choose(browser, "width", "16")
    assert {row[0] for row in shown(browser, "scales")} == {"16"}
    slide(browser, "step", 0)
    assert {(row[2], row[3]) for row in shown(browser, "scales")} == {("all", "0")}
    assert browser.run("location.hash").startswith("#s:layer=hidden2&")
    assert browser.problems == []


def test_numbers_at_the_ticks_of_an_axis_are_written_alike(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("Format.ticks([2.5e-5, 5e-5, 1e-4])") == ["0.25·10⁻⁴", "0.5·10⁻⁴", "1·10⁻⁴"]
    assert browser.run("Format.ticks([1e-5, 1e-3, 0.1])") == ["10⁻⁵", "0.001", "0.1"]
    assert browser.run("Format.ticks([0, 0.5, 1])") == ["0", "0.5", "1"]


def test_undefined_values_are_said_where_they_are_missing(browser: Browser, page: Path) -> None:
    browser.open(page, "#s:layer=hidden1&score=near_zero&k=2")
    assert "undefined values were left out" in browser.run("document.querySelector('[data-note=scales]').textContent")
    assert all(row[8].endswith("undefined") for row in shown(browser, "scales"))


def test_every_option_of_every_control_can_be_chosen(browser: Browser, page: Path) -> None:
    browser.open(page)
    keys = browser.run("[...new Set([...document.querySelectorAll('select[data-key]')].map(s => s.dataset.key))]")
    assert len(keys) == 20  # those of a study's axes are on a page that has some
    for key in keys:
        count = browser.run(f"""(() => {{ let n = 0; for (const s of document.querySelectorAll('select[data-key={key}]'))
            for (const v of [...s.options].map(o => o.value)) {{ s.value = v; s.dispatchEvent(new Event('change')); n++; }}
            return n; }})()""")
        assert count >= 1
    for name in ("step", "radius"):
        for place in range(int(browser.run(f"Number(document.querySelector('[data-slider={name}]').max)")) + 1):
            slide(browser, name, place)
    browser.run("document.querySelector('[data-theme-button]').click()")
    assert browser.problems == []
    assert [address for address in browser.requests if not address.startswith(("file:", "data:", "blob:"))] == []


def test_play_moves_through_the_steps(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("document.querySelector('[data-play]').click()")
    assert browser.run("document.querySelector('[data-output=step]').textContent") == "0"
    assert browser.run("document.querySelector('[data-play]').getAttribute('aria-pressed')") == "true"
    browser.run("new Promise(r => setTimeout(r, 1100))")
    assert int(browser.run("document.querySelector('[data-output=step]').textContent")) >= 1
    browser.run("document.querySelector('[data-play]').click()")
    assert browser.run("document.querySelector('[data-play]').getAttribute('aria-pressed')") == "false"


def test_an_address_restores_a_view(browser: Browser, page: Path, study: Tables) -> None:
    browser.open(page, "#s:layer=hidden2&score=zero_rows&k=1&measure=value&training=augmented&width=8&radius=2")
    (row, *_) = [row for row in shown(browser, "training") if row[1:3] == ["augmented", "20"]]
    wanted = {"layer": "hidden2", "k": 1, "score": "zero_rows", "selection": "all", "width": 8, "step": 20}
    mean = reduced.select(study_means(study[0]), training="augmented", **wanted)["value"].iloc[0]
    assert float(row[3]) == pytest.approx(mean, rel=1e-3)
    accuracy = reduced.select(study[0], width=8, training="augmented", step=20).groupby("run", observed=True)["accuracy"].first()
    (last,) = [row for row in shown(browser, "accuracy") if row[1:3] == ["augmented", "20"]]
    assert float(last[3]) == pytest.approx(accuracy.mean(), rel=1e-3)


def test_the_map_has_radii_and_classes(browser: Browser, page: Path, study: Tables) -> None:
    browser.open(page, "#s:layer=hidden2&training=augmented&width=8")
    wanted = {"layer": "hidden2", "width": 8, "training": "augmented", "score": "pr"}
    for place, radius in enumerate((2, 3)):
        slide(browser, "radius", place)
        assert browser.run("document.querySelector('[data-output=radius]').textContent") == f"{radius} pixels"
        raw = reduced.select(study[0], selection=f"window(2,5,{radius})", **wanted)
        mean = raw.groupby("seed", observed=True)["ratio"].mean().mean()
        assert value_of(shown(browser, "where"), "2", "5", place=2) == pytest.approx(mean, rel=1e-3)
    values = [number(row[2]) for row in shown(browser, "where")]
    norm = ratio_norm(np.array(values))
    rects = "[...document.querySelectorAll('[data-chart=where] g rect')]"
    cells = browser.run(rects + ".map(c => c.getAttribute('fill').match(/\\d+/g))")
    printed = 255 * np.array(ratio_colours(norm)(norm(np.array(values))))[:, :3]
    assert np.abs(np.array(cells, dtype=float) - printed).max() < 4
    choose(browser, "maplabel", "1")
    mean = raw[raw["point"] == 1].groupby("seed", observed=True)["ratio"].mean().mean()
    assert value_of(shown(browser, "where"), "2", "5", place=2) == pytest.approx(mean, rel=1e-3)
    assert "one image of class 1" in browser.run("document.querySelector('[data-note=where]').textContent")
    assert browser.run("document.querySelectorAll('[data-chart=where] path.outline').length") == 4
    choose(browser, "overlay", "picture")
    assert browser.run("document.querySelectorAll('[data-chart=where] image').length") == 1
    assert browser.problems == []


def test_the_distributions_shown_are_those_of_the_table(browser: Browser, page: Path, study: Tables) -> None:
    browser.open(page, "#s:layer=hidden1&curvek=2&width=16")
    rows = shown(browser, "minors")
    wanted = {"layer": "hidden1", "k": 2, "width": 16, "training": "standard", "step": 20}
    curves = reduced.select(study[1], **wanted)
    zeros = curves[(curves["curve"] == "histogram") & np.isneginf(curves["x"])].groupby("seed")["y"].first().mean()
    assert value_of(rows, "histogram", "trained, standard", "exact zeros", place=3) == pytest.approx(zeros, rel=1e-3)
    first = curves[(curves["curve"] == "zipf") & (curves["x"] == 1)]["y"].mean()
    assert value_of(rows, "zipf", "trained, standard", "1", place=3) == pytest.approx(first, rel=1e-3)


def test_units_are_sorted_and_filtered(browser: Browser, page: Path, facts: dict[str, Any]) -> None:
    browser.open(page, "#s:layer=hidden2&width=8&training=augmented")
    units = facts["units"]["augmented-w8-s0"]
    one = units[units["layer"] == "hidden2"]
    assert [row[0] for row in shown(browser, "units")] == [str(unit) for unit in range(8)]
    assert [number(row[1]) for row in shown(browser, "units")] == pytest.approx(one.row_norm.tolist(), rel=1e-3)
    assert [number(row[3]) for row in shown(browser, "units")] == pytest.approx(one.alignment.tolist(), rel=1e-3)
    choose(browser, "unitsort", "zero")
    shares = [number(row[2]) for row in shown(browser, "units")]
    assert shares == sorted(shares, reverse=True)
    choose(browser, "unitfilter", "every")
    assert [row[0] for row in shown(browser, "units")] == [str(unit) for unit in np.flatnonzero(one.zero_share == 1)]
    assert "mean over the measured points" in browser.run("document.querySelector('[data-note=units]').textContent")
    label = browser.run("document.querySelector('[data-units] canvas').getAttribute('aria-label')")
    assert label.startswith("unit 0: row norm")
    assert "zero row at 100% of the points" in label
    # the picture: the largest weight of a unit is drawn in the strongest colour of its sign
    choose(browser, "unitfilter", "all")
    place = int(np.abs(one["row"].iloc[0]).argmax())
    pixel = browser.run(f"""(() => {{ const c = document.querySelector('[data-units] canvas');
        return [...c.getContext('2d').getImageData({place % 8}, {place // 8}, 1, 1).data]; }})()""")
    assert pixel == [*palettes()["diverging"][-1 if one["row"].iloc[0][place] > 0 else 0], 255]


def test_runs_sort_filter_and_show_their_configuration(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("document.querySelector('[data-sort=accuracy]').click()")
    accuracies = [float(row[3]) for row in shown(browser, "runs")]
    assert accuracies == sorted(accuracies)
    assert len(accuracies) == 12
    for words, runs in (
        ("augmented w8", {f"augmented-w8-s{seed}" for seed in range(3)}),
        ("width=16 seed>=2", {"standard-w16-s2", "augmented-w16-s2"}),
        ("activation=gelu seed<1 geometry.points=3 standard", {"standard-w8-s0", "standard-w16-s0"}),
        ("nothing", set()),
    ):
        browser.run(f"""(() => {{ const f = document.querySelector('[data-filter]'); f.value = {json.dumps(words)};
            f.dispatchEvent(new Event('input')); }})()""")
        assert {row[8] for row in shown(browser, "runs")} == runs
        assert browser.run("document.querySelector('[data-output=runs]').textContent") == f"{len(runs)} of 12"
    browser.run(
        "(() => { const f = document.querySelector('[data-filter]'); f.value = ''; f.dispatchEvent(new Event('input')); })()"
    )
    assert browser.run("document.querySelector('[data-table=runs] td a').getAttribute('href')").startswith("runs/")
    name = browser.run("document.querySelector('[data-table=runs] td a').textContent")
    browser.run("document.querySelector('[data-table=runs] td button').click()")
    assert browser.run("document.querySelector('dialog').open") is True
    assert json.loads(browser.run("document.querySelector('dialog pre').textContent"))["run"] == name
    browser.run("[...document.querySelectorAll('dialog button')].at(-1).click()")
    assert browser.run("document.querySelector('dialog').open") is False
    assert browser.problems == []


def test_a_filter_by_what_no_run_has_says_so(browser: Browser, page: Path) -> None:
    browser.open(page)
    note = "document.querySelector('[data-note=runs]').textContent"
    for words, hint in (("acuracy>0.5", "accuracy"), ("width=16", "")):
        browser.run(f"""(() => {{ const f = document.querySelector('[data-filter]'); f.value = {json.dumps(words)};
            f.dispatchEvent(new Event('input')); }})()""")
        assert (hint in browser.run(note)) if hint else browser.run(note) == ""
    assert browser.problems == []


def test_the_first_screen_has_the_verdicts_and_the_ratio_by_scale(browser: Browser, page: Path) -> None:
    browser.open(page, height=900)
    assert browser.run("document.querySelectorAll('.verdicts .chip').length") == 6
    assert browser.run("document.querySelectorAll('[data-first] svg path.line').length") == 2 * 4  # layers, settings
    bottom = browser.run("document.querySelector('[data-first]').getBoundingClientRect().bottom")
    assert bottom < 900
    browser.open(page, width=390, height=844)
    assert browser.run("document.querySelector('[data-first] svg').getBoundingClientRect().bottom") < 844
    tops = "['.panels > :first-child', '.panels > .key', '.first > :last-child', '.panels > :nth-child(2)']"
    order = browser.run(tops + ".map(one => document.querySelector(one).getBoundingClientRect().top)")
    assert order == sorted(order)


@pytest.fixture(scope="module")
def study_page(study: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results, curves = study
    runs = (
        reduced.last_step(results).drop_duplicates("run")[["run", "width", "training", "seed", "accuracy"]].reset_index(drop=True)
    )
    packed = pack_axes(net_means(results), runs, ["width", "training"], {"accuracy": "test accuracy"})
    rows = [[text_cell(name), number_cell(value)] for name, value in (("a", 2.0), ("b", 10.0), ("c", math.nan), ("d", -1.0))]
    table = {"name": "made", "label": "made up", "head": ["what", "size"], "rows": rows, "note": ""}
    about = make_provenance() | {
        "study": packed,
        "exhibits": [("varied", "What was varied", "varied.html", {"tables": [table]})],
        "without": ["claims"],
        "figures": (),
    }
    path = tmp_path_factory.mktemp("study") / "report.html"
    return write_report(path, results=results, curves=curves, claims=[], provenance=about)


def test_what_was_varied_is_shown_over_its_axes(browser: Browser, study_page: Path, study: Tables) -> None:
    browser.open(study_page)
    choose(browser, "layer", "hidden2")
    choose(browser, "axisx", "width")
    choose(browser, "axishue", "training")
    chosen = reduced.select(
        reduced.last_step(net_means(study[0])), layer="hidden2", score="pr", k=2, selection="all", training="augmented"
    )
    rows = shown(browser, "axes")
    for width, group in chosen.groupby("width"):
        values = group["ratio"].to_numpy()
        half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        (row,) = [row for row in rows if row[:2] == [str(width), "augmented"]]
        expected = [values.mean(), values.mean() - half, values.mean() + half, len(values)]
        assert [number(text) for text in row[2:]] == pytest.approx(expected, rel=1e-3)
    cells = browser.run("[...document.querySelectorAll('[data-map=axes] td')].map(c => c.textContent)")
    assert len(cells) == 4
    choose(browser, "axisscore", "outcome:accuracy")
    accuracy = reduced.last_step(study[0]).drop_duplicates("run").groupby("width")["accuracy"].mean()
    choose(browser, "axishue", "none")
    assert [number(row[1]) for row in shown(browser, "axes")] == pytest.approx(accuracy.tolist(), rel=1e-3)
    assert check(browser, "nameless") == []
    assert browser.problems == []


def test_first_come_few_findings_and_the_fine_print_folds_out(browser: Browser, study: Tables, tmp_path: Path) -> None:
    results, curves = study
    said = [Finding(f"result {i}.", code="trend") for i in range(7)]
    said.insert(1, Finding("fine print.", code="sampled"))
    page = tmp_path / "told.html"
    write_report(page, results=results, curves=curves, claims=[], provenance={"findings": said})
    browser.open(page)
    lists = browser.run("[...document.querySelectorAll('ul.findings')].map(u => [...u.children].map(l => l.textContent))")
    assert lists == [[f"result {i}." for i in range(5)], ["fine print.", "result 5.", "result 6."]]
    assert browser.run("document.querySelector('ul.findings + details').open") is False


def test_tables_of_the_page_sort_by_their_headings(browser: Browser, study_page: Path) -> None:
    browser.open(study_page)
    order = "[...document.querySelectorAll('table[data-sortable] tbody tr')].map(r => r.cells[0].textContent).join('')"
    press = "document.querySelectorAll('table[data-sortable] th button')[1].click()"
    assert browser.run(order) == "abcd"
    browser.run(press)
    assert browser.run(order) == "badc"  # by number, what has none last
    browser.run(press)
    assert browser.run(order) == "dabc"


def test_evidence_of_each_claim_sets_the_controls(browser: Browser, page: Path) -> None:
    browser.open(page)
    count = browser.run("document.querySelectorAll('a[data-view]').length")
    assert count == 10
    for place in range(count):
        view, target = browser.run(f"""(() => {{ const a = document.querySelectorAll('a[data-view]')[{place}]; a.click();
            return [a.dataset.view, a.getAttribute('href')]; }})()""")
        assert browser.run("location.hash") == target
        wanted = dict(part.split("=") for part in view.split("&"))
        for key in {"score", "k", "measure", "axis", "curvek"} & wanted.keys():
            assert browser.run(f"Page.state.{key}") == (int(wanted[key]) if wanted[key].isdigit() else wanted[key])
        assert browser.run(f"document.querySelector('{target} [data-evidence]').hidden") is False
        assert browser.run(f"document.querySelectorAll('{target} [data-chart] svg path.line').length") > 0
    browser.run("document.querySelectorAll('a[data-view]')[4].click()")
    assert {row[2] for row in shown(browser, "scales")} >= {"apart(4)"}
    assert browser.problems == []


def test_everything_can_be_saved(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("""(() => { window.saved = []; const link = HTMLAnchorElement.prototype;
        link.click = function () { saved.push([this.download, last]); };
        URL.createObjectURL = (blob) => { window.last = blob; return 'data:,'; }; })()""")
    browser.run("document.querySelectorAll('[data-table] details').forEach(d => { d.open = true; })")
    buttons = browser.run("""(() => { const all = [...document.querySelectorAll('.tools button')]; for (const b of all) b.click();
        return all.map(b => b.textContent); })()""")
    assert {text: buttons.count(text) for text in set(buttons)} == {"SVG": 8, "PNG": 9, "CSV": 8}
    browser.run(f"(async () => {{ while (saved.length < {len(buttons)}) await new Promise(r => setTimeout(r, 20)); }})()")
    assert browser.run("saved.every(([name, blob]) => blob.size > 200)")
    names = browser.run("saved.map(([name]) => name)")
    charts = ("ratio-hidden1", "ratio-hidden2", "scales", "where", "histogram", "zipf", "steps", "accuracy")
    kept = {f"kagscope-{name}.{suffix}" for name in charts for suffix in ("svg", "png")} | {"kagscope-units.png"}
    listed = ("claims", "scales", "where", "minors", "units", "training", "accuracy", "runs")
    assert set(names) == kept | {f"kagscope-{name}.csv" for name in listed}
    content = {
        name: browser.run(f"saved.find(([n]) => n === {json.dumps(name)})[1].text()") for name in names if "png" not in name
    }
    svg = content["kagscope-scales.svg"]
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in svg
    assert "width 16, augmented" in svg
    head, *rows = content["kagscope-scales.csv"].strip().splitlines()
    assert head == "width,training,selection,step,trained / initial,low,high,seeds,how"
    assert len(rows) == 2 * 2 * 5
    assert len(content["kagscope-claims.csv"].strip().splitlines()) == 7
    assert browser.problems == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (390, True)])
def test_it_fits_the_screen(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("getComputedStyle(document.body).backgroundColor") == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    browser.run("document.querySelector('[data-theme-button]').click()")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == ("rgb(255, 255, 255)" if dark else "rgb(20, 23, 26)")
    assert check(browser, "outside") == []
    assert browser.problems == []


@pytest.mark.parametrize("width", [1280, 390])
def test_charts_are_drawn_at_the_size_at_which_they_are_shown(browser: Browser, page: Path, study_page: Path, width: int) -> None:
    for one in (page, study_page):
        browser.open(one, width=width)
        assert check(browser, "scaled") == []


def test_unfolded_numbers_of_a_claim_leave_the_table_of_claims_as_it_is(browser: Browser, study: Tables, tmp_path: Path) -> None:
    results, curves = study
    claims = make_claims()
    row = {"part": "augmented over standard, excess of the PR ratio over 1, at equal epochs", "selection": "all", "effect": 1.0}
    claims[4]["parts"] = [
        row | {"ci_low": 0.9, "ci_high": 1.1, "training": "augmented over standard", "held_against": "0.55 to 0.85"}
    ]
    page = tmp_path / "claims.html"
    write_report(page, results=results, curves=curves, claims=claims, provenance={"figures": ()})
    places = "[...document.querySelectorAll('.claims > thead th')].map(th => th.getBoundingClientRect().left)"
    for width in (1280, 390):
        browser.open(page, width=width)
        folded = browser.run(places)
        browser.run("document.querySelectorAll('.claims details').forEach(d => { d.open = true; })")
        assert browser.run(places) == folded
        assert browser.run("document.documentElement.scrollWidth") <= width
    heads = browser.run(
        "[...document.querySelectorAll('#claims tr.behind:last-of-type th, #claims tr.behind th')].map(th => th.textContent)"
    )
    assert {"columns", "low", "high"} <= set(heads)
    assert not {"selection", "ci_low", "ci_high"} & set(heads)


def test_a_picture_of_one_setting_says_of_which(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert "nets: width 16, standard" in browser.run("document.querySelector('[data-note=where]').textContent")
    choose(browser, "training", "augmented")
    assert "nets: width 16, augmented" in browser.run("document.querySelector('[data-note=where]').textContent")


def test_the_command_and_the_settings_can_be_read_whole(browser: Browser, study: Tables, tmp_path: Path) -> None:
    results, curves = study
    config = {"zip": [{"training": ["standard", "augmented"], "labels": ["true", "shuffled"]}], "along": {"points": None}}
    page = tmp_path / "settings.html"
    about = {"figures": (), "command": "kagscope reproduce" + " --option value" * 30, "config": config}
    write_report(page, results=results, curves=curves, claims=[], provenance=about)
    for width in (1280, 390):
        browser.open(page, width=width)
        assert browser.run("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('#computed pre'))")
    text = browser.run("document.querySelector('#computed').innerText")
    assert "{" not in text
    assert "along" not in text


def test_tables_that_are_cut_off_say_that_they_scroll(browser: Browser, page: Path) -> None:
    told = "[...document.querySelectorAll('.scroll')].filter(e => e.checkVisibility()).map(e => [e.dataset.scrolls ?? '', {}])"
    cut = ("e.scrollWidth > e.clientWidth + 1", "e.scrollHeight > e.clientHeight + 1")
    for width in (1280, 390):
        browser.open(page, width=width)
        browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        browser.run("new Promise(r => setTimeout(r, 200))")
        seen = browser.run(told.format(", ".join(cut)))
        assert any(beside for _, beside, _ in seen) or width > 390
        for text, beside, below in seen:
            assert ("sideways" in text, "down" in text) == (beside, below)


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_used_without_mouse_and_read_aloud(browser: Browser, page: Path, dark: bool) -> None:
    browser.open(page, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    browser.run("new Promise(r => setTimeout(r, 100))")
    assert check(browser, "nameless") == []
    assert check(browser, "unreachable") == []
    assert check(browser, "faint") == []
    levels = browser.run(
        "[...document.querySelectorAll('h1, h2, h3')].filter(h => h.checkVisibility()).map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    browser.run("document.querySelector('h1').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert browser.run("document.activeElement.className") == "skip"
    assert browser.run("document.activeElement.getBoundingClientRect().left") >= 0


def test_it_prints_light_and_whole_without_buttons(browser: Browser, page: Path) -> None:
    browser.open(page, dark=True)
    browser.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert (
        browser.run("[...document.querySelectorAll('button:not(th button), input, .tools, nav')].some(e => e.checkVisibility())")
        is False
    )
    assert browser.run("[...document.querySelectorAll('figure img')].every(e => e.checkVisibility())") is True
    # what a chart shows is told; no line is cut off at the edge of the paper
    choice = "[data-controls~=score] select, .bar select"
    assert browser.run(f"[...document.querySelectorAll('{choice}')].every(e => e.checkVisibility())") is True
    browser.call("Emulation.setDeviceMetricsOverride", width=640, height=1000, deviceScaleFactor=1, mobile=False)
    wide = "[...document.querySelectorAll('table, pre, .chart, figure')].filter(e => e.checkVisibility() && e.scrollWidth > 640)"
    assert browser.run(f"{wide}.map(e => e.outerHTML.slice(0, 200))") == []
    browser.call("Emulation.setEmulatedMedia", media="")


@pytest.mark.slow
def test_a_page_with_every_figure_is_no_burden(browser: Browser, study: Tables, facts: dict[str, Any], tmp_path: Path) -> None:
    results, curves = study
    with shown_figures(len(FAMILIES)):
        path = write_report(tmp_path / "all.html", results=results, curves=curves, claims=make_claims(), provenance=facts)
    assert path.stat().st_size < 12e6
    browser.open(path, script=False)
    assert browser.run(SEEN_FIGURES) == 8


def test_without_scripts_the_figures_remain(browser: Browser, page: Path) -> None:
    browser.open(page, script=False)
    assert browser.run(SEEN_FIGURES) == 2
    assert browser.run("document.querySelector('noscript p').textContent").startswith("This browser runs no scripts")
    assert browser.run("[...document.querySelectorAll('.interactive')].every(e => e.hidden)") is True


def test_an_old_browser_is_told_so(browser: Browser, page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    text = page.read_text()
    start = text.index('id="data">') + len('id="data">')
    broken.write_text(text[:start] + "AAAA" + text[text.index("</script>", start) :])
    browser.open(broken)
    assert browser.run("document.querySelector('[data-trouble]').checkVisibility()") is True
    assert browser.run("[...document.querySelectorAll('figure img')].every(i => i.checkVisibility())") is True
    assert browser.problems == []


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    browser.open(make_hostile_page(tmp_path / "hostile.html"))
    names = json.dumps(shown(browser, "runs"))
    assert "</script><script>alert(1)</script>" in names
    choose(browser, "layer", LAYER)
    for name in ("scales", "where", "minors", "units", "training", "accuracy"):
        shown(browser, name)
    assert browser.run("document.querySelectorAll('[data-units] canvas').length") > 0
    browser.run("document.querySelector('[data-table=runs] td button').click()")
    browser.run("document.querySelector('dialog').close()")
    address = browser.run("location.hash")
    assert browser.run("document.querySelectorAll('svg[onload], img[onerror], script').length") == 2
    browser.run("document.querySelector('a[data-view]').click()")
    browser.open(tmp_path / "hostile.html", address)
    assert browser.run("Page.state.layer") == LAYER
    assert browser.problems == []
    assert [one for one in browser.requests if not one.startswith(("file:", "data:", "blob:"))] == []
