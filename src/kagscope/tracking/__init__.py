"""Measure a network while it trains: schedule, cap on the cost, history on disk."""

from __future__ import annotations

from kagscope.tracking.tracker import Tracker

__all__ = ["Tracker"]
