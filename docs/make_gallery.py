"""The pictures of docs/report.md, from the code on that page.

    python docs/make_gallery.py
    python docs/make_gallery.py --folder out/gallery    the study stays there, so that the next call need not compute it

Runs the page's blocks in a temporary or the given folder, in order; at each picture's link, what the last block drew
(``figure``, or the figure of ``ax``) is written there.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from kagscope.base.files import atomic_path
from kagscope.figures.style import style

PAGE = Path(__file__).resolve().with_name("report.md")
PART = re.compile(r"```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)```|!\[[^]]*\]\((pictures/figures/[\w]+\.png)\)", re.DOTALL)
COLOURS = 64  # of a picture: flat colours and their soft edges need no more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(folder or temporary)
        where.mkdir(parents=True, exist_ok=True)
        with contextlib.chdir(where):
            draw()


def draw() -> None:
    names: dict[str, Any] = {}
    drawn: Figure | None = None
    for language, title, source, picture in PART.findall(PAGE.read_text().partition("## Figures from Python")[2]):
        if picture and drawn is not None:
            write(drawn, PAGE.parent / picture)
        elif title:
            Path(title).write_text(source)
        elif language == "sh":
            subprocess.run([sys.executable, "-m", "kagscope", *shlex.split(source)[1:]], check=True)
        elif language == "python":
            names |= {"ax": None, "figure": None}
            exec(compile(source, str(PAGE), "exec"), names)
            drawn = names["figure"] or getattr(names["ax"], "figure", None)


def write(figure: Figure, path: Path) -> None:
    """A small PNG of few colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with style(), io.BytesIO() as stream:
        figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
        reduced = Image.open(stream).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        reduced.save(temporary, format="PNG", optimize=True)


if __name__ == "__main__":
    main()
