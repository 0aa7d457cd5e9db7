"""Generate from the code: the catalogue, the command line, the spec and the API pages (a hook of mkdocs).

A page says `<!-- generated: NAME -->` and `<!-- end of NAME -->` around a generated part. As a script, this module
writes the parts into README.md and the pages, so that they can be read on disk and on a forge; a test keeps them true.

A link to code is `[words](../underfire/model/oracle.py "underfire.model.Oracle")`: a reader of the files finds the
code, and a reader of the site the API page of the name in quotes.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import method_pages
import peer_table
from method_pages import PLURAL, table

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARKER = re.compile(r"<!-- generated: (\w+) -->\n.*?<!-- end of \1 -->", re.DOTALL)
CODE_LINK = re.compile(r'\]\(\.\./(underfire/[\w/]+\.py) "([\w.]+)"\)')
#: Modules and packages that serve the others and are no part of the Python interface.
INTERNAL = ("cli", "incremental", "reproductions", "validate")

#: A package with at most this number of modules has them on one API page.
TOGETHER = 4

#: Pages that are files beside the folder of the documentation.
ROOT_PAGES = {"changelog.md": "CHANGELOG.md", "security.md": "SECURITY.md", "contributing.md": "CONTRIBUTING.md"}


def catalogue() -> str:
    """Return every card, one table for each kind; on the site, `method_pages` makes cards of them."""
    from underfire import cards
    from underfire.catalog import KINDS

    parts = []
    for kind in KINDS:
        rows = [(f"[`{card.name}`]({_link(card)})", card.summary, card.paper) for card in cards(kind)]
        if rows:
            parts.append(f"## {PLURAL[kind]}\n\n" + table(("name", "what it does", "source"), rows))
    return "\n\n".join(parts)


def _link(card: Any) -> str:
    """Return the target of a link to a method: its source on disk, and its page on the site."""
    module = card.function.__module__
    return f'{_source(module)} "{module}.{card.function.__qualname__}"'


def _source(module: str) -> str:
    """Return the path of the source of a module, seen from a page."""
    file = import_module(module).__file__ or ""
    return f"../{Path(file).resolve().relative_to(ROOT).as_posix()}"


def methods() -> str:
    """Return the names of all methods: one row for each kind, and for each family of attacks."""
    return _families(lambda card: f"`{card.name}`")


def linked_methods() -> str:
    """Return the names of all methods as links."""
    return _families(lambda card: f"[`{card.name}`]({_link(card)})")


def _families(word: Callable[[Any], str]) -> str:
    from underfire import cards
    from underfire.catalog import KINDS, Card

    def family(card: Card) -> str:
        if card.kind != "attack":
            return PLURAL[card.kind]
        if card.facts.universal:
            return "Attacks: one change for many images"
        if card.facts.knowledge == "black-box":
            return "Attacks: black-box"
        return "Attacks: white-box, minimum size" if card.facts.minimal else "Attacks: white-box, bounded size"

    families: dict[str, list[str]] = {}
    for kind in KINDS:
        for card in sorted(cards(kind), key=lambda card: (family(card), card.name)):
            families.setdefault(family(card), []).append(word(card))
    return table(("kind", "methods"), [(name, ", ".join(listed)) for name, listed in families.items()])


def commands() -> str:
    """Return every verb of the command line with its arguments and options."""
    from typer.main import get_command

    from underfire.cli.app import app

    parts = []
    for name, verb in _verbs(get_command(app)):
        rows = []
        for p in verb.params:
            option = p.param_type_name == "option"
            words = ", ".join(f"`{o}`" for o in p.opts) if option else f"`{p.metavar or p.name.upper()}`"
            plain = p.default not in (None, False, "", [], ()) and not callable(p.default)
            rows.append((words, " ".join((p.help or "").split()), f"`{p.default}`" if option and plain else ""))
        lead = f"{'#' * (2 + name.count(' '))} underfire {name}\n\n{verb.help}"
        parts.append(f"{lead}\n\n{table(('option', 'meaning', 'default'), rows)}" if rows else lead)
    return "\n\n".join(parts)


def _verbs(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the verbs of a group by their names, each followed by its own verbs if it has some."""
    for name, verb in sorted(group.commands.items()):
        yield f"{before}{name}", verb
        if hasattr(verb, "commands"):
            yield from _verbs(verb, f"{before}{name} ")


def spec() -> str:
    """Return every section of an audit spec with its keys, from the models that read it."""
    from underfire.audit import schema as schema_module

    schema = schema_module.AuditSpec.model_json_schema()
    sections = {schema["title"]: schema, **schema["$defs"]}
    parts = []
    for title, section in sections.items():
        wanted, texts = section.get("required", []), meanings_of(getattr(schema_module, title))
        rows = [
            (
                f"`{key}`",
                _kind(value),
                "required" if key in wanted else f"`{json.dumps(value.get('default'))}`",
                texts[key],
            )
            for key, value in section["properties"].items()
        ]
        lead = section["description"].split("\n\n")[0]
        parts.append(f"### {title}\n\n{lead}\n\n" + table(("key", "type", "default", "meaning"), rows))
    return "\n\n".join(parts)


def meanings_of(section: type) -> dict[str, str]:
    """Return the meanings of the keys of a section, also of those that it inherits."""
    from underfire.catalog.docstrings import arguments

    texts: dict[str, str] = {}
    for base in reversed(section.__mro__):
        texts |= arguments(base)
    return texts


def _kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_kind(v) for v in value["anyOf"]))
    if "enum" in value:
        return " or ".join(f"`{v}`" for v in value["enum"])
    if value.get("type") == "array":
        return f"list of {_kind(value['items'])}"
    return {"null": "none"}.get(value["type"], value["type"])


def example_spec() -> str:
    """Return the spec that `underfire init` writes, which a test loads."""
    from underfire.audit.templates import template

    return f"```yaml\n{template()}```"


def vocabulary() -> str:
    """Return the names of arguments with their meanings, and the names that are not used."""
    return (ROOT / "underfire" / "catalog" / "vocabulary.md").read_text().strip()


def evidence() -> str:
    """Return links to the results that are kept with the code."""
    return "\n".join(f"- [{title}]({where})" for title, where in _evidence()) or "None has been run yet."


def _evidence() -> Iterator[tuple[str, str]]:
    docs = ROOT / "docs"
    for page in (*sorted((docs / "reproductions").glob("*.md")), docs / "benchmarks.md"):
        if page.exists():
            heading = re.search(r"^# (.+)$", page.read_text(), re.MULTILINE)
            yield heading[1] if heading else page.stem, page.relative_to(docs).as_posix()


def model_uris() -> str:
    """Return every form of the URI of a model."""
    from underfire.models.schemes import FORMS

    return table(("model URI", "model"), [(f"`{form}`", meaning) for form, meaning in FORMS])


def tokens() -> str:
    """Return the tokens of transfer attacks, with the parts that each sets, their options and sources."""
    from inspect import signature

    from underfire.attacks.transfer.tokens import CONTEXT, TOKENS
    from underfire.catalog.docstrings import cited
    from underfire.catalog.registry import in_short

    words = {
        "views": "view",
        "smooth": "smoothing",
        "estimate": "estimator",
        "usual_move": "a move, unless one is named",
    }
    rows = []
    for word, token in TOKENS.items():
        makers = token.makers()
        sets = [words.get(field, field) for field in makers]
        given = [p for maker in makers.values() for p in signature(maker).parameters.values() if p.name not in CONTEXT]
        options = ", ".join(f"`{p.name}` ({_shown(p.default)})" for p in given)
        papers = dict.fromkeys(filter(None, (cited(maker) for field, maker in makers.items() if field != "usual_move")))
        sources = "; ".join(map(in_short, papers))
        rows.append((f"`{word}`", token.said, "; ".join(sets), options, sources))
    return table(("token", "idea", "sets", "options (default)", "source"), rows)


def _shown(value: Any) -> str:
    """Return a default value, rounded."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def detectors_aware() -> str:
    """Return how often attackers evade each detector."""
    from underfire.reproductions.detection.guide import aware_table

    return aware_table(ROOT / "docs" / "reproductions")


def detectors_unaware() -> str:
    """Return how well each detector tells apart what nobody made to evade it."""
    from underfire.reproductions.detection.guide import unaware_table

    return unaware_table(ROOT / "docs" / "reproductions")


def tutorial_model() -> str:
    """Return the module of the tutorial."""
    return _file("my_model.py")


def tutorial_data() -> str:
    """Return the script of the tutorial that writes weights and images."""
    return _file("prepare.py")


def _file(name: str) -> str:
    text = (ROOT / "examples" / "tutorial" / name).read_text().strip()
    return f'```{{ .python title="{name}" }}\n{text}\n```'


def citation() -> str:
    """Return the BibTeX entry of the library, from CITATION.cff."""
    import yaml

    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    authors = " and ".join(f"{{{author['name']}}}" for author in cff["authors"])
    released = cff["date-released"]
    return (
        f"```bibtex\n@software{{underfire,\n  author = {{{authors}}},\n  title = {{{cff['title']}}},\n"
        f"  version = {{{cff['version']}}},\n  year = {{{released.year}}},\n  note = {{{cff['license']}}},\n}}\n```"
    )


def peers() -> str:
    """Return what was measured beside other libraries."""
    return peer_table.peers(ROOT / "docs" / "benchmarks.md")


PARTS: dict[str, Callable[[], str]] = {
    "model_uris": model_uris,
    "catalogue": catalogue,
    "methods": methods,
    "linked_methods": linked_methods,
    "tutorial_model": tutorial_model,
    "tutorial_data": tutorial_data,
    "citation": citation,
    "peers": peers,
    "commands": commands,
    "spec": spec,
    "tokens": tokens,
    "example_spec": example_spec,
    "evidence": evidence,
    "vocabulary": vocabulary,
    "detectors_aware": detectors_aware,
    "detectors_unaware": detectors_unaware,
}


def api_pages() -> dict[str, str]:
    """Return path and text of the API pages: one for every public module and package; `INTERNAL` names the others.

    A package with many modules has a page that lists them, and one page for each of them.
    """
    found = (
        p.stem for p in sorted((ROOT / "underfire").iterdir()) if p.suffix == ".py" or (p / "__init__.py").exists()
    )
    pages: dict[str, str] = {}
    for name in found:
        if name.startswith("_") or name in INTERNAL:
            continue
        package = f"underfire.{name}"
        modules = public_modules(package)
        own = f"::: {package}\n    options: {{show_submodules: false}}\n"
        if len(modules) <= TOGETHER:
            parts = [f"::: {part}\n    options: {{heading_level: 2, show_submodules: false}}\n" for part in modules]
            pages[f"api/{name}.md"] = "\n".join([own, *parts])
            continue
        rows = []
        for part in modules:
            where = f"{name}/{part.removeprefix(f'{package}.')}.md"
            pages[f"api/{where}"] = f"::: {part}\n    options: {{show_submodules: false}}\n"
            first = (import_module(part).__doc__ or "").partition("\n")[0]
            rows.append((f"[`{part.removeprefix('underfire.')}`]({where})", first))
        pages[f"api/{name}.md"] = f"{own}\n## Modules\n\n{table(('module', 'content'), rows)}\n"
    return pages


def public_modules(package: str) -> list[str]:
    """Return the public modules of a package: those that define a name of its `__all__`, or all if it has none."""
    module = import_module(package)
    if not hasattr(module, "__path__"):
        return []
    if not hasattr(module, "__all__"):
        return sorted(info.name for info in iter_modules(module.__path__, f"{package}.") if "._" not in info.name)
    named = [getattr(module, name) for name in module.__all__]
    homes = {getattr(value, "__module__", getattr(value, "__name__", package)) for value in named}
    return sorted(home for home in homes if home.startswith(f"{package}."))


def on_config(config: Any) -> Any:
    """Add results, API pages and the address of the repository, if it has one (called by mkdocs)."""
    results = [{title: where} for title, where in _evidence()]
    if results:
        config.nav.append({"Results": results})
    config.nav.append({"API": [{Path(where).stem: where} for where in api_pages() if where.count("/") == 1]})
    config.repo_url = config.repo_url or _repository()
    config.repo_name = config.repo_name or (config.repo_url and "Repository")
    return config


def _repository() -> str | None:
    """Return the web address of the repository that the files were cloned from, if it has one."""
    command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    address = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return address.removesuffix(".git") if address.startswith("https://") and "@" not in address else None


def on_files(files: Any, config: Any) -> Any:
    """Add the API pages, the pages of the methods, and the pages of the repository (called by mkdocs)."""
    from mkdocs.structure.files import File

    for where, text in (api_pages() | method_pages.pages() | root_pages()).items():
        files.append(File.generated(config, where, content=text))
    return files


def root_pages() -> dict[str, str]:
    """Return path and text of the pages that are files of the repository, with their links made for the site."""
    pages = {}
    for where, file in ROOT_PAGES.items():
        text = re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", (ROOT / file).read_text())
        for page, other in ROOT_PAGES.items():
            text = text.replace(f"]({other})", f"]({page})")
        pages[where] = text
    return pages


def on_page_markdown(markdown: str, page: Any = None, **_: Any) -> str:
    """Return a page as the site shows it (called by mkdocs).

    Links to code lead to the page of the method or to the API page, links to files of the repository to their pages,
    and the catalogue has cards in place of tables.
    """
    where = page.file.src_uri if page is not None else "index.md"
    up = "../" * where.count("/")
    if where == "catalogue.md":
        markdown = MARKER.sub(lambda _: method_pages.cards_page(), markdown)
    for name, file in ROOT_PAGES.items():
        markdown = markdown.replace(f"](../{file})", f"]({up}{name})")
    markdown = markdown.replace("](../README.md)", f"]({up}quickstart.md)")
    markdown = re.sub(r"\]\(\.\./benchmarks/[^)]+\)", f"]({up}benchmarks.md)", markdown)

    def target(found: re.Match[str]) -> str:
        method = method_pages.places().get(found[2])
        return f"]({up}{method})" if method else f"][{found[2]}]"

    text = CODE_LINK.sub(target, markdown)
    return re.sub(r"\[([^\[\]]+)\]\[(underfire[\w.]*)\]", lambda m: m[0] if _has_page(m[2]) else m[1], text)


@cache
def _documented() -> frozenset[str]:
    """Return the modules that the API pages show."""
    return frozenset(re.findall(r"^::: ([\w.]+)$", "\n".join(api_pages().values()), re.MULTILINE))


def _has_page(name: str) -> bool:
    """Return whether an API page shows an object, by its full name."""
    return name in _documented() or name.rpartition(".")[0] in _documented()


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Mark missed targets on the pages of results, and keep their first column and the paper's in view (by mkdocs)."""
    if not page.file.src_uri.startswith(("reproductions/", "benchmarks")):
        return html
    html = html.replace("<td><strong>missed</strong></td>", '<td class="uf-missed">missed</td>')
    html = html.replace("<td>reached</td>", '<td class="uf-reached">reached</td>')
    paper = " uf-paper" if re.search(r"<th[^>]*>paper</th>\s*</tr>", html) else ""
    return f'<div class="uf-results{paper}">{html}</div>'


def renewed(text: str) -> str:
    """Return the text of a page with its generated parts and the files of its links to code as they are now."""
    parts = MARKER.sub(
        lambda found: f"<!-- generated: {found[1]} -->\n\n{PARTS[found[1]]()}\n\n<!-- end of {found[1]} -->", text
    )
    return CODE_LINK.sub(lambda found: f']({_place(found[2])} "{found[2]}")', parts)


def _place(name: str) -> str:
    """Return the path of the file that defines the object `underfire.module.name`, seen from a page."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return _source(getattr(found, "__module__", None) or found.__name__)
    raise ValueError(name)


if __name__ == "__main__":
    from underfire.audit.templates import template

    for page in PAGES:
        page.write_text(renewed(page.read_text()))
    (ROOT / "examples" / "audit.yaml").write_text(template())
