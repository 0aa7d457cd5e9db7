"""Run the audit of an experiment in the work folder, where later runs find its cells."""

from __future__ import annotations

from typing import Any

from underfire.audit.ledger import Ledger
from underfire.audit.run import Event, run
from underfire.audit.spec import parse_spec
from underfire.reproductions.registry import Setting


def run_audit(spec: dict[str, Any], name: str, setting: Setting) -> Ledger:
    """Run an audit in a folder of its own below the work folder, and return its ledger.

    The progress counts thousandths of the work, by the estimated time of the cells.
    """

    def tell(event: Event) -> None:
        setting.progress(round(1000 * event.share), 1000 if event.total else 0, f"{name}: {event.what}")

    folder = setting.work / "-".join([name, setting.scale, str(setting.seed)])
    return run(parse_spec(spec), folder, workers=None if setting.device == "cpu" else 0, progress=tell)
