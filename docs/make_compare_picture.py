"""Take the picture of docs/studies.md into docs/pictures/. Usage: python docs/make_compare_picture.py [SHORT LONG]

Without two studies their folders are made first, by the commands of that page (a minute on 2 cores). Needs Chromium or Chrome.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from kagscope.cli import main
from kagscope.studies.side_by_side import compare_studies

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from browser import Browser, find_chromium  # noqa: E402

WIDTH, HEIGHT, COLOURS = 1000, 1480, 128


def made(folder: Path) -> tuple[Path, Path]:
    """The two studies of the page."""
    for name, epochs in (("short", "5"), ("long", "20")):
        options = f"--data digits --control none --widths 8,16 --seeds 3 --epochs {epochs} --k 1,2 --points 12 --checkpoints 4"
        try:
            main(["reproduce", *options.split(), "--quiet", "--out", str(folder / name)])
        except SystemExit as end:
            if end.code:
                raise
    return folder / "short", folder / "long"


def take(page: Path, target: Path) -> None:
    """The top of a page as PNG with few colours."""
    executable = find_chromium()
    if executable is None:
        raise SystemExit("no Chromium or Chrome is installed")
    with Browser(executable) as browser:
        browser.open(page, width=WIDTH, height=HEIGHT)
        whole = Image.open(browser.picture(page.with_suffix(".png"))).convert("RGB")
    whole.crop((0, 0, WIDTH, HEIGHT)).quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        a, b = (Path(sys.argv[1]), Path(sys.argv[2])) if len(sys.argv) == 3 else made(Path(scratch))
        page = compare_studies(a, b).write(Path(scratch) / "comparison.html", Path(scratch) / "comparison.csv")
        take(page, ROOT / "docs" / "pictures" / "compare.png")
