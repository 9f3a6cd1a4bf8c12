"""A result as one HTML page and as pictures."""

from __future__ import annotations

from tin.report.numbers import WORST, Metric, Report, make_report
from tin.report.offsets import Offsets, read_offsets
from tin.report.page import render_page, write_page
from tin.report.plots import write_plots

__all__ = [
    "WORST",
    "Metric",
    "Offsets",
    "Report",
    "make_report",
    "read_offsets",
    "render_page",
    "write_page",
    "write_plots",
]
