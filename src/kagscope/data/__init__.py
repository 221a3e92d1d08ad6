"""Data sets of grey images: by name, or from a folder of IDX or ``.npz`` files."""

from __future__ import annotations

from kagscope.data.dataset import Dataset
from kagscope.data.registry import NAMES, load, load_local

__all__ = ["NAMES", "Dataset", "load", "load_local"]
