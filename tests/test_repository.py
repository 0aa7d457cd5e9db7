"""The habits of the repository that a machine can check."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


def canonical(name: str) -> str:
    """A package's name as the registry compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_pin_is_one_exact_public_version() -> None:
    assert [line for line in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)] == []
    assert len({canonical(line.partition("==")[0]) for line in PINS}) == len(PINS)


def test_what_the_project_asks_for_is_pinned_to_a_version_that_it_allows() -> None:
    pinned = {canonical(name): version for name, _, version in (line.partition("==") for line in PINS)}
    extras = PROJECT["optional-dependencies"]
    for text in (*PROJECT["dependencies"], *extras["docs"], *extras["dev"], *extras["scale"]):
        wanted = Requirement(text)
        if wanted.name != "underfire":
            assert wanted.specifier.contains(pinned[canonical(wanted.name)]), text


def test_the_benchmarks_pin_only_what_the_peers_extra_allows() -> None:
    lines = (ROOT / "benchmarks" / "peers.txt").read_text().splitlines()
    pinned = {canonical(name): version for name, _, version in (line.partition("==") for line in lines)}
    for text in PROJECT["optional-dependencies"]["peers"]:
        wanted = Requirement(text)
        version = pinned.get(canonical(wanted.name))  # not every peer takes part in a benchmark
        assert version is None or wanted.specifier.contains(version), text


def test_every_make_target_says_what_it_does() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)[1].split()
    assert [name for name in targets if not re.search(rf"^{name}:.* ## \w", text, re.MULTILINE)] == []


def test_ci_runs_what_a_developer_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text()
    assert re.search(r"^make test\b", script.read_text(), re.MULTILINE)
