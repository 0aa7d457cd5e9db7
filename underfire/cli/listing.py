"""`underfire list` and `underfire reproduce --list`: print methods and experiments as tables or JSON."""

from __future__ import annotations

from rich.table import Table

from underfire.catalog import KINDS, Card, cards, composed, grammars
from underfire.cli.shared import OUT, print_json
from underfire.errors import InputError, nearest


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", min_width=len(column))
    table.columns[0].no_wrap = True
    return table


#: The facts in the table of one kind, beside name and summary.
_COLUMNS = {
    "attack": ("knowledge", "norms"),
    "interpreter": ("gives",),
    "detector": ("supervised",),
    "defense": ("random",),
    "training": ("robust",),
    "measure": ("higher is better",),
    "part": ("role",),
}
_PLURAL = {"defences": "defense", "defenses": "defense", "defence": "defense"}


def _fact(card: Card, what: str) -> str:
    """Return one fact of a card in words."""
    value = getattr(card.facts, what.replace(" ", "_"))
    if what == "gives" and card.fitted:
        return f"{value}, once fitted"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def show(wanted: str | None, as_json: bool) -> None:
    """Print one line for each method of a kind (singular or plural) or of every kind, or the card of one method.

    Raises:
        InputError: there is no such kind and no such method.
    """
    kind = None if wanted is None else _PLURAL.get(wanted, wanted.removesuffix("s"))
    if kind is not None and kind not in KINDS:
        _show_method(str(wanted), as_json)
        return
    found = list(cards(kind))
    if as_json:
        print_json([card.as_dict() for card in found])
        return
    if not found:
        OUT.print(f"there is no method of the kind {kind} yet")
        return
    for group in KINDS:
        members = [card for card in found if card.kind == group]
        if not members:
            continue
        columns = _COLUMNS.get(group, ()) if kind else ()
        table = _table(group, "name", "what it does", *columns)
        for card in members:
            table.add_row(card.name, card.summary.replace("`", ""), *(_fact(card, what) for what in columns))
        OUT.print(table)
        if group in grammars:
            OUT.print(grammars[group].said)
        OUT.print()
    OUT.print("underfire show NAME prints options, facts and paper of a method")


def _show_method(name: str, as_json: bool) -> None:
    """Print the card of a method, or raise InputError with the nearest kind or method."""
    from underfire.cli import showing

    known = list(cards())
    if not any(card.name == name for card in known) and all(composed(kind, name) is None for kind in KINDS):
        kinds = list(dict.fromkeys(card.kind for card in known))
        hint = nearest(name, [*kinds, *(card.name for card in known)]).partition("Choices:")[0]
        raise InputError(f"unknown kind or method {name!r}; {hint}kinds: {', '.join(kinds)}")
    showing.show(name, as_json)


def show_reproductions(as_json: bool) -> None:
    """Print the published experiments that can be reproduced."""
    from underfire import reproductions

    found = {name: reproductions.summary(name) for name in reproductions.names()}
    if as_json:
        print_json([{"name": name, "summary": summary} for name, summary in found.items()])
        return
    table = _table("reproductions", "name", "content")
    for name, summary in found.items():
        table.add_row(name, summary)
    OUT.print(table)
