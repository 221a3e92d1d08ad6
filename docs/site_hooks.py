"""What the site needs beside its plugins: pages of notebooks without the scripts that could ask the network for more scripts."""

from __future__ import annotations

import re
from typing import Any

SCRIPT = re.compile(r"<script(?![^>]*application/(?:json|vnd))[^>]*>.*?</script>", re.DOTALL)


def on_page_content(html: str, page: Any, **kwargs: Any) -> str:
    """Notebooks' cells are plain HTML and pictures; their scripts load MathJax and Mermaid from elsewhere."""
    return SCRIPT.sub("", html) if page.file.src_uri.endswith(".ipynb") else html
