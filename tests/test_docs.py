"""The documentation is complete, its tables are made from the code, and its examples run."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from torch import Tensor

import underfire
from underfire import cards
from underfire.audit import masking, probes, spec

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
README = ROOT / "README.md"
HINT = re.compile(r"pip install[^`#]*\bunderfire\b")
EXAMPLES = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITH_EXAMPLES = [page for page in (ROOT / "README.md", *PAGES) if EXAMPLES.search(page.read_text())]


@pytest.fixture(scope="module")
def code() -> Iterator[Callable[[str], ModuleType]]:
    """Return a function that imports a module beside the pages, as mkdocs does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield importlib.import_module


@pytest.fixture(scope="module")
def generate(code: Callable[[str], ModuleType]) -> ModuleType:
    return code("generate")


@pytest.fixture(scope="module")
def method_pages(code: Callable[[str], ModuleType]) -> ModuleType:
    return code("method_pages")


@pytest.fixture(scope="module")
def hooks(code: Callable[[str], ModuleType]) -> ModuleType:
    return code("hooks")


def test_every_generated_part_is_on_a_page_and_every_marker_is_known(generate: ModuleType) -> None:
    used = {name for page in (README, *PAGES) for name in generate.MARKER.findall(page.read_text())}
    assert used == set(generate.PARTS)


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_the_generated_parts_in_the_files_are_new(generate: ModuleType, page: Path) -> None:
    text = page.read_text()
    assert text.count("<!-- generated: ") == text.count("<!-- end of ") == len(generate.MARKER.findall(text))
    assert generate.renewed(text) == text, f"{page.name} is old; `python docs/generate.py` writes it again"


def test_links_to_code_name_an_object_in_the_file(generate: ModuleType) -> None:
    for page in PAGES:
        text = page.read_text()
        assert "][underfire" not in text, f"{page.name}: a forge does not follow such a link; see docs/code_links.py"
        for file, name in generate.CODE_LINK.findall(text):
            last = name.rpartition(".")[2]
            named = last in (ROOT / file).with_suffix("").parts
            assert named or re.search(rf"(?m:(?:def|class) {last}\b|^{last} = )", (ROOT / file).read_text()), name


def test_on_the_site_links_to_code_lead_to_the_pages_of_methods_and_of_the_api(hooks: ModuleType) -> None:
    page = hooks.on_page_markdown((ROOT / "docs" / "index.md").read_text())
    assert "[`pgd`](methods/attack/pgd.md)" in page and "](../underfire" not in page
    page = hooks.on_page_markdown((ROOT / "docs" / "concepts.md").read_text())
    assert "[`ascent.loop`][underfire.ascent.loop]" in page and "](../underfire" not in page


def test_a_table_of_results_keeps_the_column_of_the_paper_in_view(hooks: ModuleType) -> None:
    head = "<table>\n<thead>\n<tr>\n<th>{}</th>\n<th>{}</th>\n</tr>\n</thead>\n</table>"
    tables = head.format("attack", "paper (DenseNet)") + head.format("paper", "ours")
    page = SimpleNamespace(file=SimpleNamespace(src_uri="reproductions/some.md"))
    html = hooks.on_page_content(tables, page)
    assert html.startswith('<div class="uf-results"><table data-paper>') and html.count("data-paper") == 1
    page.file.src_uri = "faq.md"
    assert hooks.on_page_content(tables, page) == tables


def test_every_method_has_a_page_and_a_card_that_leads_to_it(method_pages: ModuleType) -> None:
    pages, cards_page = method_pages.pages(), method_pages.cards_page()
    assert len(pages) == len(list(cards()))
    for card in cards():
        text = pages[f"methods/{card.kind}/{card.name}.md"]
        assert f"# {card.name}\n" in text and card.summary in text and card.paper.split("; ")[0] in text
        assert f'href="../methods/{card.kind}/{card.name}/"' in cards_page
        assert all(f"| `{option}` |" in text for option in card.options if option not in ("generator", "goal"))


@pytest.mark.parametrize(
    ("paper", "authors", "title", "year"),
    [
        ("Madry, Makelov and Vladu, On Models, ICLR 2018", "Madry and Makelov and Vladu", "On Models", "2018"),
        ("Wang et al., Admix: Mixing, Well, ICCV 2021", "Wang and others", "Admix: Mixing, Well", "2021"),
        ("Bach and Samek, On Pixels and Rules, PLoS ONE 2015", "Bach and Samek", "On Pixels and Rules", "2015"),
        ("Andrychowicz, Learning and Attacks, ICLR 2016", "Andrychowicz", "Learning and Attacks", "2016"),
    ],
)
def test_a_reference_becomes_bibtex(method_pages: ModuleType, paper: str, authors: str, title: str, year: str) -> None:
    entry = method_pages.bibtex(paper)
    for field in (f"author = {{{authors}}}", f"title = {{{title}}}", f"year = {{{year}}}"):
        assert field in entry


def test_every_key_of_a_spec_has_a_meaning(generate: ModuleType) -> None:
    rows = [line for line in generate.PARTS["spec"]().splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []


def test_no_install_hint_names_our_package() -> None:
    files = [*(ROOT / "underfire").rglob("*.py"), *PAGES, README]
    hints = [f"{file.name}: {line}" for file in files for line in file.read_text().splitlines() if HINT.search(line)]
    assert hints == []


def test_every_card_is_in_the_catalogue_page() -> None:
    page = (ROOT / "docs" / "catalogue.md").read_text()
    missing = [c.name for c in cards() if f"[`{c.name}`](" not in page or c.paper.replace("|", "\\|") not in page]
    assert missing == []
    assert [c.name for c in cards() if not c.summary.endswith(".")] == []
    assert [c.name for c in cards() if not c.paper and c.kind != "part"] == []


def test_every_verb_is_in_the_docs(generate: ModuleType) -> None:
    from typer.main import get_command

    from underfire.cli.app import app

    reference = generate.PARTS["commands"]()
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
    budget = probes.Budget("linf", 0.1, steps=2)
    found = masking.checks(relu_model, images[:1], y[:1], attack=underfire.attacks.pgd, budget=budget)
    page = (ROOT / "docs" / "believing.md").read_text()
    assert [check.name for check in found if f"| `{check.name}` |" not in page] == []


def test_the_spec_of_the_quickstart_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "docs" / "quickstart.md").read_text(), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "audit.yaml").write_text(example)
    assert spec.load_spec(tmp_path / "audit.yaml").measures


@pytest.mark.slow
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
