"""The report: one self-contained HTML file with figures, claims and numbers."""

from __future__ import annotations

from kagscope.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
