"""Take the pictures of docs/report.md from a study's page.

    python docs/make_screenshots.py OUT/report.html

Needs Chromium or Chrome on the PATH. The page is that of any study; those in the documentation are of ``kagscope reproduce`` on
mnist10k. The first screen and the sections are taken at desktop width and at phone width, some of them in the dark, and kept as
``docs/pictures/report_<section>[_phone].png`` with few colours.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Browser, find_chromium

FOLDER = Path(__file__).parent / "pictures"
COLOURS = 96
DESKTOP, PHONE = 1120, 390
TALLEST = {DESKTOP: 1000, PHONE: 1100}  # pixels; what is below is cut
VIEW = "#s:layer=hidden1&score=pr&k=2&unitsort=zero"
# section, width, dark
SHOTS = (
    ("first", DESKTOP, False),
    ("claims", DESKTOP, False),
    ("scales", DESKTOP, False),
    ("where", DESKTOP, False),
    ("minors", DESKTOP, False),
    ("units", DESKTOP, True),
    ("training", DESKTOP, False),
    ("runs", DESKTOP, False),
    ("scales", PHONE, True),
    ("where", PHONE, False),
    ("units", PHONE, False),
)
PLACE = """(() => {{ const r = document.querySelector({0}).getBoundingClientRect(); return [r.top + scrollY, r.height]; }})()"""


def take(browser: Browser, page: Path, section: str, width: int, dark: bool) -> Path:
    """One section as PNG."""
    browser.open(page, VIEW, width=width, dark=dark)
    top, tall = browser.run(PLACE.format(json.dumps("header" if section == "first" else f"#{section}")))
    above = -12 if section == "first" else 8
    clip = {"x": 0, "y": top + above, "width": width, "height": min(tall, TALLEST[width]), "scale": 1}
    shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    path = FOLDER / f"report_{section}{'_phone' if width == PHONE else ''}.png"
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def main() -> None:
    """All pictures of the page named."""
    executable = find_chromium()
    if executable is None:
        sys.exit("no Chromium or Chrome on the PATH; install one, for example: apt-get install chromium")
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit("give the report.html of a study: python docs/make_screenshots.py OUT/report.html")
    with Browser(executable) as browser:
        for section, width, dark in SHOTS:
            path = take(browser, Path(sys.argv[1]), section, width, dark)
            print(f"{path}: {path.stat().st_size // 1000} kB")
        if browser.problems:
            sys.exit("; ".join(browser.problems))


if __name__ == "__main__":
    main()
