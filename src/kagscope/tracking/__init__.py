"""Geometry while a network trains: when to measure, at what cost, what is kept."""

from __future__ import annotations

from kagscope.tracking.tracker import Tracker

__all__ = ["Tracker"]
