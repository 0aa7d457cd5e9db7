"""Imports go one way: a module imports only from its own folder and from lower ranks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import underfire

RANKS: tuple[tuple[str, ...], ...] = (
    ("errors", "records", "catalog", "validate", "classes", "extras", "files", "own_code", "allocation"),
    ("model", "domains", "hooks", "transforms", "data", "models", "figures"),
    ("incremental", "gradients", "checked_calls"),
    ("attribution",),
    ("measures",),
    ("ascent", "learning"),
    ("attacks", "interpreters", "detectors", "defenses", "training", "poisoning", "concepts", "visualize", "geometry"),
    ("audit",),
    ("report", "lab", "study", "cli", "reproductions", "live"),
    ("testing",),
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
# A loader returns a Classifier, which holds a domain; a trace of layers is not watched; the command line calls all.
ALLOWED = {
    ("models", "model"),
    ("model", "domains"),
    ("hooks", "model"),
    ("models", "domains"),
    ("transforms", "domains"),
    ("live", "report"),
    ("cli", "report"),
    ("cli", "lab"),
    ("cli", "study"),
    ("cli", "reproductions"),
}
GROUND = {(module, "errors") for module in ("catalog", "classes", "extras", "files", "own_code", "records", "validate")}

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "underfire"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def home(name: str) -> str:
    """The top-level module that `underfire.NAME` belongs to."""
    first = name.split(".")[0]
    return underfire._HOMES.get(first, first)


def imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and top-level module of every import of underfire in `tree`; `TYPE_CHECKING` blocks do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imported(ast.Module([other], []), package)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "underfire":
                    yield node.lineno, home(alias.name.partition(".")[2])
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join((*base, *([node.module] if node.module else [])))
            if source == "underfire":
                yield from ((node.lineno, home(alias.name)) for alias in node.names)
            elif source.startswith("underfire."):
                yield node.lineno, home(source.partition(".")[2])
        else:
            yield from imported(node, package)


def wrong(text: str, where: tuple[str, ...], package: tuple[str, ...]) -> list[str]:
    """Every import in `text` that goes up or sideways, as a sentence."""
    me = where[1]
    faults = []
    for line, other in imported(ast.parse(text), package):
        if other == me or other == "__version__" or (me, other) in ALLOWED | GROUND:
            continue
        if other not in RANK:
            faults.append(f"line {line}: `underfire.{other}` has no rank; import the module that holds the name")
        elif RANK[other] >= RANK[me]:
            faults.append(f"line {line}: {me} (rank {RANK[me]}) imports {other} (rank {RANK[other]})")
    return faults


def test_imports_go_down() -> None:
    faults = []
    for path in FILES:
        where = path.relative_to(ROOT).with_suffix("").parts
        assert where[1] in RANK, f"underfire/{where[1]} has no rank; give it one in RANKS"
        faults += [f"{path.relative_to(ROOT)}, {fault}" for fault in wrong(path.read_text(), where, where[:-1])]
    assert faults == []


@pytest.mark.parametrize(
    "line",
    [
        "from underfire.ascent import loop",
        "from underfire import attacks",
        "import underfire",
        "def f():\n    import underfire.audit.plan",
        "from underfire.models.zoo import load",
        "from .. import cli",
        "from ..report.html import write",
        "if not TYPE_CHECKING:\n    pass\nelse:\n    pass\nfrom underfire.data import load",
    ],
)
def test_an_upward_or_sideways_import_is_seen(line: str) -> None:
    where = ("underfire", "hooks", "reading")
    assert len(wrong(line, where, where[:-1])) == 1


@pytest.mark.parametrize(
    "line",
    [
        "from underfire.errors import InputError",
        "from underfire import Interval, find",
        "from .maps import iou",
        "from underfire.measures.maps import iou",
        "if TYPE_CHECKING:\n    from underfire.audit import plan",
        "import torch",
    ],
)
def test_a_downward_import_is_fine(line: str) -> None:
    where = ("underfire", "measures", "perturbation")
    assert wrong(line, where, where[:-1]) == []


def test_everything_the_package_promises_is_there() -> None:
    for name in underfire.__all__:
        assert getattr(underfire, name) is not None
    assert set(underfire._HOMES) <= set(underfire.__all__)
    assert sorted(underfire.__all__) == dir(underfire)
    with pytest.raises(AttributeError, match="no attribute 'pgd'"):
        _ = underfire.pgd
