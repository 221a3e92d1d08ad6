"""Measuring any PyTorch model: settings, observation of one network, comparison with baselines, report."""

from __future__ import annotations

from kagscope.measuring.observe import Observation, observe
from kagscope.measuring.report import Report
from kagscope.measuring.settings import MeasureSettings
from kagscope.measuring.tables import compare, curves

__all__ = ["MeasureSettings", "Observation", "Report", "compare", "curves", "observe"]
