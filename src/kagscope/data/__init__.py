"""Data sets of grey or colour images: by name, from a folder of files, or from a user's function."""

from __future__ import annotations

from kagscope.data.dataset import Dataset
from kagscope.data.registry import NAMES, load, load_local

__all__ = ["NAMES", "Dataset", "load", "load_local"]
