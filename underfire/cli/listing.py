"""`underfire list` and `underfire reproduce --list`: print methods and experiments as tables or JSON."""

from __future__ import annotations

from rich.table import Table

from underfire.catalog import KINDS, Card, cards, grammars
from underfire.cli.shared import OUT, print_json


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", min_width=len(column))
    table.columns[0].no_wrap = True
    return table


#: The facts in the table of each kind, beside name and source.
_COLUMNS = {
    "attack": ("knowledge", "norms"),
    "interpreter": ("family", "gives", "differentiable"),
    "detector": ("supervised", "differentiable"),
    "defense": ("differentiable", "random"),
    "training": ("robust",),
    "measure": ("higher is better",),
    "part": ("role",),
}


def _fact(card: Card, what: str) -> str:
    """Return one fact of a card in words."""
    value = getattr(card.facts, what.replace(" ", "_"))
    if what == "gives" and card.fitted:
        return f"{value}, once fitted"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def show(kind: str | None, as_json: bool) -> None:
    """Print all cards of `kind` (singular or plural), or of every kind.

    Raises:
        InputError: the kind is unknown.
    """
    if kind is not None and kind not in KINDS:
        kind = {"defences": "defense", "defence": "defense"}.get(kind, kind.removesuffix("s"))
    found = list(cards(kind))
    if as_json:
        print_json([card.as_dict() for card in found])
        return
    for group in KINDS:
        members = [card for card in found if card.kind == group]
        if not members:
            continue
        columns = _COLUMNS.get(group, ())
        if any(card.facts.domains != ("image",) for card in members):
            columns = ("domains", *columns)
        table = _table(group, "name", "source", *columns)
        for card in members:
            table.add_row(card.name, card.source, *(_fact(card, what) for what in columns))
        OUT.print(table)
        if group in grammars:
            OUT.print(grammars[group].said)
        OUT.print()


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
