"""Geometry while a network trains: when to measure, at what cost, what is kept, and when geometry begins to differ."""

from __future__ import annotations

from kagscope.tracking.tracker import Tracker
from kagscope.tracking.trajectory import Trajectory

__all__ = ["Tracker", "Trajectory"]
