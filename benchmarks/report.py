"""How large the report's page is, and how fast it opens and answers in a browser, with at least a hundred runs in it.

    python benchmarks/report.py [report.html …]

Without arguments a page is made of 120 made-up runs on 28 x 28 images (2 layers, 3 widths, 2 trainings, 20 seeds, 12 steps).
Needs Chromium or Chrome on the PATH. "to first chart" is from navigation to the last section drawn; a change of a control counts
until the frame after it is shown.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Browser, find_chromium
from figure_tables import make_claims, make_exhibits, make_provenance, make_tables, make_units
from kagscope.report import write_report

LIMIT = 2000  # milliseconds
REPEATS = 5
CHANGE = """new Promise((done) => {{ const began = performance.now(); {act};
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began))); }})"""
SELECT = """(() => {{ const s = document.querySelector("select[data-key={key}]"), all = [...s.options].map((o) => o.value);
    s.value = all[(all.indexOf(s.value) + 1) % all.length]; s.dispatchEvent(new Event("change")); }})()"""
SLIDE = """(() => {{ const s = document.querySelector("[data-slider={key}]"); s.value = Number(s.value) - 1 || s.max;
    s.dispatchEvent(new Event("input")); }})()"""
FILTER = """(() => { const f = document.querySelector("[data-filter]"); f.value = f.value ? "" : "augmented accuracy>0.5";
    f.dispatchEvent(new Event("input")); })()"""
ACTS = {
    **{f"choose {key}": SELECT.format(key=key) for key in ("layer", "score", "width", "training", "unitsort", "curveselection")},
    **{f"slide {key}": SLIDE.format(key=key) for key in ("step", "radius")},
    "filter the runs": FILTER,
}


def make_page(folder: Path) -> Path:
    """A page of 120 made-up runs."""
    widths, shape = (32, 64, 128), (28, 28)
    options: dict[str, Any] = {"widths": widths, "seeds": 20, "points": 3, "last_step": 2000}
    options |= {"image_shape": shape, "stride": 3}
    results, curves = make_tables(**options, window_radii=(4, 7, 10, 14))
    facts = make_provenance() | make_exhibits(results, shape) | {"image_shape": list(shape)}
    facts["units"] = make_units(list(facts["units"]), count=128, columns=shape[0] * shape[1])
    began = time.perf_counter()
    path = write_report(folder / "report.html", results=results, curves=curves, claims=make_claims(), provenance=facts)
    print(f"{results['run'].nunique()} runs, {len(results):,} rows: page written in {time.perf_counter() - began:.1f} s")
    return path


def sizes(path: Path) -> None:
    """What takes room in the page."""
    text = path.read_text(encoding="utf-8")
    figures = sum(map(len, re.findall(r'src="data:image/png;base64,([^"]*)"', text)))
    data = re.findall(r'id="data">([^<]*)<', text)[0]
    payload = json.loads(gzip.decompress(base64.b64decode(data)))
    print(f"page {len(text.encode()) / 1e6:.2f} MB: figures {figures / 1e6:.2f}, data {len(data) / 1e6:.2f}")
    for name, part in payload.items():
        packed = len(gzip.compress(json.dumps(part).encode())) * 4 / 3
        if packed > 10_000:
            print(f"  {name:10s} {packed / 1e6:.2f}")


def speeds(browser: Browser, path: Path, runs: str) -> bool:
    """Time to open, and of each change; whether all are below the limit."""
    opened, ready = [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        browser.open(path)
        opened.append(1000 * (time.perf_counter() - began))
        ready.append(float(browser.run("document.documentElement.dataset.ready")))
    print(f"{runs}: to first chart {statistics.median(ready):.0f} ms (largest of {REPEATS}: {max(ready):.0f})")
    worst = max(ready)
    for name, act in ACTS.items():
        times = [float(browser.run(CHANGE.format(act=act))) for _ in range(REPEATS)]
        worst = max(worst, *times)
        print(f"  {name:22s} {statistics.median(times):5.0f} ms (largest {max(times):.0f})")
    return worst < LIMIT


def main() -> None:
    """Measure the pages named, or a made-up one."""
    executable = find_chromium()
    if executable is None:
        sys.exit("no Chromium or Chrome on the PATH; install one, for example: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, Browser(executable) as browser:
        pages = [Path(one) for one in sys.argv[1:]] or [make_page(Path(folder))]
        good = True
        for path in pages:
            sizes(path)
            good &= speeds(browser, path, path.parent.name)
    if not good:
        sys.exit(f"something took more than {LIMIT} ms")


if __name__ == "__main__":
    main()
