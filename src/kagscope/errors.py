"""The errors that kagscope raises, under the name by which users catch them."""

from __future__ import annotations

from kagscope.base.errors import DataError, InputError, KagscopeError, NothingToPlot, OutputError, UndefinedScore

__all__ = ["DataError", "InputError", "KagscopeError", "NothingToPlot", "OutputError", "UndefinedScore"]
