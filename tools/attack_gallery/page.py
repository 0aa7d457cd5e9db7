"""The page of the gallery, a section for each attack."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from tools.attack_gallery.pictures import ShownAttack, show
from tools.attack_gallery.subjects import subjects
from underfire.catalog import cards, find
from underfire.errors import InputError

_ABOUT = """Every attack of the catalogue on one image: the clean image, the magnified change around mid-grey, and the
adversarial image. The predicted class and its probability stand above each image. Attacks that fit a photograph are
shown on one of 160 × 160 pixels, the others on a digit. Where an attack is slow, steps, samples and queries are fewer
than its defaults; the text below each picture says what was used. Made by
`python -m tools.attack_gallery --data FOLDER`; the photographs take about three minutes of one processor."""


def page(shown: Sequence[ShownAttack], kept: Mapping[str, str] | None = None) -> str:
    """Return the page: a section for each attack that was drawn, and those of `kept`, sorted by name."""
    sections = {one.card.name: _section(one) for one in shown}
    return (
        "\n\n".join([f"# Gallery\n\n{_ABOUT}", *(text for _, text in sorted(({**(kept or {}), **sections}).items()))])
        + "\n"
    )


def _section(one: ShownAttack) -> str:
    """Return the section of one attack."""
    lines = [f"## {one.card.name}", "", f"{one.card.summary} ({one.card.paper})", ""]
    if one.alt:
        lines += [f"![{one.alt}](gallery/{one.card.name}.webp)", ""]
    return "\n".join([*lines, one.caption])


def sections(text: str) -> dict[str, str]:
    """Return the sections of a page by the names of their attacks."""
    return {part.partition("\n")[0]: f"## {part}".rstrip() for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]}


def write(out: Path, *, root: Path | None = None, names: Sequence[str] = (), seed: int = 0) -> Path:
    """Write the page and its pictures into the folder `out`, of all attacks.

    With `names`, only these are drawn anew, and the page keeps its other sections.

    Raises:
        InputError: there is no such attack, or no such folder.
    """
    if root is not None and not root.is_dir():
        raise InputError(f"there is no folder of data {root}")
    chosen = [find("attack", name) for name in names] or list(cards("attack"))
    place, folder = out / "gallery.md", out / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    available = subjects(root, seed)
    console = Console(stderr=True)
    shown = [show(card, available, folder, seed) for card in track(chosen, "attacks", console=console)]
    for one in shown:
        if not one.alt:
            console.print(f"{one.card.name}: {one.caption}", soft_wrap=True)
    kept = sections(place.read_text(encoding="utf-8")) if names and place.exists() else {}
    place.write_text(page(shown, kept), encoding="utf-8")
    return place
