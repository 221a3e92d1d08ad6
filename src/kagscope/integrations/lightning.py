"""Tracking with Lightning: ``Trainer(callbacks=[KagscopeCallback(probe_inputs, layers=["net.1"], every=100)])``.

For ``import lightning``; :mod:`kagscope.integrations.pytorch_lightning` is for ``import pytorch_lightning``, whose Trainer takes
callbacks of its own class. Where only that package is installed this module uses it too.
"""

from __future__ import annotations

from kagscope.integrations._lightning_hooks import TrackerHooks

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback  # type: ignore[assignment]
    except ImportError as error:
        raise ImportError("this callback needs Lightning: pip install lightning") from error


class KagscopeCallback(TrackerHooks, Callback):
    __doc__ = TrackerHooks.__doc__


__all__ = ["KagscopeCallback"]
