"""The documentation is complete, its tables are made from the code, and its examples run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from torch import Tensor

import underfire
from underfire import cards
from underfire.audit import masking, spec

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
EXAMPLES = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITH_EXAMPLES = [page for page in (ROOT / "README.md", *PAGES) if EXAMPLES.search(page.read_text())]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    found = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_every_generated_part_is_on_a_page_and_every_marker_is_known(generate: ModuleType) -> None:
    used = {name for page in PAGES for name in generate.MARKER.findall(page.read_text())}
    assert used == set(generate.PARTS)


def test_every_card_is_in_the_catalogue_page(generate: ModuleType) -> None:
    page = generate.on_page_markdown((ROOT / "docs" / "catalogue.md").read_text())
    missing = [c.name for c in cards() if f"[`{c.name}`][" not in page or c.paper.replace("|", "\\|") not in page]
    assert missing == []
    assert [c.name for c in cards() if not c.summary.endswith(".")] == []
    assert [c.name for c in cards() if not c.paper and c.kind != "part"] == []


def test_the_readme_lists_what_there_is(generate: ModuleType) -> None:
    text = (ROOT / "README.md").read_text()
    assert generate.methods() in text, "the README's table is old; `make format` writes it again"
    assert generate.README_TABLE.search(text)


def test_every_verb_is_in_the_docs(generate: ModuleType) -> None:
    from typer.main import get_command

    from underfire.cli.app import app

    reference = generate.commands()
    written = "".join(page.read_text() for page in (*PAGES, ROOT / "README.md"))
    for name, verb in get_command(app).commands.items():
        assert f"## underfire {name}\n\n{verb.help}" in reference
        assert all(
            f"`{option}`" in reference for p in verb.params if p.param_type_name == "option" for option in p.opts
        )
        assert f"underfire {name}" in written, f"no page says what `underfire {name}` is for"


def test_every_key_of_a_spec_is_explained() -> None:
    page = (ROOT / "docs" / "spec.md").read_text()
    parts = (spec.AuditSpec, spec.ModelSpec, spec.DataSpec, spec.AttackSpec, spec.InterpreterSpec, spec.GateSpec)
    assert [key for part in parts for key in part.model_fields if f"`{key}`" not in page] == []


def test_every_masking_check_is_explained(relu_model: underfire.Classifier, images: Tensor) -> None:
    y = relu_model.predict(images).argmax(1)
    budget = masking.Budget("linf", 0.1, steps=2)
    found = masking.checks(relu_model, images[:1], y[:1], attack=underfire.attacks.pgd, budget=budget)
    page = (ROOT / "docs" / "believing.md").read_text()
    assert [check.name for check in found if f"| `{check.name}` |" not in page] == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_example_specs_are_valid(path: Path) -> None:
    assert spec.load_spec(path).attacks


def test_the_spec_of_the_quickstart_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "docs" / "quickstart.md").read_text(), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "audit.yaml").write_text(example)
    assert spec.load_spec(tmp_path / "audit.yaml").measures


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("underfire.catalog.registry._CARDS", dict(all_cards()))
    names: dict[str, Any] = {"__name__": page.stem}
    for example in EXAMPLES.findall(page.read_text()):
        exec(compile(example, page.name, "exec"), names)


def all_cards() -> dict[Any, Any]:
    """The catalogue, filled: what an example adds to it is forgotten afterwards."""
    list(cards())
    return underfire.catalog.registry._CARDS


def test_links_between_files_of_the_repository_exist() -> None:
    pages = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())]
    broken = [f"{p.name}: {link}" for p, link in links if not (link.startswith("http") or (p.parent / link).exists())]
    assert broken == []


def test_the_version_is_one() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == underfire.__version__


def test_the_readme_shows_what_a_visitor_needs() -> None:
    text = (ROOT / "README.md").read_text()
    for command in ("make audit", "make test", "underfire audit", "import underfire as uf"):
        assert command in text
    (example,) = EXAMPLES.findall(text)
    assert len(example.strip().splitlines()) <= 10
