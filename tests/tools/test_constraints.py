"""Pinned packages: their hashes, and what is said about their known vulnerabilities."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tools import vulnerabilities
from tools.constraints import CONSTRAINTS, HASHED, digest, hashed, pins


def _entry(name: str, version: str, url: str, sha256: str | None) -> dict[str, Any]:
    known = {"hashes": {"sha256": sha256}} if sha256 else {}
    return {"metadata": {"name": name, "version": version}, "download_info": {"url": url, "archive_info": known}}


def test_the_hashed_file_has_the_pinned_versions() -> None:
    """A build of torch adds a local version, such as `+cpu`."""
    found = {name: version.partition("+")[0] for name, version in pins(HASHED.read_text()).items()}
    assert found == pins(CONSTRAINTS.read_text())
    lines = [line for line in HASHED.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"\S+==\S+( --hash=sha256:[0-9a-f]{64})+", line) for line in lines)


def test_hashes_are_those_of_the_report_or_of_a_local_file(tmp_path: Path) -> None:
    place = tmp_path / "a file.whl"
    place.write_bytes(b"whole")
    assert digest(_entry("b", "2", "https://host/b.whl", "0f" * 32)) == "0f" * 32
    assert digest(_entry("a", "1", place.as_uri(), None)) == hashlib.sha256(b"whole").hexdigest()
    with pytest.raises(SystemExit, match="no hash for b"):
        digest(_entry("b", "2", "https://host/b.whl", None))
    text = hashed([_entry("b_c", "2", "x", "0f" * 32), _entry("A", "1+cpu", "x", "1e" * 32)])
    assert pins(text) == {"a": "1+cpu", "b-c": "2"} and text.index("A==") < text.index("b_c==")


SOUND = {"name": "numpy", "version": "2", "vulns": []}
WEAK = {"name": "pillow", "version": "9", "vulns": [{"id": "CVE-1", "fix_versions": ["10"]}]}
UNKNOWN = {"name": "torch", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("dependencies", "facts", "code"),
    [
        ([SOUND], ["1 of 1", "0 known"], 0),
        ([SOUND, WEAK], ["pillow 9: CVE-1", "in 10", "2 of 2", "1 known"], 1),
        ([UNKNOWN], ["none of the 1", "nothing was looked up"], 3),
        ([SOUND, UNKNOWN], ["1 of 2", "does not know torch"], 3),
    ],
)
def test_packages_that_the_service_does_not_know_are_not_called_sound(
    dependencies: list[dict[str, Any]], facts: list[str], code: int
) -> None:
    said, ended = vulnerabilities.summary(dependencies)
    assert ended == code and all(fact in said for fact in facts)


def test_a_service_that_cannot_be_reached_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="Traceback\nConnectionError: no service")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert vulnerabilities.look_up() == (
        "known vulnerabilities were not looked up, because pip-audit failed: ConnectionError: no service",
        3,
    )
