"""Rules about the text of the package and its tests: short files, docstrings that begin with a verb, seeded tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "underfire").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

# First words of a sentence that has no imperative verb at its beginning.
NO_VERB = re.compile(
    r"(?:A|After|All|An|And|Any|As|At|Because|Before|Both|By|Each|Either|Every|For|From|Here|How|If|In|Inside|"
    r"Into|It|Its|No|Not|Of|On|One|Only|Or|Several|Since|So|That|The|There|These|They|This|Those|Through|"
    r"To|Two|Under|Until|What|When|Where|Whether|Which|While|Who|Whose|Why|With|Within|Without)[,:;]?\s|`"
)


@cache
def calls(path: Path) -> list[ast.Call]:
    """Every call in a file."""
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


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


def test_a_public_docstring_begins_with_a_verb() -> None:
    found = [(path, *one) for path in FILES for one in public_functions(ast.parse(path.read_text()))]
    assert [f"{path}:{line}: {text.splitlines()[0]}" for path, line, text in found if NO_VERB.match(text)] == []


def test_no_file_is_long_and_most_are_short() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in FILES}
    assert {str(path): n for path, n in lengths.items() if n > 300} == {}
    assert median(lengths.values()) <= 110


def test_a_test_matches_the_fact_in_a_message_and_not_its_wording() -> None:
    patterns = [
        (path, keyword.value)
        for path in TESTS
        for call in calls(path)
        for keyword in call.keywords
        if keyword.arg == "match"
    ]
    texts = [(path, p.value if isinstance(p, ast.Constant) else ast.unparse(p)) for path, p in patterns]
    assert [f"{path}: {text}" for path, text in texts if len(str(text).replace(".*", " ").split()) > 5] == []


DRAWS = {f"torch.{name}" for name in ("rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal")}


def test_random_numbers_of_a_test_have_a_seed() -> None:
    unseeded = [
        f"{path}:{call.lineno}: {ast.unparse(call)}"
        for path in TESTS
        for call in calls(path)
        if isinstance(call.func, ast.Attribute)
        and ast.unparse(call.func) in DRAWS
        and not any(keyword.arg == "generator" for keyword in call.keywords)
    ]
    assert unseeded == []
