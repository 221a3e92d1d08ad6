"""Tracking with the package ``pytorch_lightning``; see :mod:`kagscope.integrations.lightning`."""

from __future__ import annotations

from kagscope.integrations._lightning_hooks import TrackerHooks

try:
    from pytorch_lightning import Callback
except ImportError as error:
    raise ImportError("this callback needs Lightning: pip install pytorch-lightning") from error


class KagscopeCallback(TrackerHooks, Callback):
    __doc__ = TrackerHooks.__doc__


__all__ = ["KagscopeCallback"]
