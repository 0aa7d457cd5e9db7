"""The generated parts of pages, by name: `PARTS` (used by generate.py and hooks.py)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import peer_table
from code_links import ROOT, link_to
from method_pages import PLURAL, table


def catalogue() -> str:
    """Return every card, one table for each kind; on the site, `method_pages` makes cards of them."""
    from underfire import cards
    from underfire.catalog import KINDS

    parts = []
    for kind in KINDS:
        rows = [(f"[`{card.name}`]({link_to(card)})", card.summary, card.paper) for card in cards(kind)]
        if rows:
            parts.append(f"## {PLURAL[kind]}\n\n" + table(("name", "what it does", "source"), rows))
    return "\n\n".join(parts)


def methods() -> str:
    """Return the names of all methods: one row for each kind, and for each family of attacks."""
    return _families(lambda card: f"`{card.name}`")


def linked_methods() -> str:
    """Return the names of all methods as links."""
    return _families(lambda card: f"[`{card.name}`]({link_to(card)})")


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
            switch = isinstance(p.default, bool)
            plain = not switch and p.default not in (None, "", [], ()) and not callable(p.default)  # 0 is a default
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
    return "\n".join(f"- [{title}]({where})" for title, where in results()) or "None has been run yet."


def results() -> Iterator[tuple[str, str]]:
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
