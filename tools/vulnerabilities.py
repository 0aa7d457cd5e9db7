"""Look up known vulnerabilities of the pinned packages: `python -m tools.vulnerabilities`.

`pip-audit` says that it found none where its service knows no package. This command says how many were looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.constraints import CONSTRAINTS

FOUND, NOT_LOOKED_UP = 1, 3


def summary(dependencies: list[dict[str, Any]]) -> tuple[str, int]:
    """Return what `pip-audit --format json` says about the packages, and the exit code of this command.

    >>> summary([{"name": "torch", "skip_reason": "not found"}])
    ('the vulnerability service knows none of the 1 pinned packages: nothing was looked up', 3)

    Returns:
        One line for each vulnerability and one for all packages; 0 if every package was looked up and has none,
        `FOUND` if one has a vulnerability, and otherwise `NOT_LOOKED_UP`.
    """
    unknown = [entry["name"] for entry in dependencies if "skip_reason" in entry]
    known = len(dependencies) - len(unknown)
    if not known:
        whole = f"the vulnerability service knows none of the {len(dependencies)} pinned packages"
        return f"{whole}: nothing was looked up", NOT_LOOKED_UP
    lines = [
        f"{entry['name']} {entry['version']}: {hit['id']}, mended in {', '.join(hit['fix_versions']) or 'no version'}"
        for entry in dependencies
        for hit in entry.get("vulns", ())
    ]
    last = f"{known} of {len(dependencies)} pinned packages looked up: {len(lines)} known vulnerabilities"
    if unknown:
        last += f"; the service does not know {', '.join(unknown)}"
    return "\n".join([*lines, last]), FOUND if lines else NOT_LOOKED_UP if unknown else 0


def look_up(constraints: Path = CONSTRAINTS) -> tuple[str, int]:
    """Return what is known about the pinned packages, and the exit code of this command."""
    pinned = ["--requirement", str(constraints), "--no-deps", "--disable-pip"]
    command = [sys.executable, "-m", "pip_audit", *pinned, "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return summary(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):  # no package registry, no service, no such module
        reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return f"known vulnerabilities were not looked up, because pip-audit failed: {reason[:300]}", NOT_LOOKED_UP


if __name__ == "__main__":
    text, code = look_up()
    print(text)
    sys.exit(code)
