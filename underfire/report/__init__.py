"""Reports of a run from its ledger: an HTML page for people, JSON and CSV for programs."""

from underfire.report.ci import junit, sarif
from underfire.report.export import to_csv, to_json
from underfire.report.page import html, render

__all__ = ["html", "junit", "render", "sarif", "to_csv", "to_json"]
