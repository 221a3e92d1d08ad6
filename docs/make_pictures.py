"""Draw every picture of the documentation again, those of single results aside.

    python docs/make_pictures.py OUT/report.html

``OUT/report.html`` is the page of a study, of which the screenshots in docs/report.md are taken; those there are of ``kagscope
reproduce`` on MNIST. All other pictures need nothing but some minutes. Needs Chromium or Chrome. Figures in ``docs/results/``
come from the studies' folders, by ``make_results.py``, ``make_study_page.py`` and ``make_transformer_page.py``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SCRIPTS = ("architecture_picture", "geometry_pictures", "score_pictures", "engine_pictures", "gallery", "compare_picture")


def main() -> None:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit("give the report.html of a study: python docs/make_pictures.py OUT/report.html")
    for name, *rest in (*((script,) for script in SCRIPTS), ("screenshots", sys.argv[1])):
        print(f"make_{name}.py", flush=True)
        subprocess.run([sys.executable, FOLDER / f"make_{name}.py", *rest], check=True)


if __name__ == "__main__":
    main()
