"""What the package promises about its own text: short files, and tests that are seeded and match facts."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "underfire").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def test_no_file_is_long_and_most_are_short() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in FILES}
    assert {str(path): n for path, n in lengths.items() if n > 300} == {}
    assert median(lengths.values()) <= 110


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_a_test_matches_the_fact_in_a_message_and_not_its_wording(path: Path) -> None:
    patterns = [
        keyword.value
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "match"
    ]
    texts = [p.value if isinstance(p, ast.Constant) else ast.unparse(p) for p in patterns]
    assert [text for text in texts if len(str(text).replace(".*", " ").split()) > 5] == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_random_numbers_of_a_test_have_a_seed(path: Path) -> None:
    drawn = {f"torch.{name}" for name in ("rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal")}
    unseeded = [
        f"line {call.lineno}: {ast.unparse(call)}"
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in drawn
        and not any(keyword.arg == "generator" for keyword in call.keywords)
    ]
    assert unseeded == []
