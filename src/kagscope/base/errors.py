"""Errors that users meet. Each message says what was given, what was expected and what to do."""

from __future__ import annotations


class KagscopeError(Exception):
    """An error that a user can fix; the command line prints it as one line and exits with ``exit_code``."""

    exit_code = 1


class InputError(KagscopeError, ValueError):
    """An unusable argument, option or configuration, detected before any work starts."""

    exit_code = 2


class DataError(KagscopeError):
    """A data file, checkpoint or store that is missing, damaged or not of the expected kind."""


class OutputError(KagscopeError):
    """An output folder or file that cannot be written, or that holds something else."""


class UndefinedScore(KagscopeError):
    """A requested number was not computed or is undefined, and NaN would mislead."""


class NothingToPlot(InputError):
    """The table lacks what a figure shows; the message says what is missing."""
