"""Rules about the text of the package and its tests: short files, docstrings that begin with a verb, seeded tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "underfire").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

# First words of a sentence that has no imperative verb at its beginning.
NO_VERB = re.compile(
    r"(?:A|After|All|An|And|Any|As|At|Because|Before|Both|By|Each|Either|Every|For|From|Here|How|If|In|Inside|"
    r"Into|It|Its|No|Not|Of|On|One|Only|Or|Several|Since|So|That|The|There|These|They|This|Those|Through|"
    r"To|Two|Under|Until|What|When|Where|Whether|Which|While|Who|Whose|Why|With|Within|Without)[,:;]?\s|`"
)


def public_functions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and docstring of every public function and method; a property is named by what it is."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef):
            continue
        if isinstance(node, ast.ClassDef) and node.name.startswith("_"):
            continue
        for child in node.body:
            if not isinstance(child, ast.FunctionDef) or child.name.startswith("_"):
                continue
            marks = {ast.unparse(mark).split(".")[-1] for mark in child.decorator_list}
            if not marks & {"property", "cached_property"} and (text := ast.get_docstring(child)):
                yield child.lineno, text


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "underfire")))
def test_a_public_docstring_begins_with_a_verb(path: Path) -> None:
    found = public_functions(ast.parse(path.read_text()))
    assert [f"line {line}: {text.splitlines()[0]}" for line, text in found if NO_VERB.match(text)] == []


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
