"""Make the page of every method, and the catalogue as cards that can be filtered (used by generate.py)."""

from __future__ import annotations

import inspect
import re
from functools import cache
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PLURAL = {
    "attack": "Attacks",
    "interpreter": "Interpreters",
    "detector": "Detectors",
    "defense": "Defences",
    "training": "Training",
    "poisoning": "Poisoning",
    "measure": "Measures",
    "part": "Parts of a recipe",
}

#: The packages through which a method is called: `uf.attacks.pgd`.
PACKAGES = {"attack": "attacks", "interpreter": "interpreters", "detector": "detectors", "defense": "defenses"}
PACKAGES |= {"measure": "measures", "training": "training"}

#: Facts that only the machinery reads.
INNER = ("quick", "timed", "per_pixel", "detailed", "complete", "unrolled", "train")
_GALLERIES = {"attack": ("gallery", "gallery.md"), "interpreter": ("interpreter-gallery", "interpreter-gallery.md")}
_LEFT_OUT = re.compile(r"\n(?:Args|Attributes|Returns|Raises|Yields|Example|Examples|Source):.*", re.DOTALL)


def known() -> list[Any]:
    """Return every card, kind by kind."""
    from underfire import cards
    from underfire.catalog import KINDS

    return [card for kind in KINDS for card in cards(kind)]


def place(card: Any) -> str:
    """Return the path of the page of a method, in the folder of the documentation."""
    return f"methods/{card.kind}/{card.name}.md"


@cache
def places() -> dict[str, str]:
    """Return the path of the page of every method by the full name of its function."""
    return {f"{card.function.__module__}.{card.function.__qualname__}": place(card) for card in known()}


def pages() -> dict[str, str]:
    """Return path and text of the page of every method."""
    return {place(card): page(card) for card in known()}


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# --- the page of a method --------------------------------------------------------------------------------------------


def page(card: Any) -> str:
    """Return the page of a method: what it does, a picture, an example, its options, its facts and its papers."""
    from underfire.cli.showing import example

    title = card.name
    lines = ["---", f"title: {title}", f"description: {card.summary}", "search: {boost: 2}", "---", ""]
    lines += [f"# {title}", "", f"*{_singular(card)}.* {card.summary}", "", picture(card), "", _body(card), ""]
    shown = example(card)
    if shown:
        language = "yaml" if card.kind == "measure" else "sh"
        lines += ["## Use", "", f"```{language}", shown, "```", ""]
    if card.kind in PACKAGES:
        lines += [] if shown else ["## Use", ""]
        lines += ["```{ .python .no-run }", _call(card), "```", ""]
    if rows := _options(card):
        lines += ["## Options", "", table(("option", "default", "meaning"), rows), ""]
    lines += ["## Facts", "", table(("fact", "value"), _facts(card)), ""]
    if card.paper:
        lines += ["## Source", ""]
        for paper in card.paper.split("; "):
            lines += [f"{paper}.", ""]
            lines += ["```bibtex", bibtex(paper), "```", ""] if re.search(r"\d{4}", paper) else []
        lines += ["The entry is made from the reference above; complete its authors before you publish it.", ""]
    file = Path(import_module(card.function.__module__).__file__ or "").resolve()
    source = file.relative_to(DOCS.parent.resolve()).as_posix()
    lines += [f"The code is in `{source}`. [All methods](../../catalogue.md).", ""]
    return "\n".join(lines)


def _singular(card: Any) -> str:
    words = {"defense": "Defence", "training": "Method of training", "part": "Part of a recipe"}
    return words.get(card.kind, card.kind.capitalize())


def _body(card: Any) -> str:
    """Return the docstring of a method without its first line and without its sections."""
    text = (inspect.getdoc(card.function) or "").partition("\n")[2]
    return _LEFT_OUT.sub("", f"\n{text}").strip()


def _call(card: Any) -> str:
    """Return a call of a method from Python, with the names of its arguments."""
    given = ", ".join(p.name for p in inspect.signature(card.function).parameters.values() if p.default is p.empty)
    name = f"uf.{PACKAGES[card.kind]}.{card.function.__name__}"
    if not card.fitted:
        return f"import underfire as uf\n\n{name}({given})"
    return f"import underfire as uf\n\nfitted = {name}({given}).fit(model, data)"


def _options(card: Any) -> list[tuple[str, ...]]:
    from underfire.catalog.docstrings import meanings
    from underfire.cli.showing import shown_default

    texts = meanings(card)
    return [
        (f"`{name}`", f"`{shown_default(parameter)}`", texts[name])
        for name, parameter in card.options.items()
        if name not in ("generator", "goal")
    ]


def fact(value: Any) -> str:
    """Return the value of a fact in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value or "")


def _facts(card: Any) -> list[tuple[str, ...]]:
    values = card.facts.as_dict()
    words = {"atlas": "MITRE ATLAS technique", "goals": "goals", "norms": "norms, the default first"}
    return [
        (words.get(name, name.replace("_", " ")), fact(value))
        for name, value in values.items()
        if name not in INNER and value not in ("", [], None)
    ]


def picture(card: Any, up: str = "../../") -> str:
    """Return the picture of a method from its gallery, with its caption; empty without one."""
    folder, gallery = _GALLERIES.get(card.kind, ("", ""))
    if not folder or not (DOCS / folder / f"{card.name}.webp").exists():
        return ""
    section = (DOCS / gallery).read_text().partition(f"\n## {card.name}\n")[2].partition("\n## ")[0]
    found = re.search(r"!\[(.*?)\]\((.*?)\)\s*(.*)", section, re.DOTALL)
    return f"![{found[1]}]({up}{found[2]})\n\n{found[3].strip()}" if found else ""


def bibtex(paper: str) -> str:
    """Return the BibTeX entry of a paper that is cited as `authors, title, venue year`.

    >>> print(bibtex("Madry, Makelov and Vladu, Towards Deep Learning Models, ICLR 2018"))
    @inproceedings{madry2018towards,
      author = {Madry and Makelov and Vladu},
      title = {Towards Deep Learning Models},
      booktitle = {ICLR},
      year = {2018},
    }
    """
    parts = paper.split(", ")
    # authors: up to the first name after `and`, or the first name, if a title and a venue are left
    last = next((i for i, part in enumerate(parts) if " and " in part), 0)
    if last > len(parts) - 3 or any(len(name) > 40 for name in parts[: last + 1]):
        last = 0
    listed_names = [name for part in parts[: last + 1] for name in part.split(" and ")]
    names = [n for name in listed_names for n in name.replace(" et al.", " and others").split(" and ")]
    rest = parts[last + 1 :]
    dated = next((i for i, part in enumerate(rest) if re.search(r"\b(?:19|20)\d\d(?:$|:| \()", part)), 0)
    venue = re.sub(r"(\b(?:19|20)\d\d\b).*", r"\1", rest[dated]) if dated else ""
    title = ", ".join(rest[:dated] or rest)
    year = (re.findall(r"\b(?:19|20)\d\d\b", venue or paper) or [""])[-1]
    where = venue.replace(year, "").strip()
    first = re.sub(r"\W", "", names[0].split()[-1].lower()) if names else "unknown"
    word = next((w for w in re.findall(r"\w+", title.lower()) if len(w) > 2), "")
    fields = {"author": " and ".join(names), "title": title, "booktitle" if where else "": where, "year": year}
    kind = "inproceedings" if where else "misc"
    listed = "\n".join(f"  {key} = {{{value}}}," for key, value in fields.items() if key and value)
    return f"@{kind}{{{first}{year}{word},\n{listed}\n}}"


# --- the catalogue ---------------------------------------------------------------------------------------------------


def cards_page() -> str:
    """Return the catalogue as HTML: a field to search, buttons for the facts, and a card for every method."""
    found = known()
    kinds = list(dict.fromkeys(card.kind for card in found))
    buttons = "".join(f'<button type="button" data-kind="{kind}">{PLURAL[kind]}</button>' for kind in kinds)
    chips = dict.fromkeys(chip for card in found if card.kind != "part" for chip in _chips(card))
    facts = "".join(f'<button type="button" data-fact="{escape(c)}">{escape(c)}</button>' for c in chips)
    head = (
        '<form class="uf-filter" role="search" onsubmit="return false">'
        '<label for="uf-query">Filter by name, paper or words</label>'
        '<input id="uf-query" type="search" placeholder="grad-cam, Madry, L0, detector ..." autocomplete="off">'
        f'<div class="uf-buttons" aria-label="Kinds">{buttons}</div>'
        f'<details><summary>Filter by facts</summary><div class="uf-buttons">{facts}</div></details>'
        '<p id="uf-count" aria-live="polite"></p></form>'
    )
    parts = [head]
    for kind in kinds:
        parts += ["", f"## {PLURAL[kind]}", "", '<div class="uf-cards">']
        parts += [_card(card) for card in found if card.kind == kind]
        parts += ["</div>"]
    return "\n".join(parts)


def _chips(card: Any) -> list[str]:
    """Return the facts of a method that set it apart, as short words."""
    facts = card.facts
    words = [getattr(facts, "knowledge", ""), *getattr(facts, "norms", ()), getattr(facts, "family", "")]
    words += [getattr(facts, "role", "").replace("_", " ")]
    yes = {"minimal": "minimum size", "universal": "universal", "supervised": "supervised", "robust": "robust"}
    yes |= {"differentiable": "differentiable"}
    words += [word for name, word in yes.items() if getattr(facts, name, False)]
    words += [d for d in facts.domains if d != "image"] if len(facts.domains) > 1 else []
    if getattr(facts, "gives", "map") != "map":
        words.append(f"gives {facts.gives}")
    if "map" in getattr(facts, "quadrant", "") or getattr(facts, "quadrant", "").startswith("both"):
        words.append("aims at explanations")
    return [word for word in dict.fromkeys(words) if word]


def _card(card: Any) -> str:
    chips = _chips(card)
    where = place(card).removesuffix(".md")
    folder = _GALLERIES.get(card.kind, ("",))[0]
    drawn = folder and (DOCS / folder / f"{card.name}.webp").exists()
    image = f'<img src="../{folder}/{card.name}.webp" alt="" loading="lazy">' if drawn else ""
    marks = "".join(f"<span>{escape(chip)}</span>" for chip in chips)
    summary = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(card.summary))
    words = f"{card.name} {card.name.replace('_', '-')} {card.name.replace('_', ' ')} {card.summary} {card.paper}"
    return (
        f'<a class="uf-card" href="../{where}/" data-kind="{card.kind}" data-facts="{escape("|".join(chips))}" '
        f'data-words="{escape(words.lower())}"><strong>{_breakable(card.name)}</strong>{image}'
        f'<span class="uf-what">{summary}</span><span class="uf-source">{escape(card.source)}</span>'
        f'<span class="uf-chips">{marks}</span></a>'
    )


def _breakable(name: str) -> str:
    """Return a name that breaks only after an underscore."""
    return escape(name).replace("_", "_<wbr>")
