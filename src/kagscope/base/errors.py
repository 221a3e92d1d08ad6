"""Errors that users meet. Each message says what was given, what was expected and what to do."""

from __future__ import annotations


class KagscopeError(Exception):
    """Something that a user can mend; the command line prints it as one line and exits with ``exit_code``."""

    exit_code = 1


class InputError(KagscopeError, ValueError):
    """An argument, option or configuration that cannot be used; found before any work starts."""

    exit_code = 2


class DataError(KagscopeError):
    """A data file, checkpoint or store that is missing, damaged or not what its name says."""


class OutputError(KagscopeError):
    """An output folder or file that cannot be written, or that holds something of somebody else's."""


class UndefinedScore(KagscopeError):
    """A number that was not computed, or that the input leaves undefined, was asked for where NaN would mislead."""


class NothingToPlot(InputError):
    """The table holds nothing of what a figure shows; the message says what is missing."""
