"""Reports of a run from its ledger: an HTML page for people, JSON and CSV for programs."""

from underfire.report.export import to_csv, to_json
from underfire.report.page import html

__all__ = ["html", "to_csv", "to_json"]
