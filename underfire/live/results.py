"""The results of an audit of a Python session, which a notebook shows as the report page."""

from __future__ import annotations

import html
import os
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from underfire import report as reports
from underfire.audit.ledger import TABLES, Ledger
from underfire.audit.summary import Findings, findings
from underfire.errors import InputError, MissingExtra, nearest

if TYPE_CHECKING:
    import pandas


class Results:
    """The results of an audit; a notebook shows them as the report page.

    Attributes:
        ledger: the tables of the run, which `ledger.sql` queries.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    @property
    def findings(self) -> Findings:
        """The figures of the run with their intervals, the masking checks, the gates and the verdict."""
        return findings(self.ledger)

    def frame(self, table: str = "rows") -> pandas.DataFrame:
        """Return a table of the ledger as a pandas DataFrame: `rows` has one row for each image, attack, size and seed.

        Raises:
            MissingExtra: pandas is not installed.
            InputError: there is no such table.
        """
        if table not in TABLES:
            raise InputError(f"there is no table {table!r}; {nearest(table, TABLES)}")
        try:
            import pandas  # noqa: F401 - to_pandas needs it
        except ImportError:
            raise MissingExtra("pandas") from None
        return self.ledger.table(table).to_pandas()

    def matrix(self) -> pandas.DataFrame:
        """Return the share of the images on which each attack on each source fools each victim, a column for each.

        The rows are those of the report, at every size; `results.findings.transfer` has the intervals.

        Raises:
            MissingExtra: pandas is not installed. InputError: the audit has no victims.
        """
        found = self.findings.transfer
        if found is None:
            raise InputError("the audit has no victims; give it some, as in audit(model, data, victims=[...])")
        try:
            import pandas
        except ImportError:
            raise MissingExtra("pandas") from None
        index = ["source", "attack", "eps"]
        rows = [
            ("through" if r.way == "through" else r.source, r.label, r.eps, r.victim, r.success.value)
            for r in found.results
            if r.way != "through without BPDA"
        ]
        table = pandas.DataFrame(rows, columns=[*index, "victim", "success"])
        return table.pivot(index=index, columns="victim", values="success")

    def report(self, path: str | os.PathLike[str] = "report.html") -> Path:
        """Write the report as one self-contained HTML file, and return its path.

        Raises:
            InputError: the file cannot be written.
        """
        return reports.html(self.ledger, path)

    def show(self, height: int = 800) -> None:
        """Show the report: in the notebook, or else in the browser.

        Args:
            height: the height of the page in a notebook, in pixels.
        """
        if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
            from IPython.display import HTML, display

            display(HTML(self._frame(height)))
            return
        page = self.report(Path(tempfile.mkdtemp(prefix="underfire-")) / "report.html")
        webbrowser.open(page.as_uri())

    def _repr_html_(self) -> str:
        return self._frame(800)

    def _frame(self, height: int) -> str:
        """Return the report as an HTML frame, so that its style and that of the notebook do not affect each other."""
        page = html.escape(reports.render(self.ledger))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: {height}px; border: 0"></iframe>'

    def __repr__(self) -> str:
        return f"<Results of {len(self.ledger.spec.attacks)} attacks: {self.findings.verdict}>"
