"""Write the hashes of the pinned packages: `python -m tools.constraints` writes constraints-hashed.txt.

A package of one version has a file for each platform, and torch has several builds. The hashes are those of the files
that pip chooses here, with the registry that pip is set up to use.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from underfire.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS, HASHED = ROOT / "constraints.txt", ROOT / "constraints-hashed.txt"


def pins(text: str) -> dict[str, str]:
    """Return the versions of a requirements file by the name of the package, in lower case and with hyphens.

    >>> pins("mypy_extensions==1.1.0 --hash=sha256:0f")
    {'mypy-extensions': '1.1.0'}
    """
    lines = [line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith(("#", " "))]
    return {name.lower().replace("_", "-"): version for name, _, version in (line.partition("==") for line in lines)}


def chosen(constraints: Path) -> list[dict[str, Any]]:
    """Return the files that pip would install for every pinned package, as in its installation report.

    Raises:
        CalledProcessError: pip fails, such as where a package has no wheel for this platform.
    """
    with tempfile.TemporaryDirectory() as place:
        report = Path(place, "files.json")
        options = ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary", ":all:", "--quiet"]
        command = [sys.executable, "-m", "pip", "install", *options, "--requirement", str(constraints)]
        subprocess.run([*command, "--report", str(report)], check=True)
        found: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return found


def digest(entry: dict[str, Any]) -> str:
    """Return the SHA-256 of the file of an entry in pip's report; that of a local file is computed if pip has none."""
    stated = entry["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
    if stated:
        return str(stated)
    url = urlsplit(entry["download_info"]["url"])
    if url.scheme != "file":
        raise SystemExit(f"the registry states no hash for {entry['metadata']['name']}")
    return hashlib.sha256(Path(unquote(url.path)).read_bytes()).hexdigest()


def hashed(entries: list[dict[str, Any]]) -> str:
    """Return the requirements file with the version and the hash of every file."""
    where = f"CPython {'.'.join(platform.python_version_tuple()[:2])} on {platform.system()} {platform.machine()}"
    lines = [
        f"# The files of constraints.txt for {where}; written by: make constraints",
        "# Check and install them with: pip install --require-hashes --no-deps --requirement constraints-hashed.txt",
    ]
    pinned = sorted(entries, key=lambda entry: str(entry["metadata"]["name"]).lower())
    for entry in pinned:
        known = entry["metadata"]
        lines.append(f"{known['name']}=={known['version']} --hash=sha256:{digest(entry)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the file."""
    text = hashed(chosen(CONSTRAINTS))
    with atomic_write(HASHED) as part:
        part.write_text(text, encoding="utf-8")
    print(f"{len(pins(text))} packages are in {HASHED.name}")


if __name__ == "__main__":
    main()
